"""The report's figure: it shows the report's numbers, and says so where the faces are drawn."""

import re
import shutil
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest
from kinds import KINDS, LONG, ODD
from test_report import plan, whole

from orchestrator.cli import report as command
from orchestrator.report import FIGURES, figure, tables, terminal
from orchestrator.statistics.folds import Estimate

COLUMN, BOTH = 238, 496  # points: a paper's column of 8.4 cm, two of them
SMALLEST = 7  # points of a letter
needs_poppler = pytest.mark.skipif(
    not (shutil.which("pdftotext") and shutil.which("pdffonts")),
    reason="no pdftotext; make debian installs poppler-utils",
)


def report_and_trials():
    return tables.build(plan(), whole(plan())), whole(plan())


def test_every_fold_mean_and_paper_value_of_the_report_is_a_mark_of_the_figure():
    report, trials = report_and_trials()
    drawn = figure.draw(report, trials, ".svg").decode()
    said = "accuracy %, dots and bars SYNTHETIC"
    marks = [dict(part.split(": ") for part in text.split("; ")) for text in re.findall(rf'"({said}: [^"]*)"', drawn)]

    def values(row, *names):
        return [float(mark[name]) for mark in marks for name in names if mark["cell"] == row.label and name in mark]

    for row in report.rows:
        folds = trials.filter(configuration_id=row.configuration_id)["accuracy"] * 100
        beside = [] if row.reference is None else [row.reference]
        low, high = row.accuracy.mean - row.accuracy.half_width, row.accuracy.mean + row.accuracy.half_width
        assert sorted(values(row, said)) == pytest.approx(sorted([*folds, row.accuracy.mean, *beside, low]))
        assert values(row, "high") == pytest.approx([high])


def test_the_interval_that_is_drawn_is_the_reports_though_its_mean_is_not_in_the_middle():
    report, trials = report_and_trials()
    skewed = Estimate(1, 99.0, half_width=1.0, low=97.75, high=99.75)
    whole_report = replace(report, rows=tuple(replace(row, accuracy=skewed, reference=None) for row in report.rows))
    means = [mark for mark in figure.values(whole_report, trials) if mark["kind"] == "mean"]
    assert {(mark["low"], mark["high"]) for mark in means} == {(97.75, 99.75)}
    lines = [
        line
        for line in terminal.to_terminal(whole_report, 120, False).splitlines()
        if "●" in line and "├─┤" not in line
    ]
    assert len(lines) == len(report.rows)
    for line in lines:
        assert line.index("●") - line.index("├") > line.index("┤") - line.index("●") + 1


def test_the_figure_of_drawn_faces_says_synthetic_in_title_and_axis():
    report, trials = report_and_trials()
    words = re.findall(r">([^<]*SYNTHETIC[^<]*)<", figure.draw(report, trials, ".svg").decode())
    assert len(words) >= 2


def numbered(cells):
    wanted = plan(reference=None)
    wanted["cells"] = [
        {"label": {"id_rate": n}, "settings": {"id_rate": n}, "configuration_id": f"{n:032x}"} for n in range(cells)
    ]
    wanted["report"]["baselines"] = [{"id_rate": 1}]
    return tables.build(wanted, whole(wanted))


def panels(count):
    settings = [{"variant": name, "depth": depth} for name in ("original", "i", "f", "if") for depth in range(count)]
    cells = [{"label": one, "settings": one, "configuration_id": f"{place:032x}"} for place, one in enumerate(settings)]
    wanted = plan(cells=cells, reference=None, report={"by": ["variant", "depth"], "baselines": []})
    return tables.build(wanted, whole(wanted))


DRAWN = {
    **{f"{count} cells": lambda root, count=count: numbered(count) for count in (2, 3, 5, 10, 25, 40, 90)},
    **{f"{count} panels": lambda root, count=count: panels(count) for count in (2, 4, 7)},
    **{
        kind: lambda root, kind=kind: KINDS[kind](root)[0]
        for kind in ("design", "split", "search", "failures", "odd names")
    },
}


def poppler(command, picture, folder):
    (folder / "figure.pdf").write_bytes(picture)
    return subprocess.run([*command, "figure.pdf", "-"], cwd=folder, capture_output=True, text=True, check=True).stdout


@needs_poppler
@pytest.mark.parametrize("kind", DRAWN)
def test_a_figure_is_as_wide_as_a_column_or_two_and_its_letters_have_seven_points_there(kind, tmp_path):
    report = DRAWN[kind](tmp_path)
    shown = poppler(["pdftotext", "-bbox"], figure.draw(report, whole(plan()), ".pdf"), tmp_path)
    width, height = (float(size) for size in re.search(r'<page width="([\d.]+)" height="([\d.]+)"', shown).groups())
    assert width in (COLUMN, BOTH)
    assert height < 700, "a page's text"
    boxes = re.findall(r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">', shown)
    boxes = np.array(boxes, float)
    assert (boxes[:, :2] >= 0).all(), "nothing is cut off"
    assert (boxes[:, 2:] <= [width, height]).all(), "nothing is cut off"
    left, top, right, bottom = boxes.T
    across = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    down = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    assert not np.triu((across > 0.5) & (down > 0.5), 1).any(), "no word stands on another"
    drawn = figure.draw(report, whole(plan()), ".svg").decode()
    assert f'width="{width:.0f}pt"' in drawn, "a letter of the SVG is as large"
    assert f'viewBox="0 0 {width:.0f} ' in drawn
    assert min(map(float, re.findall(r'font-size="([\d.]+)px"', drawn))) >= SMALLEST


def test_a_column_is_enough_but_for_many_cells_or_panels(tmp_path):
    def width(report):
        return int(re.search(r'width="(\d+)pt"', figure.draw(report, whole(plan()), ".svg").decode()).group(1))

    assert [width(numbered(count)) for count in (2, 10, 20, 40)] == [COLUMN, COLUMN, COLUMN, BOTH]
    assert [width(panels(count)) for count in (2, 4)] == [COLUMN, BOTH]


@needs_poppler
def test_long_names_stand_in_a_figure_whole(tmp_path):
    report = DRAWN["odd names"](tmp_path)
    shown = poppler(["pdftotext", "-raw"], figure.draw(report, whole(plan()), ".pdf"), tmp_path)
    flat = re.sub(r"\s", "", shown)
    assert LONG.capitalize() in flat
    assert flat.count(re.sub(r"\s", "", ODD.partition("中")[0])) >= 3, "question, data and source"


def test_a_figure_of_too_many_cells_says_which_it_shows():
    drawn = figure.draw(numbered(90), whole(plan()), ".svg").decode()
    assert "80 of 90 cells: the baselines and the best" in drawn


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_a_figure_is_the_kind_of_picture_its_name_says(suffix, start):
    assert suffix in FIGURES
    picture = figure.draw(*report_and_trials(), suffix)
    assert picture.startswith(start)
    if suffix == ".png":
        pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.std() > 10, "something is drawn"


@pytest.mark.parametrize(
    ("name", "studies", "said"),
    [
        ("x.gif", ["a"], "must end in .svg, .png, .pdf"),
        ("x.svg", ["a", "b"], "draws one study"),
        ("no/x.svg", ["a"], "existing folder"),
    ],
)
def test_a_figure_that_cannot_be_is_refused(tmp_path, name, studies, said):
    with pytest.raises((ValueError, NotADirectoryError), match=said):
        command.check_figure(tmp_path / name, studies)
