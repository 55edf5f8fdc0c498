"""Means, intervals and paired tests, over folds or over test pictures. Pure: frames of trials in, numbers out.

The folds of a cross-validation share most of their training subjects, so their accuracies are not independent
and the variance of their mean is not s²/k. Everything here uses the corrected variance
(1/k + n_test/n_train) s² with k - 1 degrees of freedom: Nadeau & Bengio 2003, "Inference for the
Generalization Error", Machine Learning 52, 239-281; Bouckaert & Frank 2004, "Evaluating the Replicability of
Significance Tests for Comparing Learning Algorithms", PAKDD. It was derived for random splits; for k folds it
is the usual approximation.

A study without folds has one test set: its intervals come from a percentile bootstrap over the test pictures
(Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13), which says how far other pictures would
move a number, not other training runs.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
RESAMPLES = 9999
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
class Comparison:
    """A difference to a baseline; over folds, `t` and two-sided `p` are from the corrected paired t-test.

    Over test pictures `p` is twice the share of resamples in which the difference is 0 or has the other sign.
    It is not corrected for the number of comparisons made.
    """

    baseline: str
    difference: Estimate
    t: float | None = None
    p: float | None = None


def corrected_variance(values: Sequence[float], test_to_train: float) -> float:
    """The variance of the mean of k >= 2 folds, (1/k + n_test/n_train) s²; s²/k at `test_to_train` 0."""
    return (1 / len(values) + test_to_train) * statistics.variance(values)


def estimate(values: Sequence[float], test_to_train: float) -> Estimate:
    """The mean of one value a fold, with its 95% interval.

    One fold, or folds that are all equal, have no interval: a width of zero would claim certainty.
    """
    k = len(values)
    if k == 0:
        return Estimate(0, reason="no fold to average")
    mean = statistics.fmean(values)
    if k == 1:
        return Estimate(1, mean, reason="a single fold has no interval")
    if max(values) - min(values) < ROUNDING:
        return Estimate(k, mean, 0.0, reason=f"all {k} folds are equal, so there is no interval")
    quantile = float(stdtrit(k - 1, (1 + CONFIDENCE) / 2))
    half_width = quantile * math.sqrt(corrected_variance(values, test_to_train))
    return Estimate(
        num_folds=k,
        mean=mean,
        sd=statistics.stdev(values),
        half_width=half_width,
        plain_half_width=quantile * math.sqrt(corrected_variance(values, 0.0)),
        low=mean - half_width,
        high=mean + half_width,
    )


def compare(baseline: str, differences: Sequence[float], test_to_train: float) -> Comparison:
    """The corrected t-test of one difference a fold against zero."""
    difference = estimate(differences, test_to_train)
    if difference.half_width is None or difference.mean is None:
        return Comparison(baseline, difference)
    t = difference.mean / math.sqrt(corrected_variance(differences, test_to_train))
    return Comparison(baseline, difference, t, p=2 * float(stdtr(len(differences) - 1, -abs(t))))


def held_out_ratio(trials: pl.DataFrame) -> float:
    """n_test/n_train over the trials, in frames before augmentation: 1/(k-1) for k folds; 0 for no trial."""
    return float(trials["n_test"].sum()) / float(trials["n_train"].sum()) if trials.height else 0.0


def mean_over_folds(trials: pl.DataFrame, metric: str) -> Estimate:
    """The estimate of a configuration's metric from its complete trials; seeds are averaged within a fold.

    `trials` has the columns fold, n_train, n_test and the metric; those without the metric do not count.
    """
    measured = trials.drop_nulls(metric)
    folds = measured.group_by("fold").agg(pl.col(metric).mean()).sort("fold")
    return estimate(folds[metric].to_list(), held_out_ratio(measured))


def paired_comparison(trials: pl.DataFrame, baseline: pl.DataFrame, name: str, metric: str) -> Comparison:
    """A configuration minus the baseline `name`, over the folds and seeds both have completed.

    A fold's difference is the mean over its common seeds, so a fold or seed that only one of the two has
    never moves the difference.
    """
    other = baseline.drop_nulls(metric).select("fold", "seed", baseline=metric)
    pairs = trials.drop_nulls(metric).join(other, on=["fold", "seed"])
    folds = pairs.group_by("fold").agg(difference=(pl.col(metric) - pl.col("baseline")).mean()).sort("fold")
    return compare(name, folds["difference"].to_list(), held_out_ratio(pairs))


def pooled(trials: pl.DataFrame) -> float | None:
    """The accuracy over all test frames at once, each fold weighing by its n_test; None without a trial."""
    if trials.is_empty():
        return None
    return float((trials["accuracy"] * trials["n_test"]).sum()) / float(trials["n_test"].sum())


def resample(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Means [RESAMPLES, columns] of `values` [pictures, columns], each over pictures drawn with replacement.

    A resample draws the same pictures for every column, so that differences of columns are paired. Pictures with
    the same values are drawn together: how often is multinomial, as if they were drawn one by one.
    """
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    drawn = generator.multinomial(len(values), counts / len(values), RESAMPLES)
    means: NDArray[np.float64] = drawn @ kinds / len(values)
    return means


def bootstrap_estimate(mean: float, resampled: NDArray[np.float64]) -> Estimate:
    """A mean over test pictures with the percentile interval of its resamples [RESAMPLES]."""
    if np.ptp(resampled) < ROUNDING:
        return Estimate(1, mean, reason="all test pictures count the same, so there is no interval")
    low, high = np.percentile(resampled, [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2]).tolist()
    return Estimate(1, mean, half_width=(high - low) / 2, low=low, high=high)


def bootstrap_compare(baseline: str, difference: float, resampled: NDArray[np.float64]) -> Comparison:
    """A difference over test pictures, from its paired resamples [RESAMPLES]."""
    found = bootstrap_estimate(difference, resampled)
    if found.half_width is None:
        return Comparison(baseline, found)
    beyond = min(np.sum(resampled <= ROUNDING), np.sum(resampled >= -ROUNDING))
    return Comparison(baseline, found, p=min(1.0, 2 * float(beyond + 1) / (RESAMPLES + 1)))
