"""A search in an Optuna database: a real PostgreSQL of its own, which is asked what it holds through SQL and Optuna."""

import json
import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import psycopg
import pytest
from conftest import idenctl
from optuna.trial import TrialState

from idennet_core.streams import generator
from orchestrator import record, runner
from orchestrator.planning import Capacity
from orchestrator.progress import PackDone
from orchestrator.search import mirror
from orchestrator.sections import masked
from orchestrator.store import Store

STUDY = """
name: top
question: Where is the top?
workload: benchmarks.simulated:Simulated
dataset: simulated
folds: all
base: {epochs: 9, lag: 10, draw: 3, takes: TAKES}
search:
  sampler: tpe
  space: {arm: {choices: [a, b]}, x: {low: -3, high: 3, when: {arm: a}}, y: {low: -2, high: 2, step: 0.5}}
  configurations: 16
  batch: 4
  pruning: {first: 3}
optuna: {storage: "STORAGE"}
report: {by: y}
"""
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
    Path(found) for found in [shutil.which("initdb")] if found
]
needs_postgres = pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed; next: make postgres, as root")


class Postgres:
    """A PostgreSQL cluster in a folder, listening on a socket in it; started as another user where this one is root."""

    def __init__(self, folder):
        self.folder, self.programs = folder, PROGRAMS[-1].parent
        self.user = "postgres" if os.geteuid() == 0 else None
        self.data = folder / "data"
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self.do("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.url = f"postgresql://postgres@/postgres?host={folder}"

    def do(self, program, *options):
        command = [str(self.programs / program), "-D", str(self.data), *options]
        group = pwd.getpwnam(self.user).pw_gid if self.user else None
        subprocess.run(
            command, user=self.user, group=group, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    def start(self):
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self.do("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self):
        self.do("pg_ctl", "stop", "-w", "-m", "immediate")

    def rows(self, query):
        with psycopg.connect(self.url) as connection:
            return connection.execute(query).fetchall()

    def table(self, name):
        return self.rows(f"select 1 from pg_tables where tablename = '{name}'")


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    try:
        server = Postgres(folder)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(cluster):
    """The cluster, running, with nothing of earlier tests in it."""
    with psycopg.connect(cluster.url) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    return cluster


def study_file(root, storage, takes=0.0):
    root.mkdir(exist_ok=True)
    file = root / "study.yaml"
    file.write_text(STUDY.replace("STORAGE", storage).replace("TAKES", str(takes)))
    return file


def run(root, storage, takes=0.0):
    return idenctl("study", "run", study_file(root, storage, takes), "--engine", "inline", "--store", root / "runs")


def of_store(root):
    """By configuration: what its rows and curves in the store's Parquet files come to."""
    store = Store(root / "runs")
    trials = store.every_trial().filter(pl.col("without").is_not_null())
    curves = store.curves(trials).join(trials.select("trial_id", "configuration_id"), "trial_id")
    found = {}
    for (name,), rows in trials.group_by("configuration_id"):
        of = curves.filter(pl.col("configuration_id") == name).pivot("epoch", index="trial_id", values="test_accuracy")
        curve = of.sort("trial_id").drop("trial_id").to_numpy().mean(axis=0)
        state = "COMPLETE" if set(rows["state"]) == {"complete"} else "PRUNED"
        folds = dict(rows.select(pl.format("fold {} seed {}", "fold", "seed"), "validation_accuracy").iter_rows())
        found[name] = (state, folds, curve)
    return found


def assert_mirrors(url, root):
    """Each configuration of the store's search is in the database once, as the store has it."""
    wanted = of_store(root)
    storage = optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))
    [study] = optuna.get_all_study_summaries(storage=storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert len(trials) == len(wanted) == 16
    assert [trial.number for trial in trials] == list(range(16))
    assert {trial.user_attrs["configuration_id"] for trial in trials} == wanted.keys()
    rows = Store(root / "runs").every_trial()
    for trial in trials:
        state, folds, curve = wanted[trial.user_attrs["configuration_id"]]
        assert trial.state.name == state
        assert trial.user_attrs["synthetic"] is True
        assert [*trial.intermediate_values] == list(range(len(curve)))
        np.testing.assert_allclose([*trial.intermediate_values.values()], curve, rtol=1e-12)
        if state == "COMPLETE":
            assert trial.user_attrs["accuracies"] == folds
            assert trial.value == pytest.approx(np.mean([*folds.values()]), rel=1e-12)
        settings = rows.filter(pl.col("configuration_id") == trial.user_attrs["configuration_id"]).row(0, named=True)
        assert {name: settings[name] for name in trial.params} == trial.params
        assert trial.params.keys() == trial.distributions.keys()
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}, "the test has both"
    return study.study_name


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder whose store has the whole search and optuna.db its mirror. Not to be written to."""
    root = tmp_path_factory.mktemp("finished")
    assert run(root, f"sqlite:///{root / 'optuna.db'}").returncode == 0
    return root


@pytest.fixture
def searched(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "searched")


@needs_postgres
def test_a_search_in_postgres_is_what_the_store_has_and_a_second_run_adds_nothing(postgres, tmp_path):
    assert run(tmp_path, postgres.url).returncode == 0
    assert_mirrors(postgres.url, tmp_path)
    tables = ["studies", "trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes"]
    before = {name: sorted(map(repr, postgres.rows(f"select * from {name}"))) for name in tables}
    again = run(tmp_path, postgres.url)
    assert again.returncode == 0
    assert "warning" not in again.stderr
    assert {name: sorted(map(repr, postgres.rows(f"select * from {name}"))) for name in tables} == before
    assert all(before.values())


@needs_postgres
def test_a_database_that_is_down_is_said_once_and_caught_up_by_the_next_run(postgres, searched, caplog):
    postgres.stop()
    try:
        ended = run(searched, postgres.url)
    finally:
        postgres.start()
    assert ended.returncode == 0, "the study goes on"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "\n" not in warnings[0]
    assert "does not answer" in warnings[0]
    assert "run again" in warnings[0]
    assert not postgres.table("trials")
    trained = sorted((searched / "runs").glob("trials/*"))
    run(searched, postgres.url)
    assert_mirrors(postgres.url, searched)
    assert sorted((searched / "runs").glob("trials/*")) == trained


@needs_postgres
def test_a_database_that_comes_back_during_a_run_is_caught_up_by_it(postgres, tmp_path, caplog):
    ended = []

    def listen(event):
        if isinstance(event, PackDone):
            ended.append(event)
            if len(ended) == 2:
                postgres.start()

    planned, store = planned_in(tmp_path, postgres.url)
    postgres.stop()
    with mirror.following(postgres.url, True) as show:
        runner.run_packs(planned, store, listen, "inline", show=show)
    assert len(ended) > 2
    assert_mirrors(postgres.url, tmp_path)
    assert caplog.text.count("does not answer") == 1


@needs_postgres
def test_killed_again_and_again_the_mirror_ends_as_the_store_without_a_row_twice(postgres, tmp_path):
    for least in generator("mirror", "moments of death").integers(1, 9, 2):

        def running(least=least):
            states = (
                [state for [state] in postgres.rows("select state from trials")] if postgres.table("trials") else []
            )
            return len(states) >= least and "RUNNING" in states

        process = started(tmp_path, postgres.url, takes=0.03)
        wait_for(running, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert running(), "what was asked and not told when it was killed"
    run(tmp_path, postgres.url, takes=0.03)
    assert_mirrors(postgres.url, tmp_path)


class Killed(BaseException):
    """What a process that is killed does to whoever waits for it, within this process."""


def write_and_die(storage, search, after):
    """Write the search as a process does that is killed after so many writes."""
    writes = ["create_new_study", "create_new_trial", "set_trial_state_values", "set_trial_intermediate_value"]
    left = [after]

    def until_killed(write):
        def writing(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return write(*arguments, **options)

        return writing

    with pytest.MonkeyPatch.context() as patch:
        for name in writes:
            patch.setattr(storage, name, until_killed(getattr(storage, name)))
        mirror.write(storage, search)


@needs_postgres
def test_killed_after_any_write_of_the_mirror_the_next_run_completes_it(postgres, finished):
    [search], storage = mirror.shown(search_of(finished), synthetic=True), mirror.connected(postgres.url)
    asked = [
        optuna.trial.create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)
        for trial in search.trials[:3]
    ]
    mirror.write(storage, mirror.Shown(search.name, search.objectives, search.attributes, asked))
    for writes in (0, 1, 7, 9, 12, 30):
        with pytest.raises(Killed):
            write_and_die(storage, search, writes)
    mirror.write(storage, search)
    assert_mirrors(postgres.url, finished)


@needs_postgres
def test_rows_of_other_results_are_written_anew(postgres, searched):
    run(searched, postgres.url)
    with psycopg.connect(postgres.url) as connection:
        connection.execute("update trial_values set value = value / 2")
    run(searched, postgres.url)
    assert_mirrors(postgres.url, searched)


def test_the_mirror_in_sqlite_is_what_the_store_has(finished):
    assert_mirrors(f"sqlite:///{finished / 'optuna.db'}", finished)


@needs_postgres
def test_a_database_that_hangs_between_two_batches_holds_up_nothing_and_is_caught_up(postgres, finished, caplog):
    search = search_of(finished)
    with mirror.following(postgres.url, True, limit=0.1) as show:
        procedure, written = search.procedures[0], search.procedures[0].written
        procedure.written = 4
        show(search)
        wait_for(lambda: postgres.table("trials") and len(postgres.rows("select 1 from trials")) == 4)
        processes = [pid for [pid] in postgres.rows("select pid from pg_stat_activity where pid != pg_backend_pid()")]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        procedure.written = written
        show(search)
        [thread] = [each for each in threading.enumerate() if each.name == "mirror"]
    assert "does not answer within 0.1 s; the study goes on" in caplog.text
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    thread.join(60)
    assert_mirrors(postgres.url, finished)


def test_a_database_that_never_answers_holds_up_neither_the_search_nor_its_end(finished, caplog):
    with socket.socket(socket.AF_UNIX) as server:
        folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        server.bind(str(folder / ".s.PGSQL.5432"))
        server.listen()  # connections are taken, and nothing ever answers
        url = f"postgresql://postgres@/postgres?host={folder}"
        with mirror.following(url, True, limit=0.1) as show:
            show(search_of(finished))
            [thread] = [each for each in threading.enumerate() if each.name == "mirror"]
    thread.join()  # its connection ends with the socket
    shutil.rmtree(folder)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "does not answer within 0.1 s; the study goes on" in warning


WRONG = {
    "another database": ("mysql://h/d", "optuna.storage must be postgresql://…, sqlite:///FILE, or env:NAME"),
    "a password": ("postgresql://me:geheim@h/d", "must not hold a password; export the URL and write env:NAME"),
    "a password in the query": ("postgresql://h/d?user=me&password=geheim", "must not hold a password"),
    "no variable": ("env:IDENCTL_NOTHING", "IDENCTL_NOTHING holds nothing; export it"),
    "another variable": ("env:IDENCTL_OTHER", "IDENCTL_OTHER holds 'mysql://me:***@h/d'; export it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_storage_is_refused_in_one_line_without_its_password(case, tmp_path, monkeypatch):
    storage, said = WRONG[case]
    monkeypatch.setenv("IDENCTL_OTHER", "mysql://me:geheim@h/d")
    ended = run(tmp_path, storage)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "geheim" not in ended.stderr


def test_a_password_in_the_environment_is_in_no_message_and_no_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IDENCTL_OPTUNA", "postgresql://me:geheim@127.0.0.1:1/d")
    ended = run(tmp_path, "env:IDENCTL_OPTUNA")
    assert ended.returncode == 0
    assert "postgresql://me:***@127.0.0.1:1/d does not answer" in caplog.text
    assert "geheim" not in ended.stderr + ended.stdout + caplog.text
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [path for path in written if b"geheim" in path.read_bytes()]
    assert "env:IDENCTL_OPTUNA" in (tmp_path / "runs" / "studies" / "top" / "study.yaml").read_text()


def test_a_password_with_an_at_sign_is_masked_whole():
    assert masked("of postgresql://me:a@b:c@host/d?x=1") == "of postgresql://me:***@host/d?x=1"
    assert masked("postgresql://host/d?user=me&password=secret&x=1") == "postgresql://host/d?user=me&password=***&x=1"


def test_a_missing_driver_is_one_line_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # what makes its import fail
    ended = run(tmp_path, "postgresql://host/d")
    assert ended.returncode == 2
    assert "needs the driver psycopg, which is not installed; pip install 'idenctl[postgres]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_design_has_nothing_for_an_optuna_database(tmp_path):
    file = study_file(tmp_path, "sqlite:///x.db")
    content = file.read_text()
    start, end = content.index("search:"), content.index("optuna:")
    file.write_text(f"{content[:start]}design: {{grid: {{y: [0.0, 1.0]}}}}\n{content[end:]}")
    ended = idenctl("study", "plan", file, "--store", tmp_path / "runs")
    assert ended.returncode == 2
    assert "an Optuna database shows searches, got a study with a design; remove optuna" in ended.stderr


@needs_postgres
def test_the_dashboard_opens_on_the_database_that_the_study_names(postgres, searched):
    run(searched, postgres.url)
    name = assert_mirrors(postgres.url, searched)
    # a name that the store does not have shows that it is the database that is asked
    optuna.create_study(study_name="a neighbour", storage=mirror.connected(postgres.url))
    with dashboard(searched, "top") as ask:
        studies = ask("/api/studies")["study_summaries"]
        assert {study["study_name"] for study in studies} == {name, "a neighbour"}


def test_the_dashboard_opens_on_a_copy_from_the_store(finished):
    with dashboard(finished) as ask:
        [study] = ask("/api/studies")["study_summaries"]
        assert study["study_name"].startswith("top ")
        assert study["study_name"].endswith(" (synthetic)")
        trials = ask(f"/api/studies/{study['study_id']}?after=0")["trials"]
        assert {
            attr["value"] for trial in trials for attr in trial["user_attrs"] if attr["key"] == "configuration_id"
        } == of_store(finished).keys()


def test_the_dashboard_refuses_in_one_line_what_it_cannot_show(tmp_path, finished):
    missing = idenctl("dashboard", "top", "--store", tmp_path / "runs")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "next: idenctl study run FILE" in missing.stderr
    unknown = idenctl("dashboard", "zzz", "--store", finished / "runs")
    assert unknown.returncode == 2
    assert "the store holds top" in unknown.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = idenctl("dashboard", "--store", finished / "runs", "--port", port)
    assert busy.returncode == 2
    assert f"--port must be free, {port} is not" in busy.stderr


def test_the_dashboard_says_where_nothing_has_finished_yet(tmp_path):
    planned, store = planned_in(tmp_path, f"sqlite:///{tmp_path / 'optuna.db'}")
    record.freeze(planned, store, ["idenctl"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = idenctl("dashboard", "top", "--store", store.root, "--port", taken.getsockname()[1])
    assert "top: no configuration has finished yet" in ended.stderr
    assert "top is not in its database yet; run it again, which catches up" in ended.stderr


def test_the_dashboard_of_a_database_that_is_down_is_a_copy_from_the_store(tmp_path):
    planned, store = planned_in(tmp_path, "postgresql://me@127.0.0.1:1/d")
    record.freeze(planned, store, ["idenctl"])
    with dashboard(tmp_path, "top") as ask:
        [study] = ask("/api/studies")["study_summaries"]
    assert study["study_name"].startswith("top ")
    assert "127.0.0.1:1/d does not answer: " in (tmp_path / "dashboard.log").read_text()
    assert "; this is a copy from the store\n" in (tmp_path / "dashboard.log").read_text()


def planned_in(root, storage):
    """The plan of the study in a store, and the store."""
    store = Store(root / "runs").open()
    wanted = runner.load(study_file(root, storage), None, {}, store)
    return runner.plan(wanted, store, Capacity("cpu", 1, 1)), store


def search_of(root):
    """The search as it is in the store."""
    store = Store(root / "runs")
    frozen = runner.load(store.studies / "top" / "study.yaml", None, {}, store)
    return runner.plan(frozen, store, Capacity("cpu", 1, 1)).search


def started(root, storage, takes=0.005):
    """The study running in a process of its own; its packs take fractions of a second."""
    arguments = ["study", "run", study_file(root, storage, takes), "--engine", "inline", "--store", root / "runs"]
    command = [sys.executable, "-m", "orchestrator.cli.app", *map(str, arguments)]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE, text=True)


def wait_for(happened, process=None):
    deadline = time.monotonic() + 120
    while not happened():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def dashboard(root, *names):
    """`idenctl dashboard` in a process of its own; gives a function that asks it for JSON."""
    arguments = ["dashboard", *names, "--store", str(root / "runs"), "--port", "0"]
    command = [sys.executable, "-m", "orchestrator.cli.app", *arguments]
    with (root / "dashboard.log").open("w") as said:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=said, text=True
        )
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")

        def ask(path):
            with urllib.request.urlopen(url.removesuffix("/dashboard") + path, timeout=60) as answer:
                return json.load(answer)

        yield ask
    finally:
        process.terminate()
        process.communicate()
