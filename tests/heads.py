"""A real Ray head for tests, with a dashboard and a token of its own, on free ports and in a short folder."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

TOKEN = "0123456789abcdef" * 4
STARTS_WITHIN = 300  # seconds
ATTEMPTS = 5  # to start a Ray on a busy machine


@dataclass(frozen=True)
class Head:
    """Where a head answers, and what a process must have in its environment to be let in."""

    address: str
    dashboard: str
    agent: int  # the port of the node's own HTTP server
    environment: dict


@contextmanager
def head(*options, path=(), port=None, **environment):
    """A head started by `ray start --head OPTIONS`, whose processes import from `path` and have this environment."""
    folder = Path(tempfile.mkdtemp(prefix="jh", dir="/tmp"))  # a socket's path is short
    spare, dashboard, client, agent, metrics = free_ports(5)
    gcs = port or spare
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": str(folder)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    own = {"PATH": programs, "PYTHONPATH": os.pathsep.join(map(str, path)), "RAY_USAGE_STATS_ENABLED": "0"}
    command = ["ray", "start", "--head", "--block", f"--port={gcs}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    command += [f"--temp-dir={folder}", *options]
    found = Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", agent, clean)
    with started(command, clean | own | environment, folder, found, 1):
        yield found


@contextmanager
def node(head, machines, *options, path=(), programs=()):
    """A further machine, after which the cluster has so many; `programs` is a folder of programs that it has."""
    folder = Path(tempfile.mkdtemp(prefix="jn", dir="/tmp"))
    found = os.pathsep.join(map(str, [*programs, Path(sys.executable).parent, head.environment["PATH"]]))
    environment = head.environment | {"PATH": found, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = ["ray", "start", f"--address={head.address}", "--block", f"--temp-dir={folder}", *options]
    with started(command, environment, folder, head, machines):
        yield


@contextmanager
def started(command, environment, folder, found, machines):
    """What `ray start` starts, from when the cluster has so many machines; Ray itself gives up after 30 seconds."""
    command = [*command, "--object-store-memory=100000000"]
    try:
        for attempt in range(ATTEMPTS):
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            try:
                wait_for(found, machines, process)
                break
            except TimeoutError:
                stop(process)
                assert attempt + 1 < ATTEMPTS, (folder / "log").read_text()
        yield
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


def ask(found, path):
    """What the head's dashboard says at this path."""
    request = Request(f"{found.dashboard}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    with urlopen(request, timeout=5) as answer:
        return json.load(answer)


def wait_for(found, machines, process):
    """Until so many machines are alive. Raises TimeoutError where the process ends before, or it takes too long."""
    alive = "/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
    deadline = time.monotonic() + STARTS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(URLError, OSError):
            if ask(found, alive)["data"]["result"]["total"] >= machines:
                return
        time.sleep(0.3)
    raise TimeoutError


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
