"""A command line that cannot be run is one line and exit status 2; `--debug` shows where the error arose."""

import subprocess
import sys

import pytest
from conftest import idenctl


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
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_one_line(arguments, said):
    command = [sys.executable, "-m", "orchestrator.cli.app", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
