"""What a running study tells whoever watches it, and what they know from it."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

from orchestrator.trial import Pack, Trial

WINDOW = 120.0  # seconds of the past that rates are read from


@dataclass(frozen=True)
class PackStarted:
    """A worker has taken up a pack."""

    pack_id: str
    trial_ids: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a pack is; by trial_id, the latest epoch's accuracies (shares), reasons of failures and of leaving."""

    pack_id: str
    steps: int  # done by all its trials together; the total falls when trials leave
    total_steps: int
    epoch: int  # epochs done
    epochs: int
    stage: str  # "bank", "heads", ...
    accuracies: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    pruned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PackDone:
    """A pack's trials are in the store; by trial_id, accuracies (shares), reasons of failures and of leaving."""

    pack_id: str
    accuracies: Mapping[str, float]
    failed: Mapping[str, str]
    pruned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PackFailed:
    """A pack ended without rows for its trials."""

    pack_id: str
    reason: str
    traceback: str = ""


@dataclass(frozen=True)
class PackCut:
    """A pack did not fit into memory, or killed its worker; its halves, packs of their own, follow."""

    pack_id: str
    reason: str
    halves: tuple[Pack, ...]


@dataclass(frozen=True)
class TrialFailed:
    """A trial did not fit into memory, or killed its worker, in a pack of its own: it becomes a row that says so."""

    pack_id: str
    trial: Trial
    reason: str
    traceback: str = ""

    @property
    def failed(self) -> Mapping[str, str]:
        """The reason, by trial_id."""
        return {self.trial.trial_id: self.reason}


@dataclass(frozen=True)
class PackSetBack:
    """A pack cannot go on from its checkpoint; packs of its trials that go on from what there is follow."""

    pack_id: str
    reason: str


@dataclass(frozen=True)
class Asked:
    """A search has asked for more: the names of the cells of its trials to train, by trial_id, in so many packs."""

    cells: Mapping[str, str]
    packs: int


@dataclass(frozen=True)
class PackStopped:
    """A pack has stopped at its last checkpoint, for a later run to go on with."""

    pack_id: str


@dataclass(frozen=True)
class Waiting:
    """Why packs wait: for devices that the cluster does not have, or not free, or for the store; empty: no longer."""

    reason: str


Event = (
    Asked | Waiting | PackStopped | PackStarted | Progress | PackDone | PackFailed | PackCut | PackSetBack | TrialFailed
)


@dataclass(frozen=True)
class RunningPack:
    """A pack at work; `latest` is None until its first report, which says how many steps a trial has."""

    trial_ids: tuple[str, ...]
    latest: Progress | None = None
    trial_steps: float = 1.0

    @property
    def share(self) -> float:
        """How much of the pack is done, from 0 to 1."""
        return self.latest.steps / max(self.latest.total_steps, 1) if self.latest else 0.0

    @property
    def left(self) -> float:
        """Trials still to train; a half-trained one is half a trial, one that has failed or left is none."""
        if self.latest is None:
            return len(self.trial_ids)
        return (self.latest.total_steps - self.latest.steps) / self.trial_steps


@dataclass(frozen=True)
class Sample:
    """What this run had trained by a time: trials, a half-trained one as a half, and steps, each trial's."""

    time: float  # seconds, as all times here
    trials: float
    steps: float


@dataclass(frozen=True)
class RunState:
    """What is known of a run of a study. `cells` names the cell of each of its trials, by trial_id.

    A state holds until the next event: what is known of single trials grows in place, as copying it at each event
    would cost the square of their number.
    """

    title: str
    cells: Mapping[str, str]
    stored: Mapping[str, float]  # accuracies (shares) of the trials that the store held at the start
    packs: int
    started: float
    running: Mapping[str, RunningPack] = field(default_factory=dict)
    accuracies: dict[str, float] = field(default_factory=dict)  # the latest of each trial seen in this run
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    pruned: set[str] = field(default_factory=set)  # left their packs at a rung
    packs_done: int = 0
    waiting: str = ""  # why packs wait for devices
    samples: tuple[Sample, ...] = ()

    def apply(self, event: Event, now: float) -> "RunState":
        """The state after an event."""
        if isinstance(event, Asked):
            return replace(self, cells={**self.cells, **event.cells}, packs=self.packs + event.packs)
        if isinstance(event, Waiting):
            return replace(self, waiting=event.reason)
        if isinstance(event, PackStarted):
            running = {**self.running, event.pack_id: RunningPack(event.trial_ids)}
            return replace(self, running=running)._sampled(now, 0, 0)
        pack = self.running.get(event.pack_id, RunningPack(()))
        others = {pack_id: other for pack_id, other in self.running.items() if pack_id != event.pack_id}
        if isinstance(event, PackFailed | PackStopped | PackCut | PackSetBack):
            self.pruned.difference_update(pack.trial_ids)
            return replace(self, running=others)
        if isinstance(event, TrialFailed):
            self.failed.update(event.failed)
            return replace(self, running=others)
        self.accuracies.update(event.accuracies)
        self.failed.update(event.failed)
        self.pruned.update(event.pruned)
        if isinstance(event, PackDone):
            steps = pack.latest.total_steps - pack.latest.steps if pack.latest else 0
            self.done.update(event.accuracies)
            return replace(self, running=others, packs_done=self.packs_done + 1)._sampled(now, pack.left, steps)
        trial_steps = pack.trial_steps if pack.latest else max(event.total_steps / max(len(pack.trial_ids), 1), 1.0)
        after = RunningPack(pack.trial_ids, event, trial_steps)
        # a first report past the first epoch: what came before a checkpoint is not this run's work
        before = pack.latest.steps if pack.latest else event.steps if event.epoch > 1 else 0
        gained = event.steps - before
        running = {**self.running, event.pack_id: after}
        return replace(self, running=running)._sampled(now, gained / trial_steps, gained)

    def _sampled(self, now: float, trials: float, steps: float) -> "RunState":
        last = self.samples[-1] if self.samples else Sample(now, 0, 0)
        samples = [*self.samples, Sample(now, last.trials + trials, last.steps + steps)]
        while len(samples) > 2 and samples[1].time < now - WINDOW:
            samples.pop(0)
        return replace(self, samples=tuple(samples))

    @property
    def num_running(self) -> int:
        """Trials of running packs that have neither failed nor left."""
        running = [trial_id for pack in self.running.values() for trial_id in pack.trial_ids]
        return sum(trial_id not in self.failed and trial_id not in self.pruned for trial_id in running)

    @property
    def num_waiting(self) -> int:
        """Trials that no running pack has taken up."""
        taken = {trial_id for pack in self.running.values() for trial_id in pack.trial_ids}
        return len(self.cells.keys() - self.stored.keys() - self.done - self.failed.keys() - self.pruned - taken)

    @property
    def left(self) -> float:
        """Trials still to train; a half-trained one is half a trial."""
        return self.num_waiting + sum(pack.left for pack in self.running.values())

    @property
    def share(self) -> float:
        """How much of what this run has to train is done, from 0 to 1."""
        return 1 - self.left / max(len(self.cells.keys() - self.stored.keys()), 1)

    @property
    def steps_a_second(self) -> float | None:
        """Training steps a second, each trial's counted; None until there is something to go by."""
        return self._rate(lambda sample: sample.steps)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at the present rate; None until there is something to go by."""
        rate = self._rate(lambda sample: sample.trials)
        return self.left / rate if rate else None

    def _rate(self, amount: Callable[[Sample], float]) -> float | None:
        if len(self.samples) < 2 or self.samples[-1].time <= self.samples[0].time:
            return None
        first, last = self.samples[0], self.samples[-1]
        return (amount(last) - amount(first)) / (last.time - first.time) or None

    @property
    def best(self) -> tuple[str, float, int, int] | None:
        """The cell with the highest mean accuracy so far: name, mean, number of trials seen and in all."""
        seen: dict[str, list[float]] = defaultdict(list)
        for trial_id, accuracy in {**self.stored, **self.accuracies}.items():
            if trial_id in self.cells and trial_id not in self.failed and trial_id not in self.pruned:
                seen[self.cells[trial_id]].append(accuracy)
        if not seen:
            return None
        cell = max(seen, key=lambda name: fmean(seen[name]))
        return cell, fmean(seen[cell]), len(seen[cell]), list(self.cells.values()).count(cell)
