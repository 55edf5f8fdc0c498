"""The live view in a real terminal, tmux: what a person sees, at every width, resized, without colour or UTF-8."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from s3 import until
from scipy import stats

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux; next: make debian, as root")

RATES = 50 + np.arange(10)  # percent, by fold
HALF = stats.t.ppf(0.975, 9) * RATES.std(ddof=1) * np.sqrt(1 / 10 + 1 / 9)  # Nadeau & Bengio 2003
# A run of three packs told step by step: each line that is typed is the next event. As long as there is a file of the
# first name that it is given it draws nothing, and says in the other what is in it and how wide the terminal is.
RUN = """
import contextlib, os, pathlib, sys, termios, time
from orchestrator.cli.screen import Display, screen
from orchestrator.progress import Foreseen, PackDone, PackFailed, PackStarted, Progress, RunState

said = termios.tcgetattr(0)
said[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, said)
ids = {pack: tuple(f"{pack}{n}" for n in range(10)) for pack in "abc"}
state = RunState(
    "a_study (synthetic)",
    {trial: f"id_rate={pack}" for pack, trials in ids.items() for trial in trials},
    {}, 3,
    folds={trial: int(trial[1:]) for trials in ids.values() for trial in trials},
    test_to_train=1 / 9,
    foreseen={pack * 32: Foreseen(trials, 60.0) for pack, trials in ids.items()},
)
rates = {trial: 0.5 + 0.01 * n for n, trial in enumerate(ids["a"])}


def drawn(display, draw=Display._drawn):
    held, said = map(pathlib.Path, sys.argv[1:])
    with contextlib.suppress(FileNotFoundError):
        while True:
            said.write_text(f"{held.read_text()} {os.get_terminal_size(2).columns}")
            time.sleep(0.02)
    return draw(display)


Display._drawn = drawn
with screen(state, load=lambda: "2 cores 97% busy") as listen:
    for event in (
        PackStarted("a" * 32, ids["a"]),
        Progress("a" * 32, 500, 1000, 5, 10, "heads", rates),
        PackFailed("b" * 32, (), "OSError: gone"),
        PackDone("a" * 32, rates, {}),
    ):
        listen(event)
        sys.stdin.readline()
print("over")
"""


class Terminal:
    """A tmux of its own with one window, in which a command runs."""

    def __init__(self, folder, width, command, **environment):
        self.socket = str(folder / f"tmux{width}{len(environment)}")
        given = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}
        words = ["env", "-i", *(f"{key}={value}" for key, value in given.items()), *command]
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", "30", "-s", "one", "cat")
        self.tmux("set", "-g", "remain-on-exit", "on")
        self.held, self.said = (Path(f"{self.socket}.{name}") for name in ("held", "said"))
        self.tmux("respawn-window", "-k", *words, str(self.held), str(self.said))

    def tmux(self, *arguments):
        done = subprocess.run(["tmux", "-u", "-S", self.socket, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def resize(self, width):
        """Between two drawings: tmux wraps what is shown before it tells who draws."""
        self.held.write_text(f"for {width}")
        until(lambda: self.said.is_file() and self.said.read_text().startswith(f"for {width} "))
        self.tmux("resize-window", "-x", str(width), "-y", "30")
        until(lambda: self.said.read_text() == f"for {width} {width}")
        self.held.unlink()

    def all(self, *options):
        """All lines, those that have scrolled away too, without blanks at their ends."""
        text = self.tmux("capture-pane", "-p", "-S", "-", *options)
        return [line.rstrip() for line in text.rstrip().splitlines()]

    def until(self, wanted, so=lambda lines: True, *options):
        """The lines as soon as they hold the text and are `so`: the view is drawn again and again, line by line."""
        deadline = time.monotonic() + 120
        while not (re.search(wanted, "\n".join(lines := self.all(*options)), re.MULTILINE) and so(lines)):
            assert time.monotonic() < deadline, "\n".join([f"no {wanted}, or not {so.__name__}, in", *lines])
            time.sleep(0.1)
        return lines


def one_view(lines):
    """Whether the view stands there once, to its last line."""
    last = sum("epoch 5/10" in line for line in lines)
    return lines.count("a_study (synthetic)") == sum(line.startswith("time ") for line in lines) == last == 1


@pytest.fixture
def terminal():
    folder, opened = Path(tempfile.mkdtemp(prefix="tmux-", dir="/tmp")), []  # a socket's path is short

    def open_one(width, command, **environment):
        opened.append(Terminal(folder, width, command, **environment))
        return opened[-1]

    yield open_one
    for one in opened:
        one.tmux("kill-server")
    shutil.rmtree(folder)


@pytest.fixture
def run(terminal):
    return lambda width, **environment: terminal(width, [sys.executable, "-c", RUN], **environment)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_view_stands_once_on_the_terminal_and_a_failure_stays_above_it(run, width):
    one = run(width)
    one.until("0% ")
    one.type("Enter")
    one.until("epoch 5/10")
    one.type("Enter")
    lines = one.until("failed", one_view)
    assert max(map(len, lines)) <= width
    assert "pack bbbbbbbb failed: OSError: gone" in "\n".join(lines[: lines.index("a_study (synthetic)")])
    shown = " ".join(" ".join(lines).split())
    assert f"id_rate=a: 54.5% ± {HALF:.1f} over 10 folds" in shown
    assert "devices 2 cores 97% busy" in shown
    one.type("Enter", "Enter")
    last = one.until("over$")
    assert "a_study (synthetic)" not in last, "the view goes with the run"
    assert "a_study (synthetic) stopped: trials 10 done, 20 waiting" in " ".join(last)[:10_000].replace("  ", " ")


def test_a_terminal_that_is_made_narrower_and_wider_in_the_middle_keeps_no_trace_of_earlier_views(run):
    one = run(160)
    one.type("Enter")
    one.until("epoch 5/10")
    for width in (80, 40, 120, 60, 160):
        one.resize(width)
        one.until(rf"^.{{{width - 4}}} ...%$|^.{{{width - 5}}}  ..%$", one_view)


def test_a_terminal_without_colour_gets_none(run):
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        one = run(80, TERM="xterm-256color", **environment)
        one.type("Enter")
        lines = one.until("epoch 5/10", lambda lines: True, "-e")
        assert ("\x1b[38" in "\n".join(lines)) == coloured


@pytest.mark.parametrize("environment", [{"LANG": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_without_box_characters_gets_ascii(run, environment):
    one = run(60, **environment)
    one.type("Enter")
    one.until("epoch 5/10")
    one.type("Enter", "Enter", "Enter")
    lines = one.until("over$")
    assert "".join(lines).isascii(), "\n".join(lines)
    assert f"54.5% +- {HALF:.1f}" in " ".join(lines)
