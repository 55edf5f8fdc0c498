"""The answer in one sentence claims what the statistics show and no more."""

import re
from dataclasses import replace

import polars as pl
import pytest
from pages import noisy
from searching import NUMBERS, run, text
from test_report import plan, trial, whole
from test_search_report import reported

from orchestrator.report import tables
from orchestrator.report.answer import answer


def built(wanted, trials):
    return tables.build(wanted, trials)


def comparisons(report):
    return [(row, one) for row in report.rows for one in row.comparisons if one and one.p_holm is not None]


@pytest.mark.parametrize("seed", range(6))
def test_differences_of_chance_are_not_shown_unless_their_corrected_p_says_so(seed):
    report = built(plan(), noisy(plan(), seed))
    least = min(one.p_holm for _, one in comparisons(report))
    assert ("no difference is shown" in answer(report)) == (least >= 0.05)


def test_what_is_shown_is_told_with_interval_and_corrected_p():
    report = built(plan(), whole(plan()))
    row, largest = max(comparisons(report), key=lambda pair: pair[1].difference.mean)
    assert largest.p_holm < 0.05
    low, high = largest.difference.low, largest.difference.high
    told = f"{row.label} is better than {largest.baseline}, {largest.difference.mean:+.2f} points"
    assert f"{told} (95% interval {low:+.2f} to {high:+.2f}, p Holm " in answer(report)
    shown = len({round(one.p, 12) for _, one in comparisons(report) if one.p_holm < 0.05})
    more = re.search(r"and (\d+) more differences are shown", answer(report))
    assert shown == 2 + int(more.group(1))


def test_a_difference_is_significant_by_its_corrected_p_alone():
    report = built(plan(), whole(plan()))
    row = report.rows[-1]
    lone = replace(row.comparisons[0], p=0.001, p_holm=0.06)
    only = replace(report, rows=(replace(row, comparisons=(lone, None)),))
    assert "no difference is shown: the only one is not significant" in answer(only)
    shown = replace(only, rows=(replace(row, comparisons=(replace(lone, p_holm=0.04), None)),))
    assert "1.0 is better than Original" in answer(shown)


def test_a_cell_that_is_worse_is_called_worse():
    wanted = plan(report={"by": "id_rate", "baselines": [{"id_rate": 1.0}]})
    report = built(wanted, whole(wanted))
    assert "1.0 is better than Original" not in answer(report)
    assert "Original is worse than 1.0, -" in answer(report)


def test_without_a_baseline_nothing_is_tested_and_nothing_is_shown():
    wanted = plan(report={"by": "id_rate", "baselines": []})
    said = answer(built(wanted, whole(wanted)))
    assert re.search(r"1.0 is highest with [\d.]+ ± [\d.]+ %, Original lowest", said)
    assert "no difference is tested and none is shown" in said


def test_one_fold_can_show_nothing():
    said = answer(built(plan(folds=1), whole(plan(folds=1))))
    assert "no difference is shown: none to Original and F can be tested, a single fold has no interval" in said


def test_an_unfinished_study_says_how_far_it_is():
    half = whole(plan()).filter(pl.col("fold") < 5)
    assert "so far, with 35 of 70 trials, " in answer(built(plan(), half))


def test_failures_alone_are_no_answer():
    failed = pl.DataFrame([trial(0, fold, state="failed") for fold in range(10)])
    failed = failed.with_columns(pl.col("accuracy", "sequence_accuracy").cast(pl.Float64))
    assert "no answer, 10 trials failed and none is complete" in answer(built(plan(), failed))


def test_drawn_data_is_named_first_and_real_data_is_not_called_drawn():
    real = plan(synthetic=False)
    trials = whole(real).with_columns(synthetic=pl.lit(False))
    assert answer(built(plan(), whole(plan()))).startswith("On SYNTHETIC (drawn) data, ")
    assert "SYNTHETIC" not in answer(built(real, trials))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "on subjects that its selection saw"),
        (", select: test", "the best of many on the very test folds that chose it, so too high"),
        (", nested: true", "on subjects it never saw"),
    ],
)
def test_a_search_says_on_whom_its_choice_was_judged(tmp_path, more, said):
    content = text(space=NUMBERS, configurations=8, more=more)
    run(tmp_path, content)
    report = reported(tmp_path, content)
    assert said in answer(report)
    assert report.rows[0].label in answer(report)
    several = answer(
        replace(report, searched=replace(report.searched, chosen=(0, 1), objectives=("accuracy", "flops")))
    )
    assert "chose 2 configurations, none better in all of accuracy and flops; most accurate is " in several
    waiting = replace(report, rows=(), searched=replace(report.searched, chosen=()))
    assert "no answer yet, the search is not over" in answer(waiting)


def test_of_cells_that_are_equal_none_is_called_highest():
    wanted = plan(report={"by": "id_rate", "baselines": []})
    report = built(wanted, whole(wanted).with_columns(accuracy=pl.lit(0.5)))
    assert f"all {len(report.rows)} cells have 50.00 %; no baseline is named" in answer(report)
