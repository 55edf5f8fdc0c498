"""Whole studies on small prepared sets, through the command line as a user runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from conftest import changed, idenctl
from small_study import FINISH, SEARCH, STUDY, TRIALS, Forked, assert_equal_runs, epoch, run, tables

from orchestrator.store import Store


@pytest.fixture
def store(prepared_store, tmp_path):
    return shutil.copytree(prepared_store, tmp_path / "store")


def test_a_study_runs_every_trial_and_its_rows_are_whole(uninterrupted):
    trials, curves, predictions = tables(uninterrupted)
    assert trials.shape[0] == TRIALS
    assert set(trials["state"]) == {"complete"}
    assert trials["synthetic"].all()
    assert curves.group_by("trial_id").len()["len"].to_list() == [3] * TRIALS
    assert predictions.group_by("trial_id").len()["len"].to_list() == [12] * TRIALS
    last = curves.filter(pl.col("epoch") == 2).join(trials, on="trial_id")
    assert last["test_accuracy"].to_list() == last["accuracy"].to_list()
    guessed = predictions.with_columns(
        right=pl.col("classes").list.get(pl.col("probabilities").list.arg_max()) == pl.col("label")
    )
    shares = guessed.group_by("trial_id").agg(pl.col("right").mean()).join(trials, on="trial_id")
    assert shares["right"].to_list() == pytest.approx(shares["accuracy"].to_list())
    assert len(list((uninterrupted / "heads").glob("*.safetensors"))) == TRIALS
    assert list((uninterrupted / "checkpoints").glob("*")) == [], "nothing is left to resume"


@pytest.mark.parametrize(
    ("cells", "learnt"), [("{variant: original}", False), ("{variant: original}, {variant: f}", True)]
)
def test_a_study_is_synthetic_where_its_own_faces_or_those_that_its_trunks_learnt_from_are(store, cells, learnt):
    for name in ("oulu-casia", "ferplus"):  # real, beside drawn faces for the identity trunk
        path = store / "data" / name / "metadata.json"
        path.write_text(changed(path.read_text(), '"synthetic": true', '"synthetic": false'))
    text = changed(STUDY, "  grid: {id_rate: [0.5, 1.0]}\n", "").replace("by: id_rate", "by: variant")
    (store / "study.yaml").write_text(changed(text, "[{variant: original}, {variant: f}]", f"[{cells}]"))
    done = idenctl("study", "plan", store / "study.yaml", "--json", "--store", store)
    assert json.loads(done.stdout)["synthetic"] is learnt, done.stderr


def test_the_identity_settings_are_empty_where_they_cannot_matter(uninterrupted):
    trials = Store(uninterrupted).trials()
    without = trials.filter(pl.col("variant").is_in(["original", "f"]))
    assert without.select("alpha", "gamma", "id_rate").null_count().row(0) == (6, 6, 6)
    assert sorted(trials["id_rate"].drop_nulls().unique()) == [0.5, 1.0]


def test_a_study_run_again_trains_nothing_and_starts_no_ray(uninterrupted):
    files = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*.parquet")}
    script = (
        "import sys; from orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'ray', 'torch'} & set(sys.modules), 'loaded for nothing'"
    )
    arguments = ["study", "run", str(uninterrupted / "study.yaml"), "--store", str(uninterrupted)]
    again = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=FINISH)
    assert again.returncode == 0, again.stderr
    assert "12 of 12 trials complete" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*.parquet")} == files


def test_ray_tune_and_the_inline_engine_give_the_same_rows(uninterrupted, store):
    done = run(store)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(store, uninterrupted)


def test_a_search_over_depth_trains_the_trunks_of_every_depth_and_splits_a_batch_into_packs(store):
    space = "space: {depth: {low: 10, high: 22, step: 6}, alpha: {low: 0, high: 1}}"
    old = "space: {alpha: {low: 0.01, high: 1, log: true}, gamma: {low: 0, high: 20}}"
    study = SEARCH.replace(old, space).replace("{alpha: 0.1, gamma: 15}", "{depth: 10}, {depth: 16}, {depth: 10}")
    (store / "study.yaml").write_text(study.replace("by: [alpha, gamma]", "by: depth"))
    planned = json.loads(idenctl("study", "plan", store / "study.yaml", "--json", "--store", store).stdout)
    assert sorted(recipe["depth"] for recipe in planned["trunks_to_train"]) == [16, 16, 22, 22]
    assert [pack["trials"] for pack in planned["packs"]] == [4, 2]
    assert planned["search"] == {"search": 10, "refit": 2, "nested": 0}


def test_a_failed_trial_is_a_row_with_a_reason_and_exit_status_1(store, uninterrupted):
    study = STUDY.replace("grid: {id_rate: [0.5, 1.0]}", "grid: {lr: [0.1, 1.0e+30]}").replace("lr: 0.1, ", "")
    study = study.replace("- {variant: original}", "").replace(
        "cells: [{variant: original}, {variant: f}]", "cells: [{variant: original, lr: 0.1}]"
    )
    study = study.replace("baselines: [{variant: original}]", "baselines: []").replace("by: id_rate", "by: lr")
    (store / "study.yaml").write_text(study)
    done = run(store)
    assert done.returncode == 1
    assert "3 failed" in done.stderr
    trials = Store(store).trials()
    failed = trials.filter(pl.col("state") == "failed")
    assert failed["lr"].to_list() == [1e30] * 3
    assert failed["accuracy"].null_count() == 3
    assert failed["reason"].str.contains("epoch").all()
    healthy = trials.filter((pl.col("variant") == "original") & (pl.col("state") == "complete"))
    assert healthy["accuracy"].len() == 3
    files = sorted((store / "trials").glob("*"))
    assert run(store).returncode == 1, "a failure that is stored is still a failure"
    assert sorted((store / "trials").glob("*")) == files, "and is not trained again"


def test_two_studies_that_share_a_cell_train_it_once(store, uninterrupted):
    shutil.copytree(uninterrupted, store, dirs_exist_ok=True)
    other = STUDY.replace("name: small", "name: other").replace("[0.5, 1.0]", "[0.25, 1.0]")
    (store / "study.yaml").write_text(other)
    planned = json.loads(idenctl("study", "plan", store / "study.yaml", "--json", "--store", store).stdout)
    assert (planned["trials"], planned["stored"]) == (12, 9)


def test_a_study_that_is_being_run_is_not_run_twice(store):
    process = Forked(store, epoch(1))
    second = run(store)
    assert second.returncode == 2
    assert f"being run by process {process.pid}" in second.stderr
    process.kill()
    process.wait()


def test_the_frozen_study_says_what_was_run_and_an_older_one_is_kept(store):
    assert run(store, "--set", "epochs=1").returncode == 0
    assert run(store).returncode == 0
    folder = store / "studies" / "small"
    assert "epochs: 3" in (folder / "study.yaml").read_text()
    (older,) = folder.glob("study-*.yaml")
    assert "epochs: 1" in older.read_text()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["versions"]["torch"]
    assert provenance["command"][:3] == ["idenctl", "study", "run"]


WRONG = {
    "no data": (lambda s: shutil.rmtree(s / "data/oulu-casia"), [], "idenctl data prepare oulu-casia"),
    "no pre-training data": (lambda s: shutil.rmtree(s / "data/ferplus"), [], "idenctl data prepare ferplus"),
    "alpha": (None, ["--set", "alpha=-1"], "alpha must be a number of at least 0, got -1"),
    "rate": (lambda s: edit(s, "[0.5, 1.0]", "[0.5, 1.5]"), [], "id_rate must be a share from 0 to 1, got 1.5"),
    "depth": (None, ["--set", "depth=17"], "depth must be 6n + 4"),
    "fold": (lambda s: edit(s, "[0, 3, 9]", "[0, 10]"), [], "0 to 9"),
    "no trials": (lambda s: edit(s, "[0, 3, 9]", "[]"), [], "no trials"),
    "data set": (lambda s: edit(s, "dataset: oulu-casia", "dataset: oulu-casio"), [], "did you mean 'oulu-casia'"),
    "no subjects": (lambda s: edit(s, "dataset: oulu-casia", "dataset: ferplus"), [], "ferplus has no subjects"),
    "newer store": (lambda s: (s / "store.json").write_text('{"format": 9}'), [], "install a newer idenctl"),
    "duplicate key": (lambda s: edit(s, "question:", "name: twice\nquestion:"), [], "study.yaml:"),
    "not YAML": (lambda s: edit(s, "folds: [", "folds: [["), [], "study.yaml:"),
    "missing file": (lambda s: (s / "study.yaml").unlink(), [], "no study file"),
}


def edit(store, old, new):
    path = store / "study.yaml"
    path.write_text(changed(path.read_text(), old, new))


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_wrong_input_is_one_line_and_exit_status_2(store, case, verb):
    break_it, options, said = WRONG[case]
    if break_it:
        break_it(store)
    done = idenctl("study", verb, store / "study.yaml", *options, "--store", store)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_store_in_a_file_is_refused(tmp_path, store):
    (tmp_path / "file").write_text("")
    done = idenctl("study", "run", store / "study.yaml", "--store", tmp_path / "file")
    assert done.returncode == 2
    assert "a store is a folder" in done.stderr
    assert Path(tmp_path / "file").read_text() == ""


def test_a_study_in_bf16_trains_on_a_cpu_too_and_is_another_configuration(trained_store, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(trained_store, store)
    settings = ["--set", "precision=bf16", "--set", "epochs=1"]
    ended = idenctl("study", "run", store / "tiny.yaml", *settings, "--engine", "inline", "--store", store)
    assert ended.returncode == 0, ended.stderr
    rows = Store(store).open().trials()
    assert rows["precision"].to_list().count("bf16") == rows["precision"].to_list().count(None) == 8
    assert rows["accuracy"].null_count() == 0
