"""What is no crash: trials of NaN, files that are edited, drivers that compete, clocks that go back, little memory."""

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import changed

from chaos import rows
from chaos.stage import BOTH, CHECKPOINT, PLAN, ROWS, SHORT, STUDIES, at_stake, stream, times

pytestmark = pytest.mark.chaos
DAY = 24 * 3600


@pytest.mark.parametrize("part", range(times(3, 1)))
def test_a_trial_of_nan_is_a_row_with_the_reason_however_often_its_driver_is_killed(stage, part):
    store, repeated = stage.pretrained(), []
    for moment in stream("nan", part).uniform(0.2, 1.6, 2):
        command = stage.run(store, "nan")
        command.until(lambda: False, moment)
        cost = at_stake(command, store)
        if command.kill_group():
            repeated.append(cost)
    stage.recover("a trial turns to NaN, its driver killed", store, "nan", repeated)
    assert "2 failed" in stage.commands[-1].said


@pytest.mark.parametrize("when", ["after a kill", "while it runs"])
def test_a_study_file_that_is_edited_and_edited_back_trains_nothing_twice(stage, when):
    store = stage.pretrained()
    file, whole = store / "design.yaml", STUDIES["design"]
    less = changed(whole, "[0.5, 1.0]", "[0.5]")
    if when == "after a kill":
        assert stage.halted(store, "design", ROWS).kill_group()
        file.write_text(less)
        command = stage.run(store)
        assert command.end() == 0, command.said
        assert "design: 6 of 6 trials complete" in command.said
    else:
        command = stage.halted(store, "design", ROWS)
        file.write_text(less)
        command.kill(signal.SIGCONT)
        assert command.end() == 0, command.said
        assert "design: 8 of 8 trials complete" in command.said, "as it was when it was started"
    file.write_text(whole)
    stage.recover("study file edited", store)
    assert max(rows.written(store).values()) == 1


@pytest.mark.parametrize("study", ["design", "search"])
def test_of_two_runs_at_once_the_second_is_refused(stage, study):
    store = stage.pretrained()
    both = [stage.run(store, study, within=store, halts=PLAN) for _ in range(2)]
    for command in both:
        command.halted()  # or was refused
    for command in both:
        command.kill(signal.SIGCONT)
        command.end()
    first, second = sorted(both, key=lambda command: command.status)
    assert (first.status, second.status) == (0, 2), first.said + second.said
    assert f"search is being run by process {first.pid}".replace("search", study) in second.said
    stage.survived("two runs at once", store, study, first)
    assert max(rows.written(store).values()) == 1


@pytest.mark.parametrize("study", ["design", "search"])
def test_two_runs_that_do_not_see_each_others_lock_do_the_work_twice_and_keep_it_once(stage, study):
    store = stage.pretrained()
    first = stage.halted(store, study, CHECKPOINT)
    (store / f"studies/{study}/.lock").unlink()  # as where two machines share a store without locks
    second = stage.halted(store, study, ROWS)
    for command in (first, second):
        command.kill(signal.SIGCONT)
    for command in (first, second):
        assert command.end() == 0, command.said
    assert max(rows.written(store).values()) > 1, "or they were not at work together"
    stage.survived("two runs at once, without locks", store, study, second)


@pytest.fixture(scope="module")
def clock(stage):
    """The library of `clock.c`."""
    if not shutil.which("cc"):
        pytest.skip("a C compiler sets the clock back; next: apt-get install gcc")
    library = stage.root / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).parent / "clock.c"], check=True)
    return library


def set_clock(file, seconds):
    file.write_bytes(struct.pack("<q", seconds))


def test_the_clock_can_be_set(stage, clock):
    shift = stage.root / "shift"
    set_clock(shift, -DAY)
    code = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.clock_gettime(0))"
    given = os.environ | {"LD_PRELOAD": str(clock), "CHAOS_CLOCK": str(shift)}
    moved = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True).stdout
    usual = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for one, other in zip(moved.split(), usual.split(), strict=True):
        assert float(one) - float(other) == pytest.approx(-DAY, abs=60)


@pytest.mark.parametrize("study", BOTH)
@pytest.mark.parametrize("killed", [True] if SHORT else [False, True])
def test_a_clock_that_is_set_back_a_day_changes_nothing(stage, clock, study, killed):
    store, shift = stage.pretrained(), stage.root / f"shift-{study}-{killed}"
    set_clock(shift, 0)
    preloaded = {"LD_PRELOAD": str(clock), "CHAOS_CLOCK": str(shift)}
    command = stage.run(store, study, forks=False, environment=preloaded)
    assert command.until(lambda: list(store.glob("trials/[!.]*"))), command.said
    set_clock(shift, -DAY)
    if killed:
        command.kill_group()
        stage.recover("clock set back", store, study, forks=False, environment=preloaded)
    else:
        command.end()
        stage.survived("clock set back", store, study, command)


@pytest.mark.parametrize("part", range(times(6, 2)))
def test_a_driver_that_runs_out_of_memory_says_so_or_dies_and_loses_nothing(stage, part):
    store, draws = stage.pretrained(), stream("memory", part)
    command = stage.halted(store, "design", CHECKPOINT)
    command.kill(signal.SIGCONT)
    command.until(lambda: False, float(draws.uniform(0, 1)))
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        taken = int(Path(f"/proc/{command.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        limit = taken + int(draws.integers(0, 8 * 2**20))
        resource.prlimit(command.pid, resource.RLIMIT_AS, (limit, limit))
    repeated = at_stake(command, store)
    command.end()
    stage.recover("out of memory", store, repeated=[repeated])
