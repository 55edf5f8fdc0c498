import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from idennet_core import sealing
from orchestrator import index
from orchestrator.rows import Run
from orchestrator.store import Store
from orchestrator.trial import Configuration, Predictions, Trial, TrialResult

SETTINGS = {"variant": "if", "alpha": 0.1, "epochs": 2, "augment": True}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def make_result(fold=0, state="complete", alpha=0.1, frames=4):
    settings = {"dataset": "oulu-casia", "variant": "if", "alpha": alpha, "epochs": 2, "augment": False}
    inputs = {"data": "d" * 32, "trunk_emotion": "e" * 32, "recipe": "1"}
    found = state == "complete"
    names = [f"P{i:03}" for i in range(frames)]
    probabilities = np.full((frames, 3), 1 / 3, np.float32)
    return TrialResult(
        trial=Trial(Configuration(settings, inputs), fold, 0),
        state=state,
        reason=None if found else "the loss was nan in epoch 0, step 1",
        synthetic=True,
        epochs=2,
        accuracy=0.5 if found else None,
        sequence_accuracy=0.25 if found else None,
        n_train=90,
        n_test=10,
        seconds=1.5,
        curve=[
            {"epoch": e, "lr": 0.1, "loss": 2.0 - e, "emotion_loss": 1.5, "identity_loss": 0.5, "train_accuracy": 0.3}
            | {"test_accuracy": 0.4}
            for e in range(2)
        ],
        predictions=Predictions(names, names, names, ["anger"] * frames, probabilities, "abc") if found else None,
    )


def run_at(minute=0):
    return Run("cpu", "here", NOON, NOON.replace(minute=minute), "0.1.0")


def test_what_is_written_is_read_back(tmp_path):
    store = Store(tmp_path).open()
    store.write_pack([make_result(fold) for fold in range(3)], SETTINGS, run_at())
    trials = store.trials()
    assert sorted(trials["fold"]) == [0, 1, 2]
    assert trials["trial_id"].n_unique() == 3
    assert set(trials["accuracy"]) == {0.5}
    assert set(trials["trunk_ids"].explode()) == {"e" * 32}
    assert store.curves().shape[0] == 6
    assert store.predictions().shape[0] == 12
    assert store.predictions()["probabilities"].list.sum().to_list() == pytest.approx([1.0] * 12)


def test_every_column_of_the_format_is_there_and_typed(tmp_path):
    store = Store(tmp_path).open()
    store.write_pack([make_result()], SETTINGS, run_at())
    columns = store.trials().schema
    promised = "trial_id configuration_id data_id dataset synthetic variant alpha fold seed state reason epochs"
    promised += " accuracy sequence_accuracy validation_accuracy n_train n_test seconds pack_id device host"
    promised += " started_at finished_at version"
    assert set(promised.split()) <= set(columns)
    assert columns["validation_accuracy"] == pl.Float64
    assert columns["started_at"] == pl.Datetime("us", "UTC")


def test_duckdb_reads_the_tables_as_they_lie(tmp_path):
    store = Store(tmp_path).open()
    store.write_pack([make_result(0)], SETTINGS, run_at())
    store.write_pack([make_result(1, alpha=0.7)], SETTINGS, run_at())
    query = f"""select t.alpha, count(*) from '{tmp_path}/trials/*.parquet' t
                join '{tmp_path}/predictions/*.parquet' p using (trial_id, pack_id) group by 1 order by 1"""
    assert duckdb.sql(query).fetchall() == [(0.1, 4), (0.7, 4)]


def test_a_trial_that_ran_twice_is_one_row_and_complete_comes_before_failed(tmp_path):
    store = Store(tmp_path).open()
    store.write_pack([make_result(state="failed")], SETTINGS, run_at(1))
    store.write_pack([make_result(frames=5)], SETTINGS, run_at(3))
    store.write_pack([make_result(frames=6)], SETTINGS, run_at(2))
    assert store.trials()["state"].to_list() == ["complete"]
    assert store.trials()["finished_at"].dt.minute().to_list() == [2]
    assert store.predictions().shape[0] == 6, "only the predictions of the run that counts"
    assert store.curves().shape[0] == 2
    assert len(list((tmp_path / "trials").glob("*.parquet"))) == 3, "nothing is overwritten"


def test_of_a_trial_that_was_pruned_twice_the_longer_run_counts_and_a_failed_one_before_both(tmp_path):
    store = Store(tmp_path).open()
    for minute, epochs in ((1, 2), (2, 6), (3, 4)):
        store.write_pack([replace(make_result(state="pruned"), epochs=epochs)], SETTINGS, run_at(minute))
    assert store.trials().select("state", "trained_epochs").rows() == [("pruned", 6)]
    store.write_pack([make_result(state="failed")], SETTINGS, run_at(4))
    assert store.states() == {make_result().trial.trial_id: "failed"}
    store.write_pack([make_result()], SETTINGS, run_at(5))
    assert store.states() == {make_result().trial.trial_id: "complete"}


@pytest.mark.parametrize("table", ["trials", "curves", "predictions"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + b"x"])
def test_a_damaged_file_is_named_skipped_and_left_as_it_is(tmp_path, table, damage, caplog):
    store = Store(tmp_path).open()
    store.write_pack([make_result(0)], SETTINGS, run_at())
    store.write_pack([make_result(1)], SETTINGS, run_at())
    victim = sorted((tmp_path / table).glob("*.parquet"))[0]
    victim.write_bytes(damage(victim.read_bytes()))
    bytes_before = victim.read_bytes()
    assert store.trials().shape[0] == 1
    assert str(victim) in caplog.text
    assert victim.read_bytes() == bytes_before


def test_a_flipped_byte_inside_a_file_is_noticed(tmp_path):
    store = Store(tmp_path).open()
    store.write_pack([make_result()], SETTINGS, run_at())
    (path,) = (tmp_path / "trials").glob("*.parquet")
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF  # in the first data page
    path.write_bytes(content)
    assert store.trials().shape[0] == 0


def test_a_pack_killed_before_its_last_file_has_stored_nothing(tmp_path):
    store = Store(tmp_path).open()
    store.write_pack([make_result()], SETTINGS, run_at())
    (path,) = (tmp_path / "trials").glob("*.parquet")
    path.rename(path.with_name(f".{path.stem}.tmp"))  # as a kill leaves it: written, not yet in place
    assert store.states() == {}
    assert store.curves().is_empty()
    assert store.predictions().is_empty()


def test_an_empty_store_reads_as_empty_tables(tmp_path):
    store = Store(tmp_path / "none")
    assert store.trials().is_empty()
    assert store.states() == {}
    assert store.checkpointed() == {}
    assert not (tmp_path / "none").exists(), "reading makes nothing"


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    (tmp_path / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="has 99; install a newer idenctl"):
        Store(tmp_path).check()


@pytest.mark.parametrize("content", ["", "3", "{}", '{"format": "1"}', '{"format": null}', '{"format": [1]}'])
def test_a_damaged_marker_is_named_in_one_line(tmp_path, content):
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(ValueError, match="must say the store's format, it is damaged; restore a copy of it"):
        Store(tmp_path).check()


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(NotADirectoryError, match="a store is a folder"):
        Store(tmp_path / "store").open()


def test_a_checkpoint_with_a_damaged_header_is_named_once_and_left_out(tmp_path, caplog):
    store = Store(tmp_path)
    path = store.checkpoints / "pack-x.1.safetensors"
    path.parent.mkdir()
    for content in (b"", b"12", (2**62).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"[]"):
        path.write_bytes(content)
        assert store.checkpointed() == {}
    assert caplog.text.count(str(path)) == 1


@pytest.fixture
def large_store(tmp_path, monkeypatch):
    """A store with an index: four packs, of which one ran again and one stores a trial that failed elsewhere."""
    monkeypatch.setattr(index, "LEAST", 3)
    store = Store(tmp_path).open()
    for minute, fold, state in [(1, 0, "complete"), (2, 1, "failed"), (3, 0, "complete"), (4, 1, "complete")]:
        store.write_pack([make_result(fold, state)], SETTINGS, run_at(minute))
    assert store.trials().shape[0] == 2
    assert list(tmp_path.glob("index/*")) == [tmp_path / "index/trials.parquet"]
    return store


def tables(store):
    trials = store.trials()
    return trials.sort("trial_id"), store.curves().sort("trial_id", "epoch"), store.predictions(trials)


def test_a_large_store_reads_the_same_by_its_index_and_without(large_store):
    by_index = tables(large_store)
    states = large_store.states()
    for spoil in (lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()):
        assert [table.height for table in by_index] == [2, 4, 8]
        spoil(large_store.root / "index/trials.parquet")
        without = tables(large_store)
        assert all(one.equals(other) for one, other in zip(by_index, without, strict=True))
        assert large_store.states() == states


def test_what_is_stored_after_the_index_is_read_beside_it(large_store):
    large_store.write_pack([make_result(5, alpha=0.7)], SETTINGS, run_at(9))
    assert sorted(large_store.trials()["fold"]) == [0, 1, 5]
    assert set(large_store.trials(["fold", "alpha"]).rows()) == {(0, 0.1), (1, 0.1), (5, 0.7)}
    assert large_store.curves().shape[0] == 6


def test_the_settings_of_an_indexed_store_can_be_asked_for_alone(large_store):
    assert set(large_store.trials(["fold", "alpha"]).rows()) == {(0, 0.1), (1, 0.1)}


def test_an_index_that_an_older_one_replaces_while_it_is_read_loses_nothing(large_store, monkeypatch):
    path, look = large_store.root / "index/trials.parquet", index.look
    older = path.read_bytes()
    for fold in range(2, 5):
        large_store.write_pack([make_result(fold)], SETTINGS, run_at(fold))
    assert large_store.trials().shape[0] == 5
    assert path.read_bytes() != older

    def replaced(*arguments):
        present = look(*arguments)
        path.write_bytes(older)
        return present

    monkeypatch.setattr(index, "look", replaced)
    assert large_store.trials().shape[0] == 5


@pytest.mark.parametrize("table", ["trials", "curves", "predictions"])
def test_a_file_that_is_damaged_after_it_was_indexed_is_named_and_left_out(large_store, table, caplog):
    counted = large_store.trials().filter(pl.col("fold") == 1)["pack_id"].item()
    victim = large_store.root / table / f"{counted}.parquet"
    victim.write_bytes(victim.read_bytes()[:50])
    assert large_store.trials().filter(pl.col("fold") == 1)["state"].to_list() == ["failed"]
    assert set(large_store.curves()["pack_id"]) == set(large_store.trials()["pack_id"])
    assert str(victim) in caplog.text


def test_what_killed_writers_of_the_index_left_goes_with_the_next_one_and_that_of_a_living_one_stays(large_store):
    folder = large_store.root / "index"
    killed, living = folder / ".trials.parquet.1.tmp", folder / ".trials.parquet.2.tmp"
    for path in (killed, living):
        path.write_bytes(b"half")
    os.utime(killed, (0, 0))
    (folder / "trials.parquet").unlink()
    assert large_store.trials().shape[0] == 2
    assert sorted(folder.iterdir()) == [living, folder / "trials.parquet"]


def test_a_store_that_cannot_be_written_is_read_without_an_index(large_store):
    (large_store.root / "index/trials.parquet").unlink()
    (large_store.root / "index").rmdir()
    (large_store.root / "index").write_text("in the way")  # as a folder without the right to write: root has it always
    assert large_store.trials().shape[0] == 2


def checkpoint(store, name, trial_ids, epoch=1):
    path = store.checkpoints / f"pack-{name}.{epoch}.safetensors"
    path.parent.mkdir(exist_ok=True)
    words = {"trials": json.dumps(trial_ids), "epoch": str(epoch), sealing.SEAL: sealing.EMPTY}
    save_file({"x": np.zeros(1)}, path, words)
    sealing.seal(path)
    return path


def test_a_checkpoint_goes_when_the_last_of_its_trials_is_stored_by_whichever_pack(tmp_path):
    store = Store(tmp_path).open()
    results = [make_result(fold) for fold in range(3)]
    ids = [result.trial.trial_id for result in results]
    two, all_three, other = checkpoint(store, "a", ids[:2]), checkpoint(store, "b", ids), checkpoint(store, "c", ["x"])
    store.write_pack(results[:1], SETTINGS, run_at())
    assert two.exists()
    store.write_pack(results[1:2], SETTINGS, run_at())
    assert not two.exists()
    assert all_three.exists()
    store.write_pack(results[2:], SETTINGS, run_at())
    assert not all_three.exists()
    assert other.exists()


def test_both_checkpoints_of_a_pack_go_although_one_is_damaged(tmp_path):
    store, results = Store(tmp_path).open(), [make_result(fold) for fold in range(2)]
    ids = [result.trial.trial_id for result in results]
    last, before = checkpoint(store, "a", ids, 5), checkpoint(store, "a", ids, 4)
    other = checkpoint(store, "b", ["x"])
    last.write_bytes(last.read_bytes()[:50])
    assert store.checkpointed() == {**dict.fromkeys(ids, (4, before)), "x": (1, other)}
    store.write_pack(results, SETTINGS, run_at())
    assert list(store.checkpoints.iterdir()) == [other]


def test_a_trunk_whose_facts_are_damaged_is_named_and_left_out_of_what_is_listed(trained_store, tmp_path, caplog):
    store = Store(shutil.copytree(trained_store, tmp_path / "store"))
    first, second = store.trunk_facts()
    facts = store.trunks / first["trunk_id"] / "trunk.json"
    for damaged in (facts.read_text().replace('"seconds": ', '"seconds": 1'), "{", "[]", "{}", ""):
        facts.write_text(damaged)
        assert store.trunk_facts() == [second]
    assert caplog.text.count(first["trunk_id"]) == 1
