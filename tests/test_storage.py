"""What a study file may say of the Optuna database that shows its search, and what is never said of it."""

import sys

import pytest
from conftest import run_study
from searching import mirrored

from orchestrator.sections import masked

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
    ended = run_study(tmp_path, mirrored(storage))
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "geheim" not in ended.stderr


def test_a_password_in_the_environment_is_in_no_message_and_no_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IDENCTL_OPTUNA", "postgresql://me:geheim@127.0.0.1:1/d")
    ended = run_study(tmp_path, mirrored("env:IDENCTL_OPTUNA"))
    assert ended.returncode == 0
    assert "postgresql://me:***@127.0.0.1:1/d does not answer" in caplog.text
    assert "geheim" not in ended.stderr + ended.stdout + caplog.text
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"geheim" in path.read_bytes()]
    assert "env:IDENCTL_OPTUNA" in (tmp_path / "studies" / "top" / "study.yaml").read_text()


def test_a_password_with_an_at_sign_is_masked_whole():
    assert masked("of postgresql://me:a@b:c@host/d?x=1") == "of postgresql://me:***@host/d?x=1"
    assert masked("postgresql://host/d?user=me&password=secret&x=1") == "postgresql://host/d?user=me&password=***&x=1"


def test_a_missing_driver_is_one_line_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # what makes its import fail
    ended = run_study(tmp_path, mirrored("postgresql://host/d"))
    assert ended.returncode == 2
    assert "needs the driver psycopg, which is not installed; pip install 'idenctl[postgres]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_design_has_nothing_for_an_optuna_database(tmp_path):
    content = mirrored("sqlite:///x.db")
    [section] = [line for line in content.splitlines() if line.startswith("search:")]
    ended = run_study(tmp_path, content.replace(section, "design: {grid: {y: [0.0, 1.0]}}"))
    assert ended.returncode == 2
    assert "an Optuna database shows searches, got a study with a design; remove optuna" in ended.stderr
