"""The harness sees what it looks for: a row less, a row twice, a row more, a bit that changed, what is left behind."""

import struct

import polars as pl
import pytest

from chaos import rows
from chaos.stage import last_saved

pytestmark = pytest.mark.chaos


def rewritten(store, table, change):
    """The store with the rows of one of its files changed, whole and with right checksums."""
    path = max(store.glob(f"{table}/[!.]*.parquet"), key=lambda path: path.stat().st_size)
    change(pl.read_parquet(path)).write_parquet(path)


def flip(number):
    """The float64 whose last bit is the other one."""
    (bits,) = struct.unpack("<q", struct.pack("<d", number))
    return struct.unpack("<d", struct.pack("<q", bits ^ 1))[0]


def flipped_prediction(table):
    first, *others = table["probabilities"].to_list()
    bits = struct.unpack("<i", struct.pack("<f", first[0]))[0] ^ 1
    first[0] = struct.unpack("<f", struct.pack("<i", bits))[0]
    return table.with_columns(pl.Series("probabilities", [first, *others], table["probabilities"].dtype))


def flipped_curve(table):
    return table.with_columns(loss=pl.Series([flip(table["loss"][0]), *table["loss"][1:]]))


CHANGES = {
    "a lost curve point": ("curves", lambda table: table[1:], {"lost": 1}),
    "a lost prediction": ("predictions", lambda table: table[1:], {"lost": 1}),
    "a doubled curve point": ("curves", lambda table: pl.concat([table, table[:1]]), {"doubled": 1}),
    "a doubled prediction": ("predictions", lambda table: pl.concat([table, table[:1]]), {"doubled": 1}),
    "a changed curve": ("curves", flipped_curve, {"changed": 1}),
    "a changed prediction": ("predictions", flipped_prediction, {"changed": 1}),
    "a changed sign of zero": ("curves", lambda t: t.with_columns(identity_loss=-pl.col("identity_loss")), {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_comparison_sees(stage, change):
    table, by, wanted = CHANGES[change]
    store = stage.copy()
    assert not rows.compare(store, stage.whole())
    rewritten(store, table, by)
    found = rows.compare(store, stage.whole())
    assert found
    seen = {name: getattr(found, name) for name in ("lost", "doubled", "more", "changed") if getattr(found, name)}
    assert not wanted or seen == wanted


def test_the_comparison_sees_a_lost_trial(stage):
    store = stage.copy()
    rewritten(store, "trials", lambda table: table[1:])
    assert rows.compare(store, stage.whole()).lost == 1


def test_the_comparison_sees_a_row_of_a_trial_that_nobody_asked_for(stage):
    store = stage.copy()
    rewritten(store, "trials", lambda t: pl.concat([t, t[:1].with_columns(trial_id=pl.lit("0" * 32))]))
    assert rows.compare(store, stage.whole()).more == 1


def test_a_trial_that_two_packs_have_trained_is_one_row_to_readers_and_two_in_the_files(stage):
    store = stage.copy()
    path = min(store.glob("trials/[!.]*.parquet"))
    for table in ("trials", "curves", "predictions"):
        rows_of = pl.read_parquet(store / table / path.name).with_columns(pack_id=pl.lit("f" * 32))
        rows_of.write_parquet(store / table / f"{'f' * 32}.parquet")
    assert not rows.compare(store, stage.whole())
    assert max(rows.written(store).values()) == 2
    assert max(rows.written(stage.whole()).values()) == 1


def test_the_comparison_sees_other_bytes_of_a_head(stage):
    store = stage.copy()
    head = min(store.glob("heads/*"))
    head.write_bytes(head.read_bytes()[:-1] + b"\x01")
    assert rows.compare(store, stage.whole()).files == (f"heads/{head.name}",)


def test_what_is_left_behind_is_seen(stage):
    store = stage.copy()
    stage.is_clean(store)
    stray = stage.commands[-1].folder / "t/idenctl-1-x"
    stray.mkdir()
    with pytest.raises(AssertionError):
        stage.is_clean(store)
    stray.rmdir()
    (store / "checkpoints/pack-0.safetensors").touch()
    with pytest.raises(AssertionError):
        stage.is_clean(store)


def test_a_process_that_outlives_its_command_is_seen(stage):
    command = stage.start("sh", "-c", "setsid sleep 600 & sleep 600 &")
    assert command.end() == 0
    assert command.until(lambda: len(command.children("sleep 600")) == 2)
    assert command.left(within=0) == ["sleep 600 ", "sleep 600 "]
    command.put_down()
    assert command.left() == []


def test_what_is_saved_is_seen_when_it_is(stage):
    store = stage.copy()
    before = last_saved(store)
    assert before > 0
    (store / "trials/another.parquet").touch()
    assert last_saved(store) > before
