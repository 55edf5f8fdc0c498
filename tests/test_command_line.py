"""A command line that cannot be run is one line and exit status 2; `--debug` shows where the error arose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import idenctl

ROOT = str(Path(__file__).parent.parent)


def test_a_missing_file_exits_with_2_and_only_debug_shows_a_traceback(tmp_path):
    arguments = ["study", "plan", tmp_path / "none.yaml", "--store", tmp_path / "runs"]
    plain, debug = idenctl(*arguments), idenctl(*arguments, "--debug")
    assert (plain.returncode, plain.stderr.count("\n")) == (2, 1)
    assert "Traceback" not in plain.stderr
    assert debug.returncode == 2
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "error: No such command 'bogus'; see: idenctl --help"),
        (["study", "run"], "error: Missing argument 'FILE'; see: idenctl study run --help"),
        (["report", "x", "--format", "pdf"], "'pdf' is not one of 'terminal', 'markdown', 'csv', 'json'"),
        (["report", "x", "--format", "htm"], "'html', 'latex'; did you mean 'html'?; see"),
        (["data", "synth", "mmi", "--out", "x", "--subjects", "0", "--sheet", "x.bmp"], "--sheet must end in .png"),
        (["study", "run", "x", "--bogus"], "--bogus"),
        (["heatmap", "x", "--out", "x.png", "--people", "0"], "greater than or equal to 1, got '0'; see: idenctl heat"),
        (["study", "plan", "x", "--price-per-hour", "inf"], "a finite number of at least 0, got inf; give a price"),
        (["study", "plan", "x" * 5000], f"error: {'x' * 100}...{'x' * 100}: File name too long\n"),
        (["study", "plan", "x", "--price-per-hour", "much"], "unable to parse string as a number, got 'much'; see"),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_one_line(arguments, said):
    command = [sys.executable, "-m", "orchestrator.cli.app", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["study", "list", "--store", ""], "--store"),
        (["study", "list", "--store="], "--store"),
        (["study", "status", "x", "--address", " "], "--address"),
        (["study", "run", "x", "--mlflow", ""], "--mlflow"),
        (["report", "x", "--out", ""], "--out"),
        (["cluster", "check", ""], "an argument"),
        (["data", "show", "mmi", "--root", ""], "--root"),
    ],
)
def test_a_value_that_is_empty_is_refused_and_never_taken_for_the_folder_that_one_is_in(arguments, place, tmp_path):
    command = [sys.executable, "-m", "orchestrator.cli.app", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ROOT})
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {place} must say something, got ")
    assert not list(tmp_path.iterdir())


def test_a_setting_that_is_empty_is_its_own_mistake(tmp_path):
    done = idenctl("study", "plan", tmp_path / "none.yaml", "--set", "depth=")
    assert "no study file" in done.stderr
