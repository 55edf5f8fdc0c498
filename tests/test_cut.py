"""Packs that kill their workers or run out of memory: cut in two, and again, down to the trial that does it."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import conftest
import harms
import polars as pl
import pytest
import searching
from conftest import TINY_STUDY, changed, idenctl, without_results
from hypothesis import given
from hypothesis import strategies as some

from benchmarks.simulated import Simulated
from orchestrator import idennet, runner, tune_engine
from orchestrator.planning import Capacity, halves
from orchestrator.progress import PackCut, PackStarted, Progress, TrialFailed
from orchestrator.source import Divided, Listed, harmed
from orchestrator.store import Store
from orchestrator.trial import Configuration, Pack, Rungs, Trial

ROOT = Path(__file__).parent.parent
FINISH = 300  # seconds after which a command hangs
RUNGS = Rungs((1,), (None,), ((),), (0, 1), (0,), 0.05, 1 / 8)
packs = some.builds(
    lambda sizes, epoch, rungs: Pack(
        tuple(Trial(Configuration({"n": n}, {}), fold, 0) for n, size in enumerate(sizes) for fold in range(size)),
        epoch,
        rungs,
    ),
    some.lists(some.integers(1, 6), min_size=1, max_size=12),
    some.integers(0, 9),
    some.sampled_from([None, RUNGS]),
)


def ids(*found):
    return sorted(trial.trial_id for pack in found for trial in pack.trials)


def configurations(pack):
    return {trial.configuration.configuration_id for trial in pack.trials}


class Heard(Listed):
    """Packs one after the other, and the ids of those that have ended."""

    def __init__(self, packs):
        super().__init__(packs)
        self.ended = []

    def done(self, pack_id):
        self.ended.append(pack_id)


# which halves


@given(packs)
def test_halves_hold_every_trial_once_and_configurations_whole_while_there_is_more_than_one(pack):
    if len(pack.trials) == 1:
        return
    first, second = halves(pack)
    assert ids(first, second) == ids(pack)
    assert first.trials
    assert second.trials
    assert first.first_epoch == second.first_epoch == pack.first_epoch
    if len(configurations(pack)) > 1:
        assert not configurations(first) & configurations(second)
        assert abs(len(configurations(first)) - len(configurations(second))) <= 1
        assert first.rungs == second.rungs == pack.rungs
    else:
        assert first.rungs is second.rungs is None, "a part of a configuration's folds says nothing of it"


@given(packs, some.data())
def test_whatever_trials_do_harm_they_alone_fail_and_the_source_hears_of_the_pack_once_at_the_end(pack, data):
    harmful = data.draw(some.sets(some.sampled_from(ids(pack))))
    heard = Heard([pack])
    divided, complete, failed = Divided(heard), [], []
    while (one := divided.next()) is not None:
        assert not heard.ended
        assert not divided.over
        if not harmful & {*ids(one)}:
            complete += ids(one)
        elif isinstance(event := harmed(one, "did harm"), TrialFailed):
            assert event.reason == "alone in its pack it did harm"
            failed.append(event.trial.trial_id)
        else:
            assert isinstance(event, PackCut)
            divided.again(one.pack_id, event.halves)
        divided.done(one.pack_id)
    assert divided.over
    assert heard.ended == [pack.pack_id]
    assert {*failed} == harmful
    assert sorted([*failed, *complete]) == ids(pack)


def test_a_pack_that_is_handed_out_again_as_it_is_has_not_ended():
    pack = Pack((Trial(Configuration({}, {}), 0, 0),))
    heard = Heard([pack])
    divided = Divided(heard)
    divided.next()
    divided.again(pack.pack_id, [pack])
    divided.done(pack.pack_id)
    assert (divided.over, heard.ended, divided.next()) == (False, [], pack)
    divided.done(pack.pack_id)
    assert (divided.over, heard.ended, divided.next()) == (True, [pack.pack_id], None)


# whose fault, by what Ray 2.60 says when its workers are killed and its nodes lost


DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n\tip: 127.0.0.1\n"
KILLED = (
    f"{DIED}The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
    "process was killed by the OOM killer, […] to prevent node deaths by resource contention and significant loss"
)
EVICTED = "1 worker(s) were killed due to the node running low on memory. Memory on the node was 4.16GB used / 23.54GB"
LOST = f"{DIED}The actor died because its node has died. Node Id: 8ab2, the actor's node was terminated unexpectedly"
AWAY = "The actor 3fab is unavailable: The actor is temporarily unavailable. The task may or may not have been executed"
RAISED = "\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=7, ip=127.0.0.1)\nTypeError: cannot pickle 'lock'"


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([KILLED] * 3, (3, 0)),
        ([KILLED, EVICTED, KILLED], (3, 0)),
        ([LOST, AWAY, LOST], (0, 0)),
        ([LOST, KILLED, LOST], (1, 0)),
        ([KILLED, RAISED, LOST], (1, 1)),
        ([RAISED] * 3, (0, 3)),
        ([], (0, 0)),
    ],
)
def test_a_worker_that_died_is_told_from_a_node_that_was_lost_and_from_an_error(failures, expected):
    said = "".join(f"Failure # {n} (occurred at 2026-11-24_19-16-16)\n{text}\n" for n, text in enumerate(failures, 1))
    assert tune_engine.deaths(said) == expected


# on Ray


def test_a_ray_that_starts_later_than_it_gives_itself_is_waited_for_and_one_that_never_does_is_named(monkeypatch):
    from ray._private import services

    answers, now = iter([None] * 400 + ["node"]), itertools.count()

    def get_node(*asked):
        if (answer := next(answers, None)) is None:
            raise RuntimeError("not found")
        return answer

    monkeypatch.setattr(services, "get_node", get_node)
    clock = SimpleNamespace(monotonic=lambda: next(now) / 4, sleep=lambda seconds: None)
    monkeypatch.setattr(tune_engine, "time", clock)
    with tune_engine._patiently():
        assert services.get_node("address", "id") == "node", "100 s later, where Ray waits 30"
        with pytest.raises(ConnectionError, match="must start within 180 s, it did not; run the same command again"):
            services.get_node("address", "id")
    assert services.get_node is get_node


def started(folder, *options):
    command = [sys.executable, "-m", "orchestrator.cli.app", "study", "run", "harm.yaml", "--store", "store", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def here(folder, monkeypatch, verb, *options):
    """`idenctl study VERB` in the folder, in this process."""
    monkeypatch.chdir(folder)
    return idenctl("study", verb, "harm.yaml", "--store", "store", *options)


def rows(folder):
    return Store(folder / "store").trials().sort("trial_id")


@pytest.fixture(scope="module")
def struck(tmp_path_factory):
    """A study on Ray in three packs: one kills its worker by a trial, one by its size, one takes too much memory."""
    groups = ("killer", 1, "kill"), ("glutton", 2, "memory"), ("crowd", 2, "fine")
    folder = harms.written(tmp_path_factory.mktemp("struck") / "here", *groups)
    process = started(folder)
    _, said = process.communicate(timeout=FINISH)
    return folder, process.returncode, said


def test_a_trial_that_kills_its_worker_and_one_without_room_are_rows_that_say_so_and_all_others_complete(struck):
    folder, status, said = struck
    assert status == 1, said
    assert "harm: 8 of 10 trials complete in store, 2 failed" in said
    found = rows(folder)
    assert found.height == 10
    failed = found.filter(pl.col("state") == "failed").sort("how")
    assert failed.select("how", "fold", "size").rows() == [("kill", 1, 0), ("memory", 1, 1)]
    killed, without_room = failed["reason"]
    assert killed.startswith("alone in its pack it killed its worker 3 times: Worker unexpectedly exits")
    assert without_room == "alone in its pack it took more memory than there is: MemoryError: no room"
    assert failed["synthetic"].all()
    complete = found.filter(pl.col("state") == "complete")
    expected = [int(trial_id[:8], 16) / 2**32 for trial_id in complete["trial_id"]]
    assert complete["accuracy"].to_list() == expected


def test_each_cut_is_said_with_its_reason_and_sizes(struck):
    _, _, said = struck
    cuts = [line.partition(" ")[2].partition(" ")[2] for line in said.splitlines() if "; cut in two, " in line]
    sizes = Counter((line.split(":")[0], line.rpartition("; ")[2]) for line in cuts)
    killed, without_room = "killed its worker 3 times", "took more memory than there is"
    assert sizes == {
        (killed, "cut in two, 2 + 2 trials"): 1,  # the crowd
        (killed, "cut in two, 1 + 1 trials"): 1,
        (without_room, "cut in two, 2 + 2 trials"): 1,
        (without_room, "cut in two, 1 + 1 trials"): 1,
    }
    assert "Traceback" not in said


def test_a_worker_has_three_tries_and_a_pack_without_room_one(struck):
    folder, _, _ = struck
    tries = Counter((folder / "store/ran.txt").read_text().splitlines())
    for trial_id, how in rows(folder).filter(pl.col("state") == "failed").select("trial_id", "how").iter_rows():
        assert [count for ran, count in tries.items() if trial_id in ran] == ([3] * 2 if how == "kill" else [1] * 3)


def test_what_failed_alone_is_planned_again_each_in_a_pack_of_its_own(struck, monkeypatch):
    done = here(struck[0], monkeypatch, "plan")
    assert "10 of them stored, 0 to train, 2 that failed to train again" in " ".join(done.stdout.split())
    planned = json.loads(here(struck[0], monkeypatch, "plan", "--json").stdout)
    assert [pack["trials"] for pack in planned["packs"]] == [1, 1]


@pytest.mark.slow
def test_a_driver_killed_while_packs_are_cut_and_run_again_ends_with_the_row_of_the_trial_that_does_it(tmp_path):
    folder = harms.written(tmp_path / "here", ("killer", 2, "kill"))
    first = started(folder)
    assert any("; cut in two, " in line for line in first.stderr)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = started(folder)
    _, said = again.communicate(timeout=FINISH)
    assert again.returncode == 1, said
    found = rows(folder)
    assert dict(found.select("state").group_by("state").len().iter_rows()) == {"complete": 3, "failed": 1}
    assert found.filter(pl.col("state") == "failed").select("how", "fold").row(0) == ("kill", 1)


# in one process


def test_a_trial_without_room_is_tried_again_alone_by_the_next_run_and_completes_where_there_is(tmp_path, monkeypatch):
    folder = harms.written(tmp_path / "here", ("glutton", 4, "memory"))
    done = here(folder, monkeypatch, "run", "--engine", "inline")
    assert done.returncode == 1, done.stderr
    assert "7 of 8 trials complete in store, 1 failed" in done.stderr
    (failed,) = rows(folder).filter(pl.col("state") == "failed")["trial_id"]
    assert f"trial {failed[:8]} (" in done.stderr
    (folder / "store/room").touch()
    (folder / "store/ran.txt").unlink()
    done = here(folder, monkeypatch, "run", "--engine", "inline")
    assert done.returncode == 0, done.stderr
    assert (folder / "store/ran.txt").read_text().split() == [failed]
    assert set(rows(folder)["state"]) == {"complete"}
    assert rows(folder).height == 8


class Greedy(Simulated):
    """Simulated trials of which no more than `most` fit into memory at once."""

    most = 1000

    def run(self, pack, context):
        if len(pack.trials) > self.most:
            raise MemoryError("no room")
        return super().run(pack, context)


@pytest.mark.parametrize("most", [10, 3])  # a configuration has ten folds
def test_a_search_whose_packs_are_cut_asks_prunes_and_chooses_as_if_none_were(tmp_path, monkeypatch, most):
    content = searching.text(configurations=12, more=", pruning: {first: 3}")
    content = changed(content, "benchmarks.simulated:Simulated", f"{__name__}:Greedy")
    whole = searching.run(tmp_path / "whole", content)
    monkeypatch.setattr(Greedy, "most", most)
    heard = []
    parted = searching.run(tmp_path / "parted", content, heard.append)
    assert any(isinstance(event, PackCut) for event in heard)
    assert parted.done
    records = [found.search.record() for found in (whole, parted)]
    if most < 10:  # folds apart are not judged until all have ended
        for point in (point for record in records for each in record["procedures"] for point in each["points"]):
            assert point.pop("trained_epochs") > 0
    assert records[0] == records[1]
    assert "pruned" in {point["state"] for each in records[0]["procedures"] for point in each["points"]}


@pytest.mark.parametrize("most", [2, 1])
def test_networks_whose_pack_was_cut_go_on_from_its_checkpoint_to_the_rows_of_an_undisturbed_run(
    trained_store, tmp_path, monkeypatch, most
):
    monkeypatch.setattr(idennet, "REPORT_EVERY", 0.0)
    store, told, sizes = without_results(trained_store, tmp_path, "tiny", TINY_STUDY), [], []

    def listen(event):
        told.append(event)
        if isinstance(event, PackStarted):
            sizes.append(len(event.trial_ids))
        if isinstance(event, Progress) and event.epoch == 1 and sizes[-1] > most:
            raise MemoryError

    planned = runner.plan(runner.load(tmp_path / "tiny.yaml", None, {}, store), store, Capacity("cpu", 1, 2))
    runner.run_packs(planned, store, listen, "inline")
    parts = {half.pack_id for event in told if isinstance(event, PackCut) for half in event.halves}
    assert parts
    for one, then in pairwise(told):
        if isinstance(one, PackStarted):
            assert then.epoch == (1 if one.pack_id in parts else 0), "where the pack that was cut had come to"
    for left, right in zip(conftest.rows(store), conftest.rows(Store(trained_store)), strict=True):
        assert left.height
        assert left.equals(right), "to the bit"
