"""A real Ray head for tests, with a dashboard and a token of its own, on free ports and in a short folder."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

TOKEN = "0123456789abcdef" * 4
STARTS_WITHIN = 90  # seconds


@dataclass(frozen=True)
class Head:
    """Where a head answers, and what a process must have in its environment to be let in."""

    address: str
    dashboard: str
    agent: int  # the port of the node's own HTTP server
    environment: dict


@contextmanager
def head(*options, path=(), **environment):
    """A head started by `ray start --head OPTIONS`, whose processes import from `path` and have this environment."""
    folder = Path(tempfile.mkdtemp(prefix="jh", dir="/tmp"))  # a socket's path is short
    gcs, dashboard, client, agent, metrics = free_ports(5)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": str(folder)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    own = {"PATH": programs, "PYTHONPATH": os.pathsep.join(map(str, path)), "RAY_USAGE_STATS_ENABLED": "0"}
    command = ["ray", "start", "--head", "--block", f"--port={gcs}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    command += ["--object-store-memory=100000000", f"--temp-dir={folder}", *options]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=clean | own | environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        found = Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", agent, clean)
        wait_for(found, process, folder / "log")
        yield found
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count):
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(found, process, log):
    deadline = time.monotonic() + STARTS_WITHIN
    request = Request(f"{found.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    while True:
        try:
            urlopen(request, timeout=5).close()
            return
        except (URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)


def stop(process):
    """End a head and all that it started, by the session that they share, or those that it told of."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
