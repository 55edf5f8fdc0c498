"""What a run's state says of its end: how much of it is done, how long it will take, which cell leads. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

import numpy as np

from orchestrator.progress import Foreseen, RunningPack, RunState
from orchestrator.statistics.folds import Estimate, estimates

LEAST = 0.01  # of a pack, after which its own pace counts


@dataclass(frozen=True)
class Leader:
    """The cell with the highest mean so far: of how many of its trials, and over its folds, in percent."""

    cell: str
    accuracy: Estimate
    seen: int
    trials: int


def leader(state: RunState) -> Leader | None:
    """The best cell by the latest accuracy of each of its trials; None before there is one.

    Its interval is that of a report, over the folds seen so far; a cell that is best of many is best by luck too.
    """
    seen: dict[str, list[str]] = defaultdict(list)
    accuracies = {**state.stored, **state.accuracies}
    for trial_id in accuracies:
        if trial_id in state.cells and trial_id not in state.failed and trial_id not in state.pruned:
            seen[state.cells[trial_id]].append(trial_id)
    if not seen:
        return None
    means = {cell: fmean(accuracies[trial_id] for trial_id in trials) for cell, trials in seen.items()}
    cell = max(means, key=lambda name: means[name])
    by_fold: dict[int, list[float]] = defaultdict(list)
    for trial_id in seen[cell]:
        if (fold := state.folds.get(trial_id)) is not None:
            by_fold[fold].append(100 * accuracies[trial_id])
    found = Estimate(0, 100 * means[cell], reason="no folds")
    if by_fold:
        (found,) = estimates(np.array([[fmean(values) for values in by_fold.values()]]), state.test_to_train)
    return Leader(cell, found, len(seen[cell]), list(state.cells.values()).count(cell))


@dataclass(frozen=True)
class Factors:
    """Seconds a second foreseen: of packs as a whole, and of those of their parts that packs have told of."""

    whole: float
    parts: Mapping[str, float]

    def seconds(self, foreseen: Foreseen) -> float:
        """What a pack takes, of what it was foreseen to take: each part by its own factor, where that is known."""
        if not foreseen.parts:
            return self.whole * foreseen.seconds
        return sum(seconds * self.parts.get(part, self.whole) for part, seconds in foreseen.parts.items())


AS_FORESEEN = Factors(1.0, {})


def share(state: RunState) -> float:
    """How much of what this run has to train is done, from 0 to 1, in seconds foreseen."""
    whole = state.cells.keys() - state.stored.keys()
    planned = {trial_id for pack in state.foreseen.values() for trial_id in pack.trial_ids} & whole
    total = sum(pack.seconds for pack in state.foreseen.values())
    total += (len(whole) - len(planned) + state.to_come) * state.trial_seconds
    left = sum(_waiting(state, AS_FORESEEN)) + state.to_come * state.trial_seconds
    for name, pack in state.running.items():
        left += (1 - pack.gone) * state.foreseen_of(name, pack.trial_ids).seconds
    return min(max(1 - left / total, 0.0), 1.0) if total else 1.0


def seconds_left(state: RunState, now: float) -> float | None:
    """Seconds to the end; None until there is something to go by: a plan, or a pack that has told how far it is.

    A running pack goes on as it went. One that waits takes what it was foreseen to take, times what those that ran took
    over what they were foreseen to take, part by part where they tell, on the device that is free first.
    """
    factors = _factors(state)
    if factors is None:
        return None
    free = [_left(name, pack, state, factors, now) for name, pack in state.running.items()]
    slots = max(len(free), 1 if state.waiting else state.slots)
    free += [0.0] * (slots - len(free))
    for seconds in _waiting(state, factors):
        free[free.index(min(free))] += _start(state) + seconds
    return max(max(free), (sum(free) + factors.whole * state.to_come * state.trial_seconds) / slots)


def _factors(state: RunState) -> Factors | None:
    """Those of all packs that have told how far they are; 1 before that, if anything is foreseen."""
    pace, took, seconds = state.pace, state.pace.took, state.pace.foreseen
    for name, pack in state.running.items():
        if pack.first and pack.gone - pack.first[1] >= LEAST:
            foreseen = state.foreseen_of(name, pack.trial_ids)
            took += pack.told - pack.first[0]
            seconds += (pack.gone - pack.first[1]) * foreseen.seconds
            pace = pace.with_parts(pack, foreseen)
    if seconds > 0 and took > 0:
        return Factors(took / seconds, {part: told / was for part, (told, was) in pace.parts.items() if was > 0})
    return AS_FORESEEN if state.foreseen else None


def _start(state: RunState) -> float:
    """How long a pack takes to begin, as long as the last one that did."""
    begun = [pack.start(pack.told, pack.gone) for pack in state.running.values() if pack.first]
    return begun[-1] if begun else state.pace.start


def _left(name: str, pack: RunningPack, state: RunState, factors: Factors, now: float) -> float:
    """Seconds until a running pack ends, of what it has told and of the time since."""
    foreseen = factors.seconds(state.foreseen_of(name, pack.trial_ids))
    if pack.first is None:
        return max(foreseen - max(now - pack.started - _start(state), 0.0), 0.0)
    at, gone = pack.first
    if pack.gone - gone < LEAST:
        return max((1 - gone) * foreseen - (now - at), 0.0)
    whole = (pack.told - at) / (pack.gone - gone)
    return max((1 - pack.gone) * whole - (now - pack.told), 0.0)


def _waiting(state: RunState, factors: Factors) -> list[float]:
    """What the packs that wait will take, in order; then trials of no such pack, such as those of one cut.

    Packs that failed are not tried again in this run.
    """
    waiting = state.waiting_trials - state.given_up
    found = []
    for pack in state.foreseen.values():
        there = sum(trial_id in waiting for trial_id in pack.trial_ids)
        if there:
            found.append(factors.seconds(pack) * there / len(pack.trial_ids))
    planned = set(chain.from_iterable(pack.trial_ids for pack in state.foreseen.values()))
    others = len(waiting - planned)
    return [*found, factors.whole * state.trial_seconds * others] if others else found
