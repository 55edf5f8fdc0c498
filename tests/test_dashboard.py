"""`idenctl dashboard` in a process of its own, asked over HTTP."""

import json
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import optuna
import polars as pl
from conftest import idenctl, run_study
from searching import mirrored, plan

from orchestrator import record
from orchestrator.search import mirror
from orchestrator.store import Store


@contextmanager
def dashboard(root, *names):
    """`idenctl dashboard` in a process of its own; gives a function that asks it for JSON."""
    arguments = ["dashboard", *names, "--store", str(root), "--port", "0"]
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


def frozen(root, storage):
    """The search is recorded in the store, and nothing of it has run."""
    planned = plan(root, mirrored(storage))
    record.freeze(planned, planned.search.store, ["idenctl"])


def test_the_dashboard_opens_on_the_database_that_the_study_names(postgres, searched):
    assert run_study(searched, mirrored(postgres.url)).returncode == 0
    storage = mirror.connected(postgres.url)
    [name] = optuna.get_all_study_names(storage)
    # a name that the store does not have shows that it is the database that is asked
    optuna.create_study(study_name="a neighbour", storage=storage)
    with dashboard(searched, "top") as ask:
        studies = ask("/api/studies")["study_summaries"]
        assert {study["study_name"] for study in studies} == {name, "a neighbour"}


def test_the_dashboard_opens_on_a_copy_from_the_store(finished):
    with dashboard(finished) as ask:
        [study] = ask("/api/studies")["study_summaries"]
        assert study["study_name"].startswith("top ")
        assert study["study_name"].endswith(" (synthetic)")
        trials = ask(f"/api/studies/{study['study_id']}?after=0")["trials"]
        attributes = [attribute for trial in trials for attribute in trial["user_attrs"]]
        shown = [one["value"] for one in attributes if one["key"] == "configuration_id"]
        searched = Store(finished).every_trial().filter(pl.col("without").is_not_null())
        assert sorted(shown) == sorted(searched["configuration_id"].unique())


def test_the_dashboard_refuses_in_one_line_what_it_cannot_show(tmp_path, finished):
    missing = idenctl("dashboard", "top", "--store", tmp_path)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "next: idenctl study run FILE" in missing.stderr
    unknown = idenctl("dashboard", "zzz", "--store", finished)
    assert unknown.returncode == 2
    assert "valid: top" in unknown.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = idenctl("dashboard", "--store", finished, "--port", port)
    assert busy.returncode == 2
    assert f"--port must be free, {port} is not" in busy.stderr


def test_the_dashboard_says_where_nothing_has_finished_yet(tmp_path):
    frozen(tmp_path, f"sqlite:///{tmp_path / 'optuna.db'}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = idenctl("dashboard", "top", "--store", tmp_path, "--port", taken.getsockname()[1])
    assert ended.returncode == 2, "what it says comes before the port is found taken"
    assert "top: no configuration has finished yet" in ended.stderr
    assert "top is not in its database yet; run it again, which catches up" in ended.stderr


def test_the_dashboard_of_a_database_that_is_down_is_a_copy_from_the_store(tmp_path):
    frozen(tmp_path, "postgresql://me@127.0.0.1:1/d")
    with dashboard(tmp_path, "top") as ask:
        [study] = ask("/api/studies")["study_summaries"]
    assert study["study_name"].startswith("top ")
    assert "127.0.0.1:1/d does not answer: " in (tmp_path / "dashboard.log").read_text()
    assert "; this is a copy from the store\n" in (tmp_path / "dashboard.log").read_text()
