import os
import shlex
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from chaos import forked, ledger, mounts
from chaos.stage import ROOT, SEED, SHORT, Stage

BOOK, BEGAN = pytest.StashKey[list](), pytest.StashKey[float]()


@pytest.fixture(scope="session")
def stage(request):
    """Stores and commands; what they mount is seen by them alone and goes with this process."""
    mounts.private()
    forked.start_parent()
    found = Stage(Path(f"/tmp/c{os.getpid():x}"))  # a socket's path has 107 bytes, and names of two more processes
    request.config.stash[BOOK] = found.blows
    yield found
    found.close()


def pytest_configure(config):
    config.stash[BOOK] = []
    config.stash[BEGAN] = time.monotonic()


def pytest_sessionfinish(session):
    """One process of several hands over what its own stage has survived."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["blows"] = [asdict(blow) for blow in session.config.stash[BOOK]]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash[BOOK] += [ledger.Blow(**blow) for blow in getattr(node, "workeroutput", {}).get("blows", [])]


def pytest_terminal_summary(terminalreporter, config):
    """The table, and its JSON in build/chaos.json."""
    if not (blows := config.stash[BOOK]):
        return
    command = f"CHAOS={'short' if SHORT else 'full'} CHAOS_SEED={SEED} {shlex.join(['pytest', *sys.argv[1:]])}"
    ledger.write(ROOT / "build/chaos.json", blows, SEED, command, time.monotonic() - config.stash[BEGAN])
    width = shutil.get_terminal_size().columns
    terminalreporter.write_line(f"{' what was survived ':=^{width}}")
    terminalreporter.write_line(f"seed {SEED}; set another by CHAOS_SEED")
    terminalreporter.write_line(ledger.markdown(ledger.by_kind(blows)))
