"""What a study will run: pure functions from trials, stored results and capacity to packs and their cost."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from orchestrator.trial import Pack, Trial

FILLS_GPU = 8  # trials that keep a GPU busy; fewer share it with another pack


@dataclass(frozen=True)
class Capacity:
    """The devices packs run on: GPUs where there are any, else the CPU as one device; `cpus` for each device."""

    kind: str  # cpu or gpu
    devices: int
    cpus: int
    memory: int = 0  # bytes of each device; 0: unknown, everything is taken to fit
    share: int = 1  # packs side by side on a device

    @property
    def threads(self) -> int:
        """The cores of a pack."""
        return max(1, self.cpus // self.share)

    def fits(self, estimate: "Estimate") -> bool:
        """Whether such a pack fits a device that it has for itself."""
        return not self.memory or estimate.memory <= self.memory


@dataclass(frozen=True)
class Estimate:
    """What a pack will take on one device; `measured` where the figures come from packs that ran here.

    `parts` are the seconds of its kinds of work, where their paces may be wrong by factors of their own.
    """

    seconds: float
    memory: int  # bytes
    measured: bool
    parts: Mapping[str, float] = field(default_factory=dict)


def unique(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials, each once: two cells of a study may be one configuration."""
    return tuple({trial.trial_id: trial for trial in trials}.values())


def packs(
    trials: Sequence[Trial],
    stored: Iterable[str],
    checkpointed: Mapping[str, int],
    key: Callable[[Trial], str],
    devices: int,
    fits: Callable[[Pack], bool] = lambda pack: True,
) -> tuple[Pack, ...]:
    """The packs that train the trials which are not stored.

    Trials share a pack when they share the key and the epoch they go on from. Each such group is spread over the
    devices, the folds and seeds of a configuration together; a pack that does not fit a device's memory is halved
    until its parts do, down to one configuration. The same arguments give the same packs.
    """
    done = set(stored)
    groups: dict[tuple[str, int], dict[str, list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        if trial.trial_id not in done:
            group = groups[key(trial), checkpointed.get(trial.trial_id, 0)]
            group[trial.configuration.configuration_id].append(trial)
    found = []
    for (_, epoch), configurations in groups.items():
        members = list(configurations.values())
        size = ceil(len(members) / devices)
        for start in range(0, len(members), size):
            found.append(Pack(tuple(t for trials in members[start : start + size] for t in trials), epoch))
    return tuple(part for pack in found for part in _fitting(pack, fits))


def resumed(pack: Pack, checkpointed: Mapping[str, int]) -> tuple[Pack, ...]:
    """The pack in parts, by the epoch that their trials go on from."""
    parts: dict[int, list[Trial]] = defaultdict(list)
    for trial in pack.trials:
        parts[checkpointed.get(trial.trial_id, 0)].append(trial)
    return tuple(replace(pack, trials=tuple(trials), first_epoch=epoch) for epoch, trials in parts.items())


def halves(pack: Pack) -> tuple[Pack, ...]:
    """The pack in two of about the same size: whole configurations, or trials where there is but one configuration.

    The pack itself where it is a single trial. Folds that are parted train to the end: rungs judge a configuration by
    all of them, afterwards.
    """
    of: dict[str, list[Trial]] = defaultdict(list)
    for trial in pack.trials:
        of[trial.configuration.configuration_id].append(trial)
    whole = len(of) > 1
    parts = list(of.values()) if whole else [[trial] for trial in pack.trials]
    middle = len(parts) // 2
    return tuple(
        replace(pack, trials=tuple(t for trials in half for t in trials), rungs=pack.rungs if whole else None)
        for half in (parts[:middle], parts[middle:])
        if half
    )


def _fitting(pack: Pack, fits: Callable[[Pack], bool]) -> tuple[Pack, ...]:
    one = len({trial.configuration.configuration_id for trial in pack.trials}) == 1
    if one or fits(pack):
        return (pack,)
    return tuple(part for half in halves(pack) for part in _fitting(half, fits))


def shared(capacity: Capacity, packs: Sequence[Pack], estimates: Sequence[Estimate]) -> Capacity:
    """The capacity with as many packs side by side on a device as fill it and fit beside each other.

    On a CPU a pack of fewer trials than cores leaves cores idle; a GPU is idle under one of fewer than `FILLS_GPU`.
    """
    if not packs:
        return capacity
    filled = (capacity.cpus if capacity.kind == "cpu" else FILLS_GPU) // max(len(pack.trials) for pack in packs)
    needed = max(estimate.memory for estimate in estimates)  # 0 where a workload does not say
    room = capacity.memory // needed if capacity.memory and needed else filled
    return replace(capacity, share=max(1, min(filled, room, -(-len(packs) // capacity.devices))))


def wall_seconds(estimates: Sequence[Estimate], devices: int) -> float:
    """How long packs of these estimates take, in this order, each on what device or share of one is free first."""
    free = [0.0] * devices
    for estimate in estimates:
        soonest = free.index(min(free))
        free[soonest] += estimate.seconds
    return max(free, default=0.0)
