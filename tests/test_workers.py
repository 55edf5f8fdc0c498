"""What a picture does to the process that decodes it stays there: crashes, hangs, memory without end."""

import ctypes
import faulthandler
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts import oulu_tree

from idennet_core.datasets import oulu_casia, prepared, workers
from idennet_core.datasets.preparation import prepare
from idennet_core.datasets.workers import Workers

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second where it goes while it is read
        return False


def segfault():
    faulthandler.disable()  # it would print the stack
    ctypes.string_at(0)


def abort():
    faulthandler.disable()
    os.abort()


def hang():
    while True:
        time.sleep(1)


def hoard():
    return np.ones(8 * 2**30, np.uint8)


WAYS = {
    "segfault": (segfault, "it crashes the decoder (SIGSEGV)"),
    "abort": (abort, "it crashes the decoder (SIGABRT)"),
    "exit": (lambda: os._exit(3), "it crashes the decoder (exit status 3)"),
    "hang": (hang, "it takes longer than 3 s"),
    "hoard": (hoard, "it takes more than 2 GiB of memory"),
    "raise": (lambda: [][1], "it cannot be processed: IndexError: list index out of range"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_ends_a_process_costs_the_picture_it_was_at_and_the_run_names_it(tmp_path, monkeypatch, way):
    if way == "hang":
        monkeypatch.setattr(workers, "SECONDS", 3.0)  # which sound pictures must not take, twice, on a busy machine
    act, reason = WAYS[way]
    scan = oulu_casia.scan(oulu_tree(tmp_path / "root", subjects=3, frames=3))
    sound = prepare(scan, tmp_path / "sound/oulu-casia", None, {})
    bad = {scan.pictures[number].source for number in (0, 20, 53)}

    def read(picture):
        if picture.source in bad:
            act()
        return scan.read(picture)

    found = prepare(replace(scan, read=read), tmp_path / "store/oulu-casia", None, {})
    skipped = {entry["reason"]: set(entry["sources"]) for entry in found.metadata["skipped"]}
    assert skipped[reason] == bad
    assert found.metadata["num_faces"] == sound.metadata["num_faces"] - 3
    kept, whole = prepared.load(tmp_path / "store/oulu-casia"), prepared.load(tmp_path / "sound/oulu-casia")
    assert (kept.faces == whole.faces[~np.isin(whole.source, list(bad))]).all()


def test_a_process_that_somebody_else_ended_costs_nothing(tmp_path):
    def work(item):
        if item % 3 == 0 and not (tmp_path / str(item)).exists():
            (tmp_path / str(item)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    with Workers(work) as pool:
        assert list(pool.map([range(0, 7), [7], range(8, 20)])) == [i * i for i in range(20)]
        assert list(pool.map([range(20, 30)])) == [i * i for i in range(20, 30)]


def test_a_groups_items_are_done_by_one_process_in_order():
    order = itertools.count()
    with Workers(lambda item: (os.getpid(), next(order))) as pool:
        found = list(pool.map([range(5), range(5, 9)]))
    for group in (found[:5], found[5:]):
        assert len({process for process, _ in group}) == 1
        assert [number for _, number in group] == sorted(number for _, number in group)
    assert os.getpid() not in {process for process, _ in found}


def test_no_process_outlives_the_one_it_works_for(tmp_path):
    code = (
        "import os, sys, time; from idennet_core.datasets.workers import Workers\n"
        "with Workers(lambda item: os.getpid()) as pool:\n"
        "    print(*pool.map([[i] for i in range(50)]), flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as run:
        children = {int(word) for word in run.stdout.readline().split()}
        assert children
        assert all(map(alive, children))
        run.kill()
        run.wait()
    until = time.monotonic() + 60
    while any(map(alive, children)):
        assert time.monotonic() < until
        time.sleep(0.05)
