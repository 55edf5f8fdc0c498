"""What is left of a cluster on the machine where this file runs, and its end: `python3 leftovers.py ADDRESS:PORT`.

Sent over ssh to each host of a cluster, so it needs nothing but Python. Ray's processes do not all name their cluster:
those that do (raylet, log monitor, GCS) name their session, and the others have files of that session open.
"""

import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

PATIENCE = 10.0  # seconds that a process has to end by itself
SESSION = re.compile(r"session_[0-9][0-9_-]+")


def stop(address: str, patience: float = PATIENCE) -> dict[str, list[str]]:
    """End this user's processes of the cluster whose GCS is at `address` (host:port): asked first, then killed.

    Gives what was `stopped` and what is `left`, each as process id and name.
    """
    sessions = _current_session(address)
    seen: dict[int, str] = {}
    found = _processes(address, sessions)
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + seconds
        told: set[int] = set()
        while found and time.monotonic() < end:
            seen |= found
            for pid in found.keys() - told:
                told.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.2)
            found = _processes(address, sessions)  # some start others before they end
    return {
        "stopped": [f"{name} ({pid})" for pid, name in sorted(seen.items()) if pid not in found],
        "left": [f"{name} ({pid})" for pid, name in sorted(found.items())],
    }


def _current_session(address: str) -> set[str]:
    """The session that Ray notes as this machine's, where it is of this cluster."""
    noted = Path("/tmp/ray/ray_current_cluster")
    with suppress(OSError):
        if noted.read_text().strip() == address:
            return {(noted.parent / "session_latest").readlink().name}
    return set()


def _processes(address: str, sessions: set[str]) -> dict[int, str]:
    """Names of the cluster's processes by id; the sessions that they name are added to `sessions`."""
    host, _, port = address.rpartition(":")
    named = re.compile(rf"address={re.escape(address)}\0|--gcs_server_port={port}\0.*--node-ip-address={host}\0")
    mine = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            if line and folder.stat().st_uid == os.geteuid() and int(folder.name) != os.getpid():
                mine[folder] = line
    for line in mine.values():
        if named.search(line):
            sessions |= set(SESSION.findall(line))
    return {
        int(folder.name): _name(line)
        for folder, line in mine.items()
        if named.search(line) or sessions & (set(SESSION.findall(line)) | _opened(folder))
    }


def _name(line: str) -> str:
    """The program or script of a command line: `raylet`, `log_monitor.py`, `ray.util.client.server`, `ray::train`."""
    first, *rest = line.strip("\0").split("\0")
    if not Path(first).name.startswith("python"):
        return Path(first).name.strip()
    return next((Path(word).name for word in rest if not word.startswith("-")), first)


def _opened(folder: Path) -> set[str]:
    """The sessions that a process has files of open, or works in the folder of."""
    found: set[str] = set()
    with suppress(OSError):
        for link in (folder / "cwd", *(folder / "fd").iterdir()):
            with suppress(OSError):
                found |= set(SESSION.findall(str(link.readlink())))
    return found


if __name__ == "__main__":
    print(json.dumps(stop(sys.argv[1])))
