"""Damaged results: the rows of a store are those that were written, or they are missing and their file is named."""

import shutil
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from bounds import damaged, each_count, each_seed
from polars.testing import assert_frame_equal

from orchestrator import rows, sealed, store
from orchestrator.store import Store
from orchestrator.trial import Configuration, Predictions, Trial, TrialResult

SETTINGS = {"variant": "if", "depth": 40, "alpha": 0.1}
PACKS = 3


def result(level, fold):
    trial = Trial(Configuration(SETTINGS | {"alpha": level}, {"data": "d" * 32}), fold, 0)
    rng = np.random.default_rng([int(level * 10), fold])
    shares = rng.dirichlet(np.ones(3), 12).astype(np.float32)
    frames = [f"{i:03}" for i in range(12)]
    people = [f"P{i % 4}" for i in range(12)]
    said = Predictions(people, people, frames, ["anger"] * 12, shares, ("anger", "fear", "joy"))
    curve = [{"epoch": e, "lr": 0.1, "loss": float(rng.random()), "test_accuracy": float(rng.random())} for e in "123"]
    curve = [point | {"epoch": int(point["epoch"])} for point in curve]
    accuracy = float(rng.random())
    return TrialResult(trial, "complete", True, 90, 12, 1.5, None, 3, accuracy, accuracy, curve, said)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of three packs."""
    made = Store(tmp_path_factory.mktemp("fuzz") / "store").open()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for pack in range(PACKS):
        made.write_pack([result(pack, fold) for fold in range(4)], SETTINGS, rows.Run("cpu", "here", now, now, "1"))
    return made


def tables(place):
    return {
        "trials": place.every_trial().sort("trial_id"),
        "curves": place.curves().sort("trial_id", "epoch"),
        "predictions": place.predictions().sort("trial_id", "frame"),
    }


@each_count
def test_a_damaged_table_gives_the_rows_that_were_written_or_none(sound, tmp_path, cases, caplog):
    place = Store(shutil.copytree(sound.root, tmp_path / "store"))
    files = sorted(place.root.glob("*/*.parquet"))
    assert len(files) == 3 * PACKS
    whole = tables(sound)

    def check(rng):
        victim = files[rng.integers(len(files))]
        before = victim.read_bytes()
        victim.write_bytes(after := damaged(before, rng))
        caplog.clear()
        store._warned.clear()
        try:
            found = tables(place)
        finally:
            victim.write_bytes(before)
        for name, written in whole.items():
            lost = written.filter(pl.col("pack_id") == victim.stem)
            rest = written.filter(pl.col("pack_id") != victim.stem)
            kept = found[name].filter(pl.col("pack_id") == victim.stem)
            assert_frame_equal(found[name].filter(pl.col("pack_id") != victim.stem), rest)
            if kept.height:
                assert_frame_equal(kept, lost)
        if victim.parent.name == "trials" and after != before:
            assert str(victim) in caplog.text

    each_seed(cases, check)


@pytest.mark.parametrize("table", store.TABLES)
@pytest.mark.parametrize(
    ("was", "became"),
    [
        (b"trial_id", b"tr\xf2al_id"),  # pyarrow then raises an error of its own
        (b"idenctl-crc32:", b"idfnctl-crc32:"),  # the file passed for one of before there were seals
    ],
)
def test_what_fuzzing_found_once_is_damage(sound, tmp_path, table, was, became):
    place = Store(shutil.copytree(sound.root, tmp_path / "store"))
    victim = sorted((place.root / table).glob("*.parquet"))[0]
    assert was in victim.read_bytes()
    victim.write_bytes(victim.read_bytes().replace(was, became))
    assert set(place.every_trial()["pack_id"]) == set(sound.every_trial()["pack_id"]) - {victim.stem}


@each_count
def test_a_damaged_file_of_before_there_were_seals_is_read_or_refused(sound, tmp_path, cases):
    """Its pages alone have checksums: what is promised of it is that reading it ends without a crash."""
    (path, *_) = sorted(sound.root.glob("predictions/*.parquet"))
    plain = tmp_path / "plain.parquet"
    pq.write_table(sealed.read(path), plain, compression="zstd", write_page_checksum=True)
    before = plain.read_bytes()
    assert b"idenctl-crc32" not in before

    def check(rng):
        plain.write_bytes(damaged(before, rng))
        sealed.read(plain)
        sealed.is_whole(plain)

    each_seed(cases, check)
