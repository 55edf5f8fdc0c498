"""`idenctl` in a process forked from one that has imported everything: a kill a second instead of one in five.

The process is its own in all else: session, folders, standard streams, exit status. What Ray starts and what a user
types are tried with the real command.
"""

import multiprocessing
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import holding
import pytest

TESTS = Path(__file__).parent.parent
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}  # audit events of what changes a folder

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["chaos.imports"])


def start_parent():
    """Start the process that all others are forked from, in the mount namespace of the caller."""
    with pytest.MonkeyPatch.context() as patch:  # Python 3.11 gives it no path, and passes over what it cannot import
        patch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
        forkserver.ensure_running()


def start(
    arguments,
    folder,
    environment,
    operation=None,
    within=None,
    halts=None,
    longest_file=None,
    refused=False,
    held=None,
):
    """`idenctl arguments` in `folder`: what it says is in its files `stdout` and `stderr`.

    It is killed just before its operation of this number on the files within a folder, or in the middle of the write
    that would make a file longer than `longest_file` bytes; where that is `refused`, the write fails instead. It stops
    itself before the first operation after it put a file of the name `halts` in its place, until it is continued.
    `held` are a place and a mark of `holding.hold`.
    """
    given = (arguments, folder, environment, operation, within, halts, longest_file, refused, held)
    process = context.Process(target=_main, args=given)
    process.start()
    with suppress(ProcessLookupError):  # it has ended
        while process.exitcode is None and os.getsid(process.pid) != process.pid:  # who kills its group then finds one
            time.sleep(0.001)
    return process


def _main(arguments, folder, environment, operation, within, halts, longest_file, refused, held):
    assert "chaos.imports" in sys.modules, "the parent has imported nothing"
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if within is not None:
        _count_operations(operation, halts, str(within), folder / "operations")
    if longest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if refused else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest_file, longest_file))
    if held is not None:
        holding.hold(*held)
    from orchestrator.cli.app import main

    sys.argv = ["idenctl", *map(str, arguments)]
    main()


def _count_operations(deadly, halts, folder, kept):
    """Count what this process does to the files within the folder, and die before number `deadly` (from 0), or halt."""
    done, halting = 0, False
    file = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event, arguments):
        nonlocal done, halts, halting
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if (writes or event in CHANGES) and str(arguments[0]).startswith(folder):
            if done == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if halting:
                halts, halting = None, False  # once
                os.kill(os.getpid(), signal.SIGSTOP)
            halting = bool(halts) and event == "os.rename" and Path(arguments[1]).match(halts)
            done += 1
            os.pwrite(file, str(done).encode(), 0)

    sys.addaudithook(hook)
