"""Locks of files, as other processes see them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from idennet_core import locks

ROOT = Path(__file__).parent.parent


def test_a_lock_ends_with_its_process_though_what_that_has_forked_lives_on(tmp_path):
    script = (
        "import os, sys, time; from idennet_core import locks\n"
        "file = open(sys.argv[1], 'a+b'); assert locks.take(file)\n"
        "file.write(b'once ')\n"
        "if not os.fork():\n"
        "    file.flush()\n"
        "    print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "file"
    command = [sys.executable, "-c", script, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = int(process.stdout.readline())
    try:
        with path.open("a+b") as file:
            assert not locks.take(file), "the process has it"
            process.kill()
            process.wait()
            assert locks.take(file)
        os.kill(child, 0)  # lives
        assert path.read_bytes() == b"", "what a process had still to write is not written by another"
    finally:
        os.kill(child, signal.SIGKILL)
