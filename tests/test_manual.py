"""What the README and the manual tell to type: it is typed here, or at least read by the real parser."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from conftest import idenctl
from markdown_it import MarkdownIt
from test_help import parsed

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = {"bash", "sh", "console"}
ENDS = {"|", ">", "&&", ";", "<"}  # of a command's own words
SMALL = [
    "depth=10",
    "epochs=2",
    "trunks.emotion.epochs=40",
    "trunks.identity.epochs=6",
]  # whose trunks the tutorial trains


def blocks(page):
    """Info string and text of each block of a page's code."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [(token.info, token.content) for token in tokens if token.type in ("fence", "code_block")]


def typed(page):
    """The shell blocks of a page; what a title marks as needing more than this machine is for the parser alone."""
    return [(info, text) for info, text in blocks(page) if info.split()[:1] and info.split()[0] in SHELLS]


def to_run(page):
    return [text for info, text in typed(page) if "title=" not in info]


def commands(text):
    """The words of each idenctl command in a shell block, without the name."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip().startswith("idenctl "):
            words = shlex.split(line, comments=True)
            ends = [place for place, word in enumerate(words) if word in ENDS]
            yield words[1 : ends[0] if ends else None]


def test_the_parser_that_reads_the_pages_refuses_what_is_wrong():
    assert parsed(["study", "run", "FILE", "--set", "alpha=1"])[0] == ("study", "run")
    for wrong in ("study rn FILE", "study run", "study run FILE --sets alpha=1", "report a --format word"):
        with pytest.raises(typer.exceptions.TyperException):
            parsed(wrong.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_is_one_that_the_parser_takes(page):
    for info, text in blocks(page):
        assert info, f"a block without its language is neither run nor read: {text[:60]}"
    for _, text in typed(page):
        for words in commands(text):
            parsed(words)
            for word in words:
                if re.match(r"(studies|cluster|examples)/\w+\.\w+$", word):
                    assert (ROOT / word).is_file(), word


def run(page, folder):
    """Type a page's unmarked blocks one after the other into one shell, which ends at the first that fails."""
    script = "set -euo pipefail\n" + "\n".join(
        f": block {number}\n{text}" for number, text in enumerate(to_run(page), 1)
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "IDENCTL_STORE"} | own,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The folder in which the tutorial was done, and what its commands printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    return folder / "first-study", run(ROOT / "docs/tutorial.md", folder)


def accuracies(page):
    """Mean and half width of the 95% interval by variant, of the page's first table that has them."""
    rows = re.findall(
        r"^\| (Original|F|IF) \|.*?(\d+\.\d+) ± (\d+\.\d+)", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {variant: (float(mean), float(half_width)) for variant, mean, half_width in reversed(rows)}


def test_the_tutorial_ends_with_what_it_says(tutorial):
    folder, said = tutorial
    shown, found = (accuracies(path) for path in (ROOT / "docs/tutorial.md", folder / "first.md"))
    assert shown.keys() == found.keys() == {"Original", "F", "IF"}
    for variant, (mean, half_width) in shown.items():  # to the bit on one kind of processor alone
        assert abs(found[variant][0] - mean) < half_width
    assert "10 to train" in said
    for made in ("faces.png", "first.html", "first.md", "first.svg", "where.png"):
        assert (folder / made).stat().st_size > 1000


def test_the_readme_runs_as_it_is_written(tutorial, tmp_path, monkeypatch):
    for part in ("studies", "examples"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for part in ("data", "trunks"):  # what `make demo` leaves, in small: faces and trunks are the tutorial's
        shutil.copytree(tutorial[0] / "runs" / part, tmp_path / "demo/runs" / part)
    monkeypatch.chdir(tmp_path)
    study = ["study", "run", "studies/oulu_idrate.yaml", "--profile", "quick", "--store", "demo/runs"]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    assert idenctl(*study, *settings, "--engine", "inline").returncode == 0
    said = run(ROOT / "README.md", tmp_path)
    assert "SYNTHETIC" in said
    for made in ("fig3.html", "fig3.md", "fig3.svg", "where.png"):
        assert (tmp_path / made).stat().st_size > 1000


def test_a_workload_of_ones_own_runs_as_its_page_says(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    assert "support vector machine" in run(ROOT / "docs/how-to/workload.md", tmp_path)


def test_every_link_of_a_page_leads_to_a_file_of_the_project():
    links = 0
    for page in PAGES:
        for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
            for inner in token.children or ():
                target = inner.attrs.get("href") or inner.attrs.get("src")
                if target and not re.match(r"https?:|#", str(target)):
                    assert (page.parent / str(target).partition("#")[0]).is_file(), f"{page}: {target}"
                    links += 1
    assert links > 50
