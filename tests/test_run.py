"""Whole studies on small prepared sets, through the command line as a user runs it, killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import changed
from damage import spoil

from idennet_core.datasets import ferplus, oulu_casia, prepared
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from orchestrator.store import Store

STUDY = """
name: small
question: Does it run?
dataset: oulu-casia
folds: [0, 3, 9]
base: {depth: 10, epochs: 3, batch_size: 16, lr: 0.1, augment: false}
design:
  cells: [{variant: original}, {variant: f}]
  grid: {id_rate: [0.5, 1.0]}
trunks:
  emotion: {epochs: 2, batch_size: 16}
  identity: {epochs: 2, batch_size: 16}
report: {by: id_rate, baselines: [{variant: original}]}
"""
TRIALS = 12
ELSEWHERE = {"pack_id", "seconds", "started_at", "finished_at", "host"}  # may differ between two equal runs
FINISH = 120  # seconds after which a run hangs


def save_noise(store, name, classes, rows):
    pixels = generator("small", name).integers(0, 256, (len(rows), 80, 80), dtype=np.uint8)
    prepared.save(store / "data" / name, name, classes, True, pixels, rows, [], {})


@pytest.fixture(scope="session")
def prepared_store(tmp_path_factory):
    """A store with prepared sets of noise and the two trunks of STUDY, and nothing else."""
    store = tmp_path_factory.mktemp("prepared-store")
    people = [(f"P{i:02}", label) for i in range(20) for label in oulu_casia.CLASSES]
    rows = [Face(p, label, f"{p}/{label}", "1", "", f"{p}/{label}") for p, label in people]
    save_noise(store, "oulu-casia", oulu_casia.CLASSES, rows)
    rows = [Face("", ferplus.CLASSES[i % 8], f"{i:02}", "", "train" if i % 4 else "valid", f"{i}") for i in range(64)]
    save_noise(store, "ferplus", ferplus.CLASSES, rows)
    rows = [Face(f"{i % 4:07}", "", f"{i // 4:03}", "", "", f"{i}") for i in range(64)]
    save_noise(store, "casia-webface", (), rows)
    study = store / "study.yaml"
    study.write_text(STUDY)
    assert idenctl("trunk", "train", study, store=store).returncode == 0
    return store


@pytest.fixture
def store(prepared_store, tmp_path):
    shutil.copytree(prepared_store, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(scope="session")
def uninterrupted(prepared_store, tmp_path_factory):
    """The store after STUDY has run through on Ray Tune without a stop."""
    store = tmp_path_factory.mktemp("uninterrupted") / "store"
    shutil.copytree(prepared_store, store)
    done = run(store)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return store


def command(*arguments, store):
    return [sys.executable, "-m", "orchestrator.cli.app", *map(str, arguments), "--store", str(store)]


def idenctl(*arguments, store):
    return subprocess.run(command(*arguments, store=store), capture_output=True, text=True, timeout=FINISH)


def run(store, *options):
    return idenctl("study", "run", store / "study.yaml", *options, store=store)


def start(store, *options):
    arguments = command("study", "run", store / "study.yaml", *options, store=store)
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_until(happened, process):
    deadline = time.monotonic() + FINISH
    while not happened():
        assert process.poll() is None, f"ended before it could be stopped: {process.stderr.read()}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reached(store, epoch):
    def happened():
        return any(e >= epoch for e, _ in Store(store).checkpointed().values())

    return happened


def tables(store):
    """The rows of the three tables without what may differ between equal runs, in a fixed order."""
    found = Store(store)
    trials = found.trials().drop(ELSEWHERE).sort("trial_id")
    curves = found.curves().drop("pack_id").sort("trial_id", "epoch")
    predictions = found.predictions().drop("pack_id").sort("trial_id", "sequence", "frame")
    return trials, curves, predictions


def assert_equal_runs(one, other):
    for left, right in zip(tables(one), tables(other), strict=True):
        assert left.shape[0] > 0
        assert left.equals(right), "to the bit"


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
    done = run(store, "--engine", "inline")
    assert done.returncode == 0, done.stderr
    assert_equal_runs(store, uninterrupted)


@pytest.mark.parametrize("epoch", [1, 2])
def test_killed_inline_and_run_again_equals_uninterrupted(uninterrupted, store, epoch):
    process = start(store, "--engine", "inline")
    wait_until(reached(store, epoch), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    planned = json.loads(idenctl("study", "plan", store / "study.yaml", "--json", store=store).stdout)
    assert max(pack["first_epoch"] for pack in planned["packs"]) >= epoch, "what was trained is not trained again"
    assert run(store, "--engine", "inline").returncode == 0
    assert_equal_runs(store, uninterrupted)


def test_killed_and_its_last_checkpoint_damaged_goes_on_from_the_one_before_it_by_itself(uninterrupted, store):
    process = start(store, "--engine", "inline")
    wait_until(reached(store, 2), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    last = max(store.glob("checkpoints/pack-*.safetensors"), key=lambda path: int(path.name.split(".")[1]))
    spoil(last, "flipped")
    done = run(store, "--engine", "inline")
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if f"{last} is damaged" in line]
    assert said.startswith("warning: ")
    assert "Traceback" not in done.stderr
    assert_equal_runs(store, uninterrupted)
    assert list((store / "checkpoints").glob("*")) == []


def test_killed_again_and_again_at_any_moment_equals_uninterrupted(uninterrupted, store):
    moments = generator("moments of death").uniform(0.5, 6, 6)
    for moment in moments:
        process = start(store, "--engine", "inline")
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert run(store, "--engine", "inline").returncode == 0
    assert_equal_runs(store, uninterrupted)


def test_the_driver_killed_on_ray_tune_and_run_again_equals_uninterrupted(uninterrupted, store):
    process = start(store)
    wait_until(reached(store, 1), process)
    process.kill()  # the driver alone: Ray's processes must not go on writing for ever
    process.wait()
    assert run(store).returncode == 0
    assert_equal_runs(store, uninterrupted)


@pytest.mark.parametrize("engine", ["inline", "tune"])
def test_ctrl_c_says_what_is_safe_and_ends_with_130(uninterrupted, store, engine):
    process = start(store, "--engine", engine)
    wait_until(reached(store, 1), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=FINISH)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "run the same command again" in said
    assert run(store, "--engine", "inline").returncode == 0
    assert_equal_runs(store, uninterrupted)


SEARCH = """
name: small
question: Does it search?
dataset: oulu-casia
folds: [0, 3]
base: {variant: if, depth: 10, epochs: 3, batch_size: 16, lr: 0.1, augment: false}
search:
  space: {alpha: {low: 0.01, high: 1, log: true}, gamma: {low: 0, high: 20}}
  configurations: 5
  batch: 3
  enqueue: [{alpha: 0.1, gamma: 15}]
  pruning: {first: 1}
trunks:
  emotion: {epochs: 2, batch_size: 16}
  identity: {epochs: 2, batch_size: 16}
report: {by: [alpha, gamma]}
"""


def test_a_search_whose_driver_is_killed_on_ray_tune_finds_what_the_uninterrupted_one_does(store, tmp_path):
    (store / "study.yaml").write_text(SEARCH)
    shutil.copytree(store, tmp_path / "whole")
    assert run(tmp_path / "whole", "--engine", "inline").returncode == 0
    process = start(store)
    wait_until(lambda: list(store.glob("studies/small/asked/*/search/00001.json")), process)
    process.kill()
    process.wait()
    done = run(store)
    assert done.returncode == 0, done.stderr
    one, other = (Store(root).every_trial().drop(ELSEWHERE).sort("trial_id") for root in (store, tmp_path / "whole"))
    assert one.equals(other), "to the bit"
    assert one.height == 5 * 2 + 2
    assert one["accuracy"].drop_nulls().len() == 2, "the chosen, tested"
    answers = [json.loads((root / "studies/small/search.json").read_text()) for root in (store, tmp_path / "whole")]
    assert answers[0] == answers[1]
    assert len(list((store / "heads").glob("*"))) == 2
    assert "chosen" in idenctl("report", "small", store=store).stdout


def test_a_search_over_depth_trains_the_trunks_of_every_depth_and_splits_a_batch_into_packs(store):
    space = "space: {depth: {low: 10, high: 22, step: 6}, alpha: {low: 0, high: 1}}"
    old = "space: {alpha: {low: 0.01, high: 1, log: true}, gamma: {low: 0, high: 20}}"
    study = SEARCH.replace(old, space).replace("{alpha: 0.1, gamma: 15}", "{depth: 10}, {depth: 16}, {depth: 10}")
    (store / "study.yaml").write_text(study.replace("by: [alpha, gamma]", "by: depth"))
    planned = json.loads(idenctl("study", "plan", store / "study.yaml", "--json", store=store).stdout)
    assert sorted(recipe["depth"] for recipe in planned["trunks_to_train"]) == [16, 16, 22, 22]
    assert [pack["trials"] for pack in planned["packs"]] == [4, 2]
    assert planned["search"] == {"search": 10, "refit": 2, "nested": 0}


def test_trunks_killed_half_way_are_finished_to_the_same_bits(prepared_store, tmp_path):
    shutil.copytree(prepared_store, tmp_path / "store", ignore=shutil.ignore_patterns("trunks"))
    process = start(tmp_path / "store", "--engine", "inline")
    wait_until(lambda: list((tmp_path / "store/checkpoints").glob("trunk-*.safetensors")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert idenctl("trunk", "train", tmp_path / "store/study.yaml", store=tmp_path / "store").returncode == 0
    weights = {path.parent.name: path.read_bytes() for path in prepared_store.glob("trunks/*/*.safetensors")}
    again = {path.parent.name: path.read_bytes() for path in tmp_path.glob("store/trunks/*/*.safetensors")}
    assert weights == again
    assert len(weights) == 2


def test_a_failed_trial_is_a_row_with_a_reason_and_exit_status_1(store, uninterrupted):
    study = STUDY.replace("grid: {id_rate: [0.5, 1.0]}", "grid: {lr: [0.1, 1.0e+30]}").replace("lr: 0.1, ", "")
    study = study.replace("- {variant: original}", "").replace(
        "cells: [{variant: original}, {variant: f}]", "cells: [{variant: original, lr: 0.1}]"
    )
    study = study.replace("baselines: [{variant: original}]", "baselines: []").replace("by: id_rate", "by: lr")
    (store / "study.yaml").write_text(study)
    done = run(store, "--engine", "inline")
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
    assert run(store, "--engine", "inline").returncode == 1, "a failure that is stored is still a failure"
    assert sorted((store / "trials").glob("*")) == files, "and is not trained again"


def test_a_damaged_file_is_named_kept_and_its_trials_run_again(store, uninterrupted):
    shutil.copytree(uninterrupted, store, dirs_exist_ok=True)
    victim = min((store / "trials").glob("*.parquet"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:100])
    done = run(store, "--engine", "inline")
    assert done.returncode == 0, done.stderr
    assert f"warning: {victim}" in done.stderr
    assert victim.stat().st_size == 100
    assert_equal_runs(store, uninterrupted)


def test_two_studies_that_share_a_cell_train_it_once(store, uninterrupted):
    shutil.copytree(uninterrupted, store, dirs_exist_ok=True)
    other = STUDY.replace("name: small", "name: other").replace("[0.5, 1.0]", "[0.25, 1.0]")
    (store / "study.yaml").write_text(other)
    planned = json.loads(idenctl("study", "plan", store / "study.yaml", "--json", store=store).stdout)
    assert (planned["trials"], planned["stored"]) == (12, 9)


def test_a_damaged_trunk_is_named_and_trained_anew_and_the_rows_are_those_of_an_undisturbed_run(store, uninterrupted):
    recipes = {path.parent: json.loads(path.read_text()) for path in store.glob("trunks/*/trunk.json")}
    (identity,) = [folder for folder, facts in recipes.items() if facts["recipe"]["task"] == "identity"]
    spoil(identity / "network.safetensors", "flipped")
    done = run(store, "--engine", "inline")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"warning: the trunk {identity} is damaged") == 1
    assert_equal_runs(store, uninterrupted)


def test_a_study_that_is_being_run_is_not_run_twice(store):
    process = start(store, "--engine", "inline")
    wait_until(lambda: (store / "studies/small/plan.json").exists(), process)
    second = run(store, "--engine", "inline")
    assert second.returncode == 2
    assert f"being run by process {process.pid}" in second.stderr
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_frozen_study_says_what_was_run_and_an_older_one_is_kept(store):
    assert run(store, "--engine", "inline", "--set", "epochs=1").returncode == 0
    assert run(store, "--engine", "inline").returncode == 0
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
    done = idenctl("study", verb, store / "study.yaml", *options, store=store)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_store_in_a_file_is_refused(tmp_path, store):
    (tmp_path / "file").write_text("")
    done = idenctl("study", "run", store / "study.yaml", store=tmp_path / "file")
    assert done.returncode == 2
    assert "a store is a folder" in done.stderr
    assert Path(tmp_path / "file").read_text() == ""
