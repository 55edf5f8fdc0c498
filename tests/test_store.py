import json
import stat
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import numpy as np
import polars as pl
import pytest

from orchestrator.store import Run, Store, checkpoint_metadata
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


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(NotADirectoryError, match="a store is a folder"):
        Store(tmp_path / "store").open()


def test_a_damaged_checkpoint_has_no_metadata(tmp_path):
    path = tmp_path / "pack-x.safetensors"
    for content in (b"", b"12", (2**62).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"[]"):
        path.write_bytes(content)
        assert checkpoint_metadata(path) == {}
    assert stat.S_ISREG(path.stat().st_mode)
