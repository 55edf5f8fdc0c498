"""What `idenctl report` says to a wrong request, and how it prints where there is little room or few letters."""

import os
import pty
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import terminals
from buckets import ROOT, SHARES, SHARES_MODULE, address, node, ran
from conftest import idenctl
from pages import Page, failures_alone, store
from test_report import plan as design
from test_report import whole
from test_report_parts import plan as small
from test_report_parts import predict, trials_of

COMMAND = [sys.executable, "-m", "orchestrator.cli.app", "report"]


@pytest.fixture
def runs(tmp_path):
    store(tmp_path / "runs", design(), whole(design()))
    return tmp_path / "runs"


def report(runs, *words):
    return idenctl("report", *words, "--store", runs)


def refused(done):
    """The one line that a wrong request is answered with, on stderr, with exit status 2."""
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def real_study(runs):
    real = design(study="real", synthetic=False, profile=None)
    rows = whole(real).with_columns(synthetic=pl.lit(False), trial_id="r" + pl.col("trial_id"))
    for cell in real["cells"]:
        cell["configuration_id"] = "r" + cell["configuration_id"]
    store(runs, real, rows.with_columns(configuration_id="r" + pl.col("configuration_id")))


def test_an_unknown_study_is_answered_with_the_known_ones(runs):
    real_study(runs)
    assert re.search(r"no study 'oulu_irate'.*did you mean .*oulu_idrate@quick", refused(report(runs, "oulu_irate")))
    assert re.search(r"no study 'zzz'.*oulu_idrate@quick, real", refused(report(runs, "zzz")))
    none = refused(report(runs / "nowhere", "zzz"))
    assert f"no study 'zzz': the store {runs}/nowhere holds no study yet; next: idenctl study run FILE" in none


def test_two_outputs_in_one_file_and_a_file_called_minus_are_refused(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both = report(runs, "oulu_idrate", "--out", "one.svg", "--figure", tmp_path / "one.svg")
    assert "--out and --figure are two files, got one.svg for both" in refused(both)
    assert "--out is a file, got -; leave it out to print" in refused(report(runs, "oulu_idrate", "--out", "-"))
    (tmp_path / "file").touch()
    into = refused(report(runs, "oulu_idrate", "--out", "file/report.md"))
    assert "got file/report.md; file is none, give another" in into
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]


def test_a_place_that_takes_nothing_is_named_as_it_was_given(runs):
    for place in ("/dev/full", "/proc/report.md"):
        done = report(runs, "oulu_idrate", "--out", place)
        assert done.stderr.startswith(f"error: {place}: "), done.stderr
    full = report(runs, "oulu_idrate", "--out", "/dev/full")
    assert full.returncode == 1
    assert full.stderr.endswith("No space left on device; make room, `idenctl store clean` shows what may go\n")


def test_a_study_with_nothing_finished_names_the_command_that_runs_it(runs):
    shutil.rmtree(runs / "trials")
    line = refused(report(runs, "oulu_idrate"))
    assert "no trial in the store yet; run it first: idenctl study run studies/oulu_idrate.yaml --profile quick" in line


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv", "json", "html", "latex"])
def test_a_study_of_failures_alone_has_a_report_that_says_why(format, tmp_path):
    store(tmp_path / "runs", design(), failures_alone())
    done = report(tmp_path / "runs", "oulu_idrate", "--format", format)
    assert done.returncode == 0
    if format == "csv":
        assert done.stdout.count(",10,0,") == 7  # failed, pruned
    else:
        assert "NaN in the loss" in done.stdout


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv", "json", "html", "latex"])
def test_drawn_and_real_data_stand_in_one_report_if_asked_and_each_says_which_it_is(format, runs):
    real_study(runs)
    words = ["oulu_idrate", "real", "--format", format]
    assert "--mixed" in refused(report(runs, *words))
    done = report(runs, *words, "--mixed")
    assert done.returncode == 0
    if format == "csv":
        kinds = [line.split(",")[3] for line in done.stdout.splitlines()[1:]]
        assert kinds == ["SYNTHETIC"] * 7 + ["real"] * 7
    elif format == "html":
        assert [line[1] for line in Page(done.stdout).tables["all cells"][1:]] == ["SYNTHETIC"] * 7 + ["real"] * 7
    elif format == "json":
        assert re.findall(r'^    "synthetic": (true|false)', done.stdout, re.MULTILINE) == ["true", "false"]
    else:
        title = r"\section*" if format == "latex" else "How does accuracy move"
        drawn, other = done.stdout.split(title)[-2:]
        assert "SYNTHETIC" in drawn
        assert "SYNTHETIC" not in other


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(runs, tmp_path):
    (runs / "studies/oulu_idrate@quick/plan.json").write_text("{")
    nowhere = tmp_path / "nowhere/report.md"
    line = refused(report(runs, "oulu_idrate", "--out", nowhere))
    assert line == f"error: --out must be in an existing folder, got {nowhere}; create {nowhere.parent}"
    line = refused(report(runs, "oulu_idrate", "--out", tmp_path))
    assert line == f"error: --out is a file, got the folder {tmp_path}; give the name of a file in it"
    (tmp_path / "x.png").mkdir()
    assert "--figure is a file, got the folder" in refused(report(runs, "oulu_idrate", "--figure", tmp_path / "x.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "x.png"]


def test_a_report_is_written_into_a_pipe_and_does_not_take_its_place(runs, tmp_path):
    words = ("oulu_idrate", "--format", "csv", "--out")
    assert report(runs, *words, tmp_path / "plain.csv").returncode == 0
    whole_text = (tmp_path / "plain.csv").read_text()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    try:
        assert report(runs, *words, pipe).returncode == 0
        assert pipe.is_fifo()
        assert reader.communicate(timeout=60)[0] == whole_text
    finally:
        reader.kill()
    link = tmp_path / "stdout"  # not that of the machine: what this must not do would take it away
    link.symlink_to("/proc/self/fd/1")
    into_stdout = [*COMMAND, *words, link, "--store", runs]
    done = subprocess.run(into_stdout, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == whole_text
    assert link.is_symlink()


def test_a_report_that_does_not_fit_on_the_disk_is_named_and_leaves_no_half_of_it(runs, tmp_path):
    page = tmp_path / "page.html"
    done = subprocess.run(
        [*COMMAND, "oulu_idrate", "--format", "html", "--out", page, "--store", runs],
        capture_output=True, text=True, cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"error: {page}: File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_where_stdout_is_closed_a_report_is_written_to_its_file_all_the_same(runs, tmp_path):
    words = [*COMMAND, "oulu_idrate", "--format", "csv", "--out", tmp_path / "report.csv", "--store", runs]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, f"report written to {tmp_path / 'report.csv'}\n")


def test_a_damaged_plan_is_named_with_what_mends_it(runs):
    path = runs / "studies/oulu_idrate@quick/plan.json"
    for content in ("{", "[]", '{"study": "x"}', "\x00" * 100):
        path.write_text(content)
        assert re.search(r"plan\.json is .*run the study again", refused(report(runs, "oulu_idrate")))


@pytest.mark.parametrize("columns", ["80", "0"])
def test_the_list_of_studies_tells_all_counts_beside_a_long_name_and_where_nobody_knows_the_width(
    tmp_path, monkeypatch, columns
):
    plan = design(study="s" * 64, profile=None)
    store(tmp_path / "runs", plan, whole(plan))
    monkeypatch.setenv("COLUMNS", columns)
    shown = idenctl("study", "list", "--store", tmp_path / "runs").stdout
    assert sum(map(len, re.findall("s{4,}", shown))) == 64
    assert "70      70        0" in shown
    assert "…" not in shown


def on_a_terminal(words, columns, **environment):
    """What a command writes to a terminal of so many columns, and its exit status."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "TERM": "xterm", **environment}
    process = subprocess.Popen([*COMMAND, *map(str, words)], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    return terminals.read_rest(ours).decode(), process.wait()


def test_a_page_is_not_poured_into_a_terminal(runs):
    shown, status = on_a_terminal(["oulu_idrate", "--format", "html", "--store", runs], 80)
    assert (status, shown.splitlines()) == (
        2,
        ["error: a page is for a browser, not for a terminal; give --out report.html"],
    )


def test_a_terminal_of_40_columns_has_every_number_in_lines_that_fit(runs, monkeypatch):
    parts = small()
    predictions = predict(("original", "f"))
    store(runs, parts, trials_of(predictions), predictions)
    shown, status = on_a_terminal(["oulu_idrate", "small", "--store", runs], 40)
    assert status == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r", "")
    assert max(map(len, plain.splitlines())) <= 40
    assert "…" not in plain
    monkeypatch.setenv("COLUMNS", "160")
    whole_width = idenctl("report", "oulu_idrate", "small", "--store", runs).stdout
    tables = re.findall(r"^(?:How|Which).*?(?=^ - )", whole_width, re.MULTILINE | re.DOTALL)
    assert len(tables) == 2, "before the notes of each report"
    numbers = re.compile(r"[-+]?\d+\.\d+|\d+/\d+")
    wanted = set(numbers.findall("".join(tables)))
    assert len(wanted) > 60
    assert wanted <= set(numbers.findall(plain))


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_where_there_are_no_box_characters_the_same_is_said_in_ascii(runs, environment):
    words = [*COMMAND, "oulu_idrate", "--store", runs]
    usual = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "LC_ALL": "C.UTF-8", "TERM": "xterm"}
    plain = subprocess.run(words, env=usual | environment, capture_output=True, check=True).stdout
    boxes = subprocess.run(words, env=usual, capture_output=True, check=True).stdout.decode()
    assert plain.isascii()
    shape = re.compile(r"\d+\.\d+")
    assert shape.findall(plain.decode()) == shape.findall(boxes)
    lines = plain.decode().splitlines()
    assert [len(line) for line in boxes.splitlines()[:12]] == [len(line) for line in lines[:12]]


def test_a_reader_that_leaves_ends_the_report_without_a_word(runs):
    reader, writer = os.pipe()
    os.close(reader)  # gone before a word is written
    words = [*COMMAND, "oulu_idrate", "--format", "json", "--store", runs]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_study_in_a_bucket_is_reported_on_another_node_in_every_format(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shares.yaml").write_text(SHARES)
    Path("shares.py").write_text(SHARES_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    assert ran(address()).returncode == 0
    node(monkeypatch, tmp_path, "two")  # where nothing is yet
    for format in ("terminal", "markdown", "csv", "json", "latex"):
        done = report(address(), "shares", "--format", format)
        assert (done.returncode, done.stderr) == (0, "")
    done = report(address(), "shares", "--format", "html", "--out", tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert len(page.tables["SYNTHETIC accuracy %"]) == 13
    assert "is missing or damaged" not in page.text
    assert "python 3" in page.text
