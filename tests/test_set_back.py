"""Packs whose checkpoints are damaged: they go on from what there is, by themselves, to the same rows."""

import pytest
from conftest import TINY_STUDY, Killed, changed, rows, without_results
from damage import DAMAGES, spoil

from idennet_core import checkpoint
from orchestrator import idennet, runner
from orchestrator.idennet import Idennet
from orchestrator.planning import Capacity, halves
from orchestrator.progress import PackDone, PackSetBack, PackStarted, Progress
from orchestrator.workload import Context, run_pack

CPU = Capacity("cpu", 1, 2)
FOUR = changed(TINY_STUDY, "  cells: [{variant: original}, {variant: f}]\n", "")
FOUR = changed(FOUR, "epochs: 2, batch_size: 16, lr", "epochs: 4, batch_size: 16, lr")


@pytest.fixture
def store(trained_store, tmp_path, monkeypatch):
    monkeypatch.setattr(idennet, "REPORT_EVERY", 0.0)
    return without_results(trained_store, tmp_path, "tiny", FOUR)


@pytest.fixture(scope="module")
def whole(trained_store, tmp_path_factory):
    """The rows of the pack without a stop."""
    store = without_results(trained_store, tmp_path_factory.mktemp("whole"), "tiny", FOUR)
    run(store, *packs(store))
    return rows(store)


def packs(store):
    return runner.plan(runner.load(store.root / "tiny.yaml", None, {}, store), store, CPU).packs


def run(store, pack, dies_in=None):
    """Run a pack, to the beginning of an epoch or to its end; gives what was told."""
    heard = []

    def listen(event):
        heard.append(event)
        if isinstance(event, Progress) and event.epoch == dies_in:
            raise Killed

    try:
        run_pack(Idennet(store), pack, Context(store, "cpu", 2, listen))
    except Killed:
        assert dies_in is not None
    return heard


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert left.height
        assert left.equals(right), "to the bit"


def begun(heard):
    """The epochs that packs began with."""
    last, found = None, []
    for event in heard:
        if isinstance(event, Progress) and isinstance(last, PackStarted):
            found.append(event.epoch)
        last = event
    return found


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_pack_goes_on_from_the_one_before_it(store, whole, damage, both, caplog):
    (pack,) = packs(store)
    run(store, pack, dies_in=3)
    last, before = checkpoint.kept(store.checkpoints, f"pack-{pack.pack_id}")
    spoiled = [last, before] if both else [last]
    for path in spoiled:
        spoil(path, damage, "packs")
    (again,) = packs(store)
    heard = run(store, again)
    assert begun(heard)[-1] == (0 if both else 2)
    assert_same(rows(store), whole)
    said = caplog.messages + [event.reason for event in heard if isinstance(event, PackSetBack)]
    assert len(said) == (0 if damage == "missing" else len(spoiled))
    for line in said:
        assert sum(f"{path} is damaged" in line for path in spoiled) == 1
        assert "\n" not in line
    assert list(store.checkpoints.iterdir()) == [], "nothing is left to resume"


def test_a_pack_that_is_tried_again_as_it_was_planned_goes_on_from_what_its_worker_had_done(store, whole):
    (pack,) = packs(store)
    assert pack.first_epoch == 0
    run(store, pack, dies_in=2)
    assert begun(run(store, pack, dies_in=3)) == [2]
    assert begun(run(store, pack)) == [3]
    assert_same(rows(store), whole)


def test_of_two_packs_that_became_one_only_those_of_the_damaged_checkpoint_are_set_back(store, whole):
    (pack,) = packs(store)
    first, second = halves(pack)
    for half in (first, second):
        run(store, half, dies_in=3)
    spoil(checkpoint.kept(store.checkpoints, f"pack-{second.pack_id}")[0], "flipped")
    (together,) = packs(store)
    assert (together.first_epoch, len(together.trials)) == (3, 4)
    heard = run(store, together)
    assert sum(isinstance(event, PackSetBack) for event in heard) == 1
    assert sorted(begun(heard)) == [2, 3]
    done = {event.pack_id for event in heard if isinstance(event, PackDone)}
    assert done == {first.pack_id, second.pack_id}
    assert_same(rows(store), whole)


def test_checkpoints_that_another_process_has_gone_on_with_are_gone_on_from_where_they_are(store, whole, monkeypatch):
    (pack,) = packs(store)
    run(store, pack, dies_in=2)
    members = Idennet.members

    def late(self, *given):
        monkeypatch.undo()
        run(store, pack, dies_in=3)
        return members(self, *given)

    monkeypatch.setattr(Idennet, "members", late)
    heard = run(store, pack)
    assert [event.reason for event in heard if isinstance(event, PackSetBack)] == [
        "another process has gone on with its trials"
    ]
    assert_same(rows(store), whole)
