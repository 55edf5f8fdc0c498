"""Studies as jobs of a real Ray: sent, followed, refused, stopped; and those of this machine, stopped by name."""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import coins
import heads
import pytest
from conftest import idenctl
from s3 import BUCKET, KEYS, S3

from orchestrator.cluster import shipping
from orchestrator.store import Store

ROOT = Path(__file__).parent.parent
FINISH = 900  # seconds after which a command hangs
ELSEWHERE = {"pack_id", "seconds", "started_at", "finished_at", "host"}  # may differ between two equal runs


def command(*arguments):
    return [sys.executable, "-m", "orchestrator.cli.app", *map(str, arguments)]


@pytest.fixture(scope="module")
def head():
    """A Ray that knows nothing of this program, as a job brings it."""
    with heads.head("--num-cpus=2") as found:
        yield found


@pytest.fixture
def folder(tmp_path):
    return coins.written(tmp_path / "mine")


@pytest.fixture
def laptop(head, folder, tmp_path):
    """A function that starts a command in the user's folder, and the arguments that name store and cluster."""
    environment = head.environment | {"PYTHONPATH": str(ROOT)}

    def start(*arguments):
        everything = command(*arguments, "--address", head.dashboard, "--store", tmp_path / "store")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(everything, cwd=folder, env=environment, **pipes)

    return start


def ended(process):
    said, _ = process.communicate(timeout=FINISH)
    assert heads.TOKEN not in said
    return process.returncode, said


def rows(store):
    return Store(store).trials().drop(ELSEWHERE).sort("trial_id")


# on a cluster


@pytest.mark.cluster
def test_a_submitted_study_ends_with_the_rows_of_one_that_ran_here_and_takes_only_what_it_needs(
    laptop, folder, tmp_path, monkeypatch
):
    status, said = ended(laptop("study", "submit", "coin.yaml"))
    assert status == 0, said
    assert "4 of 4 trials complete" in said
    assert re.search(r"sending orchestrator, idennet_core, coin.yaml, coin.py, helper.py \(\d\.\d MB\)", said)
    used = Path((tmp_path / "store" / "where.txt").read_text())
    assert "runtime_resources" in used.parts, "its own copy of the program, not what the cluster has"
    monkeypatch.chdir(folder)
    here = idenctl("study", "run", "coin.yaml", "--engine", "inline", "--store", tmp_path / "here")
    assert here.returncode == 0, here.stderr
    assert rows(tmp_path / "store").equals(rows(tmp_path / "here"))
    status, said = ended(laptop("study", "status", "coin"))
    assert status == 0
    assert re.search(r"coin is job coin-\d+ \(succeeded\)", said)
    assert "4 of 4 trials complete" in said


@pytest.mark.cluster
def test_a_job_outlives_who_follows_it_is_refused_twice_and_saves_when_it_is_stopped(laptop, folder, tmp_path):
    coins.written(folder, sides="heads", takes=3600)
    following = laptop("study", "submit", "coin.yaml")
    wait_until((tmp_path / "store" / "where.txt").exists, following)
    following.send_signal(signal.SIGINT)
    status, said = ended(following)
    assert status == 130
    assert "goes on; next: idenctl study status coin --address http" in said
    assert "or: idenctl study stop coin --address http" in said
    status, said = ended(laptop("study", "submit", "coin.yaml"))
    assert status == 2
    assert re.search(r"a study runs once at a time, coin is job coin-\d+ \(running\)", said)
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    status, said = ended(laptop("study", "status", "coin", "--json"))
    assert '"state": "RUNNING"' in said
    status, said = ended(laptop("study", "stop", "coin"))
    assert status == 0, said
    assert "coin: 0 of 2 trials complete" in said, "the run itself says what is safe"
    assert "(stopped)" in said
    status, said = ended(laptop("study", "stop", "coin"))
    assert status == 2
    assert "only a job that runs can be stopped" in said


@pytest.mark.cluster
def test_a_job_is_watched_from_when_it_is_sent_to_its_end(laptop, folder, tmp_path):
    coins.written(folder, takes=5)
    watched = tmp_path / "watched"
    waits = f"while 'runtime_resources' in __file__ and not pathlib.Path({str(watched)!r}).exists(): time.sleep(0.1)\n"
    (folder / "helper.py").write_text(f"import pathlib, time\n{waits}{coins.HELPER}")  # the job, before it has a plan
    status, said = ended(laptop("study", "submit", "coin.yaml", "--no-follow"))
    assert status == 0, said
    watching = laptop("study", "status", "coin", "--watch")
    assert watching.stdout.readline() == "waiting for a plan of coin …\n"
    watched.touch()
    status, said = ended(watching)
    assert status == 0, said
    assert "coin (synthetic): 4 trials, 4 to train in this run" in said
    assert "coin (synthetic) finished: trials 4 done" in said


@pytest.mark.cluster
def test_of_two_terminals_that_submit_a_study_at_once_one_is_refused(head, laptop, folder, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", heads.TOKEN)
    from orchestrator.cluster.jobs import Jobs

    coins.written(folder, sides="heads", takes=3600)
    jobs = Jobs(head.dashboard)
    before = jobs.by_study()
    both = [laptop("study", "submit", "coin.yaml", "--no-follow") for _ in range(2)]
    try:
        (first, _), (second, said) = sorted(map(ended, both))
        assert (first, second) == (0, 2), said
        assert re.search(
            r"error: (a study runs once at a time, coin is job|somebody has just submitted coin as) coin-", said
        )
        assert len(jobs.by_study()["coin"]) == len(before.get("coin", [])) + 1
        # who looked before either was sent is refused by the job's name
        monkeypatch.setattr(jobs, "by_study", lambda: before)
        with pytest.raises(
            ValueError, match=r"somebody has just submitted coin as coin-\d+; next: idenctl study status"
        ):
            jobs.submit("coin", ["true"], folder)
    finally:
        ended(laptop("study", "stop", "coin"))


@pytest.mark.cluster
def test_a_jobs_exit_status_is_ours(laptop, folder):
    coins.written(folder, sides="edge")
    status, said = ended(laptop("study", "submit", "coin.yaml"))
    assert status == 1, said
    assert "it stands on its edge" in said
    coins.written(folder)
    (folder / "helper.py").write_text("import pathlib\nassert pathlib.Path('holiday.jpg').exists()\n" + coins.HELPER)
    status, said = ended(laptop("study", "submit", "coin.yaml"))
    assert status == 2, "what is wrong only there is wrong input too"
    assert "the module coin cannot be imported" in said


@pytest.mark.cluster
def test_nothing_is_sent_of_a_study_that_is_wrong(laptop, folder):
    (folder / "coin.yaml").write_text(coins.STUDY.format(sides="heads", takes="late").replace("coin\n", "late\n", 1))
    status, said = ended(laptop("study", "submit", "coin.yaml"))
    assert status == 2
    assert "takes" in said
    status, said = ended(laptop("study", "status", "late"))
    assert status == 2
    assert "no study 'late'" in said


@pytest.mark.cluster
def test_a_jobs_results_lie_in_a_bucket_from_which_the_laptop_reports(folder, tmp_path):
    server = S3()
    aws = KEYS | {"AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true"}
    try:
        with heads.head("--num-cpus=2", **aws, XDG_CACHE_HOME=str(tmp_path / "there")) as found:
            cache = {"XDG_CACHE_HOME": str(tmp_path / "here")}
            environment = found.environment | aws | cache | {"PYTHONPATH": str(ROOT)}

            def laptop(*arguments):
                whole = command(*arguments, "--store", f"s3://{BUCKET}/mine")
                done = subprocess.run(
                    whole, cwd=folder, env=environment, capture_output=True, text=True, timeout=FINISH
                )
                assert done.returncode == 0, done.stderr
                return done.stdout

            laptop("study", "submit", "coin.yaml", "--address", found.dashboard)
            status = json.loads(laptop("study", "status", "coin", "--address", found.dashboard, "--json"))
            assert (status["complete"], status["job"]["state"]) == (4, "SUCCEEDED")
        table = json.loads(laptop("report", "coin", "--format", "json"))
        assert sorted(row["accuracy"]["mean"] for row in table["rows"]) == [25.0, 75.0]
    finally:
        server.stop()


@pytest.mark.cluster
def test_another_token_is_refused_and_never_shown(head, folder, tmp_path):
    environment = head.environment | {"PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": "f" * 64}
    for address, name in ((head.dashboard, "submit"), (head.address, "run")):
        arguments = command("study", name, "coin.yaml", "--address", address, "--store", tmp_path / "store")
        done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=FINISH)
        assert done.returncode == 2, done.stderr
        assert "refuses this user's token" in done.stderr
        assert "f" * 64 not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


# what is shipped


def test_only_the_modules_of_the_folder_that_were_loaded_are_shipped(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    __import__("coin")
    assert shipping.own_modules(folder, sys.modules.values()) == [Path("coin.py"), Path("helper.py")]


def test_the_code_that_is_shipped_runs_alone_and_knows_its_version(folder, tmp_path):
    target = tmp_path / "shipped"
    target.mkdir()
    shipping.pack(target, [folder / "coin.yaml"], [Path("coin.py"), Path("helper.py")], folder)
    assert shipping.size(target) < 2e6
    script = (
        "import orchestrator, idennet_core, importlib.metadata as m\n"
        "print(orchestrator.__file__, idennet_core.__file__, m.distribution('idenctl')._path)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=target, capture_output=True, text=True, check=True)
    assert all(Path(path).is_relative_to(target) or not Path(path).is_absolute() for path in done.stdout.split())


# addresses


@pytest.fixture
def client(monkeypatch, folder):
    monkeypatch.setenv("RAY_AUTH_TOKEN", heads.TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.chdir(folder)
    from orchestrator.cluster import address, jobs

    monkeypatch.setattr(address, "ANSWERS_WITHIN", 2.0)
    monkeypatch.setattr(jobs, "ANSWERS_WITHIN", 2.0)

    def answer(name, where, store="/tmp/none"):
        return idenctl("study", name, "coin.yaml", "--address", where, "--store", store)

    return answer


@pytest.fixture
def silent():
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def web():
    """A web server that is no Ray."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.parametrize(
    ("name", "address", "status", "said"),
    [
        ("submit", "http://127.0.0.1:{closed}", 1, "nothing answers at http://127.0.0.1:"),
        ("submit", "http://127.0.0.1:{silent}", 1, "nothing answers at http://127.0.0.1:"),
        ("submit", "http://127.0.0.1:{web}", 2, "is no Ray dashboard"),
        ("submit", "ray://127.0.0.1:{closed}", 2, "a job is sent to the cluster's dashboard"),
        ("submit", "127.0.0.1:{closed}", 2, "a job is sent to the cluster's dashboard"),
        ("run", "127.0.0.1:{closed}", 1, "no Ray answers at 127.0.0.1:"),
        ("run", "127.0.0.1:{silent}", 1, "no Ray answers at 127.0.0.1:"),
        ("run", "127.0.0.1:{web}", 1, "no Ray answers at 127.0.0.1:"),
        ("run", "ray://127.0.0.1:{closed}", 2, "an address is auto or HOST:PORT, got ray://"),
        ("run", "http://127.0.0.1:{web}", 2, "idenctl study submit"),
        ("run", "auto", 1, "no Ray answers at "),
        ("run", "somewhere", 2, "an address is auto or HOST:PORT"),
    ],
)
def test_an_address_that_is_none_is_one_line_within_seconds(
    client, silent, web, tmp_path, monkeypatch, name, address, status, said
):
    (closed,) = heads.free_ports(1)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed}")  # what auto means, and nothing else
    done = client(name, address.format(closed=closed, silent=silent, web=web), tmp_path / "store")
    assert done.returncode == status, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert said in errors[0]


def test_a_store_that_only_this_machine_knows_is_refused(client):
    done = client("submit", "http://127.0.0.1:1", "runs")
    assert done.returncode == 2
    assert "all its machines see" in done.stderr


# on this machine


def wait_until(happened, process):
    deadline = time.monotonic() + FINISH
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_here(folder, store, *options):
    """A run that a script left in the background, and so ignores Ctrl-C."""
    arguments = command("study", "run", "coin.yaml", "--store", store, *options)
    return subprocess.Popen(
        arguments,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )


def test_stop_ends_a_run_of_this_machine_as_ctrl_c_does(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    store = tmp_path / "store"
    assert idenctl("study", "run", "coin.yaml", "--engine", "inline", "--store", store).returncode == 0
    refused = idenctl("study", "stop", "coin", "--store", store)
    assert refused.returncode == 2
    assert "only a study that runs can be stopped" in refused.stderr
    shutil.rmtree(store)
    coins.written(folder, sides="heads", takes=3600)
    running = start_here(folder, store, "--engine", "inline")
    wait_until((store / "where.txt").exists, running)
    done = idenctl("study", "stop", "coin", "--store", store)
    assert done.returncode == 0, done.stderr
    assert "to go on: run the same command again" in done.stderr
    said, _ = running.communicate(timeout=FINISH)
    assert running.returncode == 130
    assert "coin: 0 of 2 trials complete" in said


@pytest.mark.cluster
def test_sigterm_ends_a_run_on_tune_as_ctrl_c_does(folder, tmp_path):
    coins.written(folder, sides="heads", takes=3600)
    running = start_here(folder, tmp_path / "store")
    wait_until((tmp_path / "store" / "where.txt").exists, running)
    running.terminate()
    said, _ = running.communicate(timeout=FINISH)
    assert running.returncode == 130, said
    assert "coin: 0 of 2 trials complete" in said
    assert "Traceback" not in said
