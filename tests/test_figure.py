"""The report's figure: it shows the report's numbers, and says so where the faces are drawn."""

import re

import cv2
import numpy as np
import pytest
from test_report import plan, whole

from orchestrator.cli import report as command
from orchestrator.report import FIGURES, figure, tables


def report_and_trials():
    return tables.build(plan(), whole(plan())), whole(plan())


def test_every_fold_mean_and_paper_value_of_the_report_is_a_mark_of_the_figure():
    report, trials = report_and_trials()
    drawn = figure.draw(report, trials, ".svg").decode()
    marks = re.findall(r'aria-label="id_rate: ([^;]*); ([^"]*)"', drawn)

    def values(row, *names):
        found = [dict(part.split(": ") for part in text.split("; ")) for label, text in marks if label == row.label]
        return [float(mark[name]) for mark in found for name in names if name in mark]

    for row in report.rows:
        folds = trials.filter(configuration_id=row.configuration_id)["accuracy"] * 100
        beside = [] if row.reference is None else [row.reference]
        points = values(row, "accuracy %, dots and bars SYNTHETIC")
        assert sorted(points) == pytest.approx(sorted([*folds, row.accuracy.mean, *beside]))
        half = row.accuracy.half_width
        assert values(row, "low", "high") == pytest.approx([row.accuracy.mean - half, row.accuracy.mean + half])


def test_the_figure_of_drawn_faces_says_synthetic_in_title_and_axis():
    report, trials = report_and_trials()
    words = re.findall(r">([^<]*SYNTHETIC[^<]*)<", figure.draw(report, trials, ".svg").decode())
    assert len(words) >= 2


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
