"""A search in an Optuna database: a real PostgreSQL of its own, which is asked what it holds through SQL and Optuna."""

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import psycopg
import pytest
from conftest import Killed, run_study
from optuna.trial import TrialState
from searching import mirrored, plan, planned_in, started, wait_for

from orchestrator import runner
from orchestrator.progress import PackDone
from orchestrator.search import mirror
from orchestrator.store import Store


def of_store(root):
    """By configuration: what its rows and curves in the store's Parquet files come to."""
    store = Store(root)
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
    rows = Store(root).every_trial()
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


def test_a_search_in_postgres_is_what_the_store_has_and_a_second_run_adds_nothing(postgres, tmp_path):
    assert run_study(tmp_path, mirrored(postgres.url)).returncode == 0
    assert_mirrors(postgres.url, tmp_path)
    tables = ["studies", "trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes"]
    before = {name: sorted(map(repr, postgres.rows(f"select * from {name}"))) for name in tables}
    again = run_study(tmp_path, mirrored(postgres.url))
    assert again.returncode == 0
    assert "warning" not in again.stderr
    assert {name: sorted(map(repr, postgres.rows(f"select * from {name}"))) for name in tables} == before
    assert all(before.values())


def test_a_database_that_is_down_is_said_once_and_caught_up_by_the_next_run(postgres, searched, caplog):
    postgres.stop()
    try:
        ended = run_study(searched, mirrored(postgres.url))
    finally:
        postgres.start()
    assert ended.returncode == 0, "the study goes on"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "\n" not in warnings[0]
    assert "does not answer" in warnings[0]
    assert "run again" in warnings[0]
    assert not postgres.table("trials")
    trained = sorted(searched.glob("trials/*"))
    assert trained
    run_study(searched, mirrored(postgres.url))
    assert_mirrors(postgres.url, searched)
    assert sorted(searched.glob("trials/*")) == trained


def test_a_database_that_comes_back_during_a_run_is_caught_up_by_it(postgres, tmp_path, caplog):
    ended = []

    def listen(event):
        if isinstance(event, PackDone):
            ended.append(event)
            if len(ended) == 2:
                postgres.start()

    planned = plan(tmp_path, mirrored(postgres.url))
    postgres.stop()
    with mirror.following(postgres.url, True, limit=120) as show:
        runner.run_packs(planned, planned.search.store, listen, "inline", show=show)
    assert len(ended) > 2
    assert_mirrors(postgres.url, tmp_path)
    assert caplog.text.count("does not answer") == 1


def test_killed_again_and_again_the_mirror_ends_as_the_store_without_a_row_twice(postgres, tmp_path):
    for batches in (1, 3):

        def running(least=4 * batches):
            states = (
                [state for [state] in postgres.rows("select state from trials")] if postgres.table("trials") else []
            )
            return len(states) >= least and "RUNNING" in states

        process = started(tmp_path, mirrored(postgres.url, takes=0.03), batches)
        wait_for(running, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert running(), "what was asked and not told when it was killed"
    run_study(tmp_path, mirrored(postgres.url, takes=0.03))
    assert_mirrors(postgres.url, tmp_path)


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


def test_killed_after_any_write_of_the_mirror_the_next_run_completes_it(postgres, finished):
    [search], storage = mirror.shown(planned_in(finished).search, synthetic=True), mirror.connected(postgres.url)
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


def test_rows_of_other_results_are_written_anew(postgres, searched):
    run_study(searched, mirrored(postgres.url))
    with psycopg.connect(postgres.url) as connection:
        connection.execute("update trial_values set value = value / 2")
    run_study(searched, mirrored(postgres.url))
    assert_mirrors(postgres.url, searched)


def test_the_mirror_in_sqlite_is_what_the_store_has(finished):
    assert_mirrors(f"sqlite:///{finished / 'optuna.db'}", finished)


def tell(processes, what):
    """Send a signal to those that have not ended, as that of a query before ends some time after it."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, what)


def test_a_database_that_hangs_between_two_batches_holds_up_nothing_and_is_caught_up(postgres, finished, caplog):
    search = planned_in(finished).search
    with mirror.following(postgres.url, True, limit=0.1) as show:
        procedure, written = search.procedures[0], search.procedures[0].written
        procedure.written = 4
        show(search)
        wait_for(lambda: postgres.table("trials") and len(postgres.rows("select 1 from trials")) == 4)
        processes = [pid for [pid] in postgres.rows("select pid from pg_stat_activity where pid != pg_backend_pid()")]
        tell(processes, signal.SIGSTOP)
        procedure.written = written
        show(search)
        [*_, thread] = [each for each in threading.enumerate() if each.name == "mirror"]
    tell(processes, signal.SIGCONT)
    assert "does not answer within 0.1 s; the study goes on" in caplog.text
    thread.join(120)
    assert_mirrors(postgres.url, finished)


def test_a_database_that_never_answers_holds_up_neither_the_search_nor_its_end(finished, caplog):
    with socket.socket(socket.AF_UNIX) as server:
        folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        server.bind(str(folder / ".s.PGSQL.5432"))
        server.listen()  # connections are taken, and nothing ever answers
        url = f"postgresql://postgres@/postgres?host={folder}"
        with mirror.following(url, True, limit=0.1) as show:
            show(planned_in(finished).search)
            [*_, thread] = [each for each in threading.enumerate() if each.name == "mirror"]
    thread.join()  # its connection ends with the socket
    shutil.rmtree(folder)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "does not answer within 0.1 s; the study goes on" in warning
