"""The driver is killed: at any moment, before each thing it does to the store, within a write, by its terminal."""

import signal
import time

import pytest

from chaos.stage import BOTH, CHECKPOINT, ROWS, at_stake, stream, times

pytestmark = pytest.mark.chaos
SPAN = 2.0  # seconds within which a run of a study is killed


@pytest.mark.parametrize("study", ["design", "search"])
@pytest.mark.parametrize("chain", range(times(8, 1)))
def test_killed_again_and_again_at_any_moment(stage, study, chain):
    store, repeated = stage.store(), []
    for moment in stream("moments", study, chain).uniform(0.1, SPAN, times(5, 3)):
        command = stage.run(store, study)
        command.until(lambda: False, moment)
        cost = at_stake(command, store)
        if command.kill_group():
            repeated.append(cost)
        else:
            assert command.status == 0, command.said
    stage.recover(f"driver killed at any moment ({study})", store, study, repeated)


@pytest.fixture(scope="module", params=["design", "search"])
def operations(request, stage):
    """A study and how many things an undisturbed run of it does to the store's files."""
    store = stage.store()
    command = stage.run(store, request.param, within=store)
    assert command.end() == 0
    return request.param, int((command.folder / "here/operations").read_text())


def test_killed_before_each_thing_that_it_does_to_the_store(stage, operations):
    study, count = operations
    chosen = stream("operations", study).permutation(count)[: times(20, 2)]
    for number in sorted(int(number) for number in chosen):
        store = stage.store()
        command = stage.run(store, study, within=store, operation=number)
        assert command.end() == -signal.SIGKILL
        stage.recover(f"driver killed before each change of the store ({study})", store, study)


@pytest.mark.parametrize("part", range(times(10, 2)))
def test_killed_in_the_middle_of_writing_a_file(stage, part):
    longest = int(stream("longest file", part).integers(2_000, 400_000))
    store = stage.store()
    command = stage.run(store, longest_file=longest)
    assert command.end() == -signal.SIGXFSZ
    stage.recover("driver killed within a write", store)


@pytest.mark.parametrize("study", BOTH)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_interrupted_and_its_terminal_closed(stage, study, number):
    store = stage.pretrained()
    command = stage.halted(store, study, ROWS)
    repeated = at_stake(command, store)
    command.kill(number)
    command.kill(signal.SIGCONT)
    command.end()
    assert command.status == (130 if number == signal.SIGINT else -signal.SIGHUP), command.said
    if number == signal.SIGINT:
        assert "run the same command again" in command.said
    stage.recover({signal.SIGINT: "Ctrl-C", signal.SIGHUP: "terminal closed"}[number], store, study, [repeated])


def test_ctrl_c_twice(stage):
    store = stage.pretrained()
    command = stage.halted(store, "design", ROWS)
    repeated = at_stake(command, store)
    for _ in range(2):
        command.kill(signal.SIGINT)
        command.kill(signal.SIGCONT)
        time.sleep(0.05)
    assert command.end() == 130, command.said
    assert "Traceback" not in command.said
    stage.recover("Ctrl-C twice", store, repeated=[repeated])


@pytest.mark.parametrize("study", BOTH)
def test_stopped_for_a_minute_it_goes_on_as_if_nothing_had_been(stage, study):
    store = stage.pretrained()
    command = stage.halted(store, study, CHECKPOINT)
    time.sleep(times(60, 5))
    began = time.time()
    command.kill(signal.SIGCONT)
    command.until(lambda: any(path.stat().st_mtime > began for path in store.glob("trials/[!.]*")))
    command.end()
    stage.survived("driver stopped for a minute", store, study, command, recovery=time.time() - began)
