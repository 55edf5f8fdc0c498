"""A study that is run twice at once: the second run is refused before it does anything, though the first only plans."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
from buckets import ROOT, SHARES, SHARES_MODULE, address, command, kept, ran
from conftest import idenctl
from s3 import until
from test_cleaning import aged

from idennet_core import locks
from orchestrator import record
from orchestrator.store import Store, at

# who plans is named, and waits until it may go on
WAITS = """

class Waits(Shares):
    def configure(self, study, cells):
        with open("planning.txt", "a") as file:
            file.write(f"{os.getpid()} ")
        while not os.path.exists("go"):
            time.sleep(0.02)
        return super().configure(study, cells)
"""


@pytest.fixture
def begin():
    """A function that starts a run; those that the test has not seen end are killed."""
    runs = []

    def started(store):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        whole = command(store, "--engine", "inline", "--tensorboard", "boards")
        runs.append(subprocess.Popen(whole, env=environment, **pipes))
        return runs[-1]

    yield started
    for run in runs:
        run.kill()


def contents(root):
    """All that lies in a folder, and when each was changed; the mirror's own locks are none of the store's."""
    found = [root, *(path for path in root.rglob("*") if ".locks" not in path.relative_to(root).parts)]
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in found}


@pytest.mark.parametrize("store", ["folder", address()])
def test_the_second_run_is_refused_while_the_first_plans_and_changes_nothing(s3, shares, begin, store):
    Path("shares.py").write_text(SHARES_MODULE + WAITS)
    Path("shares.yaml").write_text(SHARES.replace("shares:Shares", "shares:Waits"))
    first = begin(store)
    until(Path("planning.txt").exists)
    root = at(store).root
    for name in ("trials/.killed.tmp", "heads/unsent.safetensors"):  # what a run removes, and what it sends
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
        aged(root / name)
    before, asked = contents(root), len(s3.asked)
    second = begin(store)
    said, shown = second.communicate(timeout=120)
    assert (second.returncode, said) == (2, "")
    assert shown == f"error: a study runs once at a time, shares is being run by process {first.pid}; wait for it\n"
    assert contents(root) == before
    assert {method for method, *_ in s3.asked[asked:]} <= {"GET", "HEAD"}
    assert not Path("boards").exists()
    assert Path("planning.txt").read_text() == f"{first.pid} "
    Path("go").touch()
    _, shown = first.communicate(timeout=120)
    assert first.returncode == 0, shown
    assert kept(store)["trials"].height == 120


def test_planning_asks_for_no_lock(shares):
    assert ran("folder").returncode == 0
    with record.only_run(at("folder"), "shares"):
        done = idenctl("study", "plan", "shares.yaml", "--store", "folder")
    assert done.returncode == 0, done.stderr
    assert "120 of them stored" in done.stdout


def test_a_study_that_is_refused_when_it_is_planned_is_none_that_was_run(shares):
    Path("shares.py").write_text(
        SHARES_MODULE.replace("found = [complete", "raise ValueError('no x')\n        found = [complete")
    )
    done = ran("folder")
    assert (done.returncode, done.stderr) == (2, "error: no x\n")
    done = idenctl("report", "shares", "--store", "folder")
    assert done.returncode == 2
    assert "no study 'shares': the store holds no study yet" in done.stderr


def test_a_run_that_has_not_said_yet_which_process_it_is_cannot_be_stopped(tmp_path):
    store = Store(tmp_path)
    with record.only_run(store, "tiny"):
        (tmp_path / "studies/tiny/.lock").write_text("")
        with pytest.raises(ValueError, match="tiny is just beginning or ending; try again"):
            record.stop(store, "tiny")


def test_a_look_that_takes_long_refuses_no_run(tmp_path):
    store, path = Store(tmp_path), tmp_path / "studies/tiny/.lock"
    with record.only_run(store, "tiny"):
        pass
    with path.open() as file:
        assert locks.take(file, shared=True)
        over = threading.Timer(4 * record.LOOK, file.close)
        over.start()
        with record.only_run(store, "tiny"):
            over.join()
            assert record.running(store, "tiny")


def test_who_only_looks_whether_a_study_runs_refuses_no_run(tmp_path):
    store, over = Store(tmp_path), threading.Event()

    def look():
        while not over.is_set():
            record.running(store, "tiny")

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(2000):
            with record.only_run(store, "tiny"):
                pass
    finally:
        over.set()
        looking.join()
