"""What would settle a difference, against a published example, statsmodels and simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from orchestrator.statistics import power
from orchestrator.statistics.folds import Comparison, Estimate, Spread, over_folds


def test_the_variance_components_equal_a_published_example():
    # Montgomery, "Design and Analysis of Experiments", the strength of fabric from four looms, four pieces each:
    # mean squares 29.73 and 1.90, so 1.90 within and (29.73 - 1.90) / 4 = 6.96 between looms
    looms = np.array([[98, 97, 99, 96], [91, 90, 93, 92], [96, 95, 97, 95], [95, 96, 99, 98]], dtype=float)
    between, within = power.variance_components(looms)
    assert (round(float(between), 2), round(float(within), 2)) == (6.96, 1.90)


def test_the_variance_components_of_unequal_groups_have_scipys_f():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (6, 5)) + rng.normal(0, 2, (6, 1))
    values[0, 3:], values[2, 1:], values[4] = np.nan, np.nan, np.nan
    groups = [row[~np.isnan(row)] for row in values if not np.isnan(row).all()]
    sizes = np.array([len(group) for group in groups])
    between, within = power.variance_components(values)
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    assert (between * size + within) / within == pytest.approx(stats.f_oneway(*groups).statistic)


def test_the_variance_components_are_right_on_average():
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1.5, (4000, 10, 3)) + rng.normal(0, 1.0, (4000, 10, 1))
    between, within = power.variance_components(values)
    assert within.mean() == pytest.approx(1.5**2, rel=0.03)
    assert between.mean() == pytest.approx(1.0**2, rel=0.05)


@pytest.mark.parametrize("shape", [(10, 1), (1, 3), (0, 0)])
def test_one_seed_or_one_fold_cannot_tell_seeds_from_folds(shape):
    assert np.isnan(power.variance_components(np.ones(shape))).all()


def test_the_power_without_the_correction_is_statsmodels():
    for effect in (0.0, 0.1, 0.5, 1.0, 2.0):
        for level in (0.05, 0.005):
            ours = power.power(effect * 3.0, 3.0**2, 10, 0.0, level)
            assert ours == pytest.approx(TTestPower().power(effect, 10, level), abs=1e-9)


def test_the_power_is_the_share_of_simulated_studies_in_which_the_corrected_test_finds_the_difference():
    # fold means whose correlation is 1/10, as the correction assumes
    rng = np.random.default_rng(3)
    difference, sd = 2.0, 1.8
    common, own = rng.normal(0, math.sqrt(0.1), (20000, 1)), rng.normal(0, math.sqrt(0.9), (20000, 10))
    found = over_folds(difference + sd * (common + own), 1 / 9)
    # s² estimates the part that folds do not share
    expected = power.power(difference, 0.9 * sd**2, 10, 1 / 9, 0.05)
    assert np.mean(found.p < 0.05) == pytest.approx(float(expected), abs=0.01)


def test_the_seeds_needed_are_the_first_that_have_the_power():
    of_folds, of_seeds, difference, level = 0.4, 6.0, 1.5, 0.05 / 3
    wanted = power.seeds_needed(difference, of_folds, of_seeds, 10, 1 / 9, level)
    reached = [
        float(power.power(difference, of_folds + of_seeds / seeds, 10, 1 / 9, level))
        for seeds in (wanted - 1, wanted, wanted + 1)
    ]
    assert wanted > 2
    assert reached[0] < power.POWER <= reached[1] < reached[2]


def test_no_number_of_seeds_is_enough_where_the_folds_alone_vary_too_much():
    of_folds, of_seeds, difference, level = 4.0, 1.0, 1.5, 0.05
    assert math.isinf(power.seeds_needed(difference, of_folds, of_seeds, 10, 1 / 9, level))
    assert power.power(difference, of_folds, 10, 1 / 9, level) < power.POWER


def comparison(mean, between_folds, between_seeds, p_holm, num_seeds=2):
    spread = Spread(num_seeds, 1 / 9, between_folds, between_seeds)
    return Comparison("f", Estimate(10, mean), p=p_holm / 2, p_holm=p_holm, spread=spread)


def test_the_outlook_names_seeds_or_subjects_and_is_unknown_with_one_seed():
    assert power.outlook(comparison(1.5, 0.4, 6.0, 0.01), 0.05) == ("settled", 0)
    wanted = power.seeds_needed(1.5, 0.4, 6.0, 10, 1 / 9, 0.05)
    assert power.outlook(comparison(1.5, 0.4, 6.0, 0.3), 0.05) == ("more seeds", wanted - 2)
    assert power.outlook(comparison(1.5, 4.0, 1.0, 0.3), 0.05) == ("only more subjects", None)
    assert power.outlook(comparison(1.5, None, None, 0.3, 1), 0.05) == ("unknown: one seed", None)
    assert power.outlook(Comparison("f", Estimate(1, 2.0)), 0.05) == ("", None)


def test_a_difference_that_the_seeds_there_are_should_have_found_asks_for_one_more():
    assert power.seeds_needed(5.0, 0.1, 0.1, 10, 1 / 9, 0.05) == 1
    assert power.outlook(comparison(5.0, 0.1, 0.1, 0.06), 0.05) == ("more seeds", 1)
