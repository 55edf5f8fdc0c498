"""What a running study tells whoever watches it, and what they know from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.planning import Estimate
from orchestrator.trial import Pack, Trial

WINDOW = 120.0  # seconds of the past that rates are read from


@dataclass(frozen=True)
class PackStarted:
    """A worker has taken up a pack."""

    pack_id: str
    trial_ids: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a pack is; by trial_id, the latest epoch's accuracies (shares), reasons of failures and of leaving.

    `share` is how much of the time that the pack takes in this run lies behind it, where its workload knows better than
    by steps. `points` are the rows of curves that an epoch has just added, by trial_id. `takes` are the seconds that
    the pack takes in this run, by part of its estimate, as far as it knows by its own clock.
    """

    pack_id: str
    steps: int  # done by all its trials together; the total falls when trials leave
    total_steps: int
    epoch: int  # epochs done
    epochs: int
    stage: str  # "bank", "heads", ...
    accuracies: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    pruned: Mapping[str, str] = field(default_factory=dict)
    share: float | None = None
    points: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    takes: Mapping[str, float] = field(default_factory=dict)


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
    trial_ids: tuple[str, ...]
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
class Foreseen:
    """A pack as it was planned: its trials, and the seconds that it and each part of it were to take."""

    trial_ids: tuple[str, ...]
    seconds: float
    parts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, pack: Pack, estimate: Estimate) -> "Foreseen":
        """A pack of the plan."""
        return cls(pack.trial_ids, estimate.seconds, estimate.parts)


@dataclass(frozen=True)
class Asked:
    """A search has asked for more trials to train, in so many packs; by trial_id, their cells' names and themselves.

    `foreseen` are the packs, by pack_id; `to_come` is how many trials the search may still ask for after these.
    """

    cells: Mapping[str, str]
    packs: int
    trials: Mapping[str, Trial] = field(default_factory=dict)
    foreseen: Mapping[str, Foreseen] = field(default_factory=dict)
    to_come: int = 0


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
    started: float = 0.0
    latest: Progress | None = None
    trial_steps: float = 1.0
    steps_before: int = 0  # done before a checkpoint that it goes on from
    first: tuple[float, float] | None = None  # when it first told how far it was, and how far
    told: float = 0.0  # when it last did

    @property
    def share(self) -> float:
        """How much of the pack is done, from 0 to 1."""
        return self.latest.steps / max(self.latest.total_steps, 1) if self.latest else 0.0

    @property
    def gone(self) -> float:
        """How much of the time that the pack takes in this run lies behind it, from 0 to 1."""
        if self.latest is None:
            return 0.0
        if self.latest.share is not None:
            return self.latest.share
        return (self.latest.steps - self.steps_before) / max(self.latest.total_steps - self.steps_before, 1)

    def start(self, now: float, gone: float) -> float:
        """How long the pack took to begin, when so much of it is gone by now; its first report may come later."""
        first, before = self.first or (self.started, 0.0)
        work = before * (now - first) / (gone - before) if gone > before else 0.0
        return max(first - self.started - work, 0.0)


@dataclass(frozen=True)
class Pace:
    """What packs took beside what they were foreseen to take, both in seconds; `start` is how long the last began.

    `parts` are the same two of each part that packs told of.
    """

    took: float = 0.0
    foreseen: float = 0.0
    start: float = 0.0
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def with_parts(self, pack: RunningPack, foreseen: Foreseen) -> "Pace":
        """The pace with what a pack tells of its parts, which counts by how much of the pack is gone."""
        takes, parts = pack.latest.takes if pack.latest else {}, dict(self.parts)
        for part in takes.keys() & foreseen.parts.keys():
            took, was = parts.get(part, (0.0, 0.0))
            parts[part] = took + pack.gone * takes[part], was + pack.gone * foreseen.parts[part]
        return replace(self, parts=parts)


@dataclass(frozen=True)
class Sample:
    """How many steps this run had trained by a time, each trial's."""

    time: float  # seconds, as all times here
    steps: float


@dataclass(frozen=True)
class RunState:
    """What is known of a run of a study. `cells` names the cell of each of its trials, by trial_id, `folds` its fold.

    A state holds until the next event: what is known of single trials grows in place, as copying it at each event
    would cost the square of their number.
    """

    title: str
    cells: Mapping[str, str]
    stored: Mapping[str, float]  # accuracies (shares) of the trials that the store held at the start
    packs: int
    started: float = 0.0
    folds: Mapping[str, int | None] = field(default_factory=dict)
    test_to_train: float = 0.0  # pictures that an accuracy is from, over pictures trained on
    foreseen: Mapping[str, Foreseen] = field(default_factory=dict)  # the packs as they were planned, in order
    slots: int = 1  # packs that run side by side
    to_come: int = 0  # trials that a search may still ask for
    steps: str = "trial steps"  # what packs count; empty: nothing whose rate says anything
    running: Mapping[str, RunningPack] = field(default_factory=dict)
    accuracies: dict[str, float] = field(default_factory=dict)  # the latest of each trial seen in this run
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    pruned: set[str] = field(default_factory=set)  # left their packs at a rung
    given_up: set[str] = field(default_factory=set)  # of packs that failed, which another run tries again
    packs_done: int = 0
    waiting: str = ""  # why packs wait for devices
    samples: tuple[Sample, ...] = ()
    pace: Pace = Pace()  # of the packs that are done

    def apply(self, event: Event, now: float) -> "RunState":
        """The state after an event."""
        if isinstance(event, Asked):
            return replace(
                self,
                cells={**self.cells, **event.cells},
                folds={**self.folds, **{trial_id: trial.fold for trial_id, trial in event.trials.items()}},
                foreseen={**self.foreseen, **event.foreseen},
                packs=self.packs + event.packs,
                to_come=event.to_come,
            )
        if isinstance(event, Waiting):
            return replace(self, waiting=event.reason)
        if isinstance(event, PackStarted):
            self.given_up.difference_update(event.trial_ids)
            running = {**self.running, event.pack_id: RunningPack(event.trial_ids, now)}
            return replace(self, running=running)._sampled(now, 0)
        pack = self.running.get(event.pack_id, RunningPack((), now))
        others = {pack_id: other for pack_id, other in self.running.items() if pack_id != event.pack_id}
        if isinstance(event, PackFailed | PackStopped | PackCut | PackSetBack):
            self.pruned.difference_update(pack.trial_ids)
            if isinstance(event, PackFailed | PackStopped):
                self.given_up.update(pack.trial_ids)
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
            after = replace(self, running=others, packs_done=self.packs_done + 1, pace=self._pace_with(event, now))
            return after._sampled(now, steps)
        running = {**self.running, event.pack_id: _told(pack, event, now)}
        before = pack.latest.steps if pack.latest else running[event.pack_id].steps_before
        return replace(self, running=running)._sampled(now, event.steps - before)

    def foreseen_of(self, pack_id: str, trial_ids: tuple[str, ...]) -> Foreseen:
        """What a pack was to take; of one that was not planned, a trial as long as the mean of those that were."""
        return self.foreseen.get(pack_id) or Foreseen(trial_ids, len(trial_ids) * self.trial_seconds)

    @property
    def trial_seconds(self) -> float:
        """What a trial was to take in the mean of those planned; 1 where none was."""
        planned = sum(len(pack.trial_ids) for pack in self.foreseen.values())
        return sum(pack.seconds for pack in self.foreseen.values()) / planned if planned else 1.0

    def _pace_with(self, event: PackDone, now: float) -> Pace:
        pack = self.running.get(event.pack_id)
        if pack is None:
            return self.pace
        first, gone = pack.first or (pack.started, 0.0)
        foreseen = self.foreseen_of(event.pack_id, pack.trial_ids)
        pace = self.pace.with_parts(pack, foreseen)
        seconds = pace.foreseen + foreseen.seconds * (1 - gone)
        return replace(pace, took=pace.took + now - first, foreseen=seconds, start=pack.start(now, 1.0))

    def _sampled(self, now: float, steps: float) -> "RunState":
        last = self.samples[-1] if self.samples else Sample(now, 0)
        samples = [*self.samples, Sample(now, last.steps + steps)]
        while len(samples) > 2 and samples[1].time < now - WINDOW:
            samples.pop(0)
        return replace(self, samples=tuple(samples))

    @property
    def ended(self) -> "RunState":
        """The state when nothing runs any more and nothing is expected."""
        return replace(self, running={}, waiting="", foreseen={}, pace=Pace())

    @property
    def num_running(self) -> int:
        """Trials of running packs that have neither failed nor left."""
        running = [trial_id for pack in self.running.values() for trial_id in pack.trial_ids]
        return sum(trial_id not in self.failed and trial_id not in self.pruned for trial_id in running)

    @property
    def num_waiting(self) -> int:
        """Trials that no running pack has taken up."""
        return len(self.waiting_trials)

    @property
    def waiting_trials(self) -> set[str]:
        """Those that no running pack has taken up, by trial_id."""
        taken = {trial_id for pack in self.running.values() for trial_id in pack.trial_ids}
        return self.cells.keys() - self.stored.keys() - self.done - self.failed.keys() - self.pruned - taken

    @property
    def steps_a_second(self) -> float | None:
        """Training steps a second, each trial's counted; None until there is something to go by."""
        if len(self.samples) < 2 or self.samples[-1].time <= self.samples[0].time:
            return None
        first, last = self.samples[0], self.samples[-1]
        return (last.steps - first.steps) / (last.time - first.time) or None


def _told(pack: RunningPack, event: Progress, now: float) -> RunningPack:
    """The pack after it told how far it is."""
    if pack.latest is None:
        # a first report past the first epoch: what came before a checkpoint is not this run's work
        before = event.steps if event.epoch > 1 else 0
        trial_steps = max(event.total_steps / max(len(pack.trial_ids), 1), 1.0)
        pack = replace(pack, trial_steps=trial_steps, steps_before=before)
    pack = replace(pack, latest=event, told=now)
    return pack if pack.first else replace(pack, first=(now, pack.gone))
