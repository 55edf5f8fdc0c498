"""Checkpoints: whole or not there, found damaged where one byte is, and always one to go on from."""

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from idennet_core import checkpoint, sealing
from idennet_core.streams import generator

WORDS = {"epoch": "3", "trials": '["\\u00fc", "b"]', "quote": 'a "seal":"0000000000000000" in it'}


def tensors(number=0):
    return {
        "weights": torch.arange(6.0).reshape(2, 3) + number,
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "none": torch.empty(0, 4),
    }


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name])


def words_of(path):
    with path.open("rb") as file:
        return sealing.words(file, path.stat().st_size)


def keep(folder, name, number, content, words):
    path = folder / f"{name}.{number}.safetensors"
    checkpoint.save(path, content, words)
    for old in checkpoint.outdated(path):
        old.unlink()


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "deep" / "x.safetensors"
    checkpoint.save(found, tensors(), WORDS)
    return found


def test_what_is_read_is_what_was_saved_and_nothing_lies_beside(path):
    found, words = checkpoint.load(path)
    same(found, tensors())
    assert words == words_of(path) == WORDS
    assert list(path.parent.iterdir()) == [path]


def test_a_changed_byte_is_found_wherever_it_is(path):
    whole, draw = path.read_bytes(), generator("changed bytes")
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ draw.integers(1, 256)]) + whole[place + 1 :])
        with pytest.raises(sealing.Damaged, match=r"x\.safetensors is damaged"):
            checkpoint.load(path)
        if place < header and sealing.EMPTY.encode() not in whole[place - 16 : place + 16]:
            seal = whole.index(b'"seal":"') + 8
            if not seal + 8 <= place < seal + 16:  # the tensors' checksum says nothing of the words
                with pytest.raises(sealing.Damaged):
                    words_of(path)


def test_a_file_cut_anywhere_is_found_and_so_is_one_that_goes_on(path):
    whole = path.read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(sealing.Damaged):
            checkpoint.load(path)


def test_a_header_that_claims_to_be_huge_takes_no_memory(path):
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(sealing.Damaged):
        words_of(path)


@pytest.mark.parametrize(
    "header", [b"1", b"[]", b"null", b'{"__metadata__":1}', b'{"__metadata__":[]}', b"[" * 100_000]
)
def test_an_unsealed_file_whose_header_holds_no_words_is_damaged(path, header):
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(sealing.Damaged, match=r"x\.safetensors is damaged"):
        checkpoint.load(path, unsealed=True)


def test_a_missing_file_is_missing_and_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none.safetensors")


def test_the_bytes_are_on_the_disk_before_they_are_in_place(path, monkeypatch):
    """As the system is asked: a power cut then leaves the old file or the new one."""
    done, fsync, replace = [], os.fsync, Path.replace

    def synced(descriptor):
        done.append(("fsync", Path(f"/proc/self/fd/{descriptor}").resolve()))
        fsync(descriptor)

    def replaced(self, target):
        done.append(("replace", self.resolve()))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    checkpoint.save(path, tensors(1), WORDS)
    (first, synced_file), (second, moved_file) = done
    assert (first, second) == ("fsync", "replace")
    assert synced_file == moved_file


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_beside(path):
    import resource

    before, soft = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, soft[1]))
    try:
        with pytest.raises(Exception, match="too large"):
            checkpoint.save(path, {"large": torch.zeros(2**19)}, WORDS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_two_are_kept_the_last_and_the_one_before_it(tmp_path):
    for number, left in ((1, [1]), (2, [2, 1]), (10, [10, 2]), (9, [10, 9, 2]), (11, [11, 10])):
        keep(tmp_path, "pack-a", number, tensors(number), {})
        keep(tmp_path, "pack-ab", 1, tensors(), {})
        names = [path.name for path in checkpoint.kept(tmp_path, "pack-a")]
        assert names == [f"pack-a.{number}.safetensors" for number in left], "whoever is behind leaves the others'"
    assert len(checkpoint.kept(tmp_path, "pack-ab")) == 1


def keeping(folder, first):
    """A process that keeps checkpoints from that number on, without end: its id, and the numbers as it says them."""
    reader, writer = os.pipe()
    if process := os.fork():
        os.close(writer)
        return process, os.fdopen(reader)
    try:
        for number in itertools.count(first):
            content = {"n": torch.from_numpy(np.full(2**18, number))}  # torch's threads do not outlive a fork
            keep(folder, "x", number, content, {"number": str(number)})
            os.write(writer, f"{number}\n".encode())
    finally:
        os._exit(1)


def test_a_copy_that_somebody_laid_beside_is_none_of_the_checkpoints(tmp_path):
    for name in ("pack-a.3.safetensors", "pack-a.3 (copy).safetensors", "pack-a.old.safetensors"):
        (tmp_path / name).touch()
    assert checkpoint.kept(tmp_path, "pack-a") == [tmp_path / "pack-a.3.safetensors"]


def test_killed_at_any_moment_while_it_keeps_checkpoints_the_last_or_the_one_before_it_is_whole(tmp_path):
    draw, last = generator("killed while keeping"), -1
    for _ in range(4):
        process, out = keeping(tmp_path, last + 1)
        out.readline(), out.readline()  # two are kept
        time.sleep(draw.uniform(0.02, 0.2))
        os.kill(process, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        with out:
            said = [last + 2, *map(int, out.read().split())]
        kept = checkpoint.kept(tmp_path, "x")
        found, words = checkpoint.load(kept[0])
        assert said[-1] <= int(words["number"]) <= said[-1] + 1
        assert (found["n"] == int(words["number"])).all()
        assert len(kept) <= 3, "a third where it was not yet removed"
        assert words_of(kept[1]) == {"number": str(int(words["number"]) - 1)}
        last = int(words["number"])


def test_nothing_in_the_sources_reads_a_pickle():
    """No file of a store can run code: weights are safetensors, arrays and tables hold no objects."""
    import ast

    root = Path(__file__).parent.parent
    for path in sorted([*root.glob("orchestrator/**/*.py"), *root.glob("idennet_core/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, where
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert not call.endswith(("torch.load", "read_pickle", "jit.load", "hub.load")), where
                for keyword in node.keywords:
                    assert keyword.arg not in ("allow_pickle", "weights_only"), where
