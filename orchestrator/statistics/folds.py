"""Means, intervals and paired tests over the folds of a cross-validation. Pure: arrays in, numbers out.

The folds of a cross-validation share most of their training subjects, so their accuracies are not independent
and the variance of their mean is not s²/k. Everything here uses the corrected variance
(1/k + n_test/n_train) s² with k - 1 degrees of freedom: Nadeau & Bengio 2003, "Inference for the
Generalization Error", Machine Learning 52, 239-281. It was derived for random splits; for k folds it is the usual
approximation, exact for normal values whose correlation between folds is n_test / (n_test + n_train), 1/k.

Seeds are averaged within a fold first. The corrected repeated k-fold test (Bouckaert & Frank 2004, "Evaluating the
Replicability of Significance Tests for Comparing Learning Algorithms", PAKDD) counts r x k values with r k - 1
degrees of freedom instead. Its r repetitions draw the folds anew; our seeds train again on the same folds, so what
a fold's subjects do to a difference is in all r values of the fold and does not average away.
`docs/explanation/statistics.md` shows how often either test is wrong.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
ROUNDING = 1e-9  # percent; folds closer than this are equal, a subtraction has rounded


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is, in the unit of the values.

    `half_width` is half of the 95% interval from `low` to `high`, which is symmetric over folds;
    `plain_half_width`, from s²/k, is there for comparison only. What cannot be had is None, and `reason` says why.
    """

    num_folds: int  # without folds, 1 for the test set
    mean: float | None = None
    sd: float | None = None
    half_width: float | None = None
    plain_half_width: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Spread:
    """Where the spread of a difference over its trials comes from: variances, None where one seed cannot tell.

    `between_folds` is what the subjects of a fold do with every seed, `between_seeds` what a seed does in a fold.
    """

    num_seeds: int  # in the fold that has most
    test_to_train: float  # n_test/n_train
    between_folds: float | None = None
    between_seeds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A difference to a baseline; over folds, `t` and two-sided `p` are from the corrected paired t-test.

    Over test pictures `p` is twice the share of resamples in which the difference is 0 or has the other sign.
    `p` is of this comparison alone, `p_holm` adjusted for the family of a report's comparisons. `effect` is the
    difference in standard deviations of the folds' differences. `outlook` is what would settle the difference, see
    `power.outlook`. `by_subject` is the difference over all test frames, with its bootstrap over subjects.
    """

    baseline: str
    difference: Estimate
    t: float | None = None
    p: float | None = None
    p_holm: float | None = None
    effect: float | None = None
    spread: Spread | None = None
    outlook: str = ""
    more_seeds: int | None = None
    by_subject: Estimate | None = None


@dataclass(frozen=True)
class OverFolds:
    """What rows of one value a fold say, an array [...] each; NaN is what cannot be had."""

    count: NDArray[np.int64]  # folds that have a value
    mean: Floats
    sd: Floats  # 0 where all folds are equal; then there is no interval and no test
    half_width: Floats
    plain_half_width: Floats
    t: Floats
    p: Floats


def over_folds(values: Floats, test_to_train: Floats | float) -> OverFolds:
    """The mean of each row of `values` [..., folds], its 95% interval and its corrected t-test against zero.

    NaN is a fold without a value. `test_to_train` [...] is n_test/n_train; 0 gives Student's test. One fold, or folds
    that are all equal, have no interval: a width of zero would claim certainty.
    """
    there = ~np.isnan(values)
    count = there.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0.0).sum(-1) / count
        squares = np.where(there, values - mean[..., None], 0.0) ** 2
        sd = np.sqrt(squares.sum(-1) / (count - 1))
        most = np.where(there, values, -np.inf).max(-1, initial=-np.inf)
        equal = most - np.where(there, values, np.inf).min(-1, initial=np.inf) < ROUNDING
        sd = np.where(count < 2, np.nan, np.where(equal, 0.0, sd))
        error = np.where(sd > 0, sd, np.nan) * np.sqrt(1 / count + test_to_train)
        t = mean / error
        quantile = stdtrit(np.arange(values.shape[-1] + 1) - 1.0, (1 + CONFIDENCE) / 2)[count]
        return OverFolds(
            count=count,
            mean=mean,
            sd=sd,
            half_width=quantile * error,
            plain_half_width=quantile * np.where(sd > 0, sd, np.nan) / np.sqrt(count),
            t=t,
            p=2 * stdtr(count - 1, -np.abs(t)),
        )


def seeds_averaged(values: Floats) -> Floats:
    """The mean over the seeds that there are: [..., folds, seeds] to [..., folds], NaN where there is none."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0.0).sum(-1) / there.sum(-1))


def estimates(values: Floats, test_to_train: Floats | float) -> list[Estimate]:
    """An estimate for each row of `values` [rows, folds]."""
    found = over_folds(values, test_to_train)
    ends = found.mean - found.half_width, found.mean + found.half_width
    columns = (found.count, found.mean, found.sd, found.half_width, found.plain_half_width, *ends)
    return [
        Estimate(count, known(mean), known(sd), known(half), known(plain), known(low), known(high), _reason(count, sd))
        for count, mean, sd, half, plain, low, high in zip(*(column.tolist() for column in columns), strict=True)
    ]


def comparisons(baseline: str, differences: Floats, test_to_train: Floats | float) -> list[Comparison]:
    """The corrected paired t-test of each row of `differences` [rows, folds] against zero."""
    found = over_folds(differences, test_to_train)
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = np.where(found.sd > 0, found.mean / found.sd, np.nan)
    tests = zip(found.t.tolist(), found.p.tolist(), effect.tolist(), strict=True)
    return [
        Comparison(baseline, difference, t=known(t), p=known(p), effect=known(size))
        for difference, (t, p, size) in zip(estimates(differences, test_to_train), tests, strict=True)
    ]


def holm(p: Floats) -> Floats:
    """The p-values [..., m] of families of m tests, adjusted so that a family errs at most as often as one test does.

    The i-th smallest is multiplied by m - i + 1 and never below the one before: Holm 1979, "A Simple Sequentially
    Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 65-70.
    """
    order = np.argsort(p, axis=-1, kind="stable")
    steps = p.shape[-1] - np.arange(p.shape[-1])
    raised = np.minimum(np.maximum.accumulate(np.take_along_axis(p, order, -1) * steps, axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, raised, -1)
    return adjusted


def holm_levels(p: Floats) -> Floats:
    """What each p [m] of one family is held against in Holm's procedure: 0.05 over the number that are not smaller."""
    rank = np.argsort(np.argsort(p, kind="stable"), kind="stable")
    return np.asarray((1 - CONFIDENCE) / (len(p) - rank))


def known(value: float) -> float | None:
    """None for NaN."""
    return None if value != value else value


def _reason(count: int, sd: float) -> str:
    if count == 0:
        return "no fold to average"
    if count == 1:
        return "a single fold has no interval"
    return f"all {count} folds are equal, so there is no interval" if sd == 0 else ""
