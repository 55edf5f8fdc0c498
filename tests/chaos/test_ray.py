"""Studies on a Ray of their own: its processes are killed, stopped and told to end, one kind after the other."""

import os
import signal
import time

import pytest

from chaos import rows
from chaos.poison import SWITCH
from chaos.stage import SHORT, at_stake, last_saved, stream, times

pytestmark = pytest.mark.chaos
WORKER, RAYLET, HEAD = "ray::ImplicitFunc", "raylet/raylet", "gcs_server"  # words of command lines
AGENT = "dashboard/agent.py"  # which a raylet waits for


def kill_all(command, words):
    """Kill all of its processes that are called so, and let it go on."""
    found = command.children(words)
    assert found, f"nothing runs that is called {words}"
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    command.kill(signal.SIGCONT)


def later(command, part, *names):
    """Let it go on, and after a while, at first none, stop it again if it still runs."""
    if part:
        command.kill(signal.SIGCONT)
        command.until(lambda: False, float(stream(*names, part).uniform(0, 2)))
        command.kill(signal.SIGSTOP)
        command.halted()


@pytest.mark.parametrize("part", range(times(2, 1)))
@pytest.mark.parametrize("study", ["design"] if SHORT else ["design", "search"])
def test_the_driver_killed_takes_its_ray_with_it_and_the_next_run_removes_its_folder(stage, study, part):
    command, store = stage.at_work(study)
    later(command, part, "driver on Ray", study)
    repeated = at_stake(command, store)
    command.kill(signal.SIGKILL)
    command.end()
    assert command.left() == []
    environment = {"TMPDIR": str(command.folder / "t")}  # where its temporary folder is looked for
    stage.recover("driver killed, on Ray", store, study, [repeated], engine="tune", environment=environment)


@pytest.mark.parametrize("part", range(times(3, 1)))
def test_a_worker_killed_is_started_again_and_the_run_goes_on(stage, part):
    command, store = stage.at_work("design")
    later(command, part, "worker")
    repeated, began = at_stake(command, store), time.time()
    if command.children(WORKER) or not part:  # else the packs are trained
        kill_all(command, WORKER)
    command.kill(signal.SIGCONT)
    command.until(lambda: last_saved(store) > began)
    recovery = last_saved(store) - began
    command.end()
    stage.survived("worker killed", store, "design", command, [repeated], recovery if recovery > 0 else None)


@pytest.mark.skipif(SHORT, reason="six workers die, in the whole suite alone")
def test_a_trial_that_kills_its_worker_is_a_row_that_says_so_and_once_it_does_not_the_study_ends(stage):
    store = stage.store()
    command = stage.run(store, "poison", engine="tune", environment={SWITCH: "1"})
    assert command.end() == 1, command.said
    assert "killed its worker 3 times" in command.said
    assert "poison: 7 of 8 trials complete" in command.said
    assert ", 1 failed" in command.said
    stage.is_clean(store)
    stage.recover("a trial kills its worker", store, "poison", engine="tune")


@pytest.mark.parametrize("words", [RAYLET, HEAD])
def test_the_raylet_or_the_head_killed_ends_the_run_and_the_next_one_goes_on(stage, words):
    command, store = stage.at_work("design")
    repeated = at_stake(command, store)
    kill_all(command, words)
    command.end()
    assert command.status != 0 or not rows.compare(store, stage.whole())
    assert command.left() == []
    environment = {"TMPDIR": str(command.folder / "t")}
    kind = "raylet killed" if words == RAYLET else "head (GCS) killed"
    stage.recover(kind, store, repeated=[repeated], environment=environment, engine="tune")


def test_a_ray_that_takes_long_to_start_is_waited_for(stage):
    store = stage.pretrained()
    command = stage.run(store, engine="tune")
    assert command.until(lambda: command.children(AGENT)), command.said
    found = command.children(AGENT)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in found:
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            command.until(lambda: False, 40)  # Ray itself gives up after 30 s
    command.end()
    stage.survived("Ray slow to start", store, "design", command)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_or_told_to_end_on_ray_it_says_what_is_safe(stage, number):
    command, store = stage.at_work("design")
    repeated = at_stake(command, store)
    command.kill(number)
    command.kill(signal.SIGCONT)
    assert command.end() == 130, command.said
    assert "Traceback" not in command.said
    assert "run the same command again" in command.said
    assert command.left() == []
    kind = {signal.SIGINT: "Ctrl-C, on Ray", signal.SIGTERM: "preemption notice (SIGTERM)"}[number]
    stage.recover(kind, store, repeated=[repeated])


@pytest.mark.parametrize("words", [WORKER] if SHORT else [WORKER, RAYLET])
def test_stopped_for_a_minute_on_ray_the_rows_are_the_same(stage, words):
    command, store = stage.at_work("design")
    found = command.children(words)
    assert found, f"nothing runs that is called {words}"
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in found:
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            command.kill(signal.SIGCONT)
            time.sleep(times(60, 5))
    began = time.time()
    command.end()
    kind = "worker stopped for a minute" if words == WORKER else "raylet stopped for a minute"
    if command.status == 0:
        stage.survived(kind, store, "design", command, recovery=time.time() - began)
    else:
        assert command.left() == []
        environment = {"TMPDIR": str(command.folder / "t")}
        stage.recover(kind, store, environment=environment, engine="tune")
