"""The statistics over folds, against arithmetic written out here, scipy, and a published example."""

import itertools
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from scipy import stats

from idennet_core.streams import generator
from orchestrator import analysis


def trials(accuracies, n_test=144, n_train=1296):
    """Complete trials from {(fold, seed): accuracy}."""
    return pl.DataFrame(
        [
            {"fold": fold, "seed": seed, "accuracy": value, "n_test": n_test, "n_train": n_train}
            for (fold, seed), value in accuracies.items()
        ]
    )


def by_fold(values, **sizes):
    return trials({(fold, 0): value for fold, value in enumerate(values)}, **sizes)


def test_the_corrected_test_equals_a_worked_example():
    # Differences 2, 4, 6, 8 over 4 folds of 100 frames, 300 to train: n_test/n_train = 1/3.
    # mean = 5; s² = (9 + 1 + 1 + 9) / 3 = 20/3
    # variance of the mean = (1/4 + 1/3) * 20/3 = 7/12 * 20/3 = 140/36; its root 1.972027
    # t = 5 / 1.972027 = 2.535463 with 3 degrees of freedom
    ours = by_fold([72.0, 75.0, 78.0, 81.0], n_test=100, n_train=300)
    theirs = by_fold([70.0, 71.0, 72.0, 73.0], n_test=100, n_train=300)
    found = analysis.paired_comparison(ours, theirs, "f", "accuracy")
    assert found.difference.num_folds == 4
    assert found.difference.mean == pytest.approx(5.0)
    assert found.difference.sd == pytest.approx(math.sqrt(20 / 3))
    assert found.t == pytest.approx(2.535463, abs=1e-6)
    # Student's t with 3 degrees of freedom: P(T < t) = 1/2 + (x / (1 + x²) + arctan x) / pi at x = t / √3
    x = 2.535463 / math.sqrt(3)
    assert found.p == pytest.approx(2 * (0.5 - (x / (1 + x * x) + math.atan(x)) / math.pi), abs=1e-6)
    # 95% of it lies within 3.182446 (any printed table): half-width 3.182446 * 1.972027 = 6.275868
    assert found.difference.half_width == pytest.approx(6.275868, abs=1e-5)


def test_the_corrected_test_equals_a_published_example():
    # scikit-learn 1.6, "Statistical comparison of models using grid search", rbf against linear: 10 times 10
    # folds of 100 samples, mean difference 0.010; t 2.611 uncorrected, 0.750 corrected, one-sided p 0.227,
    # 95% interval -0.016445 ... 0.036445. Any 100 differences with that mean and t must give these.
    shape = np.random.default_rng(0).normal(size=100)
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    sd = 0.010 / (2.611 / math.sqrt(100))
    found = analysis.compare("linear", (0.010 + sd * shape).tolist(), test_to_train=10 / 90)
    assert found.t == pytest.approx(0.750, abs=5e-4)
    assert found.p == pytest.approx(2 * 0.227, abs=1e-3)
    assert found.difference.mean - found.difference.half_width == pytest.approx(-0.016445, abs=1e-5)
    assert found.difference.mean + found.difference.half_width == pytest.approx(0.036445, abs=1e-5)


def test_without_the_correction_it_is_scipys_paired_t_test():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(80, 3, 10), rng.normal(78, 3, 10)
    found = analysis.compare("f", (ours - theirs).tolist(), test_to_train=0.0)
    reference = stats.ttest_rel(ours, theirs)
    interval = reference.confidence_interval(0.95)
    assert found.t == pytest.approx(reference.statistic, rel=1e-12)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert found.difference.half_width == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)


def test_the_plain_interval_is_scipys_and_the_corrected_one_is_wider_by_the_known_factor():
    values = np.random.default_rng(2).normal(80, 3, 10)
    found = analysis.mean_over_folds(by_fold(values), "accuracy")
    low, high = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert found.plain_half_width == pytest.approx((high - low) / 2, rel=1e-9)
    # ten folds: (1/10 + 1/9) / (1/10) = 19/9
    assert found.half_width / found.plain_half_width == pytest.approx(math.sqrt(19 / 9))


def test_folds_of_unequal_size_keep_the_ratio_of_the_whole_cross_validation():
    sizes = [33, 39, 40, 35, 30, 37, 29, 29, 33, 22]  # CK+
    frame = pl.DataFrame({"n_test": sizes, "n_train": [sum(sizes) - size for size in sizes]})
    assert analysis.held_out_ratio(frame) == pytest.approx(1 / 9)


def test_seeds_are_averaged_within_a_fold_before_folds_are():
    # fold 0: (60 + 80) / 2 = 70 from two seeds; fold 1: 90 from one; mean over folds 80, over trials 76.67
    found = analysis.mean_over_folds(trials({(0, 0): 60.0, (0, 1): 80.0, (1, 0): 90.0}), "accuracy")
    assert (found.num_folds, found.mean) == (2, 80.0)


def test_a_comparison_uses_only_folds_and_seeds_that_both_have():
    ours = trials({(0, 0): 70.0, (0, 1): 0.0, (1, 0): 74.0, (2, 0): 78.0, (7, 0): 0.0})
    theirs = trials({(0, 0): 69.0, (1, 0): 72.0, (1, 1): 100.0, (2, 0): 75.0, (8, 0): 100.0})
    found = analysis.paired_comparison(ours, theirs, "f", "accuracy")
    assert (found.difference.num_folds, found.difference.mean) == (3, pytest.approx(2.0))


def test_one_fold_has_a_mean_and_a_reason_for_having_no_interval():
    found = analysis.mean_over_folds(by_fold([80.0]), "accuracy")
    assert (found.mean, found.half_width, found.sd) == (80.0, None, None)
    assert "single fold" in found.reason


def test_equal_differences_have_no_test_even_when_subtraction_rounds():
    assert 0.4 - 0.3 != 0.5 - 0.4
    found = analysis.paired_comparison(by_fold([0.4, 0.5, 0.7]), by_fold([0.3, 0.4, 0.6]), "f", "accuracy")
    assert found.difference.mean == pytest.approx(0.1)
    assert (found.t, found.p, found.difference.half_width) == (None, None, None)
    assert "all 3 folds are equal" in found.difference.reason


def test_nothing_in_common_is_no_difference():
    found = analysis.paired_comparison(trials({(0, 0): 70.0}), trials({(1, 0): 70.0}), "f", "accuracy")
    assert (found.difference.num_folds, found.difference.mean, found.p) == (0, None, None)
    assert found.difference.reason


def test_a_metric_that_was_not_measured_has_no_mean():
    frame = by_fold([80.0, 81.0]).with_columns(sequence_accuracy=pl.lit(None, dtype=pl.Float64))
    assert analysis.mean_over_folds(frame, "sequence_accuracy").mean is None


def test_pooled_counts_every_frame_once():
    # 8 of 10 and 30 of 30 frames: 38 of 40
    frame = pl.DataFrame({"accuracy": [80.0, 100.0], "n_test": [10, 30]})
    assert analysis.pooled(frame) == pytest.approx(95.0)
    assert analysis.pooled(frame.clear()) is None


def test_the_corrected_interval_covers_the_truth_where_the_plain_one_does_not():
    # folds that share their training sets: a common part with correlation n_test / (n_test + n_train) = 1/10
    rng = np.random.default_rng(3)
    shared, own = rng.normal(0, math.sqrt(0.1), 2000), rng.normal(0, math.sqrt(0.9), (2000, 10))
    found = [analysis.estimate(row.tolist(), 1 / 9) for row in shared[:, None] + own]
    corrected = np.mean([abs(estimate.mean) <= estimate.half_width for estimate in found])
    plain = np.mean([abs(estimate.mean) <= estimate.plain_half_width for estimate in found])
    assert corrected == pytest.approx(0.95, abs=0.015)
    assert plain < 0.90


# without folds: a bootstrap over test pictures


def judged(pictures=3153, cells=3):
    """Right (100) or wrong (0) [pictures, cells], cells that agree often."""
    rng = np.random.default_rng(5)
    hard = rng.random(pictures)
    return np.stack([(hard + rng.normal(0, 0.2, pictures) > 0.2 + 0.02 * cell) * 100.0 for cell in range(cells)], 1)


def test_the_bootstrap_interval_is_scipys():
    values = judged()
    resampled = analysis.resample(values, generator("a"))
    for column in range(3):
        found = analysis.bootstrap_estimate(values[:, column].mean(), resampled[:, column])
        for method in ("percentile", "BCa"):
            theirs = stats.bootstrap((values[:, column],), np.mean, method=method, rng=1, batch=500).confidence_interval
            # both draw at random: an end's standard error is about 0.02 of these 0.7 standard errors of the mean
            assert (found.low, found.high) == (pytest.approx(theirs.low, abs=0.1), pytest.approx(theirs.high, abs=0.1))
        assert found.half_width == pytest.approx((found.high - found.low) / 2)


def test_the_bootstrap_of_a_difference_is_scipys_paired_one_and_far_narrower_than_an_unpaired_one():
    values = judged()
    resampled = analysis.resample(values, generator("a"))
    ours, theirs = values[:, 0], values[:, 1]
    found = analysis.bootstrap_compare("f", (ours - theirs).mean(), resampled[:, 0] - resampled[:, 1])

    def difference(x, y, axis):
        return (x - y).mean(axis)

    reference = stats.bootstrap((ours, theirs), difference, paired=True, method="percentile", rng=1, batch=500)
    interval = reference.confidence_interval
    assert found.difference.low == pytest.approx(interval.low, abs=0.1)
    assert found.difference.high == pytest.approx(interval.high, abs=0.1)
    other = analysis.resample(values, generator("b"))
    unpaired = analysis.bootstrap_estimate(0.0, resampled[:, 0] - other[:, 1])
    assert found.difference.half_width < 0.8 * unpaired.half_width


def test_the_bootstrap_draws_each_resample_as_often_as_it_can_be_drawn():
    # three pictures, all 27 equally likely draws written out: how often each pair of means must appear
    values = np.array([[100.0, 0.0], [100.0, 100.0], [0.0, 0.0]])
    draws = [values[list(rows)].mean(0) for rows in itertools.product(range(3), repeat=3)]
    expected = Counter(tuple(np.round(means, 6)) for means in draws)
    found = Counter(tuple(np.round(means, 6)) for means in analysis.resample(values, generator("c")))
    assert found.keys() == expected.keys()
    for means, count in expected.items():
        share = count / 27
        assert found[means] / analysis.RESAMPLES == pytest.approx(share, abs=4 * math.sqrt(share / analysis.RESAMPLES))


def test_the_bootstraps_p_is_below_5_percent_where_the_interval_leaves_out_0():
    rng = np.random.default_rng(6)
    for shift in np.linspace(-4, 4, 33):
        resampled = rng.normal(shift, 1.5, analysis.RESAMPLES)
        found = analysis.bootstrap_compare("f", shift, resampled)
        if abs(found.p - 0.05) > 2 / analysis.RESAMPLES:  # at the edge itself, the interval's end is interpolated
            assert (found.p < 0.05) == (found.difference.low > 0 or found.difference.high < 0)
        assert found.p == pytest.approx(2 * stats.norm.sf(abs(shift) / 1.5), abs=0.03)


def test_a_named_stream_gives_the_same_interval_again():
    values = judged(200)
    assert (analysis.resample(values, generator("a")) == analysis.resample(values, generator("a"))).all()


def test_pictures_that_all_count_the_same_give_no_interval():
    found = analysis.bootstrap_compare("f", 0.0, analysis.resample(np.zeros((9, 1)), generator("a"))[:, 0])
    assert (found.difference.mean, found.difference.half_width, found.p) == (0.0, None, None)
    assert "no interval" in found.difference.reason
