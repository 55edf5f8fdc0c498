"""The report of a search."""

import json

import numpy as np
import polars as pl
import pytest
from conftest import Killed
from scipy import stats
from searching import NUMBERS, kept, plan, run, text

from orchestrator import record
from orchestrator.progress import PackDone
from orchestrator.report import Format, formats
from orchestrator.report import search as search_report
from orchestrator.store import Store


def reported(root, content):
    planned = plan(root, content)
    record.freeze(planned, Store(root), ["idenctl", "study", "run", "study.yaml"])
    planned.search.write()
    frozen = json.loads((root / "studies/top/plan.json").read_text())
    return search_report.build(frozen, kept(root), Store(root).trials())


def test_a_report_says_how_the_point_was_chosen_and_on_whom(tmp_path):
    content = text(space=NUMBERS, more=", nested: true").replace("by: y", "by: [x, y]")
    run(tmp_path, content)
    found = reported(tmp_path, content)
    (number,) = found.searched.chosen
    points = found.searched.points
    assert found.rows[0].configuration_id == kept(tmp_path)["procedures"][0]["points"][number]["configuration_id"]
    assert found.rows[0].label == "x {x:.4g}, y {y:.4g}".format(**points[number].settings)
    assert points[number].accuracy == max(point.accuracy for point in points if point.accuracy is not None)
    assert points[-1].best_so_far == points[number].accuracy
    assert sum(map(sum, found.searched.surface.counts)) == 16
    assert sum(found.searched.importance.values()) == pytest.approx(1)
    assert "selection saw these subjects" in " ".join(found.notes)
    assert "SYNTHETIC" in found.title
    outer = Store(tmp_path).trials()
    nested = [p["refit"][0] for p in kept(tmp_path)["procedures"][1:]]
    accuracies = [
        outer.filter(configuration_id=one["configuration_id"], fold=one["fold"])["accuracy"].item() for one in nested
    ]
    assert found.searched.nested.mean == pytest.approx(100 * np.mean(accuracies))


def test_the_interval_of_the_chosen_is_over_folds_with_seeds_averaged_within_them(tmp_path):
    content = text("random", NUMBERS, 4).replace("folds: all", "folds: all\nseeds: [0, 1, 2]")
    run(tmp_path, content)
    (number,) = reported(tmp_path, content).searched.chosen
    (score,) = reported(tmp_path, content).searched.chosen_scores
    chosen = kept(tmp_path)["procedures"][0]["points"][number]["configuration_id"]
    trials = Store(tmp_path).every_trial().filter(pl.col("without").is_not_null(), configuration_id=chosen)
    folds = trials.group_by("fold").agg(pl.col("validation_accuracy").mean() * 100)["validation_accuracy"].to_numpy()
    assert trials.height == 30
    assert (score.num_folds, score.mean) == (10, pytest.approx(folds.mean()))
    error = folds.std(ddof=1) * np.sqrt(1 / 10 + 1 / 8)  # eight folds to train on, one to score by
    assert score.half_width == pytest.approx(stats.t.ppf(0.975, 9) * error)


def test_a_report_of_a_selection_on_test_folds_says_so_in_its_title(tmp_path):
    content = text(space=NUMBERS, more=", select: test")
    run(tmp_path, content)
    assert reported(tmp_path, content).title.startswith("SELECTED ON TEST FOLDS")
    assert Store(tmp_path).every_trial()["without"].null_count() == 160


def test_a_report_of_a_search_that_is_not_over_chooses_nothing(tmp_path):
    content = text(space=NUMBERS)

    def listen(event):
        if isinstance(event, PackDone):
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, content, listen)
    found = reported(tmp_path, content)
    assert not found.rows
    assert found.searched.chosen == ()
    assert "The search is not over, so nothing is chosen" in formats.render([found], Format.MARKDOWN)


def test_what_pruning_saves_is_counted_in_epochs_of_trials(tmp_path):
    content = text(space=NUMBERS, more=", pruning: {first: 2, reduction: 2}")
    run(tmp_path, content)
    found = reported(tmp_path, content).searched
    pruned = [point for point in found.points if point.state == "pruned"]
    assert pruned
    assert found.whole_epochs == 16 * 10 * 9
    store = Store(tmp_path)
    curves = store.curves(store.every_trial().filter(pl.col("without").is_not_null()))
    assert found.trained_epochs == curves.height < found.whole_epochs, "a row of a curve is an epoch of a trial"
