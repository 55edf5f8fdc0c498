"""Studies from Python: what the commands do, in a script and in a notebook that is executed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import buckets
import conftest
import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient
from pages import Page

import idenctl
from orchestrator import record
from orchestrator.store import Store

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples/study.ipynb"
STUDY = """
name: levels
question: Which level is best?
workload: benchmarks.simulated:Simulated
dataset: simulated
base: {epochs: 3}
design: {grid: {level: [0.0, 0.5]}}
report: {by: level, baselines: [{level: 0.0}]}
profiles: {quick: {folds: [0, 1, 2]}}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "levels.yaml").write_text(STUDY)
    return tmp_path / "levels.yaml"


@pytest.fixture
def study(file, tmp_path):
    return idenctl.Study.load(file, profile="quick", overrides={"epochs": 4}, store=tmp_path / "runs")


def test_a_study_that_was_loaded_is_found_from_any_folder_and_recorded_as_it_was_asked_for(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    study = idenctl.Study.load("levels.yaml", profile="quick", store="runs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert study.run(engine="inline").results().height == 6
    assert "6 of 6" in str(study.report())
    assert study.plan()["stored"] == 6
    assert (tmp_path / "runs/trials").is_dir()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert "idenctl study run levels.yaml --store runs --engine inline" in str(study.report())


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("", "a store is a folder or a bucket, got ''"),
        ("~/runs", "has no ~ that a shell is to replace, got '~/runs'; write \\$HOME"),
        ("s3:/bucket/prefix", "got 's3:/bucket/prefix'; write s3://"),
    ],
)
def test_a_store_that_nobody_means_is_refused_and_not_made(store, said, tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        idenctl.Study.load(file, store=store)
    assert [path.name for path in tmp_path.iterdir()] == ["levels.yaml"]


def test_it_plans_runs_and_reports_as_the_commands_do(study, file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = [file, "--profile", "quick", "--set", "epochs=4", "--store", tmp_path / "runs"]
    before = study.plan()
    assert before == json.loads(conftest.idenctl("study", "plan", *words, "--json").stdout)
    assert study.run(engine="inline") is study
    shown = capsys.readouterr()
    assert "levels@quick (synthetic)" in shown.out
    assert "6 of 6 trials complete" in shown.out
    assert study.plan()["stored"] == before["trials"] == 6
    report = study.report()
    for format in ("terminal", "json"):
        done = conftest.idenctl("report", "levels@quick", "--format", format, "--store", tmp_path / "runs")
        assert report.text(format) == done.stdout
    again = json.loads(report.text("json"))["provenance"]["command"]
    assert again.startswith(f"idenctl study run {file} --store {tmp_path / 'runs'} --engine inline --profile quick")


def test_results_are_a_row_a_trial_under_the_name_of_its_cell(study, tmp_path):
    found = study.run(engine="inline").results()
    stored = Store(tmp_path / "runs").trials()
    assert found.height == stored.height == 6
    assert found.drop("cell").sort("trial_id").equals(stored.sort("trial_id").select(found.columns[1:]))
    means = dict(found.group_by("cell").agg(pl.col("accuracy").mean() * 100).iter_rows())
    rows = json.loads(study.report().text("json"))["rows"]
    assert means == pytest.approx({row["label"]: row["accuracy"]["mean"] for row in rows})


def test_a_report_shows_itself_in_a_notebook_and_is_saved_as_its_name_ends(study, tmp_path):
    report = study.run(engine="inline").report()
    (frame,) = Page(report._repr_html_()).of("iframe")
    assert "levels" in Page(frame["srcdoc"]).text
    assert len(Page(frame["srcdoc"]).tables["SYNTHETIC accuracy %"]) == 3
    assert report._repr_markdown_() == report.text("markdown")
    assert str(report) == report.text("terminal")
    assert report.save(tmp_path / "same.svg").read_text() == report.figure._repr_svg_()
    starts = {".html": b"<!DOCTYPE", ".tex": b"\\documentclass", ".csv": b"study,", ".json": b"{", ".pdf": b"%PDF"}
    for suffix, start in {**starts, ".png": b"\x89PNG", ".svg": b"<svg", ".md": b"# Which", ".txt": b"Which"}.items():
        assert report.save(tmp_path / f"report{suffix}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"a report ends in \.html.*got .*report\.docx"):
        report.save(tmp_path / "report.docx")
    with pytest.raises(NotADirectoryError, match="existing folder"):
        report.save(tmp_path / "nowhere/report.html")


def test_what_the_commands_refuse_is_raised_in_one_line(study, file, tmp_path):
    load = idenctl.Study.load
    with pytest.raises(ValueError, match="unknown profile 'quik'; did you mean"):
        load(file, profile="quik", store=tmp_path / "runs")
    with pytest.raises(ValueError, match="unknown"):
        load(file, overrides={"epoch": 3}, store=tmp_path / "runs")
    with pytest.raises(FileNotFoundError, match="no study file"):
        load(tmp_path / "level.yaml", store=tmp_path / "runs")
    with pytest.raises(ValueError, match=r"was not run in .*run\(\) it first"):
        study.results()
    with pytest.raises(ValueError, match="an engine is tune or inline, got 'ray'"):
        study.run(engine="ray")
    assert not (tmp_path / "runs").exists()


INTERRUPTED = """
import sys
from idenctl import Study

study = Study.load("shares.yaml", store="interrupted")
try:
    study.run(engine=sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr, flush=True)
sys.stdin.readline()
study.run(engine=sys.argv[1])
"""


def session_of(process):
    """The processes that a process has started, and they in turn, by what they are called."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(ValueError, OSError):  # no process, or one that has just ended
            if os.getsid(int(entry.name)) == process.pid != int(entry.name):
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return {number: command for number, command in found.items() if command}  # one that has ended has none


@pytest.mark.parametrize("engine", ["inline", "tune"])
def test_ctrl_c_in_a_script_reaches_it_and_keeps_what_is_stored_and_run_again_it_goes_on(engine, shares):
    assert buckets.ran("undisturbed").returncode == 0
    go_on = buckets.hold(2, 3, 4)
    script = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, engine],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        while not (stored := list(Path("interrupted/trials").glob("*.parquet"))):
            assert script.poll() is None, script.stderr.read()
            time.sleep(0.05)
        script.send_signal(signal.SIGINT)
        said = iter(script.stderr.readline, "interrupted\n")
        assert "Traceback" not in "".join(said)
        assert script.poll() is None, "who caught it goes on"
        assert not session_of(script)
        assert not record.running(Store(Path("interrupted")), "shares")
        before = buckets.kept("interrupted")["trials"]
        assert 0 < before.height < 120
        go_on()
        said = script.communicate("\n", timeout=300)[1]
    finally:
        script.kill()
    assert script.returncode == 0, said
    assert all(path.exists() for path in stored)
    buckets.assert_equal(buckets.kept("interrupted"), buckets.kept("undisturbed"))
    assert not session_of(script)


def test_the_notebook_is_stored_without_what_it_printed():
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_notebook_runs_and_shows_its_report(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.setenv("IDENCTL_STORE", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.read(NOTEBOOK, 4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    said = "".join(out.text for out in shown["run"] if out.output_type == "stream")
    assert "drawn: 40 of 40 trials complete" in said
    assert {out.name for outputs in shown.values() for out in outputs if out.output_type == "stream"} == {"stdout"}
    page = Page(shown["report"][-1].data["text/html"]).of("iframe")[0]["srcdoc"]
    assert len(Page(page).tables["SYNTHETIC accuracy %"]) == 5
    assert shown["figure"][-1].data["image/svg+xml"].startswith("<svg")
    assert (tmp_path / "drawn.tex").read_text().startswith("\\documentclass")
