"""What leaves a search at a rung: the cut-off of the best third, and the corrected test against the best."""

import json
import math
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats
from searching import plan, text

from benchmarks.simulated import Simulated
from idennet_core.streams import generator
from orchestrator.design import Cell
from orchestrator.search.pruning import Pruning, cut, dropped, freeze, gather, replay
from orchestrator.store import Store
from orchestrator.trial import Configuration, Pack, Rungs, Trial
from orchestrator.workload import Context

FOLDS, SEEDS = tuple(range(10)), (0,)
TRIALS = [(fold, seed) for fold in FOLDS for seed in SEEDS]
RATIO = 1 / 9


def curves_of(means, epochs=9, spread=0.03, name="pruning test"):
    """Drawn curves of a configuration for each of `means`, which they reach at the last epoch; folds differ."""
    draw = generator(name)
    folds = draw.normal(0, 0.05, 10)
    return {
        f"c{place:02}": {
            (fold, 0): [
                0.2 + (mean - 0.2) * (epoch + 1) / epochs + folds[fold] + draw.normal(0, spread)
                for epoch in range(epochs)
            ]
            for fold in FOLDS
        }
        for place, mean in enumerate(means)
    }


def frozen(earlier, settings=None, epochs=9, seeds=SEEDS):
    return freeze(earlier, settings or Pruning(), epochs, FOLDS, seeds, RATIO)


def at(curves, epoch):
    return {name: {trial: curve[epoch - 1] for trial, curve in own.items()} for name, own in curves.items()}


def without_cutoffs(rungs):
    return replace(rungs, cutoffs=(None,) * len(rungs.epochs))


# rungs


def test_rungs_are_geometric_or_as_listed_and_never_at_the_last_epoch():
    assert Pruning().epochs(100) == (2, 6, 18, 54)
    assert Pruning(first=1, reduction=4).epochs(16) == (1, 4)
    assert Pruning(rungs=[3, 5]).epochs(6) == (3, 5)


@pytest.mark.parametrize(
    "settings",
    [
        {"rungs": []},
        {"rungs": [0, 2]},
        {"rungs": [4, 4]},
        {"rungs": [5, 2]},
        {"first": 0},
        {"reduction": 1},
        {"level": 0.0},
        {"level": 0.5},
        {"level": math.nan},
        {"rung": [2]},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValidationError):
        Pruning(**settings)


def test_rungs_survive_json_to_the_bit():
    rungs = frozen(curves_of(np.linspace(0.3, 0.9, 7)))
    read = Rungs.read(json.loads(json.dumps(asdict(rungs))))
    assert read == rungs
    assert read.rungs_id == rungs.rungs_id
    assert hash(read) == hash(rungs)
    first = frozen({})
    assert Rungs.read(json.loads(json.dumps(asdict(first)))) == first != rungs


# cut-offs


def test_a_cutoff_is_the_mean_of_the_last_of_the_best_third_of_all_that_reached_the_rung():
    earlier = curves_of(np.linspace(0.3, 0.9, 10))
    rungs = frozen(earlier)
    assert rungs.epochs == (2, 6)
    for epoch, cutoff in zip(rungs.epochs, rungs.cutoffs, strict=True):
        exact = sorted(sum(Fraction(curve[epoch - 1]) for curve in own.values()) / 10 for own in earlier.values())
        assert sum(mean >= cutoff for mean in map(float, exact)) == 4  # 10 / 3, rounded up
        kept = [name for name in earlier if name not in dropped(without_test(rungs), epoch, at(earlier, epoch))]
        assert len(kept) == 4


def without_test(rungs):
    return replace(rungs, best=((),) * len(rungs.epochs))


def test_only_configurations_that_reached_a_rung_decide_its_cutoff():
    earlier = curves_of([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    first = frozen(earlier)
    short = cut(earlier, {f"c0{place}": (2, "below") for place in (3, 4, 5)})
    rungs = frozen(short)
    assert rungs.cutoffs[0] == first.cutoffs[0]
    assert rungs.cutoffs[1] > first.cutoffs[1]
    assert rungs.cutoffs[1] == frozen({name: earlier[name] for name in ("c00", "c01", "c02")}).cutoffs[1]


def test_the_first_batch_has_no_cutoffs_and_drops_nothing():
    rungs = frozen({})
    assert rungs.cutoffs == (None, None)
    assert replay(rungs, curves_of(np.linspace(0, 1, 20))) == {}


def test_there_is_no_cutoff_before_one_in_the_reduction_is_a_whole_configuration():
    assert frozen(curves_of([0.5, 0.6])).cutoffs == (None, None)
    assert None not in frozen(curves_of([0.5, 0.6, 0.7])).cutoffs


def test_a_configuration_equal_to_the_cutoff_goes_on_and_one_a_hair_below_does_not():
    rungs = without_test(frozen(curves_of(np.linspace(0.3, 0.9, 6))))
    even = dict.fromkeys(TRIALS, rungs.cutoffs[0])
    below = dict.fromkeys(TRIALS, np.nextafter(rungs.cutoffs[0], 0))
    reasons = dropped(rungs, 2, {"even": even, "below": below})
    assert reasons.keys() == {"below"}
    assert reasons["below"].startswith("mean ")
    assert "below the cut-off" in reasons["below"]
    assert reasons["below"].endswith("at the rung of epoch 2")


@pytest.mark.parametrize("epoch", [1, 3, 5, 7, 9])
def test_nothing_is_dropped_at_an_epoch_that_is_no_rung(epoch):
    rungs = frozen(curves_of(np.linspace(0.3, 0.9, 9)))
    assert dropped(rungs, epoch, {"worst": dict.fromkeys(TRIALS, 0.0)}) == {}


def test_what_froze_does_not_depend_on_the_order_in_which_results_came():
    earlier = curves_of(np.linspace(0.3, 0.9, 9))
    shuffled = {name: dict(reversed(earlier[name].items())) for name in reversed(earlier)}
    assert frozen(shuffled) == frozen(earlier)


# the test against the best


def nadeau_bengio(own, best, ratio):
    """The one-sided p by hand, with scipy's t distribution."""
    differences = np.array(own) - np.array(best)
    k = len(differences)
    t = differences.mean() / math.sqrt((1 / k + ratio) * differences.var(ddof=1))
    return stats.t.cdf(t, k - 1)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_a_configuration_is_dropped_where_the_corrected_paired_test_says_it_is_worse_than_the_best(level):
    earlier = curves_of([0.6, 0.75, 0.9], spread=0.05)
    rungs = without_cutoffs(frozen(earlier, Pruning(level=level)))
    batch = curves_of(np.linspace(0.7, 0.95, 60), spread=0.05, name="others")
    outcomes = set()
    for epoch in rungs.epochs:
        reasons = dropped(rungs, epoch, at(batch, epoch))
        best = [earlier["c02"][fold, 0][epoch - 1] for fold in FOLDS]
        for name, own in batch.items():
            p = nadeau_bengio([own[fold, 0][epoch - 1] for fold in FOLDS], best, RATIO)
            assert (name in reasons) == (p < level / 2), "each of two looks has half of the level"
            assert name not in reasons or f"p = {p:.2g} against the best" in reasons[name]
            outcomes.add(name in reasons)
    assert outcomes == {True, False}


def test_the_uncorrected_paired_test_would_drop_more():
    """scipy's paired t-test over folds is the corrected one at a ratio of 0."""
    earlier = curves_of([0.6, 0.75, 0.9], spread=0.05)
    plain = replace(without_cutoffs(frozen(earlier)), test_to_train=0.0)
    batch = curves_of(np.linspace(0.7, 0.95, 60), spread=0.05, name="others")
    reasons = dropped(plain, 6, at(batch, 6))
    best = [earlier["c02"][fold, 0][5] for fold in FOLDS]
    for name, own in batch.items():
        p = stats.ttest_rel([own[fold, 0][5] for fold in FOLDS], best, alternative="less").pvalue
        assert (name in reasons) == (p < 0.05 / 2)
    assert dropped(without_cutoffs(frozen(earlier)), 6, at(batch, 6)).keys() < reasons.keys()


def test_over_all_looks_an_equal_configuration_is_dropped_at_most_as_often_as_the_level_says():
    """Drawn fold differences with the correlation that the correction assumes, ratio / (1 + ratio)."""
    epochs, level, count = 27, 0.1, 4000
    shared = RATIO / (1 + RATIO)
    draw = generator("equal configurations")
    settings = Pruning(first=1, level=level)
    flat = {trial: [0.5] * epochs for trial in TRIALS}
    rungs = without_cutoffs(frozen({"best": flat}, settings, epochs))
    assert rungs.epochs == (1, 3, 9)

    def differences():
        common, own = draw.normal(0, math.sqrt(shared), (count, 1)), draw.normal(0, math.sqrt(1 - shared), (count, 10))
        return common + own

    looks = [0.5 + 0.01 * differences() for _ in rungs.epochs]  # independent: the most that looks can add up to
    gone = set()
    for epoch, drawn in zip(rungs.epochs, looks, strict=True):
        found = {str(i): {(fold, 0): row[fold] for fold in FOLDS} for i, row in enumerate(drawn)}
        gone |= dropped(rungs, epoch, found).keys()
    rate = len(gone) / count
    nominal = 1 - (1 - level / 3) ** 3
    assert abs(rate - nominal) < 4 * math.sqrt(nominal * (1 - nominal) / count)
    assert rate < level + 3 * math.sqrt(level * (1 - level) / count)


def test_the_best_is_the_one_with_the_highest_mean_in_the_end_and_is_met_at_the_same_epoch():
    slow = {trial: [0.1] * 5 + [0.5] * 3 + [0.9] for trial in TRIALS}
    fast = {trial: [0.6] * 8 + [0.7] for trial in TRIALS}
    stopped = {trial: [0.99] * 2 for trial in TRIALS}
    rungs = frozen({"slow": slow, "fast": fast, "stopped": stopped})
    assert rungs.best == ((0.1,) * 10, (0.5,) * 10)


def test_seeds_are_averaged_within_a_fold_first():
    draw = generator("seeds")
    earlier = {
        f"c{i}": {(fold, seed): draw.uniform(0.4, 0.6, 9).tolist() for fold in FOLDS for seed in (0, 1, 2)}
        for i in range(3)
    }
    rungs = without_cutoffs(frozen(earlier, seeds=(0, 1, 2)))
    means = {name: np.mean([own[8] for own in curves.values()]) for name, curves in earlier.items()}
    best = earlier[max(means, key=means.get)]
    by_fold = [np.mean([best[fold, seed][1] for seed in (0, 1, 2)]) for fold in FOLDS]
    np.testing.assert_allclose(rungs.best[0], by_fold, rtol=1e-12)
    own = {(fold, seed): draw.uniform(0.3, 0.5) for fold in FOLDS for seed in (0, 1, 2)}
    p = nadeau_bengio([np.mean([own[fold, s] for s in (0, 1, 2)]) for fold in FOLDS], by_fold, RATIO)
    assert p < 0.05 / 2
    assert f"p = {p:.2g}" in dropped(rungs, 2, {"one": own})["one"]


def test_folds_that_differ_by_one_number_have_no_test_and_only_the_cutoff_decides():
    earlier = curves_of([0.6, 0.75, 0.9])
    rungs = frozen(earlier)
    best = dict(zip(TRIALS, rungs.best[0], strict=True))
    shifted = {trial: value - 0.125 for trial, value in best.items()}
    assert dropped(without_cutoffs(rungs), 2, {"shifted": shifted}) == {}
    assert "below the cut-off" in dropped(rungs, 2, {"shifted": shifted})["shifted"]


# what decides nothing


def test_a_decision_does_not_depend_on_who_else_is_asked_at_the_same_time():
    rungs = frozen(curves_of(np.linspace(0.3, 0.9, 9)))
    batch = curves_of(np.linspace(0.2, 0.95, 12), name="batch")
    together = dropped(rungs, 2, at(batch, 2))
    assert 0 < len(together) < 12
    for name in batch:
        alone = dropped(rungs, 2, at({name: batch[name]}, 2))
        assert alone.get(name) == together.get(name)


def test_the_same_trials_under_other_cutoffs_are_another_pack_and_without_any_the_pack_of_a_design():
    trials = tuple(Trial(Configuration({"alpha": 0.1}, {"data": "d"}), fold, 0) for fold in range(3))
    one, two = frozen(curves_of([0.5, 0.6, 0.7])), frozen(curves_of([0.5, 0.6, 0.8]))
    ids = {Pack(trials, rungs=rungs).pack_id for rungs in (None, one, two)}
    assert len(ids) == 3
    assert Pack(trials[::-1], rungs=one).pack_id == Pack(trials, rungs=one).pack_id


# trials that failed or are not there


def test_a_configuration_with_a_failed_fold_has_no_mean_and_stops_at_the_next_rung_even_in_the_first_batch():
    rungs = frozen({})
    broken = dict.fromkeys(TRIALS, 0.9) | {(3, 0): math.nan}
    reasons = dropped(rungs, 2, {"broken": broken, "sound": dict.fromkeys(TRIALS, 0.1)})
    assert reasons == {"broken": "fold 3, seed 0 failed, so there is no mean over folds at the rung of epoch 2"}


def test_a_configuration_with_a_failed_fold_is_in_no_cutoff_after_it_failed_and_is_never_the_best():
    earlier = curves_of([0.4, 0.5, 0.6, 0.7, 0.8])
    broken = {trial: [0.99] * 9 for trial in TRIALS} | {(3, 0): [0.99] * 4 + [math.nan]}
    rungs, without = frozen(earlier | {"x": broken}), frozen(earlier)
    assert rungs.cutoffs[0] > without.cutoffs[0], "it was sound at epoch 2"
    assert rungs.cutoffs[1] == without.cutoffs[1], "but not at epoch 6"
    assert rungs.best == without.best


def test_a_configuration_of_which_a_fold_is_not_there_is_not_judged():
    rungs = frozen(curves_of(np.linspace(0.3, 0.9, 9)))
    part = {trial: 0.0 for trial in TRIALS if trial != (4, 0)}
    assert dropped(rungs, 2, {"part": part}) == {}
    assert dropped(rungs, 2, {"whole": part | {(4, 0): 0.0}}).keys() == {"whole"}


# stored curves


def test_stored_whole_curves_are_dropped_where_training_would_have_dropped_them():
    rungs = frozen(curves_of(np.linspace(0.3, 0.9, 9)))
    batch = curves_of(np.linspace(0.2, 0.95, 30), name="batch")
    trained, training = {}, dict(batch)
    for epoch in range(1, 10):
        reasons = dropped(rungs, epoch, at(training, epoch))
        trained |= {name: (epoch, reason) for name, reason in reasons.items()}
        training = {name: own for name, own in training.items() if name not in reasons}
    assert replay(rungs, batch) == trained
    assert {epoch for epoch, _ in trained.values()} == {2, 6}
    assert replay(rungs, cut(batch, trained)) == trained, "a pruned row under the same cut-offs is done"
    short = cut(batch, trained)
    assert {len(curve) for name in trained for curve in short[name].values()} == {2, 6}
    assert all(short[name] == batch[name] for name in training)


def test_a_row_pruned_under_stricter_cutoffs_is_not_done_under_these():
    batch = curves_of([0.8], name="batch")
    strict, mild = frozen(curves_of([2.0, 2.1, 2.2])), frozen(curves_of([0.3, 0.31, 0.32]))
    found = replay(strict, batch)
    assert found["c00"][0] == 2
    assert replay(mild, cut(batch, found)) == {}


def test_a_configuration_stored_in_part_whole_and_in_part_pruned_is_not_judged_beyond_what_all_its_folds_have():
    rungs = frozen(curves_of(np.linspace(0.3, 0.9, 9)))
    low = {trial: [0.9, 0.9] + [0.1] * 7 for trial in TRIALS}
    part = {trial: curve if trial[0] < 5 else curve[:2] for trial, curve in low.items()}
    assert replay(rungs, {"part": part}) == {}
    assert replay(rungs, {"whole": low})["whole"][0] == 6


def test_gathered_rows_are_curves_in_epoch_order_with_an_end_where_a_trial_failed():
    rows = [("c", 0, 0, 1, 0.4), ("c", 0, 0, 0, 0.3), ("c", 1, 0, 0, 0.2), ("d", None, 3, 0, 0.1)]
    found = gather(rows, failed=[("c", 1, 0), ("e", 2, 0)])
    assert found["c"][0, 0] == [0.3, 0.4]
    assert found["c"][1, 0][0] == 0.2
    assert math.isnan(found["c"][1, 0][1])
    assert found["d"] == {(None, 3): [0.1]}
    assert len(found["e"][2, 0]) == 1
    assert math.isnan(found["e"][2, 0][0])


def test_a_workload_that_asks_at_its_rungs_and_one_that_trains_to_the_end_come_to_the_same_answer(tmp_path):
    workload, context = Simulated(Store(tmp_path)), Context(Store(tmp_path), "cpu", 1, lambda event: None)
    settings = [{"epochs": 9, "lag": 10.0, "noise": 4.0, "x": x / 12} for x in range(24)]
    study = plan(tmp_path, text(more=", pruning: {}")).study
    configurations = workload.configure(study, [Cell(one, one) for one in settings]).configurations
    trials = tuple(Trial(configuration, fold, 0) for configuration in configurations for fold in FOLDS)
    whole = workload.run(Pack(trials), context)
    rows = [
        (result.trial.configuration.configuration_id, result.trial.fold, 0, row["epoch"], row["test_accuracy"])
        for result in whole
        for row in result.curve
    ]
    curves = gather(rows)
    rungs = frozen(curves)
    expected = replay(rungs, curves)
    assert {epoch for epoch, _ in expected.values()} == {2, 6}
    for one, other in zip(workload.run(Pack(trials, rungs=rungs), context), whole, strict=True):
        epoch, reason = expected.get(one.trial.configuration.configuration_id, (9, None))
        assert (one.state, one.reason) == ("pruned" if reason else "complete", reason)
        assert one.curve == other.curve[:epoch]
        assert one.accuracy == (None if reason else other.accuracy)
