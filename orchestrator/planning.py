"""What a study will run: pure functions from trials, stored results and capacity to packs and their cost."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from orchestrator.trial import Pack, Trial


@dataclass(frozen=True)
class Capacity:
    """The devices packs run on: GPUs where there are any, else the CPU as one device; `cpus` for each device."""

    kind: str  # cpu or gpu
    devices: int
    cpus: int


@dataclass(frozen=True)
class Estimate:
    """What a pack will take on one device; `measured` where the figures come from packs that ran here."""

    seconds: float
    memory: int  # bytes
    measured: bool


def unique(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials, each once: two cells of a study may be one configuration."""
    return tuple({trial.trial_id: trial for trial in trials}.values())


def packs(
    trials: Sequence[Trial],
    stored: Iterable[str],
    checkpointed: Mapping[str, int],
    key: Callable[[Trial], str],
    devices: int,
) -> tuple[Pack, ...]:
    """The packs that train the trials which are not stored.

    Trials share a pack when they share the key and the epoch they go on from. Each such group is spread over the
    devices, the folds and seeds of a configuration together. The same arguments give the same packs.
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
    return tuple(found)


def wall_seconds(estimates: Sequence[Estimate], devices: int) -> float:
    """How long packs of these estimates take, in this order, each on the device that is free first."""
    free = [0.0] * devices
    for estimate in estimates:
        soonest = free.index(min(free))
        free[soonest] += estimate.seconds
    return max(free, default=0.0)
