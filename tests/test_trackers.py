"""TensorBoard and MLflow read back what a study told them, by their own packages."""

import re
import subprocess
import sys

import plain
import polars as pl
import pytest
from conftest import idenctl
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from orchestrator import runner, trackers
from orchestrator.planning import Capacity
from orchestrator.progress import PackStarted, TrialFailed
from orchestrator.store import Store

STUDY = """\
name: walk
question: Which way?
workload: walk:Walk
dataset: steps
folds: [0, 1]
base: {epochs: 3}
design: {grid: {way: [up, down, off/side]}}
report: {by: way}
"""
WALK = """\
from orchestrator.progress import Progress
from orchestrator.study_rules import Rules
from orchestrator.trial import TrialResult
from plain import Plain


class Walk(Plain):
    rules = Rules({"way": "up", "epochs": 1}, datasets=("steps",))

    def pack_key(self, trial):
        return "all"

    def run(self, pack, context):
        curves = {trial.trial_id: [] for trial in pack.trials}
        off = {t.trial_id for t in pack.trials if t.configuration.settings["way"] == "off/side"}
        for epoch in range(3):
            points = {}
            for trial in pack.trials:
                rises = trial.configuration.settings["way"] == "up"
                accuracy = 0.5 + (0.1 if rises else -0.1) * epoch + 0.01 * trial.fold
                if trial.trial_id not in off or epoch == 0:
                    points[trial.trial_id] = {"epoch": epoch, "loss": 1 - accuracy, "test_accuracy": accuracy}
                    curves[trial.trial_id].append(points[trial.trial_id])
            failed = dict.fromkeys(off, "it fell") if epoch else {}
            context.listen(Progress(pack.pack_id, epoch + 1, 3, epoch + 1, 3, "", failed=failed, points=points))
        facts = {"synthetic": True, "n_train": 9, "n_test": 1, "seconds": 0.0}
        return [
            TrialResult(trial, "failed", reason="it fell", **facts)
            if trial.trial_id in off
            else TrialResult(trial, "complete", epochs=3, curve=curve, accuracy=curve[-1]["test_accuracy"], **facts)
            for trial, curve in ((trial, curves[trial.trial_id]) for trial in pack.trials)
        ]
"""


COMMAND = ("study", "run", "walk.yaml", "--store", "store")


def written(folder):
    (plain.copied(folder) / "walk.py").write_text(WALK)
    (folder / "walk.yaml").write_text(STUDY)
    return folder


def run(folder, *options):
    """The study run in this process, without Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(written(folder))
        patch.setattr(sys, "path", list(sys.path))
        patch.delitem(sys.modules, "walk", raising=False)
        return idenctl(*COMMAND, "--engine", "inline", *options)


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inline")
    done = run(folder, "--tensorboard", "tb")
    assert done.returncode == 1, done.stderr  # two trials failed
    (folder / "said.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def tune(tmp_path_factory):
    folder = written(tmp_path_factory.mktemp("tune"))
    options = ("--tensorboard", "tb", "--mlflow", f"sqlite:///{folder}/mlflow.db")
    command = [sys.executable, "-m", "orchestrator.cli.app", *COMMAND, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stderr
    assert "told nothing more" not in done.stderr
    assert "Traceback" not in done.stderr
    return folder


def curves(folder):
    """The stored curves: by trial_id the points."""
    store = Store(folder / "store")
    return {
        trial_id: part.sort("epoch")["test_accuracy"].to_list()
        for (trial_id,), part in store.curves().partition_by("trial_id", as_dict=True).items()
    }


@pytest.mark.parametrize("engine", ["inline", "tune"])
def test_tensorboard_shows_a_run_a_trial_whose_curve_is_the_stored_one(engine, request):
    told = request.getfixturevalue(engine)
    stored = curves(told)
    trials = {row["trial_id"]: row for row in Store(told / "store").trials().iter_rows(named=True)}
    folders = [path.parent for path in (told / "tb").rglob("events.out.tfevents.*")]
    assert len(folders) == len(set(folders)) == 6
    for folder in folders:
        (trial,) = [row for trial_id, row in trials.items() if folder.name.endswith(trial_id[:8])]
        assert folder.parent.parent == told / "tb" / "walk"
        assert folder.name.startswith(f"fold={trial['fold']},seed=0,")
        read = EventAccumulator(str(folder)).Reload()
        found = [(event.step, event.value) for event in read.Scalars("ray/tune/test_accuracy")]
        if trial["state"] == "failed":
            assert found == [(1, pytest.approx(0.5 + 0.01 * trial["fold"]))]
            continue
        assert found == [(n + 1, pytest.approx(value)) for n, value in enumerate(stored[trial["trial_id"]])]
        (last,) = read.Scalars("ray/tune/accuracy")
        assert (last.step, last.value) == (3, pytest.approx(trial["accuracy"]))


def test_mlflow_has_a_run_a_trial_with_its_settings_its_curve_and_how_it_ended(tune):
    client = MlflowClient(f"sqlite:///{tune}/mlflow.db")
    experiment = client.get_experiment_by_name("walk")
    runs = client.search_runs([experiment.experiment_id])
    trials = Store(tune / "store").trials()
    assert len(runs) == trials.height == 6
    stored, seen = curves(tune), set()
    for one in runs:
        assert one.data.tags["synthetic"] == "true"
        way, fold = one.data.params["way"], int(one.data.params["fold"])
        (trial,) = trials.filter(pl.col("way") == way, pl.col("fold") == fold).iter_rows(named=True)
        assert one.info.status == ("FAILED" if trial["state"] == "failed" else "FINISHED")
        history = client.get_metric_history(one.info.run_id, "test_accuracy")
        points = sorted((metric.step, metric.value) for metric in history)
        assert one.data.params["epochs"] == "3"
        seen.add(trial["trial_id"])
        if trial["state"] == "failed":
            assert points == [(1, 0.5 + 0.01 * fold)]
        else:
            assert points == list(enumerate(stored[trial["trial_id"]], 1))
            assert one.data.metrics["accuracy"] == trial["accuracy"]
    assert seen == set(trials["trial_id"])


def test_a_run_ends_with_what_was_found_why_trials_failed_how_long_it_took_and_the_next_command(inline):
    *_, found, best, failures, time, last = (inline / "said.txt").read_text().splitlines()
    assert found.startswith("found: On SYNTHETIC (drawn) data, so far, with 4 of 6 trials, UP is highest with 70.50 ± ")
    assert best.startswith("best: UP: 70.50 ± ")
    assert best.endswith(" % over 2/2 folds")
    assert failures == "failures: 2 trials: it fell (2)"
    assert re.match(r"time: \d+ s in this run; 0 s of devices, 1 s foreseen", time)
    assert last == "next: idenctl report walk --store store"


def test_without_the_options_neither_is_told_anything(tmp_path):
    assert run(tmp_path, "--engine", "inline").returncode == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"__pycache__", "plain.py", "store", "walk.py", "walk.yaml"}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    monkeypatch.chdir(written(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    store = Store(tmp_path / "store")
    return runner.plan(runner.load(tmp_path / "walk.yaml", None, {}, store), store, Capacity("cpu", 1, 1))


def test_an_address_that_mlflow_does_not_have_is_refused_before_any_pack_runs(planned):
    refused = pytest.raises(
        ValueError, match="--mlflow must be a tracking address that answers, nowhere://host does not"
    )
    with refused, trackers.tracked(planned, {}, None, "nowhere://host"):
        pytest.fail("a pack would run")


def test_a_tracker_that_fails_in_the_middle_says_so_once_and_harms_nothing(planned, tmp_path, caplog):
    class Gone:
        def log_trial_start(self, trial):
            raise OSError("the server has gone")

    tracker = trackers.Tracker("MLflow", Gone(), tmp_path, planned, runner.names(planned, {}))
    for pack in ("p", "q"):
        tracker(PackStarted(pack, (planned.trials[0].trial_id,)))
    assert caplog.messages == ["MLflow is told nothing more, the study goes on: OSError: the server has gone"]


def test_a_tracker_that_is_gone_at_the_end_harms_nothing(planned, tmp_path, caplog):
    class Gone:
        def log_trial_start(self, trial):
            pass

        def log_trial_end(self, trial, failed):
            raise OSError("the server has gone")

    tracker = trackers.Tracker("MLflow", Gone(), tmp_path, planned, runner.names(planned, {}))
    tracker(PackStarted("p", (planned.trials[0].trial_id,)))
    tracker.close()
    assert caplog.messages == ["MLflow is told nothing more, the study goes on: OSError: the server has gone"]


def test_a_trial_that_killed_its_worker_alone_is_told_as_failed_and_one_that_was_stopped_is_not(planned, tmp_path):
    ended = []

    class Heard:
        def log_trial_start(self, trial):
            pass

        def log_trial_end(self, trial, failed):
            ended.append((trial.name.rpartition(",")[2], failed))

    tracker = trackers.Tracker("MLflow", Heard(), tmp_path, planned, runner.names(planned, {}))
    killer, other = planned.trials[:2]
    tracker(PackStarted("p", (killer.trial_id,)))
    tracker(PackStarted("q", (other.trial_id,)))
    tracker(TrialFailed("p", killer, "alone in its pack it killed its worker 3 times"))
    tracker.close()
    assert ended == [(killer.trial_id[:8], True), (other.trial_id[:8], False)]


def test_a_password_of_an_address_is_neither_shown_nor_stored(tmp_path):
    done = run(tmp_path, "--engine", "inline", "--mlflow", "nowhere://me:secret@host")
    assert done.returncode == 2
    assert "nowhere://me:***@host does not" in done.stderr
    assert "secret" not in done.stderr
    assert not list(tmp_path.rglob("checkpoints/*")), "it is refused before anything is trained"
    done = run(tmp_path, "--engine", "inline", "--tensorboard", "x://me:secret@y")
    assert done.returncode == 1, done.stderr
    kept = [path.read_text() for path in (tmp_path / "store/studies/walk").glob("*.json")]
    assert any("x://me:***@y" in text for text in kept)
    assert not any("secret" in text for text in kept)
