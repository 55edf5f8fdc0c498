"""Who is learned from, scored and tested in a search, and which points are chosen."""

import numpy as np
import optuna
import pytest
from scipy.stats import sem
from searching import run, text

from benchmarks.search import bias
from idennet_core.ids import content_id
from idennet_core.streams import generator
from idennet_core.training import Examples
from orchestrator.search.procedure import dominated, scored_by
from orchestrator.store import Store
from orchestrator.trial import Configuration, Trial


def test_a_searched_point_neither_learns_from_nor_is_scored_by_the_fold_it_is_tested_on():
    configuration = Configuration({"x": 1}, {})
    trials = scored_by(configuration, range(10), [0], "validation", None)
    assert [(trial.without, trial.fold) for trial in trials] == [(i, (i + 1) % 10) for i in range(10)]
    inner = scored_by(configuration, range(10), [0, 1], "validation", 3)
    assert {trial.without for trial in inner} == {3}
    assert sorted({trial.fold for trial in inner}) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_the_subjects_of_a_held_out_fold_are_neither_trained_on_nor_scored():
    subjects = np.array([f"S{i % 30:02}" for i in range(60)])
    examples = Examples(np.zeros(60, dtype=np.int64), subjects, 1, 1, np.full(60, ""))
    train, scored = examples.rows(4, 3)
    tested = set(subjects[examples.rows(3)[1]])
    assert not tested & (set(subjects[train]) | set(subjects[scored]))
    assert set(subjects[scored]) == set(subjects[examples.rows(4)[1]])
    assert set(subjects[train]) | set(subjects[scored]) | tested == set(subjects)


def test_the_ids_of_ordinary_trials_are_those_of_before_searches():
    trial = Trial(Configuration({"x": 1}, {}), 2, 0)
    assert trial.trial_id == content_id([trial.configuration.configuration_id, 2, 0])
    assert len({Trial(trial.configuration, 2, 0, without).trial_id for without in (None, 0, 1)}) == 3


def test_validation_accuracies_are_in_no_table_of_tested_trials(tmp_path):
    done = run(tmp_path, text())
    store = Store(tmp_path)
    chosen = {trial.trial_id for trial in done.search.procedures[0].refit()}
    assert set(store.trials()["trial_id"]) == chosen
    searched = store.every_trial().filter(fold=1, without=0)
    assert searched["accuracy"].null_count() == searched.height == 16
    assert searched["validation_accuracy"].null_count() == 0
    assert store.predictions(store.every_trial()).is_empty()


def test_a_nested_search_never_lets_an_outer_fold_into_its_procedure(tmp_path):
    done = run(tmp_path, text(configurations=8, more=", nested: true"))
    outer = done.search.procedures[1:]
    assert [procedure.outer for procedure in outer] == list(range(10))
    for procedure in outer:
        trials = [trial for c in procedure.configurations.values() for trial in procedure.trials(c)]
        assert all(trial.without == procedure.outer != trial.fold for trial in trials)
        assert [(trial.fold, trial.without) for trial in procedure.refit()] == [(procedure.outer, None)]
    asked_first = {str(dict(procedure.search.points[0].settings)) for procedure in outer}
    assert len(asked_first) > 1, "each has a sampler of its own"
    assert done.done


def test_the_pareto_set_is_that_of_optuna():
    values = generator("search", "pareto").random((60, 2)).round(1).tolist()
    known = optuna.create_study(directions=["maximize", "minimize"])
    for index, value in enumerate(values):
        known.add_trial(optuna.create_trial(values=value, user_attrs={"index": index}))
    best = {trial.user_attrs["index"] for trial in known.best_trials}
    assert {index for index, value in enumerate(values) if not dominated(value, values, [1, -1])} == best


def test_two_objectives_choose_all_that_is_not_dominated(tmp_path):
    content = text("nsga-ii", more=", objectives: [accuracy, cost]")
    done = run(tmp_path, content.replace("draw: 3", "draw: 3, slope: -1"))  # what costs more is better
    points = [point for point in done.search.record()["procedures"][0]["points"] if point["repeats"] is None]
    values = {point["number"]: point["values"] for point in points}
    assert len(values) == 16
    best = {
        number
        for number, (accuracy, cost) in values.items()
        if not any(a >= accuracy and c <= cost and [a, c] != [accuracy, cost] for a, c in values.values())
    }
    assert set(done.search.procedures[0].chosen()) == best
    assert 1 < len(best) < 16


@pytest.mark.slow
def test_the_best_of_arms_that_are_all_the_same_looks_better_than_it_is_and_nested_does_not():
    chosen, nested, truth = bias(draws=12)
    assert np.mean(chosen) > truth + 3 * sem(chosen)
    assert abs(np.mean(nested) - truth) < 3 * sem(nested)
