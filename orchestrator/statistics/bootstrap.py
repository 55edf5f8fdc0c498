"""Intervals from resampling what was tested: pictures, or subjects with all their pictures. Pure.

A percentile bootstrap (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13) says how far other
pictures, or other people, would move a number, not other training runs. Pictures of one person are alike, so where
persons are known whole persons are drawn (the cluster bootstrap: Davison & Hinkley 1997, "Bootstrap Methods and
their Application", sec. 3.8).
"""

import numpy as np

from orchestrator.statistics.folds import CONFIDENCE, ROUNDING, Comparison, Estimate, Floats

RESAMPLES = 9999
ENDS = [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2]  # percentiles of an interval
COLUMNS_AT_ONCE = 256  # of the differences over subjects, 20 MB of resamples


def resample(values: Floats, generator: np.random.Generator) -> Floats:
    """Means [RESAMPLES, columns] of `values` [pictures, columns], each over pictures drawn with replacement.

    A resample draws the same pictures for every column, so that differences of columns are paired. Pictures with
    the same values are drawn together: how often is multinomial, as if they were drawn one by one.
    """
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    drawn = generator.multinomial(len(values), counts / len(values), RESAMPLES)
    means: Floats = drawn @ kinds / len(values)
    return means


def bootstrap_estimate(mean: float, resampled: Floats) -> Estimate:
    """A mean over test pictures with the percentile interval of its resamples [RESAMPLES]."""
    if np.ptp(resampled) < ROUNDING:
        return Estimate(1, mean, reason="all test pictures count the same, so there is no interval")
    low, high = np.percentile(resampled, ENDS).tolist()
    return Estimate(1, mean, half_width=(high - low) / 2, low=low, high=high)


def bootstrap_compare(baseline: str, difference: float, resampled: Floats) -> Comparison:
    """A difference over test pictures, from its paired resamples [RESAMPLES]."""
    found = bootstrap_estimate(difference, resampled)
    if found.half_width is None:
        return Comparison(baseline, found)
    beyond = min(np.sum(resampled <= ROUNDING), np.sum(resampled >= -ROUNDING))
    return Comparison(baseline, found, p=min(1.0, 2 * float(beyond + 1) / (RESAMPLES + 1)))


def over_subjects(sums: Floats, frames: Floats, generator: np.random.Generator) -> list[Estimate]:
    """The mean over all frames of each column, with its interval over subjects drawn with all their frames.

    `sums` and `frames` [subjects, columns] are a subject's total and number of frames, 0 where it has none; a subject
    that a column has nothing of is never drawn for it. Columns with the same subjects share their draws.
    """
    found = [Estimate(0, reason="no subject in common")] * sums.shape[1]
    groups: dict[bytes, list[int]] = {}
    for column, key in enumerate((frames > 0).T):
        groups.setdefault(key.tobytes(), []).append(column)
    for members in groups.values():
        own = np.flatnonzero(frames[:, members[0]])
        if len(own) == 0:
            continue
        drawn = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), RESAMPLES).astype(np.float64)
        for start in range(0, len(members), COLUMNS_AT_ONCE):
            columns = members[start : start + COLUMNS_AT_ONCE]
            totals, counts = sums[own][:, columns], frames[own][:, columns]
            resampled = (drawn @ totals) / (drawn @ counts)
            ends = np.percentile(resampled, ENDS, axis=0)
            same = np.ptp(totals / counts, axis=0) < ROUNDING
            for place, column in enumerate(columns):
                mean = float(totals[:, place].sum() / counts[:, place].sum())
                low, high = ends[:, place].tolist()
                found[column] = (
                    Estimate(len(own), mean, reason="all subjects count the same, so there is no interval")
                    if same[place]
                    else Estimate(len(own), mean, half_width=(high - low) / 2, low=low, high=high)
                )
    return found
