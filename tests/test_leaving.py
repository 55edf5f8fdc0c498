"""Trials that leave their packs at a rung: what they leave behind, and that nobody else notices."""

import json
import shutil
import weakref
from dataclasses import replace
from statistics import fmean

import polars as pl
import pytest
import torch
from conftest import Killed, idenctl, rows, without_results

from idennet_core import bank, checkpoint, packed
from idennet_core.training import Member
from orchestrator import idennet, planning, record, runner
from orchestrator.idennet import Idennet
from orchestrator.planning import Capacity
from orchestrator.progress import PackDone, Progress
from orchestrator.search.pruning import gather, replay
from orchestrator.trial import Pack, Rungs
from orchestrator.workload import Context, run_pack

STUDY = """
name: leaving
question: Who stays?
dataset: oulu-casia
folds: [0, 3, 9]
base: {variant: f, depth: 10, epochs: 4, batch_size: 16, augment: false}
design:
  grid: {lr: [0.02, 0.1, 0.5]}
trunks:
  emotion: {epochs: 1, batch_size: 16}
  identity: {epochs: 1, batch_size: 16}
report: {by: lr}
"""
CPU = Capacity("cpu", 1, 2)


@pytest.fixture
def store(trained_store, tmp_path):
    return without_results(trained_store, tmp_path, "leaving", STUDY)


def planned(store):
    return runner.plan(runner.load(store.root / "leaving.yaml", None, {}, store), store, CPU)


def run(store, pack, listen=lambda event: None):
    run_pack(Idennet(store), pack, Context(store, "cpu", 2, listen))


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert left.equals(right), "to the bit"


def of(tables, ids):
    return [table.filter(pl.col("trial_id").is_in(ids)) for table in tables]


@pytest.fixture(scope="module")
def whole(trained_store, tmp_path_factory):
    """The store after the study ran as a design, in one pack that nobody left."""
    store = without_results(trained_store, tmp_path_factory.mktemp("whole"), "leaving", STUDY)
    (pack,) = planned(store).packs
    run(store, pack)
    return store


def curves(store):
    found = store.curves().join(store.trials().select("trial_id", "configuration_id", "fold", "seed"), "trial_id")
    return gather(found.select("configuration_id", "fold", "seed", "epoch", "test_accuracy").iter_rows())


@pytest.fixture(scope="module")
def rungs(whole):
    """Rungs after epochs 1 and 3: one of the three configurations leaves at the second."""
    ranked = sorted(fmean(curve[2] for curve in trials.values()) for trials in curves(whole).values())
    assert ranked[0] < ranked[1]
    return Rungs((1, 3), (0.0, ranked[1]), ((), ()), (0, 3, 9), (0,), 0.05, 1 / 9)


@pytest.fixture(scope="module")
def pruned(trained_store, rungs, tmp_path_factory):
    """The store after the same pack ran under the rungs, and what was told on the way."""
    store = without_results(trained_store, tmp_path_factory.mktemp("pruned"), "leaving", STUDY)
    (pack,) = planned(store).packs
    heard = []
    run(store, replace(pack, rungs=rungs), heard.append)
    return store, heard


def ids_by_state(store):
    return {key[0]: group["trial_id"].to_list() for key, group in store.trials().group_by("state")}


def test_who_leaves_is_the_configuration_below_the_cutoff_on_all_its_folds(whole, pruned, rungs):
    expected = replay(rungs, curves(whole))
    assert {epoch for epoch, _ in expected.values()} == {3}
    trials = pruned[0].trials()
    gone = trials.filter(state="pruned")
    assert set(gone["configuration_id"]) == expected.keys()
    assert sorted(gone["fold"]) == [0, 3, 9]
    assert set(gone["reason"]) == {reason for _, reason in expected.values()}
    assert trials.filter(state="complete").height == 6


def test_a_pruned_trial_keeps_its_curve_and_has_no_accuracy_no_predictions_and_no_head(whole, pruned):
    store, _ = pruned
    gone = ids_by_state(store)["pruned"]
    before, after = of(rows(whole), gone), of(rows(store), gone)
    assert after[1].equals(before[1].filter(pl.col("epoch") < 3))
    assert after[1].height == 3 * 3
    assert set(after[0]["trained_epochs"]) == {3}
    for measure in ("accuracy", "sequence_accuracy", "validation_accuracy"):
        assert after[0][measure].null_count() == 3
    assert after[2].is_empty()
    assert {path.stem for path in store.heads.glob("*")} == set(ids_by_state(store)["complete"])


def test_those_who_stay_are_the_same_to_the_bit_as_if_nobody_had_left(whole, pruned):
    store, _ = pruned
    kept = ids_by_state(store)["complete"]
    assert_same(of(rows(store), kept), of(rows(whole), kept))
    for path in store.heads.glob("*"):
        (own, _), (other, _) = checkpoint.load(path), checkpoint.load(whole.heads / path.name)
        assert all(torch.equal(value, other[name]) for name, value in own.items())


def test_a_configuration_is_decided_the_same_to_the_bit_in_any_pack(store, pruned, rungs):
    configurations = {}
    for trial in planned(store).trials:
        configurations.setdefault(trial.configuration.configuration_id, []).append(trial)
    first, *others = configurations.values()
    run(store, Pack(tuple(first), rungs=rungs))
    run(store, Pack(tuple(trial for own in reversed(others) for trial in reversed(own)), rungs=rungs))
    assert_same(rows(store), rows(pruned[0]))


def test_a_pack_without_all_folds_of_a_configuration_drops_none_of_them(store, pruned, rungs, whole):
    gone = ids_by_state(pruned[0])["pruned"]
    part = [trial for trial in planned(store).trials if trial.trial_id in gone][:2]
    run(store, Pack(tuple(part), rungs=rungs))
    assert_same(rows(store), of(rows(whole), [trial.trial_id for trial in part]))


def test_who_leaves_trains_no_further_and_gives_the_memory_of_its_head_back(store, pruned, rungs, monkeypatch):
    epochs, heads = [], {}
    train_epoch = Member.train_epoch

    def counted(self, features, centre, epoch, stop):
        epochs.append((id(self), epoch))
        heads[id(self)] = weakref.ref(self.head), weakref.ref(self.momenta[0])
        return train_epoch(self, features, centre, epoch, stop)

    alive = {}

    def look(event):
        if isinstance(event, Progress):
            alive[event.epoch, bool(event.pruned)] = sum(
                any(part() is not None for part in parts) for parts in heads.values()
            )

    monkeypatch.setattr(Member, "train_epoch", counted)
    (pack,) = planned(store).packs
    run(store, replace(pack, rungs=rungs), look)
    assert [sum(epoch == at for _, epoch in epochs) for at in range(4)] == [9, 9, 9, 6]
    assert alive[2, True] == 6, "as soon as the rung is reached"


def test_without_members_no_bank_is_filled_any_more(store, monkeypatch):
    everybody = Rungs((2,), (1.1,), ((),), (0, 3, 9), (0,), 0.05, 1 / 9)
    filled = []
    fill = bank.fill
    monkeypatch.setattr(packed.bank, "fill", lambda *given: filled.append(len(given[0])) or fill(*given))
    (pack,) = planned(store).packs
    run(store, replace(pack, rungs=everybody))
    assert set(store.trials()["state"]) == {"pruned"}
    assert len(filled) == 1 + 2  # the centre crops, two epochs


# stopped and resumed


def kill_when(happened):
    def listen(event):
        if isinstance(event, Progress) and happened(event):
            raise Killed

    return listen


def begins(event, epoch):
    return event.epoch == epoch and event.stage == "bank"


@pytest.fixture
def every_report(monkeypatch):
    monkeypatch.setattr(idennet, "REPORT_EVERY", 0.0)


def resumed(store, rungs):
    """The packs that a search goes on with under these rungs."""
    trials = planned(store).trials
    checkpointed = {name: epoch for name, (epoch, _) in store.checkpointed(rungs).items()}
    packs = planning.packs(trials, store.states(), checkpointed, Idennet(store).pack_key, 1)
    return [replace(pack, rungs=rungs) for pack in packs]


@pytest.mark.usefixtures("every_report")
@pytest.mark.parametrize("moment", ["before the rung", "after the rung"])
def test_stopped_at_a_rung_and_resumed_equals_uninterrupted(store, pruned, rungs, moment):
    (pack,) = resumed(store, rungs)
    after = moment == "after the rung"
    with pytest.raises(Killed):
        run(store, pack, kill_when(lambda event: event.pruned if after else begins(event, 2)))
    assert store.states() == {}
    (rest,) = resumed(store, rungs)
    assert (rest.first_epoch, len(rest.trials)) == (3 if after else 2, 9)
    run(store, rest)
    assert_same(rows(store), rows(pruned[0]))
    assert list(store.checkpoints.glob("*")) == [], "nothing is left to resume"


def test_what_left_its_pack_is_checkpointed_before_that_for_those_without_its_cutoffs(store, pruned, rungs, whole):
    (pack,) = resumed(store, rungs)
    with pytest.raises(Killed):
        run(store, pack, kill_when(lambda event: event.pruned))
    gone, kept = (set(ids_by_state(pruned[0])[state]) for state in ("pruned", "complete"))
    others = replace(rungs, cutoffs=(0.0, 0.0))
    assert store.checkpointed(rungs).keys() == gone | kept
    for found in (store.checkpointed(), store.checkpointed(others)):
        assert {name: epoch for name, (epoch, _) in found.items()} == dict.fromkeys(kept, 3) | dict.fromkeys(gone, 2)
    packs = planned(store).packs
    assert {(pack.first_epoch, len(pack.trials)) for pack in packs} == {(2, 3), (3, 6)}
    for pack in packs:
        run(store, pack)
    assert_same(rows(store), rows(whole))


@pytest.mark.usefixtures("every_report")
def test_a_designs_checkpoint_past_a_rung_goes_on_in_a_search_as_if_it_had_been_asked_there(store, pruned, rungs):
    (pack,) = planned(store).packs
    with pytest.raises(Killed):
        run(store, pack, kill_when(lambda event: begins(event, 3)))
    assert {epoch for epoch, _ in store.checkpointed().values()} == {3}
    (rest,) = resumed(store, rungs)
    assert rest.first_epoch == 3
    run(store, rest)
    assert_same(rows(store), rows(pruned[0]))
    assert len(list(store.checkpoints.glob("*"))) == 2, "the design still has a use for those that left"


@pytest.mark.usefixtures("every_report")
def test_a_trial_that_failed_before_a_stop_has_failed_the_same_after_it(store, trained_store, tmp_path_factory):
    found = []
    for one, stops in (
        (store, True),
        (without_results(trained_store, tmp_path_factory.mktemp("failed"), "leaving", STUDY), False),
    ):
        file = one.root / "leaving.yaml"
        file.write_text(STUDY.replace("[0.02, 0.1, 0.5]", "[0.02, 1.0e+30]"))
        if stops:
            with pytest.raises(Killed):
                run(one, *planned(one).packs, kill_when(lambda event: begins(event, 2)))
        (pack,) = planned(one).packs
        assert (pack.first_epoch, len(pack.trials)) == (2 if stops else 0, 6)
        run(one, pack)
        found.append(rows(one))
    assert_same(*found)
    assert sorted(found[0][0]["state"]) == ["complete"] * 3 + ["failed"] * 3


# what the store and the rest make of it


def test_a_pruned_row_answers_no_design_and_is_superseded_by_the_whole_trial(store, pruned, whole):
    shutil.copytree(pruned[0].root, store.root, dirs_exist_ok=True)
    ids = ids_by_state(pruned[0])
    plan = planned(store)
    assert plan.states.keys() == set(ids["complete"])
    assert {trial.trial_id for pack in plan.packs for trial in pack.trials} == set(ids["pruned"])
    for pack in plan.packs:
        run(store, pack)
    assert_same(rows(store), rows(whole))
    assert planned(store).packs == ()


def test_a_failed_trial_is_not_run_for_ever_because_a_search_had_pruned_it(store, pruned):
    shutil.copytree(pruned[0].root, store.root, dirs_exist_ok=True)
    gone = ids_by_state(pruned[0])["pruned"]
    table = pl.read_parquet(next((store.root / "trials").glob("*.parquet")))
    later = table.filter(pl.col("trial_id") == gone[0]).with_columns(
        state=pl.lit("failed"), trained_epochs=pl.lit(3, pl.Int64), pack_id=pl.lit("later")
    )
    for name, rows_of in (("trials", later), ("curves", store.curves().clear()), ("predictions", None)):
        file = store.root / name / "later.parquet"
        (store.predictions().clear() if rows_of is None else rows_of).write_parquet(file)
    assert store.states()[gone[0]] == "failed"
    assert gone[0] in planned(store).states


def test_what_is_told_of_a_pack_says_who_left_and_how_much_less_there_is_to_do(pruned):
    store, heard = pruned
    gone = set(ids_by_state(store)["pruned"])
    progress = [event for event in heard if isinstance(event, Progress)]
    assert all(not event.pruned for event in progress if event.epoch < 2)
    assert progress[-1].pruned.keys() == gone
    steps = 3 * (216 // 16)  # an epoch of a configuration: 240 pictures, a tenth of them in each fold
    assert progress[0].total_steps == 3 * 4 * steps
    assert progress[-1].steps == progress[-1].total_steps == progress[0].total_steps - steps
    done = heard[-1]
    assert isinstance(done, PackDone)
    assert done.pruned.keys() == gone
    assert done.failed == {}
    assert not done.accuracies.keys() & gone


def test_a_failed_trial_does_not_count_as_pruned(store):
    file = store.root / "leaving.yaml"
    file.write_text(STUDY.replace("[0.02, 0.1, 0.5]", "[0.02, 1.0e+30]"))
    (pack,) = planned(store).packs
    none = Rungs((1, 2), (None, None), ((), ()), (0, 3, 9), (0,), 0.05, 1 / 9)
    run(store, replace(pack, rungs=none))
    states = store.trials().select("lr", "state").unique().sort("lr")
    assert states["state"].to_list() == ["complete", "failed"]


def test_a_report_counts_pruned_trials_and_keeps_them_out_of_every_number(store, pruned, whole):
    shutil.copytree(pruned[0].root, store.root, dirs_exist_ok=True)
    record.freeze(planned(store), store, ["test"])
    shown = idenctl("report", "leaving", "--format", "json", "--store", store.root)
    assert shown.returncode == 0, shown.stderr
    trials = pruned[0].trials()
    found = {row["configuration_id"]: row for row in json.loads(shown.stdout)["rows"]}
    assert len(found) == 3
    for configuration, row in found.items():
        own = trials.filter(configuration_id=configuration)
        left = own.filter(state="pruned").height
        assert (row["complete"], row["pruned"]) == (3 - left, left)
        mean = row["accuracy"]["mean"]
        assert mean is None if left else mean == pytest.approx(100 * own["accuracy"].mean())
    assert "3 of 3 trials pruned (mean " in shown.stdout
