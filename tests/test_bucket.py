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
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import searching
from buckets import ROOT, address, assert_equal, command, hold, kept, node, ran, started
from conftest import idenctl
from s3 import BUCKET, KEYS, until
from test_store import SETTINGS, make_result, run_at

from orchestrator import bucket
from orchestrator.store import at


@pytest.fixture
def undisturbed(shares):
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


def test_every_command_reads_on_another_node_what_was_written_on_one(s3, shares, monkeypatch):
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
    node(monkeypatch, shares, "two")
    assert idenctl("study", "list", "--json", "--store", address()).stdout == expected["list"].stdout
    assert idenctl("study", "status", "shares", "--json", "--store", address()).stdout == expected["status"].stdout
    assert idenctl("report", "shares", "--format", "csv", "--store", address()).stdout == expected["report"].stdout
    plan = json.loads(idenctl("study", "plan", "shares.yaml", "--json", "--store", address()).stdout)
    assert plan == json.loads(expected["plan"].stdout)
    assert (plan["trials"], plan["stored"], plan["packs"]) == (120, 120, [])


def test_a_search_in_a_bucket_asks_what_one_in_a_folder_asks_and_is_known_on_another_node(s3, shares, monkeypatch):
    Path("top.yaml").write_text(searching.text(configurations=8))
    run = ("study", "run", "top.yaml", "--engine", "inline", "--store")
    assert [idenctl(*run, store).returncode for store in ("folder", address())] == [0, 0]
    assert_equal(kept(address()), kept("folder"))
    node(monkeypatch, shares, "two")
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


def test_each_object_is_fetched_once_on_a_node_however_many_ask_at_once(s3, shares, monkeypatch):
    assert ran(address()).returncode == 0
    assert s3.fetched() == {}, "who wrote it has it"
    node(monkeypatch, shares, "two")
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


def test_a_worker_gets_the_store_without_credentials_and_with_the_endpoint(s3, shares, monkeypatch):
    store = at(address()).open()
    store.write_pack([make_result()], SETTINGS, run_at())
    sent = pickle.dumps(store)
    assert not any(secret.encode() in sent for secret in KEYS.values())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    node(monkeypatch, shares, "two")
    other = pickle.loads(sent)
    assert other.root != store.root
    assert other.states() == store.states() != {}


@pytest.mark.parametrize("when", ["predictions", "curves", "trials"])
def test_a_reader_never_sees_half_a_pack(s3, shares, monkeypatch, when, caplog):
    """Whoever looks while a part of a pack arrives sees nothing of it, or all."""
    writer = at(address()).open()
    node(monkeypatch, shares, "two")
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


def test_a_pack_that_arrives_while_a_reader_fetches_is_whole_or_not_seen(s3, shares, monkeypatch, caplog):
    writer = at(address()).open()
    writer.write_pack([make_result(0)], SETTINGS, run_at())
    node(monkeypatch, shares, "two")
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
        count = iter(range(1000))

        def the_put(method, key, count=count, puts=puts):
            return method == "PUT" and next(count) == puts

        with s3.held(the_put) as reached:
            process = started(store)
            assert reached.wait(120), process.communicate()
            process.send_signal(sent)
        _, said = process.communicate(timeout=120)
        assert "Traceback" not in said, said
        assert process.returncode == (-9 if sent == signal.SIGKILL else 130), said
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


def told_while_away(s3, process, go_on):
    """What a run says whose packs go on while the bucket is away, which it is until it was tried again in vain."""
    said = ""
    with s3.away():
        go_on()
        while "is not reached" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        time.sleep(5)
    return said + process.stderr.read()


def test_a_bucket_that_is_away_for_a_while_costs_no_row(s3, undisturbed):
    go_on = hold(2, 3, 4)
    process = started(address())
    until(lambda: s3.objects("p/trials"))
    said = told_while_away(s3, process, go_on)
    assert process.wait(120) == 0, said
    assert said.count("is not reached") == 1, said
    assert f"{address()} is not reached (network connection): trying again for 10 minutes" in said
    assert_equal(kept(address()), undisturbed)


def test_one_that_stays_away_ends_the_run_with_its_results_kept(s3, shares, undisturbed, monkeypatch):
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


def test_what_fails_after_it_has_taken_longer_than_one_waits_for_a_bucket_is_tried_again(s3, monkeypatch):
    place = at(address()).open().bucket
    real, late, failures = time.monotonic, [0.0], iter([True])
    monkeypatch.setattr(bucket.time, "monotonic", lambda: real() + late[0])

    def act():
        late[0] += 2 * bucket.PATIENCE
        if next(failures, False):
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject")
        return "done"

    assert place._call(act) == "done"


def test_two_runs_of_a_study_on_two_nodes_do_not_spoil_each_other(s3, undisturbed, shares):
    processes = [started(address(), takes=0.2, XDG_CACHE_HOME=str(shares / name)) for name in ("a", "b")]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert_equal(kept(address()), undisturbed)


def test_two_runs_of_a_study_in_a_folder_without_locks_do_not_spoil_each_other(undisturbed, shares):
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


def test_a_part_that_cannot_be_sent_leaves_no_half_object_where_anybody_looks(s3, shares, monkeypatch):
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


def test_what_is_removed_or_replaced_in_the_bucket_is_so_on_every_node(s3, shares, monkeypatch):
    one = at(address()).open()
    for name in ("a.json", "b.json"):
        path = one.studies / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
        one.keep(path)
    node(monkeypatch, shares, "two")
    two = at(address()).check()
    assert (two.studies / "b.json").read_text() == "old"
    one.drop(one.studies / "a.json")
    (one.studies / "b.json").unlink()
    (one.studies / "b.json").write_text("newer")
    one.keep(one.studies / "b.json")
    two.refresh()
    assert [path.name for path in two.studies.iterdir()] == ["b.json"]
    assert (two.studies / "b.json").read_text() == "newer"


def test_a_file_is_read_whole_though_it_is_replaced_while_it_is_fetched(s3, shares, monkeypatch):
    one = at(address()).open()
    path = one.heads / "x"
    path.parent.mkdir()

    def put(letter):
        path.unlink(missing_ok=True)
        path.write_bytes(letter * 20_000_000)
        one.keep(path)

    put(b"a")
    node(monkeypatch, shares, "two")
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
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path.cwd()}"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    go_on = hold(2, 3, 4)
    process = subprocess.Popen(command(address()), env=environment, **pipes)
    until(lambda: s3.objects("p/trials"), 300)
    said = told_while_away(s3, process, go_on)
    assert process.wait(300) == 0, said
    assert said.count(f"{address()} is not reached") == 1, said
    assert_equal(kept(address()), undisturbed)


def test_processes_that_used_a_bucket_end_cleanly(s3, shares):
    process = started(address())
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0
    for word in ("Arrow", "S3", "terminate", "leak", "Traceback"):
        assert word not in said


def test_threads_of_one_process_share_what_is_fetched(s3, shares, monkeypatch):
    at(address()).open().write_pack([make_result()], SETTINGS, run_at())
    node(monkeypatch, shares, "two")
    store = at(address()).check()
    s3.asked.clear()
    with ThreadPoolExecutor(8) as pool:
        assert {frame.height for frame in pool.map(lambda _: store.trials(), range(8))} == {1}
    assert set(s3.fetched().values()) == {1}
    shutil.rmtree(store.root)
