"""Which configurations of a search stop early. Pure: curves by fold in, decisions out.

At a rung a configuration's mean over folds is held against a cut-off, successive halving over the configurations of
earlier batches (Jamieson & Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS; stopping at frozen cut-offs as in Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
MLSys), and against the best of earlier batches, fold by fold. All of it is frozen when a batch is asked: neither
its own results nor the packs it is cut into decide anything.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise, takewhile
from math import ceil, isfinite, nan
from statistics import fmean
from typing import Annotated, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, model_validator

from orchestrator.sections import STRICT
from orchestrator.trial import Pack, Rungs

FoldSeed = tuple[int | None, int]
Curves = Mapping[str, Mapping[FoldSeed, Sequence[float]]]
"""configuration_id -> (fold, seed) -> accuracy (a share) after each epoch; a failed trial's ends with NaN."""


def _rungs(epochs: list[int]) -> list[int]:
    if not epochs or epochs[0] < 1 or any(late <= early for early, late in pairwise(epochs)):
        raise ValueError("must be numbers of epochs of at least 1, each above the one before")
    return epochs


def _first(epochs: int) -> int:
    if epochs < 1:
        raise ValueError("must be a number of epochs of at least 1")
    return epochs


def _reduction(reduction: int) -> int:
    if reduction < 2:
        raise ValueError("must be an integer of at least 2: one of so many configurations goes on")
    return reduction


def _level(level: float) -> float:
    if not 0 < level < 0.5:
        raise ValueError("must be above 0 and below 0.5")
    return level


FIRST = 2  # epochs before the first rung


class Pruning(BaseModel):
    """When a search drops configurations: after each number of epochs in `rungs`, or at `first` and geometrically on.

    One in `reduction` reaches the cut-off; `level` is that of the test against the best so far.
    """

    model_config = STRICT

    rungs: Annotated[list[int], AfterValidator(_rungs)] | None = Field(
        default=None, description="The numbers of epochs after which they are compared."
    )
    first: Annotated[int, AfterValidator(_first)] | None = Field(
        default=None, description=f"The first of these, {FIRST} where neither is given; then geometrically on."
    )
    reduction: Annotated[int, AfterValidator(_reduction)] = Field(default=3, description="One of so many goes on.")
    level: Annotated[float, AfterValidator(_level)] = Field(
        default=0.05, description="Of the test against the best so far, over all rungs together."
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.rungs is not None and self.first is not None:
            raise ValueError("must have rungs or first, not both")
        return self

    def epochs(self, total: int) -> tuple[int, ...]:
        """The rungs of trials of `total` epochs."""
        geometric = ((self.first or FIRST) * self.reduction**step for step in range(total))
        return tuple(self.rungs or takewhile(lambda epoch: epoch < total, geometric))

    def refused(self, total: int) -> str | None:
        """Why trials of `total` epochs cannot be pruned like this: a rung must save an epoch."""
        last = self.rungs[-1] if self.rungs else self.first or FIRST
        if last < total:
            return None
        return f"a rung must come before the last of {total} epochs, got {last}; set an earlier one"


def gather(
    rows: Iterable[tuple[str, int | None, int, int, float]], failed: Collection[tuple[str, int | None, int]] = ()
) -> Curves:
    """Curves from rows of configuration_id, fold, seed, epoch (from 0) and accuracy, in any order.

    `failed` are the configuration_id, fold and seed of the trials that failed.
    """
    found: dict[str, dict[FoldSeed, dict[int, float]]] = {}
    for configuration, fold, seed, epoch, accuracy in rows:
        found.setdefault(configuration, {}).setdefault((fold, seed), {})[epoch] = accuracy
    for configuration, fold, seed in failed:
        curve = found.setdefault(configuration, {}).setdefault((fold, seed), {})
        curve[len(curve)] = nan
    return {
        configuration: {trial: [by_epoch[epoch] for epoch in sorted(by_epoch)] for trial, by_epoch in trials.items()}
        for configuration, trials in found.items()
    }


def freeze(
    earlier: Curves,
    settings: Pruning,
    epochs: int,
    folds: Sequence[int | None],
    seeds: Sequence[int],
    test_to_train: float,
) -> Rungs:
    """The rungs for a batch that is asked now; `earlier` are the curves of all batches before it.

    A cut-off is the lowest of the best 1/`reduction` (rounded up) of the configurations that reached the rung on every
    fold, and there is none before `reduction` of them did. The best is that with the highest mean at the last of
    `epochs`. A curve counts as far as its own batch's rungs let it (`cut`), also where the store has more of it.
    """
    rungs = settings.epochs(epochs)
    trials = [(fold, seed) for fold in folds for seed in seeds]
    means = {at: _means(earlier, trials, at) for at in (*rungs, epochs)}
    cutoffs = [_cutoff(means[at].values(), settings.reduction) for at in rungs]
    ranked = sorted((-mean, configuration) for configuration, mean in means[epochs].items())
    best = earlier[ranked[0][1]] if ranked else None
    by_fold = [
        tuple(fmean(best[fold, seed][at - 1] for seed in seeds) for fold in folds) if best else () for at in rungs
    ]
    return Rungs(rungs, tuple(cutoffs), tuple(by_fold), tuple(folds), tuple(seeds), settings.level, test_to_train)


def dropped(rungs: Rungs, epoch: int, accuracies: Mapping[str, Mapping[FoldSeed, float]]) -> dict[str, str]:
    """Which configurations stop after `epoch` epochs, and why: configuration_id -> reason. None at no rung.

    `accuracies` holds configuration_id -> (fold, seed) -> share after that epoch, NaN for a trial that has failed: a
    configuration with one has no mean and stops. One of which a fold or seed is not there is not judged.
    The test is one-sided, over folds, with Nadeau & Bengio's corrected variance; each of n rungs has level/n of its
    level (Bonferroni), which holds for looks that depend on each other as these do.
    """
    if epoch not in rungs.epochs:
        return {}
    reasons = {name: _reason(rungs, rungs.epochs.index(epoch), found) for name, found in accuracies.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def leaving(pack: Pack, epoch: int, accuracies: Mapping[str, float]) -> dict[str, str]:
    """Which trials leave their pack after `epoch` epochs, and why: trial_id -> reason; the one call of a workload.

    `accuracies` holds the share of each trial by trial_id, NaN for one that has failed, without those that left.
    """
    if pack.rungs is None:
        return {}
    found: dict[str, dict[FoldSeed, float]] = {}
    for trial in pack.trials:
        if trial.trial_id in accuracies:
            own = found.setdefault(trial.configuration.configuration_id, {})
            own[trial.fold, trial.seed] = accuracies[trial.trial_id]
    reasons = dropped(pack.rungs, epoch, found)
    return {
        trial.trial_id: reasons[trial.configuration.configuration_id]
        for trial in pack.trials
        if trial.configuration.configuration_id in reasons and isfinite(accuracies.get(trial.trial_id, nan))
    }


def replay(rungs: Rungs, curves: Curves) -> dict[str, tuple[int, str]]:
    """Where configurations with these curves, stored by whomever, are dropped: configuration_id -> epoch, reason.

    A configuration that is not in the answer is done where its curves are whole, and else goes on from their ends.
    """
    found: dict[str, tuple[int, str]] = {}
    for epoch in rungs.epochs:
        reached = {name: _at(trials, epoch) for name, trials in curves.items() if name not in found}
        found |= {name: (epoch, reason) for name, reason in dropped(rungs, epoch, reached).items()}
    return found


def cut(curves: Curves, found: Mapping[str, tuple[int, str]]) -> Curves:
    """The curves as far as `replay` let them go."""
    return {
        name: {trial: curve[: found[name][0]] if name in found else curve for trial, curve in trials.items()}
        for name, trials in curves.items()
    }


def _at(trials: Mapping[FoldSeed, Sequence[float]], epoch: int) -> dict[FoldSeed, float]:
    """The accuracies after so many epochs, NaN for failed trials, without those that have not come so far."""
    last = {trial: curve[min(epoch, len(curve)) - 1] for trial, curve in trials.items() if curve}
    return {trial: value for trial, value in last.items() if len(trials[trial]) >= epoch or not isfinite(value)}


def _means(curves: Curves, trials: Sequence[FoldSeed], epoch: int) -> dict[str, float]:
    """The means over the trials of the configurations that have them all so far."""
    reached = {name: _at(own, epoch) for name, own in curves.items()}
    values = {name: [found.get(trial, nan) for trial in trials] for name, found in reached.items()}
    return {name: fmean(own) for name, own in values.items() if all(map(isfinite, own))}


def _cutoff(means: Iterable[float], reduction: int) -> float | None:
    ranked = sorted(means, reverse=True)
    return ranked[ceil(len(ranked) / reduction) - 1] if len(ranked) >= reduction else None


def _reason(rungs: Rungs, place: int, accuracies: Mapping[FoldSeed, float]) -> str | None:
    """Why a configuration is dropped at the rung; None where it goes on."""
    trials = [(fold, seed) for fold in rungs.folds for seed in rungs.seeds]
    if not accuracies.keys() >= set(trials):
        return None
    where = f"at the rung of epoch {rungs.epochs[place]}"
    failed = [trial for trial in trials if not isfinite(accuracies[trial])]
    if failed:
        return f"fold {failed[0][0]}, seed {failed[0][1]} failed, so there is no mean over folds {where}"
    mean, cutoff = fmean(accuracies[trial] for trial in trials), rungs.cutoffs[place]
    if cutoff is not None and mean < cutoff:
        return f"mean {mean:.1%} below the cut-off {cutoff:.1%} {where}"
    own = [fmean(accuracies[fold, seed] for seed in rungs.seeds) for fold in rungs.folds]
    p = _worse(own, rungs.best[place], rungs.test_to_train) if rungs.best[place] else 1.0
    if p < rungs.level / len(rungs.epochs):
        return f"p = {p:.2g} against the best {where}"
    return None


def _worse(accuracies: Sequence[float], best: Sequence[float], test_to_train: float) -> float:
    """The one-sided p of being worse than the best; 1 where folds differ by one number and there is no test."""
    from orchestrator.statistics.folds import comparisons

    differences = 100 * (np.array([accuracies]) - np.array([best]))
    (found,) = comparisons("best", differences, test_to_train)
    if found.p is None or found.t is None:
        return 1.0
    return found.p / 2 if found.t < 0 else 1 - found.p / 2
