"""Intervals from resampling pictures and subjects, against scipy and draws written out here."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from idennet_core.streams import generator
from orchestrator.statistics import bootstrap


def judged(pictures=3153, cells=3):
    """Right (100) or wrong (0) [pictures, cells], cells that agree often."""
    rng = np.random.default_rng(5)
    hard = rng.random(pictures)
    return np.stack([(hard + rng.normal(0, 0.2, pictures) > 0.2 + 0.02 * cell) * 100.0 for cell in range(cells)], 1)


def test_the_bootstrap_interval_is_scipys():
    values = judged()
    resampled = bootstrap.resample(values, generator("a"))
    for column in range(3):
        found = bootstrap.bootstrap_estimate(values[:, column].mean(), resampled[:, column])
        for method in ("percentile", "BCa"):
            theirs = stats.bootstrap((values[:, column],), np.mean, method=method, rng=1, batch=500).confidence_interval
            # both draw at random: an end's standard error is about 0.02 of these 0.7 standard errors of the mean
            assert (found.low, found.high) == (pytest.approx(theirs.low, abs=0.1), pytest.approx(theirs.high, abs=0.1))
        assert found.half_width == pytest.approx((found.high - found.low) / 2)


def test_the_bootstrap_of_a_difference_is_scipys_paired_one_and_far_narrower_than_an_unpaired_one():
    values = judged()
    resampled = bootstrap.resample(values, generator("a"))
    ours, theirs = values[:, 0], values[:, 1]
    found = bootstrap.bootstrap_compare("f", (ours - theirs).mean(), resampled[:, 0] - resampled[:, 1])

    def difference(x, y, axis):
        return (x - y).mean(axis)

    reference = stats.bootstrap((ours, theirs), difference, paired=True, method="percentile", rng=1, batch=500)
    interval = reference.confidence_interval
    assert found.difference.low == pytest.approx(interval.low, abs=0.1)
    assert found.difference.high == pytest.approx(interval.high, abs=0.1)
    other = bootstrap.resample(values, generator("b"))
    unpaired = bootstrap.bootstrap_estimate(0.0, resampled[:, 0] - other[:, 1])
    assert found.difference.half_width < 0.8 * unpaired.half_width


def test_the_bootstrap_draws_each_resample_as_often_as_it_can_be_drawn():
    # three pictures, all 27 equally likely draws written out: how often each pair of means must appear
    values = np.array([[100.0, 0.0], [100.0, 100.0], [0.0, 0.0]])
    draws = [values[list(rows)].mean(0) for rows in itertools.product(range(3), repeat=3)]
    expected = Counter(tuple(np.round(means, 6)) for means in draws)
    found = Counter(tuple(np.round(means, 6)) for means in bootstrap.resample(values, generator("c")))
    assert found.keys() == expected.keys()
    for means, count in expected.items():
        share = count / 27
        assert found[means] / bootstrap.RESAMPLES == pytest.approx(
            share, abs=4 * math.sqrt(share / bootstrap.RESAMPLES)
        )


def test_the_bootstraps_p_is_below_5_percent_where_the_interval_leaves_out_0():
    rng = np.random.default_rng(6)
    for shift in np.linspace(-4, 4, 33):
        resampled = rng.normal(shift, 1.5, bootstrap.RESAMPLES)
        found = bootstrap.bootstrap_compare("f", shift, resampled)
        if abs(found.p - 0.05) > 2 / bootstrap.RESAMPLES:  # at the edge itself, the interval's end is interpolated
            assert (found.p < 0.05) == (found.difference.low > 0 or found.difference.high < 0)
        assert found.p == pytest.approx(2 * stats.norm.sf(abs(shift) / 1.5), abs=0.03)


def test_a_named_stream_gives_the_same_interval_again():
    values = judged(200)
    assert (bootstrap.resample(values, generator("a")) == bootstrap.resample(values, generator("a"))).all()


def test_pictures_that_all_count_the_same_give_no_interval():
    found = bootstrap.bootstrap_compare("f", 0.0, bootstrap.resample(np.zeros((9, 1)), generator("a"))[:, 0])
    assert (found.difference.mean, found.difference.half_width, found.p) == (0.0, None, None)
    assert "no interval" in found.difference.reason


# subjects, with all their frames


def people(subjects=60, columns=3, seed=11):
    """Percent right in all and frames [subjects, columns]; people differ more than frames, and have 6 to 30 frames."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(6, 31, subjects)[:, None] * np.ones((1, columns))
    skill = np.clip(rng.normal(0.7, 0.2, (subjects, 1)) + rng.normal(0, 0.1, (subjects, columns)), 0, 1)
    return 100.0 * rng.binomial(frames.astype(int), skill), frames


def test_the_interval_over_subjects_is_scipys_bootstrap_of_a_ratio():
    sums, frames = people()
    for column, found in enumerate(bootstrap.over_subjects(sums, frames, generator("a"))):

        def ratio(total, count, axis):
            return total.sum(axis) / count.sum(axis)

        data = (sums[:, column], frames[:, column])
        theirs = stats.bootstrap(data, ratio, paired=True, method="percentile", rng=1, batch=500)
        interval = theirs.confidence_interval
        error = theirs.standard_error
        assert found.mean == pytest.approx(data[0].sum() / data[1].sum())
        # both draw at random: an end's standard error is about 0.03 of that of the mean
        assert (found.low, found.high) == (
            pytest.approx(interval.low, abs=0.15 * error),
            pytest.approx(interval.high, abs=0.15 * error),
        )
        assert found.num_folds == 60


def test_the_interval_over_subjects_is_wider_than_one_that_takes_frames_for_independent():
    sums, frames = people()
    rights = sums[:, 0].sum() / 100
    right = np.where(np.arange(frames[:, 0].sum()) < rights, 100.0, 0.0)
    of_frames = bootstrap.resample(right[:, None], generator("a"))[:, 0]
    (of_subjects,) = bootstrap.over_subjects(sums[:, :1], frames[:, :1], generator("a"))
    assert of_subjects.half_width > 1.3 * bootstrap.bootstrap_estimate(0.0, of_frames).half_width


def test_a_subject_that_a_column_has_nothing_of_changes_nothing_there():
    sums, frames = people(columns=2)
    sums[40:, 1], frames[40:, 1] = 0.0, 0.0
    whole, part = bootstrap.over_subjects(sums, frames, generator("a"))
    (alone,) = bootstrap.over_subjects(sums[:40, 1:], frames[:40, 1:], generator("b"))
    assert (whole.num_folds, part.num_folds) == (60, 40)
    assert part.mean == alone.mean
    assert part.half_width == pytest.approx(alone.half_width, rel=0.05)


def test_nobody_and_people_who_are_all_alike_have_no_interval():
    sums, frames = np.array([[0.0, 300.0], [0.0, 700.0]]), np.array([[0.0, 3.0], [0.0, 7.0]])
    none, same = bootstrap.over_subjects(sums, frames, generator("a"))
    assert (none.mean, none.half_width, none.reason) == (None, None, "no subject in common")
    assert (same.mean, same.half_width) == (100.0, None)
