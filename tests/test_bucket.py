"""A store in a bucket, over the real protocol: what is kept there, what is fetched, and who can die when."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import searching
from conftest import idenctl
from s3 import BUCKET, KEYS, S3, until
from test_store import SETTINGS, make_result, run_at

from orchestrator import bucket
from orchestrator.store import TABLES, at

ROOT = Path(__file__).parent.parent
SHARES = """\
name: shares
question: Are all there?
workload: shares:Shares
dataset: drawn
folds: all
design: {grid: {x: [1, 2, 3, 4], y: [1, 2, 3]}}
report: {by: x}
"""
# a pack for each x, which takes its time
SHARES_MODULE = """
import os, time
import numpy as np
from orchestrator.planning import Estimate
from orchestrator.study_rules import Rules, complete
from orchestrator.trial import Configuration, Predictions, TrialResult
from orchestrator.workload import Configured


class Shares:
    rules = Rules({"x": 1, "y": 1}, datasets=("drawn",))

    def __init__(self, store):
        pass

    def configure(self, study, cells):
        found = [complete(cell.settings, self.rules.settings) for cell in cells]
        return Configured([Configuration(settings, {"recipe": "1"}) for settings in found], synthetic=True)

    def pack_key(self, trial):
        return str(trial.configuration.settings["x"])

    def estimate(self, pack, device, threads):
        return Estimate(0.0, 0, measured=True)

    def run(self, pack, context):
        time.sleep(float(os.environ.get("TAKES", "0")))
        return [self.result(trial) for trial in pack.trials]

    def result(self, trial):
        share = int(trial.trial_id[:4], 16) / 0xFFFF
        names = [f"P{trial.fold}"] * 2
        said = np.array([[share, 1 - share]] * 2, np.float32)
        predictions = Predictions(names, names, names, ["a", "b"], said, ["a", "b"])
        facts = {"state": "complete", "synthetic": True, "n_train": 9, "n_test": 2, "seconds": 0.0}
        curve = [{"epoch": 0, "loss": share}]
        return TrialResult(trial, accuracy=share, epochs=1, curve=curve, predictions=predictions, **facts)
"""
PASSING = ("pack_id", "host", "started_at", "finished_at", "seconds")  # what two runs may differ in


@pytest.fixture(scope="module")
def server():
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """The server, its bucket empty, as this process and those that it starts reach it; they are one node."""
    server.fails, server.before = (lambda *request: False), (lambda *request: None)
    for key in server.objects():
        server.client.delete_object(Bucket=BUCKET, Key=key)
    server.asked.clear()
    for name, value in KEYS.items() | {("AWS_ENDPOINT_URL", server.url), ("AWS_EC2_METADATA_DISABLED", "true")}:
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    node(monkeypatch, tmp_path, "one")
    return server


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with the study and its workload in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shares", raising=False)
    Path("shares.py").write_text(SHARES_MODULE)
    Path("shares.yaml").write_text(SHARES)
    return tmp_path


def node(monkeypatch, folder, name):
    """From now on this process, and those that it starts, are on the node of this name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / f"node-{name}"))


def address(prefix="p"):
    return f"s3://{BUCKET}/{prefix}"


def command(store, *more):
    return [sys.executable, "-m", "orchestrator.cli.app", "study", "run", "shares.yaml", "--store", str(store), *more]


def started(store, takes=0.0, **environment):
    """A run of the study in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TAKES": str(takes)} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(store, "--engine", "inline"), env=environment, **pipes)


def ran(store):
    return idenctl("study", "run", "shares.yaml", "--engine", "inline", "--store", store)


def kept(store):
    """The rows of a store in order, without what two runs may differ in."""
    place = at(store).check()
    order = {
        "trials": ["trial_id"],
        "curves": ["trial_id", "epoch"],
        "predictions": ["trial_id", "sequence", "frame", "label"],
    }
    frames = {name: getattr(place, name)() for name in TABLES}
    return {name: frames[name].drop(PASSING, strict=False).sort(order[name]) for name in TABLES}


def assert_equal(one, other):
    for name in TABLES:
        assert one[name].equals(other[name]), name


@pytest.fixture
def undisturbed(here):
    """The rows of a run into a folder."""
    assert ran("folder").returncode == 0
    return kept("folder")


def test_a_study_in_a_bucket_gives_the_rows_of_one_in_a_folder(s3, undisturbed):
    assert ran(address()).returncode == 0
    assert_equal(kept(address()), undisturbed)
    assert undisturbed["trials"].height == 120
    s3.asked.clear()
    assert ran(address()).returncode == 0
    assert {method for method, key, _ in s3.asked if key.startswith("p/trials/")} <= {"GET"}, "it runs nothing"


def test_every_command_reads_on_another_node_what_was_written_on_one(s3, here, monkeypatch):
    assert ran(address()).returncode == 0
    expected = {
        name: idenctl(*words, "--store", address())
        for name, words in {
            "list": ("study", "list", "--json"),
            "status": ("study", "status", "shares", "--json"),
            "report": ("report", "shares", "--format", "csv"),
            "plan": ("study", "plan", "shares.yaml", "--json"),
        }.items()
    }
    node(monkeypatch, here, "two")
    assert idenctl("study", "list", "--json", "--store", address()).stdout == expected["list"].stdout
    assert idenctl("study", "status", "shares", "--json", "--store", address()).stdout == expected["status"].stdout
    assert idenctl("report", "shares", "--format", "csv", "--store", address()).stdout == expected["report"].stdout
    plan = json.loads(idenctl("study", "plan", "shares.yaml", "--json", "--store", address()).stdout)
    assert plan == json.loads(expected["plan"].stdout)
    assert (plan["trials"], plan["stored"], plan["packs"]) == (120, 120, [])


def test_a_search_in_a_bucket_asks_what_one_in_a_folder_asks_and_is_known_on_another_node(s3, here, monkeypatch):
    Path("top.yaml").write_text(searching.text(configurations=8))
    run = ("study", "run", "top.yaml", "--engine", "inline", "--store")
    assert [idenctl(*run, store).returncode for store in ("folder", address())] == [0, 0]
    assert_equal(kept(address()), kept("folder"))
    node(monkeypatch, here, "two")
    reports = [idenctl("report", "top", "--format", "csv", "--store", store).stdout for store in ("folder", address())]
    assert reports[0] == reports[1] != ""
    before = s3.objects("p/studies/top/asked")
    assert len(before) == 2
    assert idenctl(*run, address()).returncode == 0
    assert s3.objects("p/studies/top/asked") == before
    assert len(s3.objects("p/trials")) == len(list(Path("folder/trials").glob("*.parquet")))


def test_a_store_that_was_copied_into_a_bucket_by_other_means_is_one(s3, undisturbed):
    for path in (path for path in Path("folder").rglob("*") if path.is_file()):
        s3.client.upload_file(str(path), BUCKET, f"copied/{path.relative_to('folder')}")
    assert_equal(kept(address("copied")), undisturbed)
    assert (
        json.loads(idenctl("study", "plan", "shares.yaml", "--json", "--store", address("copied")).stdout)["packs"]
        == []
    )


def test_the_objects_of_a_bucket_are_a_store_for_whoever_copies_them_into_a_folder(s3, undisturbed):
    assert ran(address()).returncode == 0
    for key in s3.objects("p/"):
        path = Path("back", key.removeprefix("p/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.read(key))
    assert_equal(kept("back"), undisturbed)
    assert not [key for key in s3.objects() if "/." in key], "nothing hidden is sent"


def test_each_object_is_fetched_once_on_a_node_however_many_ask_at_once(s3, here, monkeypatch):
    assert ran(address()).returncode == 0
    assert s3.fetched() == {}, "who wrote it has it"
    node(monkeypatch, here, "two")
    script = f"from orchestrator.store import at; print(at({address()!r}).check().predictions().height)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["240\n"] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert set(s3.fetched().values()) == {1}
    assert {key for key in s3.fetched() if key.endswith(".parquet")} == set(
        s3.objects("p/trials") + s3.objects("p/curves") + s3.objects("p/predictions")
    )


def test_a_worker_gets_the_store_without_credentials_and_with_the_endpoint(s3, here, monkeypatch):
    store = at(address()).open()
    store.write_pack([make_result()], SETTINGS, run_at())
    sent = pickle.dumps(store)
    assert not any(secret.encode() in sent for secret in KEYS.values())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    node(monkeypatch, here, "two")
    other = pickle.loads(sent)
    assert other.root != store.root
    assert other.states() == store.states() != {}


@pytest.mark.parametrize("when", ["predictions", "curves", "trials"])
def test_a_reader_never_sees_half_a_pack(s3, here, monkeypatch, when, caplog):
    """Whoever looks while a part of a pack arrives sees nothing of it, or all."""
    writer = at(address()).open()
    node(monkeypatch, here, "two")
    reader = at(address()).check()
    seen = []

    def look(method, key):
        if method == "PUT" and key.startswith(f"p/{when}/"):
            s3.before = lambda *request: None
            seen.append((reader.trials().height, reader.predictions().height, reader.curves().height))

    s3.before = look
    writer.write_pack([make_result(fold) for fold in range(3)], SETTINGS, run_at())
    assert seen == [(0, 0, 0)]
    assert (reader.trials().height, reader.predictions().height, reader.curves().height) == (3, 12, 6)
    assert caplog.text == ""


def test_a_pack_that_arrives_while_a_reader_fetches_is_whole_or_not_seen(s3, here, monkeypatch, caplog):
    writer = at(address()).open()
    writer.write_pack([make_result(0)], SETTINGS, run_at())
    node(monkeypatch, here, "two")
    reader = at(address()).check()
    written = []

    def write(method, key):
        if method == "GET" and len(written) < 9:
            written.append(key)
            fold = len(written)
            thread = threading.Thread(target=writer.write_pack, args=([make_result(fold)], SETTINGS, run_at()))
            thread.start()
            thread.join()

    s3.before = write
    rows = reader.predictions()
    assert len(written) > 3
    assert set(rows.group_by("trial_id").len()["len"]) == {4}
    assert caplog.text == ""
    s3.before = lambda *request: None
    assert reader.trials().height == 1 + len(written)


@pytest.mark.parametrize(("sent", "times"), [(signal.SIGKILL, 3), (signal.SIGINT, 2)])
def test_killed_at_any_moment_and_run_again_the_rows_are_those_of_an_undisturbed_run(s3, undisturbed, sent, times):
    moments = random.Random(f"moments of {sent.name}")
    for attempt in range(times):
        store, puts = address(f"{sent.name}-{attempt}".lower()), moments.randrange(1, 16)
        reached = threading.Event()
        count = iter(range(1000))

        def kill(method, key, count=count, puts=puts, reached=reached):
            if method == "PUT" and next(count) == puts:
                reached.set()

        s3.before = kill
        process = started(store)
        assert reached.wait(60), process.communicate()
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said, said
        assert process.returncode == (-9 if sent == signal.SIGKILL else 130), said
        s3.before = lambda *request: None
        assert ran(store).returncode == 0
        assert_equal(kept(store), undisturbed)
        objects = s3.objects(store.removeprefix(f"s3://{BUCKET}/") + "/trials/")
        physical = pl.concat([pl.read_parquet(s3.read(key)) for key in objects])
        assert physical["trial_id"].is_unique().all(), "what was kept on this node was sent, not trained again"


def test_what_was_not_sent_when_the_process_died_is_sent_by_the_next_run(s3, undisturbed, caplog):
    s3.fails = lambda method, key, query: method == "PUT" and key.startswith("p/trials/")
    process = started(address())
    until(lambda: any(key.startswith("p/trials/") for method, key, _ in s3.asked if method == "PUT"))
    process.kill()
    process.communicate()
    assert s3.objects("p/trials") == []
    s3.fails = lambda *request: False
    assert ran(address()).returncode == 0
    assert "sending 1 files that could not be sent before" in caplog.text
    assert len(s3.objects("p/trials")) == 4, "no pack ran twice"
    assert_equal(kept(address()), undisturbed)


def test_a_bucket_that_is_away_for_a_while_costs_no_row(s3, undisturbed):
    process = started(address(), takes=0.3)
    until(lambda: s3.objects("p/trials"))
    with s3.away(8):
        pass
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert said.count("is not reached") == 1, said
    assert f"{address()} is not reached (network connection): trying again for 10 minutes" in said
    assert_equal(kept(address()), undisturbed)


def test_one_that_stays_away_ends_the_run_with_its_results_kept(s3, here, undisturbed, monkeypatch):
    monkeypatch.setattr(bucket, "PATIENCE", 2.0)
    s3.fails = lambda method, key, query: method == "PUT" and "/trials/" in key
    done = ran(address())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "what was written is kept in" in done.stderr
    s3.fails = lambda *request: False
    again = ran(address())
    assert again.returncode == 0
    assert_equal(kept(address()), undisturbed)
    assert len(s3.objects("p/trials")) == 4, "no pack ran twice"


def test_two_runs_of_a_study_on_two_nodes_do_not_spoil_each_other(s3, undisturbed, here):
    processes = [started(address(), takes=0.2, XDG_CACHE_HOME=str(here / name)) for name in ("a", "b")]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert_equal(kept(address()), undisturbed)


def test_two_runs_of_a_study_in_a_folder_without_locks_do_not_spoil_each_other(undisturbed, here):
    """As on some NFS: the lock cannot be had, so nobody is kept out."""
    without = (
        "import errno, fcntl, sys\n"
        "def flock(file, how): raise OSError(errno.ENOLCK, 'No locks available')\n"
        "fcntl.flock = flock\n"
        "from orchestrator.cli.app import main\n"
        "sys.argv = ['idenctl', 'study', 'run', 'shares.yaml', '--engine', 'inline', '--store', 'both']\n"
        "main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TAKES": "0.2"}
    processes = [
        subprocess.Popen([sys.executable, "-c", without], env=environment, stderr=subprocess.PIPE) for _ in "ab"
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert_equal(kept("both"), undisturbed)


@pytest.mark.parametrize(
    ("store", "status", "said"),
    [
        ("s3://", 2, "got '' as the bucket; give its name"),
        ("s3:///p", 2, "got '' as the bucket; give its name"),
        ("foo://bucket/p", 2, "got one that begins with 'foo'"),
        ("://", 2, "got one that begins with ''"),
        (f"s3://{BUCKET}/../x", 2, "got '..' in the prefix"),
        (f"s3://{BUCKET}//x", 2, "got '' in the prefix"),
        (f"s3://{BUCKET}/a%2e%2e/x", 2, "got 'a%2e%2e' in the prefix"),
        (f"s3://{BUCKET}/.hidden", 2, "got '.hidden' in the prefix"),
        ("s3://BUCKET/x", 2, "got 'BUCKET' as the bucket"),
        (f"s3://{'b' * 64}/x", 2, "as the bucket; give its name: 3 to 63"),
        (f"s3://{BUCKET}/{'x' * 600}", 2, "in the prefix"),
        (f"s3://{BUCKET}/x?access_key=a", 2, "the options endpoint_override, scheme, region, got another"),
        (f"s3://{BUCKET}/x?region=a/b", 2, "region of letters, digits"),
        ("s3://no-such-bucket/x", 2, "a store's bucket must exist, s3://no-such-bucket/x has none; create it"),
        (f"s3://{BUCKET}/x?endpoint_override=127.0.0.1:1&scheme=http", 1, "must be reachable, it is not (network"),
    ],
)
@pytest.mark.parametrize("words", [("study", "run", "shares.yaml"), ("report", "shares")])
def test_a_wrong_address_is_answered_in_one_line(s3, here, store, status, said, words):
    done = idenctl(*words, "--store", store)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_bucket_that_may_not_be_used_is_named_in_one_line(s3, here, method):
    s3.fails = lambda asked, key, query: asked == method and "403 Forbidden"
    done = ran(address())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"error: the store {address()} must be readable and, to run, writable" in done.stderr


def test_credentials_in_an_address_are_refused_and_shown_nowhere(s3, here):
    for store in ("s3://AKIAKEY:hunter2/hunter3@bucket/p", f"s3://{BUCKET}/p?secret_key=hunter2"):
        done = idenctl("study", "run", "shares.yaml", "--store", store)
        assert done.returncode == 2
        assert "hunter" not in done.stdout + done.stderr
        assert "AKIAKEY" not in done.stderr


def test_no_credential_is_in_anything_that_is_written_or_said(s3, here):
    done = ran(address())
    written = [path.read_bytes() for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file()]
    written += [s3.read(key) for key in s3.objects()] + [(done.stdout + done.stderr).encode()]
    assert not any(secret.encode() in content for secret in KEYS.values() for content in written)


def test_a_folder_of_the_mirror_is_of_its_user_alone(s3, here):
    assert ran(address()).returncode == 0
    assert at(address()).root.stat().st_mode & 0o777 == 0o700


def test_names_of_objects_never_leave_the_mirror(s3, here):
    for key in ("p/studies/../../../out", "p/studies/a\\..\\b", "p/studies//x", "p/studies/.ssh/key"):
        s3.client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    s3.client.put_object(Bucket=BUCKET, Key="p/studies/fine.txt", Body=b"x")
    store = at(address()).check()
    assert [path.name for path in store.root.rglob("*") if path.is_file() and ".locks" not in path.parts] == [
        "fine.txt"
    ]
    assert not list(here.rglob("out"))


def test_a_part_that_cannot_be_sent_leaves_no_half_object_where_anybody_looks(s3, here, monkeypatch):
    monkeypatch.setattr(bucket, "PATIENCE", 1.0)
    store = at(address()).open()
    path = store.heads / "big.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(random.Random("big").randbytes(25_000_000))
    s3.fails = lambda method, key, query: query.get("partNumber") == ["3"]
    with pytest.raises(ConnectionError, match="must be reachable"):
        store.keep(path)
    assert s3.objects("p/heads") == []
    s3.fails = lambda *request: False
    at(address()).open()
    assert s3.read("p/heads/big.safetensors") == path.read_bytes()


def test_what_is_removed_or_replaced_in_the_bucket_is_so_on_every_node(s3, here, monkeypatch):
    one = at(address()).open()
    for name in ("a.json", "b.json"):
        path = one.studies / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
        one.keep(path)
    node(monkeypatch, here, "two")
    two = at(address()).check()
    assert (two.studies / "b.json").read_text() == "old"
    one.drop(one.studies / "a.json")
    (one.studies / "b.json").unlink()
    (one.studies / "b.json").write_text("newer")
    one.keep(one.studies / "b.json")
    two.refresh()
    assert [path.name for path in two.studies.iterdir()] == ["b.json"]
    assert (two.studies / "b.json").read_text() == "newer"


def test_a_file_is_read_whole_though_it_is_replaced_while_it_is_fetched(s3, here, monkeypatch):
    one = at(address()).open()
    path = one.heads / "x"
    path.parent.mkdir()

    def put(letter):
        path.unlink(missing_ok=True)
        path.write_bytes(letter * 20_000_000)
        one.keep(path)

    put(b"a")
    node(monkeypatch, here, "two")
    two = at(address()).check()

    def replace(method, key):
        if method == "GET" and key == "p/heads/x":
            s3.before = lambda *request: None
            path.touch()
            threading.Event().wait(1.1)  # times of change are whole seconds in S3
            thread = threading.Thread(target=put, args=(b"b",))
            thread.start()
            thread.join()

    s3.before = replace
    assert set(two.fetch("heads", "x").read_bytes()) == {ord("b")}


@pytest.mark.slow
def test_on_workers_of_ray_the_rows_are_the_same_and_a_bucket_that_is_away_is_said(s3, undisturbed):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path.cwd()}", "TAKES": "0.5"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(address()), env=environment, **pipes)
    until(lambda: s3.objects("p/trials"), 120)
    with s3.away(5):
        pass
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert said.count(f"{address()} is not reached") == 1, said
    assert_equal(kept(address()), undisturbed)


def test_processes_that_used_a_bucket_end_cleanly(s3, here):
    process = started(address())
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    for word in ("Arrow", "S3", "terminate", "leak", "Traceback"):
        assert word not in said


def test_threads_of_one_process_share_what_is_fetched(s3, here, monkeypatch):
    at(address()).open().write_pack([make_result()], SETTINGS, run_at())
    node(monkeypatch, here, "two")
    store = at(address()).check()
    s3.asked.clear()
    with ThreadPoolExecutor(8) as pool:
        assert {frame.height for frame in pool.map(lambda _: store.trials(), range(8))} == {1}
    assert set(s3.fetched().values()) == {1}
    shutil.rmtree(store.root)
