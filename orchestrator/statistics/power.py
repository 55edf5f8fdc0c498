"""What it would take to settle a difference: more seeds, or more subjects. Pure.

The difference of fold i and seed j is modelled as d + b_i + e_ij: b_i is what the fold's subjects do, the same for
every seed, e_ij what initial weights and orders do. With r seeds the fold means vary by var(b) + var(e) / r, of which
seeds can remove the second part alone. The parts are estimated by the analysis of variance of one random factor
(Searle, Casella & McCulloch 1992, "Variance Components", ch. 3); the power of the corrected test is that of a
noncentral t (Student's, with the corrected variance of `folds`).
"""

import math

import numpy as np
from scipy.special import nctdtr, nctdtrinc, stdtrit

from orchestrator.statistics.folds import CONFIDENCE, Comparison, Floats

POWER = 0.8  # the probability with which the wanted number of seeds finds a difference of the measured size
SETTLED, SEEDS, SUBJECTS = "settled", "more seeds", "only more subjects"
UNKNOWN = "unknown: one seed"  # it cannot tell what seeds do from what subjects do


def variance_components(differences: Floats) -> tuple[Floats, Floats]:
    """Of `differences` [..., folds, seeds] the variance between folds, var(b), and between seeds, var(e), [...] each.

    NaN is a difference that is not there; without two folds and a fold with two seeds both are NaN. An estimate of
    var(b) below 0 is 0, as usual.
    """
    there = ~np.isnan(differences)
    sizes = there.sum(-1)
    total, folds = sizes.sum(-1), (sizes > 0).sum(-1)
    filled = np.where(there, differences, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = filled.sum(-1) / sizes
        grand = filled.sum((-2, -1)) / total
        within = np.where(there, differences - means[..., None], 0.0) ** 2
        between = np.where(sizes > 0, sizes * (means - grand[..., None]) ** 2, 0.0).sum(-1) / (folds - 1)
        seeds = within.sum((-2, -1)) / (total - folds)
        size = (total - (sizes**2).sum(-1) / total) / (folds - 1)  # seeds a fold, where all folds have as many
        possible = (folds >= 2) & (total > folds)
        of_folds = np.where(possible, np.maximum((between - seeds) / size, 0.0), np.nan)
    return of_folds, np.where(possible, seeds, np.nan)


def power(difference: Floats | float, variance: Floats | float, num_folds: int, ratio: float, level: float) -> Floats:
    """The probability that the corrected two-sided test at `level` finds a true `difference`.

    `variance` is that of the fold means, var(b) + var(e) / r; `ratio` is n_test/n_train.
    """
    quantile = stdtrit(num_folds - 1, 1 - level / 2)
    shift = np.asarray(difference) / np.sqrt(np.asarray(variance) * (1 / num_folds + ratio))
    found: Floats = nctdtr(num_folds - 1, -shift, -quantile) + nctdtr(num_folds - 1, shift, -quantile)
    return found


def seeds_needed(
    difference: float, of_folds: float, of_seeds: float, num_folds: int, ratio: float, level: float
) -> float:
    """The least number of seeds with which the test at `level` finds a true `difference` in four of five studies.

    Infinite where the folds alone vary too much: then only more subjects help.
    """
    shift = float(nctdtrinc(num_folds - 1, 1 - POWER, stdtrit(num_folds - 1, 1 - level / 2)))
    bearable = (difference / shift) ** 2 / (1 / num_folds + ratio)  # variance of the fold means
    return max(1.0, float(math.ceil(of_seeds / (bearable - of_folds)))) if bearable > of_folds else math.inf


def outlook(found: Comparison, level: float) -> tuple[str, int | None]:
    """What would settle a difference that stays as measured, and how many more seeds if it is seeds.

    `level` is what its p is held against. A difference that the seeds there are should have found, and did not, asks
    for one seed more.
    """
    difference, spread = found.difference, found.spread
    if found.p is None or found.p_holm is None or difference.mean is None or spread is None:
        return "", None
    if found.p_holm < 1 - CONFIDENCE:
        return SETTLED, 0
    if spread.between_folds is None or spread.between_seeds is None:
        return UNKNOWN, None
    parts = spread.between_folds, spread.between_seeds
    wanted = seeds_needed(difference.mean, *parts, difference.num_folds, spread.test_to_train, level)
    return (SUBJECTS, None) if math.isinf(wanted) else (SEEDS, max(1, int(wanted) - spread.num_seeds))
