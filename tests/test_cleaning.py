"""What is cleaned from a store: what nothing refers to, after it was shown, and nothing else."""

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import terminals
from conftest import idenctl
from safetensors.numpy import save_file

from idennet_core import sealing
from idennet_core.datasets.unfinished import Unfinished
from orchestrator import frozen, leftovers, record
from orchestrator.store import Store

MONTH = 30 * 24 * 3600


def aged(path, seconds=MONTH):
    """The file or folder as if it were as old as that."""
    then = time.time() - seconds
    for inner in [*path.rglob("*"), path] if path.is_dir() else [path]:
        os.utime(inner, (then, then))
    return path


def checkpoint(store, name, **words):
    path = store.checkpoints / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({"x": np.zeros(1)}, path, {"epoch": "1", "left": "[]", **words, sealing.SEAL: sealing.EMPTY})
    sealing.seal(path)
    return path


@pytest.fixture
def store(trained_store, tmp_path):
    """A whole store with the study `tiny`."""
    return Store(shutil.copytree(trained_store, tmp_path / "store"))


def contents(store):
    return {path for path in store.root.rglob("*") if path.is_file()}


@pytest.fixture
def littered(store):
    """The store and what lies in it beside, by whether it is to go."""
    stored, *_ = store.states()
    trunk = next(store.trunks.glob("[!.]*"))
    goes, stays = {}, {}
    for kind, age, found in (("old", MONTH, goes), ("recent", 3600.0 * 2, stays)):
        other = shutil.copytree(trunk, store.trunks / f"{kind:a<32}")
        facts = {**json.loads((other / "trunk.json").read_text()), "trunk_id": other.name}
        (other / "trunk.json").write_text(json.dumps({name: facts[name] for name in facts if name != "checksum"}))
        found["trunk " + kind] = aged(other, age)
        found["head " + kind] = aged(shutil.copy(next(store.heads.iterdir()), store.heads / f"{kind}.safetensors"), age)
        path = checkpoint(store, f"pack-{kind}.1", trials=json.dumps(["of no study"]))
        found["checkpoint " + kind] = aged(path, age)
        (store.checkpoints / f"pack-damaged{kind}.1.safetensors").write_bytes(b"damaged")
        found["damaged " + kind] = aged(store.checkpoints / f"pack-damaged{kind}.1.safetensors", age)
        (store.data / f".{kind}.unfinished").mkdir()
        (store.data / f".{kind}.unfinished" / "journal.jsonl").write_text("{}")
        found["data " + kind] = aged(store.data / f".{kind}.unfinished", age)
        found["trunk checkpoint " + kind] = aged(checkpoint(store, f"trunk-{kind}.4"), age)
    goes["stored"] = checkpoint(store, "pack-stored.2", trials=json.dumps([stored]))
    goes["stored trunk"] = checkpoint(store, f"trunk-{trunk.name}.9")
    stays["some not stored"] = checkpoint(store, "pack-half.2", trials=json.dumps([stored, "not stored"]))
    for found, age in ((goes, 2 * 3600), (stays, 60)):
        found["rows"] = store.root / "predictions" / f"{age}.parquet"
        found["half"] = store.root / "trials" / f".{age}.tmp"
        found["half trunk"] = store.trunks / f".{age}.tmp"
        found["half trunk"].mkdir()
        (found["half trunk"] / "network.safetensors").write_bytes(b"half")
        for name in ("rows", "half"):
            found[name].write_bytes(b"half")
        for name in ("rows", "half", "half trunk"):
            aged(found[name], age)
    return store, goes, stays


def test_what_nothing_refers_to_is_shown_and_without_a_terminal_stays(littered):
    store, goes, _ = littered
    before = contents(store)
    done = idenctl("store", "clean", "--store", store.root)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "nothing was removed; next: the same with --yes\n"
    assert contents(store) >= before
    shown = idenctl("store", "clean", "--store", store.root, "--json")
    found = json.loads(shown.stdout)
    assert found["removed"] is False
    assert {Path(each["path"]) for each in found["leftovers"]} == set(goes.values())
    for each in found["leftovers"]:
        path = Path(each["path"])
        files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
        assert each["bytes"] == sum(inner.stat().st_size for inner in files)
        assert each["why"]


def test_what_is_called_as_no_console_likes_it_is_shown_by_its_name(tmp_path):
    store = Store(tmp_path / "store").open()
    (store.root / "trials").mkdir()
    for name in (".[b]x.tmp", ".\x1bx.tmp"):
        (store.root / "trials" / name).write_bytes(b"half")
        aged(store.root / "trials" / name)
    shown = idenctl("store", "clean", "--store", store.root)
    assert shown.returncode == 0, shown.stderr
    for name in (".[b]x.tmp", r".\x1bx.tmp"):
        assert f"trials/{name}" in shown.stdout


def test_with_yes_it_goes_and_all_else_stays_and_the_study_is_whole(littered):
    store, goes, stays = littered
    before = contents(store)
    done = idenctl("store", "clean", "--store", store.root, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{len(goes)} leftovers removed" in done.stderr
    gone = before - contents(store)
    assert gone == {path for path in before for one in goes.values() if path == one or one in path.parents}
    assert all(path.exists() for path in stays.values())
    again = idenctl("study", "run", store.root / "tiny.yaml", "--engine", "inline", "--store", store.root)
    assert again.returncode == 0
    assert "8 of 8 trials complete" in again.stderr
    assert "nothing to clean" in idenctl("store", "clean", "--store", store.root).stdout
    assert json.loads(idenctl("store", "clean", "--store", store.root, "--json").stdout)["leftovers"] == []


def test_what_is_left_alone_is_up_to_its_age(littered):
    store, goes, stays = littered
    shown = idenctl("store", "clean", "--store", store.root, "--older-than", "0.05", "--json")
    found = {Path(each["path"]) for each in json.loads(shown.stdout)["leftovers"]}
    assert found == set(goes.values()) | {path for name, path in stays.items() if name.endswith("recent")}
    longer = idenctl("store", "clean", "--store", store.root, "--older-than", "90", "--json")
    assert {Path(each["path"]) for each in json.loads(longer.stdout)["leftovers"]} == {
        path for name, path in goes.items() if not name.endswith("old")
    }


def test_a_preparation_that_another_process_is_at_stays_however_old(store):
    with Unfinished(store.data / "mmi", "work"):
        place = aged(store.data / ".mmi.unfinished")
        assert idenctl("store", "clean", "--store", store.root, "--yes").returncode == 0
        assert place.exists()
    assert idenctl("store", "clean", "--store", store.root, "--yes").returncode == 0
    assert not place.exists()


def test_checkpoints_and_trunks_of_a_stored_study_stay_however_old(store):
    for name in ("trials", "curves", "predictions"):
        shutil.rmtree(store.root / name)
    plan = frozen.read_plan(store.studies / "tiny" / "plan.json")
    from orchestrator.cleaning import _trial_ids

    path = aged(checkpoint(store, "pack-tiny.1", trials=json.dumps(list(_trial_ids(plan)))))
    for trunk in store.trunks.glob("[!.]*"):
        aged(trunk)
    for head in store.heads.iterdir():
        aged(head)
    found = json.loads(idenctl("store", "clean", "--store", store.root, "--json").stdout)["leftovers"]
    assert {each["kind"] for each in found} == {"head"}, "without their rows heads are trained anew"
    assert path.exists()
    assert store.states() == {}


def test_on_a_terminal_it_asks(littered):
    store, goes, _ = littered
    for answer, status in ((b"n\n", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "orchestrator.cli.app", "store", "clean", "--store", str(store.root)]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, cwd=Path(__file__).parent.parent
        )
        os.write(ours, answer)
        terminals.read_until(ours, b"remove all this?")
        process.communicate(timeout=120)
        assert process.returncode == 0
        os.close(theirs)
        os.close(ours)
        assert all(not path.exists() for path in goes.values()) == status


def test_nothing_is_cleaned_or_compacted_while_a_study_runs_and_none_runs_meanwhile(store):
    before = contents(store)
    with record.only_run(store, "tiny"):
        for verb in ("clean", "compact"):
            done = idenctl("store", verb, "--store", store.root)
            assert done.returncode == 2
            assert done.stderr.startswith("error: a store is cleaned while nobody writes in it, tiny runs in ")
    refused = pytest.raises(ValueError, match=f"is being cleaned by process {os.getpid()}; wait")
    with record.alone(store), refused, record.only_run(store, "tiny"):
        pass
    with record.only_run(store, "tiny"), record.only_run(store, "another"):
        pass
    assert {path for path in contents(store) if path.name != ".lock"} == {p for p in before if p.name != ".lock"}


@pytest.mark.parametrize("verb", ["clean", "compact"])
def test_what_is_no_store_is_refused_in_one_line(tmp_path, verb):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "file").write_text("")
    for place, said in [
        (tmp_path / "none", "does not; give another --store"),
        (tmp_path / "photographs", "a store holds store.json"),
        (tmp_path / "file", "a store is a folder"),
    ]:
        done = idenctl("store", verb, "--store", place)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
    assert idenctl("store", "clean", "--store", tmp_path, "--older-than", "-1").returncode == 2
    assert list((tmp_path / "photographs").iterdir()) == []


def test_a_store_with_nothing_in_it_has_nothing_to_clean_or_compact(tmp_path):
    Store(tmp_path).open()
    assert "nothing to clean" in idenctl("store", "clean", "--store", tmp_path, "--yes").stdout
    assert "nothing to compact in 0 packs" in idenctl("store", "compact", "--store", tmp_path).stdout


def test_what_killed_writers_left_anywhere_goes_when_a_store_is_opened_and_that_of_living_ones_stays(store):
    old, new = [], []
    for place in ("trials", "studies/tiny", "checkpoints", "heads", ""):
        for found, age in ((old, leftovers.ABANDONED + 60), (new, leftovers.ABANDONED - 60)):
            path = store.root / place / f".{age}.tmp"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"half")
            found.append(aged(path, age))
    folder = store.trunks / ".x.y.tmp"
    folder.mkdir()
    (folder / "network.safetensors").write_bytes(b"half")
    aged(folder)
    written = store.trunks / ".x.z.tmp"
    written.mkdir()
    aged(written)
    (written / "network.safetensors").write_bytes(b"just begun")
    Store(store.root).open()
    assert not any(path.exists() for path in [*old, folder])
    assert all(path.exists() for path in [*new, written])
