"""A study is watched from its store alone, while another process runs it."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import buckets
import coins
import pytest
import searching
import terminals
import torch
from conftest import changed
from s3 import until

from idennet_core import checkpoint
from orchestrator import forecast, frozen, record, runner, watching
from orchestrator.planning import Capacity
from orchestrator.rows import Run
from orchestrator.source import ALONE
from orchestrator.store import Store, at
from orchestrator.trial import TrialResult

FINISH = 240  # seconds after which a command hangs


def idenctl(*arguments, **options):
    command = [sys.executable, "-m", "orchestrator.cli.app", *arguments]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A frozen study of two sides on two folds, 10 s a trial foreseen, and its plan."""
    folder = coins.written(tmp_path / "coin")
    (folder / "coin.py").write_text(
        coins.MODULE.replace('{"side": "heads", "takes": 0.0}', '{"side": "heads", "takes": 0.0, "epochs": 10}')
        .replace("Estimate(1.0, 0, measured=True)", "Estimate(20.0, 0, measured=True)")
        .replace("return trial.trial_id", 'return trial.configuration.settings["side"]')
    )
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    store = Store(folder / "runs").open()
    planned = runner.plan(runner.load(folder / "coin.yaml", None, {}, store), store, Capacity("cpu", 1, 1))
    record.freeze(planned, store, ["idenctl"])
    return planned, store


def keep(store, pack, epoch, at, accuracy, left=()):
    """A checkpoint as packs write them: what it says, and when it was written."""
    ids = [trial.trial_id for trial in pack.trials]
    words = {
        "epoch": str(epoch),
        "written": str(at),
        "trials": json.dumps(ids),
        "curves": json.dumps({i: [{"test_accuracy": accuracy}] * epoch for i in ids}),
        "failures": "{}",
        "left": json.dumps(list(left)),
        "rungs": "",
    }
    checkpoint.save(store.checkpoints / f"pack-{pack.pack_id}.{epoch}.safetensors", {"x": torch.zeros(1)}, words)


def began(store):
    path = store.studies / "coin/plan.json"
    return frozen.written_at(frozen.read_plan(path), path)


def stored(store, pack, since, start, end, accuracy):
    facts = {"state": "complete", "synthetic": True, "n_train": 9, "n_test": 1, "epochs": 10}
    rows = [TrialResult(trial, accuracy=accuracy, seconds=(end - start) / 2, **facts) for trial in pack.trials]
    times = (datetime.fromtimestamp(since, UTC) + timedelta(seconds=at) for at in (start, end))
    store.write_pack(rows, {"side": "heads", "takes": 0.0, "epochs": 10}, Run("cpu", "here", *times, "1"))


def test_before_anything_is_stored_everything_waits_and_takes_what_was_foreseen(study):
    planned, store = study
    since = began(store)
    seen = watching.look(store, "coin")
    assert not seen.over
    assert (seen.state.num_waiting, seen.state.packs, seen.state.title) == (4, 2, "coin (synthetic)")
    assert forecast.seconds_left(seen.state, since) == pytest.approx(sum(e.seconds for e in planned.estimates))


def test_a_pack_at_work_shows_by_its_checkpoints_at_the_pace_between_them(study):
    planned, store = study
    first = planned.packs[0]
    since = began(store)
    keep(store, first, 3, since + 18, 0.6)
    keep(store, first, 4, since + 24, 0.7)
    state = watching.look(store, "coin").state
    assert (state.num_running, state.num_waiting) == (2, 2)
    assert state.running[first.pack_id].share == pytest.approx(0.4)
    assert forecast.leader(state).accuracy.mean == pytest.approx(70)
    # an epoch takes 6 s: 6 epochs more of this pack, and ten of the other, which is foreseen to take as long
    assert forecast.seconds_left(state, since + 24) == pytest.approx(6 * 6 + 10 * 6, rel=0.01)
    assert forecast.seconds_left(state, since + 28) == pytest.approx(6 * 6 + 10 * 6 - 4, rel=0.01)


def test_what_is_stored_is_done_and_sets_the_pace_of_what_waits(study):
    planned, store = study
    first, second = planned.packs
    since = began(store)
    stored(store, first, since, 1, 41, 0.75)  # 40 s, where 20 were foreseen
    seen = watching.look(store, "coin")
    assert (len(seen.state.done), seen.state.packs_done, seen.state.num_waiting) == (2, 1, 2)
    assert forecast.seconds_left(seen.state, since + 41) == pytest.approx(40, rel=0.01)
    stored(store, second, since, 41, 81, 0.25)
    seen = watching.look(store, "coin")
    assert seen.over
    assert forecast.leader(seen.state).cell == "side=heads"


def test_what_an_earlier_run_stored_is_told_as_stored_before_and_its_checkpoints_are_nobodys_work(study):
    planned, store = study
    since = began(store)
    stored(store, planned.packs[0], since, -90, -50, 0.75)
    keep(store, planned.packs[1], 4, since - 40, 0.7)
    state = watching.look(store, "coin").state
    assert (len(state.stored), len(state.done), state.num_running, state.num_waiting) == (2, 0, 0, 2)


def test_a_trial_that_failed_alone_in_its_pack_is_watched_while_it_is_tried_again(study):
    planned, store = study
    since = began(store)
    stored(store, planned.packs[0], since, 1, 41, 0.75)
    (one, other) = planned.packs[1].trials
    for trial, reason in ((one, f"{ALONE}killed its worker 3 times"), (other, "its weights are not finite")):
        failed = TrialResult(trial, "failed", True, 0, 0, 0.0, reason=reason)
        before = datetime.fromtimestamp(since - 60, UTC)
        store.write_pack(
            [failed], {"side": "heads", "takes": 0.0, "epochs": 10}, Run("cpu", "here", before, before, "1")
        )
    seen = watching.look(store, "coin")
    assert (seen.over, seen.state.num_waiting, set(seen.state.failed)) == (False, 1, {other.trial_id})
    again = runner.plan(planned.study, store, planned.capacity)
    assert [trial for pack in again.packs for trial in pack.trials] == [one]
    assert set(runner.watched(again, store).failed) == {other.trial_id}


@pytest.mark.parametrize("more", [", pruning: {first: 2}", ", select: test", ", nested: true"])
def test_a_search_is_over_when_all_that_it_asked_and_what_it_chose_is_stored(more, tmp_path):
    content = searching.text(configurations=8, more=more)
    planned = searching.plan(tmp_path, content)
    store = planned.search.store
    record.freeze(planned, store, ["idenctl"])
    planned.search.write()
    assert not watching.look(store, "top").over
    after = searching.run(tmp_path, content)
    after.search.write()
    seen = watching.look(store, "top")
    assert seen.over
    rows = store.every_trial()
    assert set(rows["trial_id"]) == seen.state.cells.keys()
    assert seen.state.done == set(rows.filter(state="complete")["trial_id"])
    assert seen.state.pruned == set(rows.filter(state="pruned")["trial_id"])
    assert bool(seen.state.pruned) == ("pruning" in more)


def hold(folder, side):
    return folder / "runs" / f"hold-{side}"


@pytest.fixture
def running(tmp_path):
    """A study of two trials of each side, which wait to be let go, that another process runs; its folder."""
    folder = coins.written(tmp_path / "coin")
    (folder / "runs").mkdir()
    for side in ("heads", "tails"):
        hold(folder, side).touch()
    process = idenctl("study", "run", "coin.yaml", "--engine", "inline", "--store", "runs", cwd=folder)
    while not (folder / "runs" / "studies" / "coin" / "plan.json").is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    yield folder, process
    process.kill()
    process.communicate()


def test_through_a_pipe_lines_are_plain_and_end_with_the_study_and_what_it_found(running):
    folder, process = running
    watch = idenctl("study", "status", "coin", "--watch", "--store", "runs", cwd=folder)
    lines = iter(watch.stderr.readline, "")
    assert next(lines) == "coin (synthetic): 4 trials, 4 to train in this run\n"
    hold(folder, "heads").unlink()
    begun = next(line for line in lines if "1 done" in line or "2 done" in line)
    hold(folder, "tails").unlink()
    said, out = begun + "".join(lines), watch.stdout.read()
    process.communicate(timeout=FINISH)
    assert (watch.wait(FINISH), process.returncode) == (0, 0), said
    lines = said.splitlines()
    assert out == ""
    assert any(line.startswith("coin (synthetic) finished: trials 4 done") for line in lines)
    assert "found: On SYNTHETIC (drawn) data, Heads is highest" in said
    assert all(line.isprintable() for line in lines)


def test_ctrl_c_ends_the_watching_alone(running):
    folder, process = running
    leader, follower = pty.openpty()
    watch = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.app", "study", "status", "coin", "--watch", "--store", "runs"],
        cwd=folder,
        stdin=follower,
        stderr=follower,
        stdout=follower,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(follower)
    terminals.read_until(leader, b"waiting")
    watch.send_signal(signal.SIGINT)
    assert watch.wait(FINISH) == 130
    assert b"Traceback" not in terminals.read_rest(leader)
    for side in ("heads", "tails"):
        hold(folder, side).unlink()
    process.communicate(timeout=FINISH)
    assert process.returncode == 0


GATE = """\
    def configure(self, study, cells):
        while not Path("go").exists():
            time.sleep(0.02)
"""


@pytest.fixture
def planning(tmp_path):
    """A function that starts a run of the study, which plans as long as there is no file `go`, and gives it then."""
    folder, started = coins.written(tmp_path / "coin"), []
    module = folder / "coin.py"
    module.write_text(changed(module.read_text(), "    def configure(self, study, cells):\n", GATE))

    def start():
        process = idenctl("study", "run", "coin.yaml", "--engine", "inline", "--store", "runs", cwd=folder)
        started.append(process)
        while not record.running(Store(folder / "runs"), "coin"):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        return process

    yield folder, start
    for process in started:
        process.kill()
        process.communicate()


def watched(folder):
    """Somebody who watches, from when it has said its first line, and that line."""
    watch = idenctl("study", "status", "coin", "--watch", "--store", "runs", cwd=folder)
    return watch, watch.stderr.readline()


def waited_for(folder, process):
    """What is said of a run that plans, waited for and then watched to its end."""
    watch, first = watched(folder)
    assert first == "waiting for a plan of coin …\n"
    (folder / "go").touch()
    said = watch.communicate(timeout=FINISH)[1]
    assert (watch.returncode, process.wait(FINISH)) == (0, 0), said
    return said


def test_a_study_that_is_still_planned_is_waited_for_and_then_watched_to_its_end(planning):
    folder, start = planning
    said = waited_for(folder, start())
    assert said.startswith("coin (synthetic): 4 trials, ")
    assert "coin (synthetic) finished: trials 4 done" in said


def test_the_plan_of_an_earlier_run_is_not_taken_for_that_of_the_one_that_plans(planning):
    folder, start = planning
    (folder / "go").touch()
    study = folder / "coin.yaml"
    study.write_text(coins.STUDY.format(sides="heads", takes=0.0))
    assert start().wait(FINISH) == 0
    (folder / "go").unlink()
    study.write_text(coins.STUDY.format(sides="heads, tails", takes=0.0))
    said = waited_for(folder, start())
    assert "coin (synthetic) finished: trials 2 done, 2 stored before" in said


def test_a_run_that_ends_before_it_has_planned_ends_the_watching_with_one_line(planning):
    folder, start = planning
    process = start()
    watch, _ = watched(folder)
    process.send_signal(signal.SIGINT)
    assert process.wait(FINISH) == 130
    assert watch.communicate(timeout=FINISH)[1] == "coin ended before it was planned: its run has said why\n"
    assert watch.returncode == 1


def test_the_plan_of_an_earlier_run_does_not_speak_for_one_that_ends_before_it_has_planned(planning):
    folder, start = planning
    (folder / "go").touch()
    assert start().wait(FINISH) == 0
    (folder / "go").unlink()
    process = start()
    watch, first = watched(folder)
    assert first == "waiting for a plan of coin …\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(FINISH) == 130
    assert watch.communicate(timeout=FINISH)[1] == "coin ended before it was planned: its run has said why\n"
    assert watch.returncode == 1


def test_a_name_that_the_store_does_not_know_and_nobody_runs_is_refused(study):
    watch = idenctl("study", "status", "coins", "--watch", "--store", "runs")
    assert "; did you mean 'coin'?" in watch.communicate(timeout=FINISH)[1]
    assert watch.returncode == 2


def test_a_study_in_a_bucket_is_watched_on_another_node_to_its_end(s3, shares, monkeypatch):
    first, others = buckets.hold(1), buckets.hold(2, 3, 4)
    process = buckets.started(buckets.address())
    try:
        buckets.node(monkeypatch, shares, "two")
        until(lambda: "p/studies/shares/plan.json" in s3.objects("p/studies"), FINISH)
        watch = idenctl("study", "status", "shares", "--watch", "--store", buckets.address())
        assert watch.stderr.readline() == "shares (synthetic): 120 trials, 120 to train in this run\n"
        first()
        lines = iter(watch.stderr.readline, "")
        assert any(line.startswith("trials 30 done, 90 waiting; packs 1 of 4 done") for line in lines)
        others()
        said = watch.communicate(timeout=FINISH)[1]
        assert (watch.returncode, process.wait(FINISH)) == (0, 0), said
    finally:
        process.kill()
        process.communicate()
    assert "\nshares (synthetic) finished: trials 120 done; packs 4 of 4 done" in said
    assert "found: " in said


def test_a_look_at_a_bucket_sees_the_plan_of_now(s3, shares, monkeypatch):
    file, whole = shares / "shares.yaml", (shares / "shares.yaml").read_text()
    file.write_text(changed(whole, "x: [1, 2, 3, 4]", "x: [1]"))
    assert buckets.ran(buckets.address()).returncode == 0
    buckets.node(monkeypatch, shares, "two")
    there = at(buckets.address()).check()
    assert len(watching.look(there, "shares").state.cells) == 30
    buckets.node(monkeypatch, shares, "one")
    time.sleep(1)  # an object is known by its size and the second in which it was written
    file.write_text(whole)
    assert buckets.ran(buckets.address()).returncode == 0
    seen = watching.look(there, "shares")
    assert (len(seen.state.cells), len(seen.state.stored), len(seen.state.done), seen.over) == (120, 30, 90, True)


def test_a_study_that_nobody_runs_is_shown_once(study):
    store = study[1]
    with record.only_run(store, "coin"):
        pass
    watch = idenctl("study", "status", "coin", "--watch", "--store", "runs")
    said = watch.communicate(timeout=FINISH)[1]
    assert watch.returncode == 1
    assert "coin (synthetic) is not running: trials 0 done, 4 waiting" in said


def test_a_study_that_ended_long_ago_took_as_long_as_it_took_and_not_until_now(study):
    planned, store = study
    plan = store.studies / "coin/plan.json"
    since = began(store) - 5000
    then = {"written_at": datetime.fromtimestamp(since, UTC).isoformat()}
    plan.write_text(json.dumps(json.loads(plan.read_text()) | then))
    assert began(store) == pytest.approx(since)
    for pack, start in zip(planned.packs, (1, 41), strict=True):
        stored(store, pack, since, start, start + 40, 0.75)
    watch = idenctl("study", "status", "coin", "--watch", "--store", "runs")
    said = watch.communicate(timeout=FINISH)[1]
    assert watch.returncode == 0
    assert "finished: trials 4 done; packs 2 of 2 done; 1:21 elapsed" in said


def test_watching_and_json_exclude_each_other(study):
    watch = idenctl("study", "status", "coin", "--watch", "--json", "--store", "runs")
    assert "--watch and --json exclude each other" in watch.communicate(timeout=FINISH)[1]
    assert watch.returncode == 2
