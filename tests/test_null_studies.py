"""Simulated studies whose truth is known: the arrays are what goes through the store, and the tests err as they say."""

import numpy as np
import pytest

from benchmarks import null_studies, simulated
from benchmarks.null_studies import World
from orchestrator.statistics.folds import holm, over_folds, seeds_averaged
from orchestrator.trial import Configuration


@pytest.fixture(scope="module")
def world():
    return World(seeds=2)


@pytest.fixture(scope="module")
def report(world, tmp_path_factory):
    return null_studies.stored(world, range(5), tmp_path_factory.mktemp("store"))


def test_a_stored_study_says_what_the_array_of_its_accuracies_says(world, report):
    def of(arm, draw):
        settings = simulated.SETTINGS | world.settings | {"arm": arm, "draw": draw}
        inputs = {"data": f"simulated {draw}", "recipe": simulated.RECIPE, "workload": null_studies.WORKLOAD}
        configuration = Configuration({"dataset": "simulated", **settings}, inputs)
        return np.stack([simulated.accuracies(configuration, seed)[:, -1] for seed in range(world.seeds)], -1)

    drawn = np.array([[of(arm, draw) for arm in ("a", "b")] for draw in range(5)])
    p = null_studies.corrected(drawn[:, 1], drawn[:, 0])
    rows = [row for row in report.rows if row.comparisons[0] is not None]
    assert [(row.row, row.column) for row in rows] == [("B", str(draw)) for draw in range(5)]
    found = [row.comparisons[0] for row in rows]
    assert [one.p for one in found] == pytest.approx(p)
    assert [one.p_holm for one in found] == pytest.approx(holm(p))
    assert [one.difference.mean for one in found] == pytest.approx((drawn[:, 1] - drawn[:, 0]).mean((1, 2)))
    whole = over_folds(seeds_averaged(drawn[:, 1] - drawn[:, 0]), null_studies.RATIO)
    assert [one.difference.half_width for one in found] == pytest.approx(whole.half_width)
    assert report.synthetic


def test_drawn_arrays_have_the_spread_and_the_correlation_that_their_world_states():
    world = World(correlation=0.2, seeds=3, fold_sd=3.0, sd=2.0, noise=1.5)
    drawn = world.draw(40_000, 2, "test")
    of_trials = np.cov(drawn[:, 0, 0, :].T)
    assert of_trials[0, 0] == pytest.approx(3.0**2 + 2.0**2 + 1.5**2, rel=0.03)
    assert of_trials[0, 1] == pytest.approx(3.0**2 + 2.0**2, rel=0.03)  # two seeds of a fold
    differences = seeds_averaged(drawn[:, 1] - drawn[:, 0])
    assert np.corrcoef(differences.T)[0, 1:] == pytest.approx(0.2, abs=0.03)
    assert differences.var() == pytest.approx(2 * (2.0**2 + 1.5**2 / 3), rel=0.03)


def test_the_reports_test_errs_as_often_as_it_says_and_the_usual_ones_do_not():
    worlds = {"assumed": World(), "more alike": World(correlation=0.3)}
    found = null_studies.sizes(null_studies.OF_FOLDS, worlds, 4000)
    ours = found.pop("corrected paired t (the report's)")
    assert ours[0] == pytest.approx(5, abs=1)
    assert ours[1] > 10  # where folds are more alike than assumed it errs too, and docs say so
    assert found["paired t"][0] > 10
    assert found["Wilcoxon signed rank"][0] > 10


def test_a_family_errs_no_more_often_than_one_test():
    by_holm, each = null_studies.family_errors(World(), 4000)
    assert by_holm < 5.5
    assert each > 20


def test_seeds_are_no_repetitions_with_folds_of_their_own():
    # where subjects vary more than seeds, taking them for that errs too often; averaging them does not
    found = null_studies.sizes(null_studies.OF_SEEDS, {"five": World(seeds=5, sd=2.0, noise=1.0)}, 4000)
    assert found["corrected paired t, seeds averaged (the report's)"][0] == pytest.approx(5, abs=1)
    assert found["corrected repeated k-fold t"][0] > 7


def test_simulated_power_is_that_of_the_formula():
    for simulated_, formula in null_studies.powers(World(sd=1.0, noise=2.0, seeds=5), 4000).values():
        assert simulated_ == pytest.approx(formula, abs=3)


def test_intervals_over_subjects_hold_the_truth_where_those_over_frames_do_not():
    over_subjects, over_frames = null_studies.coverage(40, 400)
    assert over_subjects > 91
    assert over_frames < 90


def test_every_stream_of_the_null_studies_is_its_own():
    first, second = (World().draw(3, 2, name) for name in ("a", "b"))
    assert not np.isclose(first, second).any()
    assert (World().draw(3, 2, "a") == first).all()
