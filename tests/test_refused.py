"""Ray's token on a real Ray: without it, or with another, every entrance is closed, and it is shown nowhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import coins
import grpc
import heads
import pytest
import ray
from lab import wait_until

ROOT = Path(__file__).parent.parent
TOKEN = heads.TOKEN
WRONG = "f" * 64
ROUTE = re.compile(r"routes\.(get|post|put|delete)\(\s*\"([^\"]+)\"")
PUBLIC = re.compile(r"/(static/.*|favicon\.ico|-/healthz|api/(authenticate|authentication_mode|\w*healthz))?")
KEYS = {"without": {}, "wrong": {"RAY_AUTH_TOKEN": WRONG}, "off": {"RAY_AUTH_MODE": "disabled"}}
REFUSED = re.compile(r"authenticat|unauthorized|forbidden|token", re.IGNORECASE)
WITHIN = 600  # seconds for a client that is refused to say so

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coins.written(tmp_path_factory.mktemp("mine"), sides="heads")


@pytest.fixture(scope="module")
def head(folder):
    with heads.head("--num-cpus=1", path=(ROOT, folder)) as found:
        yield found


def ports_of(head, name):
    """The ports that the head's processes of a name listen on, once they do."""

    def found():
        mine = [entry for entry in listeners() if head.environment["HOME"] in entry[0]]
        return {port for line, ip, port in mine if name in line.split(" < ")[0] and ip in ("127.0.0.1", "*")}

    return wait_until(found, WITHIN)


def listeners():
    """All that listens on this machine and can be seen: command line, IP address, port."""
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in lines:
        address, _, port = line.split()[3].rpartition(":")
        for pid in re.findall(r"pid=(\d+)", line):
            path = Path("/proc") / pid
            if path.exists():
                found.append((whose(path), address.strip("[]").removeprefix("::ffff:"), int(port)))
    return found


def whose(process):
    """The command line of a process and of those that it descends from, as some of Ray's name nothing."""
    lines = []
    while process.name not in ("0", "1"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            process = Path("/proc") / re.search(r"PPid:\t(\d+)", (process / "status").read_text())[1]
        except (FileNotFoundError, ProcessLookupError):  # the second where it ends while it is read
            break
    return " < ".join(lines)


def status(url, method="GET", token=None, data=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(url, data=data, headers=headers, method=method), timeout=120) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def client(head, script, **key):
    """Run Python against the head, with a key of `KEYS` in place of the token."""
    environment = {name: value for name, value in head.environment.items() if name != "RAY_AUTH_TOKEN"} | key
    line = [sys.executable, "-c", script]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=WITHIN, cwd="/")


def routes():
    """Every HTTP route that Ray's own source names, as (method, path)."""
    folder = Path(ray.__file__).parent / "dashboard"
    found = {match.groups() for path in folder.rglob("*.py") for match in ROUTE.finditer(path.read_text())}
    assert {("post", "/api/jobs/"), ("get", "/nodes"), ("post", "/api/job_agent/jobs/")} <= found
    return sorted((method.upper(), re.sub(r"\{\w+\}", "x", path)) for method, path in found)


@pytest.mark.parametrize("token", [None, WRONG], ids=["without", "wrong"])
def test_no_http_route_of_the_head_or_of_a_nodes_agent_answers_without_the_token(head, token):
    wait_until(lambda: head.agent in ports_of(head, "ray::DashboardAgent"), WITHIN)
    expected = 403 if token else 401
    for server in (head.dashboard, f"http://127.0.0.1:{head.agent}"):
        answers = {(method, path): status(server + path, method, token) for method, path in routes()}
        let_in = {route for route, answer in answers.items() if answer != expected}
        assert not {route for route in let_in if not PUBLIC.fullmatch(route[1])}


def test_with_the_token_http_answers(head):
    assert status(f"{head.dashboard}/api/jobs/", token=TOKEN) == 200
    assert status(f"{head.dashboard}/nodes?view=summary", token=TOKEN) == 200


@pytest.mark.parametrize("key", KEYS)
def test_no_job_is_taken_without_the_token(head, key):
    script = (
        "from ray.job_submission import JobSubmissionClient\n"
        f"JobSubmissionClient({head.dashboard!r}).submit_job(entrypoint='touch /tmp/never')"
    )
    done = client(head, script, **KEYS[key])
    assert done.returncode != 0
    assert REFUSED.search(done.stderr), done.stderr
    jobs = json.load(urlopen(Request(f"{head.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})))
    assert not [job for job in jobs if job["entrypoint"] == "touch /tmp/never"]


@pytest.mark.parametrize("key", KEYS)
def test_nobody_connects_without_the_token(head, key):
    done = client(head, f"import ray; ray.init({head.address!r}); print('in', ray.nodes())", **KEYS[key])
    assert done.returncode != 0
    assert "in [" not in done.stdout
    assert REFUSED.search(done.stdout + done.stderr), done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_with_the_token_one_connects(head):
    done = client(head, f"import ray; ray.init({head.address!r}); print('in', len(ray.nodes()))", RAY_AUTH_TOKEN=TOKEN)
    assert done.stdout.strip().endswith("in 1"), done.stderr


@pytest.mark.parametrize("key", KEYS)
def test_no_node_joins_without_the_token(head, tmp_path, key):
    environment = {name: value for name, value in head.environment.items() if name != "RAY_AUTH_TOKEN"} | KEYS[key]
    line = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={head.address}", "--num-cpus=1"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=WITHIN, cwd=tmp_path)
    assert done.returncode != 0
    assert REFUSED.search(done.stdout + done.stderr), done.stderr
    nodes = json.load(urlopen(Request(f"{head.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"})))
    assert nodes["data"]["result"]["total"] == 1


@pytest.mark.parametrize(
    ("program", "method"),
    [
        ("/gcs_server ", "/ray.rpc.NodeInfoGcsService/CheckAlive"),
        ("/gcs_server ", "/ray.rpc.InternalKVGcsService/InternalKVKeys"),
        ("ray.util.client.server", "/ray.rpc.RayletDriver/ClusterInfo"),
        ("/raylet ", "/ray.rpc.NodeManagerService/GetNodeStats"),
        ("/raylet ", "/ray.rpc.NodeManagerService/ShutdownRaylet"),
        ("/raylet ", "/ray.rpc.ObjectManagerService/Pull"),
    ],
)
def test_no_daemon_answers_without_the_token(head, program, method):
    def answers(token):
        """What each port says: one of the raylet's two does not know the method at all."""
        found = [call(port, method, token) for port in ports_of(head, program)]
        return {code for code in found if code != grpc.StatusCode.UNIMPLEMENTED}

    assert answers(None) == {grpc.StatusCode.UNAUTHENTICATED}
    assert answers(WRONG) == {grpc.StatusCode.UNAUTHENTICATED}
    if "Shutdown" not in method:
        assert grpc.StatusCode.UNAUTHENTICATED not in answers(TOKEN)


def call(port, method, token):
    """How a remote call without arguments ends."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", 120, [("authorization", f"Bearer {token}")] if token else None)
        except grpc.RpcError as refused:
            return refused.code()
    return grpc.StatusCode.OK


def held(store):
    """The file in the store for as long as which the study's trials wait."""
    store.mkdir()
    hold = store / "hold-heads"
    hold.touch()
    return hold


def test_a_study_on_a_cluster_shows_its_token_nowhere(head, folder, tmp_path):
    store = tmp_path / "store"
    line = [sys.executable, "-m", "orchestrator.cli.app", "study", "run", "coin.yaml", "--address", head.address]
    line += ["--store", str(store), "--verbose"]
    environment = head.environment | {"PYTHONPATH": str(ROOT)}
    hold = held(store)
    process = subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until(lambda: process.poll() is not None or (store / "where.txt").exists(), WITHIN)
    commands = {read(path) for path in Path("/proc").glob("[0-9]*/cmdline")}
    hold.unlink()
    said, _ = process.communicate(timeout=WITHIN)
    assert process.returncode == 0, said.decode()
    assert any(b"gcs_server" in command for command in commands)
    everything = {
        "the screen": said,
        **{str(path): read(path) for path in files(store, Path(head.environment["HOME"]))},
    }
    assert len(everything) > 20
    assert not [name for name, content in everything.items() if TOKEN.encode() in content]
    assert not [command for command in commands if TOKEN.encode() in command]


def files(*folders):
    return [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_socket()]


def read(path):
    try:
        return path.read_bytes()
    except OSError:  # a process that has ended
        return b""


def test_the_ray_of_a_local_study_listens_on_loopback_alone(folder, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    line = [sys.executable, "-m", "orchestrator.cli.app", "study", "run", "coin.yaml", "--store", str(tmp_path / "s")]
    hold = held(tmp_path / "s")
    process = subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: process.poll() is not None or (tmp_path / "s" / "where.txt").exists(), WITHIN)
    found = [(line, ip) for line, ip, _ in listeners() if str(tmp_path / "s") in line]  # the run, or started by it
    hold.unlink()
    _, said = process.communicate(timeout=WITHIN)
    assert process.returncode == 0, said
    assert {"gcs_server", "raylet"} <= {Path(line.split()[0]).name for line, _ in found}
    assert {ip for _, ip in found} == {"127.0.0.1"}
    assert not (tmp_path / ".ray").exists(), "its token is in no file"
