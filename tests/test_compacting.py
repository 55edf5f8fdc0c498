"""A store made compact: one row a trial, nothing lost or doubled whenever it is killed, and readers who read on."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from conftest import Killed, idenctl
from test_store import NOON, SETTINGS, make_result, run_at

from idennet_core.streams import generator
from orchestrator import cleaning, index
from orchestrator.rows import TABLES
from orchestrator.store import Store

ROOT = Path(__file__).parent.parent


def small_packs(store, count=6, seed=0):
    """Packs of a trial or two, of which some ran again, later or to another end."""
    draw = generator("packs to put together", seed)
    for minute in range(count):
        results = []
        for fold in draw.choice(8, size=draw.integers(1, 3), replace=False):
            state = draw.choice(["complete", "complete", "failed", "pruned"])
            result = replace(make_result(int(fold), str(state), frames=3), seconds=float(minute))
            if state == "failed":
                result = replace(result, curve=[{**point, "loss": float("nan")} for point in result.curve])
            results.append(replace(result, epochs=int(draw.integers(1, 3))))
        run = replace(run_at(), started_at=NOON, finished_at=NOON + timedelta(minutes=int(draw.integers(20))))
        settings = SETTINGS if minute % 2 else {**SETTINGS, "lr": 0.1}
        store.write_pack(results, settings, run)


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "store").open()
    small_packs(found)
    return found


def seen(store):
    """All that readers get, but for the packs in which it lies."""
    trials = store.every_trial()
    tables = trials, store.curves(trials), store.predictions(trials)
    assert set(tables[1]["pack_id"]) <= set(trials["pack_id"]), "to be joined with the trials"
    keys = ["trial_id"], ["trial_id", "epoch"], ["trial_id", "subject", "frame"]
    plain = [table.drop("pack_id") for table in tables]
    return [table.select(sorted(table.columns)).sort(key) for table, key in zip(plain, keys, strict=True)]


def same(one, other):
    return all(left.equals(right) for left, right in zip(one, other, strict=True))


def files(store):
    return {name: sorted(path.name for path in (store.root / name).glob("[!.]*")) for name in TABLES}


@pytest.mark.parametrize("indexed", [False, True])
def test_each_trial_has_one_row_in_one_file_and_readers_see_what_they_saw(store, indexed, monkeypatch):
    if indexed:
        monkeypatch.setattr(index, "LEAST", 2)
    before, trials = seen(store), store.every_trial()
    assert (store.root / "index").exists() == indexed
    found = cleaning.compact(store)
    assert same(seen(store), before)
    assert same([store.curves(trials).drop("pack_id").sort("trial_id", "epoch").select(sorted(before[1].columns))],
                [before[1]]), "rows that were read before still name their curves"  # fmt: skip
    query = f"select count(*), count(distinct trial_id) from '{store.root}/trials/*.parquet'"
    ((rows, distinct),) = duckdb.sql(query).fetchall()
    assert rows == distinct == trials.height
    assert {len(names) for names in files(store).values()} == {1}
    assert (found.packs_before, found.packs_after) == (6, 1)
    assert found.rows_removed > 0
    assert found.bytes_after < found.bytes_before
    again = files(store)
    assert cleaning.compact(store).rows_removed == 0
    assert files(store) == again, "there is nothing more to do"


def test_a_pack_of_which_nothing_counts_any_more_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "MOST", 1)
    store = Store(tmp_path).open()
    for minute in (1, 2, 3):
        store.write_pack([make_result()], SETTINGS, run_at(minute))
    before = seen(store)
    assert cleaning.compact(store).rows_removed == 2
    assert same(seen(store), before)
    assert {len(names) for names in files(store).values()} == {1}


def test_packs_are_put_together_up_to_a_size(store, monkeypatch):
    monkeypatch.setattr(cleaning, "MOST", 3)
    before = seen(store)
    cleaning.compact(store)
    assert same(seen(store), before)
    sizes = [pl.read_parquet(path).height for path in (store.root / "trials").glob("*.parquet")]
    assert max(sizes) <= 3
    assert sum(sizes) == before[0].height


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_pack_stays_and_so_does_what_others_hold_of_its_trials(tmp_path, table, caplog):
    store = Store(tmp_path).open()
    for minute in (1, 2, 3):  # the first counts, as long as it is whole
        store.write_pack([make_result(0), make_result(minute)], SETTINGS, run_at(minute))
    first = store.every_trial().filter(fold=0)["pack_id"].item()
    victim = store.root / table / f"{first}.parquet"
    content = victim.read_bytes()
    victim.write_bytes(content[:-20] + bytes([content[-20] ^ 255]) + content[-19:])
    before = seen(store)
    cleaning.compact(store)
    assert same(seen(store), before)
    assert sorted(before[0]["fold"]) == [0, 2, 3]
    assert victim.exists()
    assert {len(names) for names in files(store).values()} == {2}


def test_died_at_any_step_no_row_is_lost_or_doubled_and_compacting_again_ends_it(store, tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "PAUSE", 0.0)  # nobody reads meanwhile
    before, steps = seen(store), 0
    while True:
        copy = Store(shutil.copytree(store.root, tmp_path / f"copy{steps}"))
        left = steps

        def step(self, *given, act, **named):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return act(self, *given, **named)

        with monkeypatch.context() as patch:
            for kind, name in ((Path, "replace"), (Path, "unlink")):
                act = getattr(kind, name)
                patch.setattr(kind, name, lambda self, *given, act=act, **named: step(self, *given, act=act, **named))
            try:
                cleaning.compact(copy)
                break
            except Killed:
                pass
        assert same(seen(copy), before), f"after {steps} steps"
        cleaning.compact(copy)
        assert same(seen(copy), before)
        assert len(files(copy)["trials"]) == 1
        steps += 1
    assert steps == 3 + 3 * 6


def test_killed_at_random_moments_no_row_is_lost_or_doubled(tmp_path):
    store = Store(tmp_path).open()
    small_packs(store, 24)
    before, draw = seen(store), generator("killed while compacting")
    script = (
        "import sys; from orchestrator import cleaning, store as stores\n"
        "store = stores.at(sys.argv[1]); store.every_trial(); print('ready', flush=True); cleaning.compact(store)\n"
    )
    for _ in range(5):
        command = [sys.executable, "-c", script, str(tmp_path)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        process.stdout.readline()
        time.sleep(draw.uniform(0.05, 0.5))
        process.kill()
        process.wait()
        assert same(seen(store), before)
    cleaning.compact(store)
    assert same(seen(store), before)


def test_who_reads_meanwhile_sees_the_same_rows_all_the_time(store):
    before, enough, over = seen(store), threading.Event(), threading.Event()
    again = [make_result(int(fold), "pruned") for fold in before[0].filter(pl.col("state") != "pruned")["fold"]]

    def write():
        try:
            rounds = 0
            while rounds < 4 or not enough.is_set():
                for result in again:  # superseded from the start
                    store.write_pack([replace(result, epochs=1)], SETTINGS, run_at(59))
                cleaning.compact(store)
                rounds += 1
        finally:
            over.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    try:
        while not over.is_set():
            assert same(seen(store), before)
            reads += 1
            if reads > 3:
                enough.set()
    finally:
        enough.set()
        thread.join()
    assert len(files(store)["trials"]) == 1


def test_a_report_and_what_packs_took_are_the_same_after_compacting(trained_store, tmp_path):
    root = shutil.copytree(trained_store, tmp_path / "store")
    asked = [("report", "tiny", "--format", "json"), ("study", "status", "tiny", "--json"), ("study", "list", "--json")]
    before = [json.loads(idenctl(*words, "--store", root).stdout) for words in asked]
    done = idenctl("store", "compact", "--store", root)
    assert done.returncode == 0, done.stderr
    assert "2 packs became 1, 0 superseded rows of trials removed" in done.stdout
    assert [json.loads(idenctl(*words, "--store", root).stdout) for words in asked] == before
    assert "nothing to compact in 1 pack" in idenctl("store", "compact", "--store", root).stdout
    shown = json.loads(idenctl("store", "compact", "--store", root, "--json").stdout)
    assert (shown["packs_before"], shown["packs_after"]) == (1, 1)
