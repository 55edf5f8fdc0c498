"""The statistics over folds, against arithmetic written out here, scipy, statsmodels, and published examples."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from orchestrator.report.scores import FoldScores
from orchestrator.statistics import folds


def trials(accuracies, n_test=144, n_train=1296):
    """Complete trials from {(fold, seed): accuracy}."""
    return pl.DataFrame(
        [
            {"fold": fold, "seed": seed, "accuracy": value, "n_test": n_test, "n_train": n_train}
            for (fold, seed), value in accuracies.items()
        ]
    )


def mean_over_folds(frame, metric="accuracy"):
    return FoldScores(frame.with_columns(configuration_id=pl.lit("ours")), metric).estimates(["ours"])[0]


def paired_comparison(ours, theirs):
    frames = [frame.with_columns(configuration_id=pl.lit(name)) for name, frame in (("ours", ours), ("f", theirs))]
    return FoldScores(pl.concat(frames), "accuracy").minus(["ours"], ["f"], "f")[0]


def compare(differences, test_to_train):
    return folds.comparisons("f", np.array([differences]), test_to_train)[0]


def by_fold(values, **sizes):
    return trials({(fold, 0): value for fold, value in enumerate(values)}, **sizes)


def test_the_corrected_test_equals_a_worked_example():
    # Differences 2, 4, 6, 8 over 4 folds of 100 frames, 300 to train: n_test/n_train = 1/3.
    # mean = 5; s² = (9 + 1 + 1 + 9) / 3 = 20/3
    # variance of the mean = (1/4 + 1/3) * 20/3 = 7/12 * 20/3 = 140/36; its root 1.972027
    # t = 5 / 1.972027 = 2.535463 with 3 degrees of freedom
    ours = by_fold([72.0, 75.0, 78.0, 81.0], n_test=100, n_train=300)
    theirs = by_fold([70.0, 71.0, 72.0, 73.0], n_test=100, n_train=300)
    found = paired_comparison(ours, theirs)
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
    found = compare(0.010 + sd * shape, test_to_train=10 / 90)
    assert found.t == pytest.approx(0.750, abs=5e-4)
    assert found.p == pytest.approx(2 * 0.227, abs=1e-3)
    assert found.difference.mean - found.difference.half_width == pytest.approx(-0.016445, abs=1e-5)
    assert found.difference.mean + found.difference.half_width == pytest.approx(0.036445, abs=1e-5)


def test_without_the_correction_it_is_scipys_paired_t_test():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(80, 3, 10), rng.normal(78, 3, 10)
    found = compare(ours - theirs, test_to_train=0.0)
    reference = stats.ttest_rel(ours, theirs)
    interval = reference.confidence_interval(0.95)
    assert found.t == pytest.approx(reference.statistic, rel=1e-12)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert found.difference.half_width == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)


def test_the_plain_interval_is_scipys_and_the_corrected_one_is_wider_by_the_known_factor():
    values = np.random.default_rng(2).normal(80, 3, 10)
    found = mean_over_folds(by_fold(values))
    low, high = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert found.plain_half_width == pytest.approx((high - low) / 2, rel=1e-9)
    # ten folds: (1/10 + 1/9) / (1/10) = 19/9
    assert found.half_width / found.plain_half_width == pytest.approx(math.sqrt(19 / 9))


def test_folds_of_unequal_size_keep_the_ratio_of_the_whole_cross_validation():
    sizes = [33, 39, 40, 35, 30, 37, 29, 29, 33, 22]  # CK+
    values = np.random.default_rng(4).normal(80, 3, 10)
    frame = by_fold(values).with_columns(n_test=pl.Series(sizes), n_train=pl.Series([sum(sizes) - n for n in sizes]))
    found = mean_over_folds(frame)
    assert found.half_width / found.plain_half_width == pytest.approx(math.sqrt(1 + 10 / 9))


def test_seeds_are_averaged_within_a_fold_before_folds_are():
    # fold 0: (60 + 80) / 2 = 70 from two seeds; fold 1: 90 from one; mean over folds 80, over trials 76.67
    found = mean_over_folds(trials({(0, 0): 60.0, (0, 1): 80.0, (1, 0): 90.0}))
    assert (found.num_folds, found.mean) == (2, 80.0)


def test_a_comparison_uses_only_folds_and_seeds_that_both_have():
    ours = trials({(0, 0): 70.0, (0, 1): 0.0, (1, 0): 74.0, (2, 0): 78.0, (7, 0): 0.0})
    theirs = trials({(0, 0): 69.0, (1, 0): 72.0, (1, 1): 100.0, (2, 0): 75.0, (8, 0): 100.0})
    found = paired_comparison(ours, theirs)
    assert (found.difference.num_folds, found.difference.mean) == (3, pytest.approx(2.0))


def test_one_fold_has_a_mean_and_a_reason_for_having_no_interval():
    found = mean_over_folds(by_fold([80.0]))
    assert (found.mean, found.half_width, found.sd) == (80.0, None, None)
    assert "single fold" in found.reason


def test_equal_differences_have_no_test_even_when_subtraction_rounds():
    assert 0.4 - 0.3 != 0.5 - 0.4
    found = paired_comparison(by_fold([0.4, 0.5, 0.7]), by_fold([0.3, 0.4, 0.6]))
    assert found.difference.mean == pytest.approx(0.1)
    assert (found.t, found.p, found.difference.half_width) == (None, None, None)
    assert "all 3 folds are equal" in found.difference.reason


def test_nothing_in_common_is_no_difference():
    found = paired_comparison(trials({(0, 0): 70.0}), trials({(1, 0): 70.0}))
    assert (found.difference.num_folds, found.difference.mean, found.p) == (0, None, None)
    assert found.difference.reason


def test_a_metric_that_was_not_measured_has_no_mean():
    frame = by_fold([80.0, 81.0]).with_columns(sequence_accuracy=pl.lit(None, dtype=pl.Float64))
    assert mean_over_folds(frame, "sequence_accuracy").mean is None


def test_the_corrected_interval_covers_the_truth_where_the_plain_one_does_not():
    # folds that share their training sets: a common part with correlation n_test / (n_test + n_train) = 1/10
    rng = np.random.default_rng(3)
    shared, own = rng.normal(0, math.sqrt(0.1), 2000), rng.normal(0, math.sqrt(0.9), (2000, 10))
    found = folds.over_folds(shared[:, None] + own, 1 / 9)
    corrected = np.mean(np.abs(found.mean) <= found.half_width)
    plain = np.mean(np.abs(found.mean) <= found.plain_half_width)
    assert corrected == pytest.approx(0.95, abs=0.015)
    assert plain < 0.90


def test_rows_with_and_without_holes_are_what_each_says_alone():
    rng = np.random.default_rng(7)
    values = np.where(rng.random((50, 10)) < 0.3, np.nan, rng.normal(80, 3, (50, 10)))
    values[0], values[1, 1:], values[2] = np.nan, np.nan, 80.0
    ratios = rng.uniform(0.05, 0.3, 50)
    for row, ratio, found in zip(values, ratios, folds.estimates(values, ratios), strict=True):
        there = row[~np.isnan(row)]
        assert found.num_folds == len(there)
        if len(there) > 1 and np.ptp(there) > 0:
            error = there.std(ddof=1) * math.sqrt(1 / len(there) + ratio)
            assert (found.mean, found.sd) == (pytest.approx(there.mean()), pytest.approx(there.std(ddof=1)))
            assert found.half_width == pytest.approx(stats.t.ppf(0.975, len(there) - 1) * error)
        else:
            assert found.half_width is None
            assert found.reason


def test_the_effect_is_the_difference_in_standard_deviations_of_its_folds():
    differences = np.random.default_rng(8).normal(1, 2, 10)
    assert compare(differences, 1 / 9).effect == pytest.approx(differences.mean() / differences.std(ddof=1))


# many comparisons


def test_holms_method_equals_a_published_example():
    # Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, sec. 3.2.2: three ways
    # to tune C4.5 against C4.5; 0.016 < 0.05/3 and 0.019 < 0.05/2 are rejected, 0.607 is not
    p = np.array([0.607, 0.016, 0.019])
    adjusted = folds.holm(p)
    assert (adjusted < 0.05).tolist() == [False, True, True]
    assert adjusted == pytest.approx([0.607, 3 * 0.016, 3 * 0.016])
    assert folds.holm_levels(p) == pytest.approx([0.05, 0.05 / 3, 0.05 / 2])


def test_holms_method_is_statsmodels_also_for_many_families_at_once_and_for_ties():
    rng = np.random.default_rng(9)
    for size in (1, 2, 7, 40):
        p = rng.random((5, size)) ** 3
        p[0] = p[0, 0]
        for row, adjusted in zip(p, folds.holm(p), strict=True):
            rejected, expected, *_ = multipletests(row, 0.05, "holm")
            assert adjusted == pytest.approx(expected)
            # going up from the smallest, each is rejected while it is below its level
            order = np.argsort(row, kind="stable")
            below = (row <= folds.holm_levels(row))[order]
            assert rejected[order].tolist() == np.logical_and.accumulate(below).tolist()
