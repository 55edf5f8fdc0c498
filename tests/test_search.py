"""Searches on simulated accuracies run end to end: interrupted, gone on with, on more devices than one."""

import errno
import io
import os
import signal

import pytest
from conftest import Killed
from searching import SAMPLERS, asked, plan, rows, run, started, text

from idennet_core.ids import content_id
from idennet_core.streams import generator
from orchestrator import frozen, record, runner
from orchestrator.cli.screen import screen
from orchestrator.planning import Capacity
from orchestrator.progress import PackDone, PackStarted
from orchestrator.store import Store, write_text


def run_killed(root, content, moments):
    """Killed when so many packs have started or ended, each time anew; then run to the end."""
    for moment in moments:
        left = [int(moment)]

        def listen(event, left=left):
            left[0] -= isinstance(event, PackStarted | PackDone)
            if left[0] < 0:
                raise Killed

        with pytest.raises(Killed):
            run(root, content, listen)
    return run(root, content)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_killed_at_any_moment_and_run_again_asks_and_finds_what_the_uninterrupted_search_does(sampler, tmp_path):
    content = text(sampler)
    whole = run(tmp_path / "whole", content)
    moments = generator("search", "moments of death", sampler).integers(0, 3, 4)  # at most a pack ends in each
    again = run_killed(tmp_path / "again", content, moments)
    assert whole.done
    assert asked(tmp_path / "again") == asked(tmp_path / "whole")
    assert rows(tmp_path / "again").equals(rows(tmp_path / "whole")), "to the bit"
    assert again.search.record() == whole.search.record()
    points = whole.search.record()["procedures"][0]["points"]
    settings = [content_id(point["settings"]) for point in points if point["repeats"] is None]
    assert len(settings) == len(set(settings)) == 16, "nothing is trained twice"


def test_a_driver_killed_with_its_packs_running_comes_to_the_same_answer(tmp_path):
    content = text(more=", pruning: {first: 2}", takes=0.005)
    whole = run(tmp_path / "whole", content)
    again = tmp_path / "again"
    for batches in (1, 2, 3):
        process = started(again, content, batches)
        assert len(asked(again)) == batches
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert run(again, content).search.record() == whole.search.record()
    assert rows(again).equals(rows(tmp_path / "whole"))


def test_more_configurations_go_on_where_the_search_ended(tmp_path):
    run(tmp_path, text(configurations=8))
    before, trained = asked(tmp_path), rows(tmp_path)
    after = run(tmp_path, text(configurations=12))
    assert asked(tmp_path)[:2] == before
    run(tmp_path / "at once", text(configurations=12))
    assert asked(tmp_path) == asked(tmp_path / "at once")
    assert set(trained["trial_id"]) <= set(rows(tmp_path)["trial_id"])
    assert after.done


def test_the_asynchronous_order_survives_being_killed_again_and_again(tmp_path):
    content = text(more=", order: asynchronous")
    done = run_killed(tmp_path, content, [1, 3, 2])
    assert done.done
    assert len(done.search.procedures[0].configurations) == 16


def test_the_asynchronous_order_feeds_every_device_and_the_synchronous_one_spreads_a_batch(tmp_path):
    sizes = {}
    for order in ("asynchronous", "synchronous"):
        planned = plan(tmp_path / order, text(more=f", order: {order}"), Capacity("gpu", 4, 1))
        packs = []
        while (pack := planned.search.next()) is not None:
            packs.append(pack)
        sizes[order] = [len(pack.trials) for pack in packs]
    assert sizes == {"asynchronous": [40] * 4, "synchronous": [10] * 4}


def test_a_search_cuts_its_packs_to_the_memory_and_asks_the_same(tmp_path):
    whole = plan(tmp_path, text())
    small = plan(tmp_path, text(), Capacity("cpu", 1, 1, memory=1))
    assert len(whole.packs) == 1
    assert [len(pack.trials) for pack in small.packs] == [10] * 4
    assert {trial.trial_id for trial in small.trials} == {trial.trial_id for trial in whole.trials}


def test_what_a_search_has_stored_is_neither_waited_for_nor_unaccounted(tmp_path):
    store = Store(tmp_path).open()
    record.freeze(plan(tmp_path, text(more=", pruning: {first: 2}")), store, ["idenctl"])
    after = run(tmp_path, text(more=", pruning: {first: 2}"))
    pruned = {trial_id for trial_id, state in after.states.items() if state == "pruned"}
    assert pruned
    assert runner.accuracies(after, store).keys() == after.states.keys() - pruned
    first, *_ = frozen.took(store, "top")
    assert first.trials == 40
    assert first.actual is not None


@pytest.mark.parametrize("content", ["", "{}", "3", '{"points": [3], "told": [], "rungs": null}'])
def test_a_damaged_batch_is_named_with_what_mends_it_and_asked_anew_it_is_the_same(tmp_path, content):
    run(tmp_path, text("random", configurations=4))
    (batch,) = tmp_path.glob("studies/*/asked/*/*/*.json")
    before = batch.read_text()
    batch.write_text(content)
    with pytest.raises(ValueError, match=f"{batch} must hold the points that were asked, it is damaged; "):
        plan(tmp_path, text("random", configurations=4))
    batch.unlink()
    run(tmp_path, text("random", configurations=4))
    assert batch.read_text() == before


def test_a_study_that_was_edited_keeps_its_frozen_file_until_the_new_one_is_there(tmp_path, monkeypatch):
    store = Store(tmp_path).open()
    folder = record.freeze(plan(tmp_path, text()), store, ["idenctl"])
    before = (folder / "study.yaml").read_text()

    def on_a_full_disk(path, content):
        if path.name == "study.yaml":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_text(path, content)

    edited = plan(tmp_path, text(batch=8))
    monkeypatch.setattr(record, "write_text", on_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        record.freeze(edited, store, ["idenctl"])
    monkeypatch.undo()
    assert (folder / "study.yaml").read_text() == before
    record.freeze(edited, store, ["idenctl"])
    assert [path.read_text() for path in folder.glob("study-*.yaml")] == [before]


@pytest.mark.parametrize("more", ["", ", pruning: {first: 2}", ", select: test"])
def test_a_search_that_goes_on_shows_no_stored_trial_as_waiting(more, tmp_path):
    run(tmp_path, text(configurations=8, more=more))
    planned, said = plan(tmp_path, text(more=more)), io.StringIO()
    stored = runner.accuracies(planned, planned.search.store)
    assert stored
    with screen(runner.watched(planned, planned.search.store, "inline"), stream=said) as listen:
        runner.run_packs(planned, planned.search.store, listen, "inline")
    first, *_, last = said.getvalue().splitlines()
    assert first == f"top (synthetic): {len(stored)} trials, {len(stored)} stored, more as it asks"
    assert last.startswith("top (synthetic) finished: trials ")
    assert "waiting" not in last


def test_status_knows_what_the_packs_of_a_search_took(tmp_path):
    planned = plan(tmp_path, text(configurations=4))
    record.freeze(planned, planned.search.store, ["idenctl"])
    run(tmp_path, text(configurations=4))
    times = frozen.took(planned.search.store, "top")
    assert len(times) == len(planned.packs) > 0
    assert all(time.actual is not None for time in times)
