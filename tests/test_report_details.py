"""What a report says beyond differences: families, details, one configuration under several names."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from statsmodels.stats.multitest import multipletests
from test_report import plan, trial, whole
from test_report_parts import guess, predict, trials_of
from test_report_parts import plan as small

from orchestrator.report import Format, formats, tables
from orchestrator.report.stored import with_details
from orchestrator.report.wording import detailed
from orchestrator.statistics.folds import Comparison, Estimate


def details(**changes):
    return with_details(plan(**changes))


def noisy(plan, seed=3):
    """Every trial of the plan, all cells alike but for chance."""
    trials = whole(plan)
    return trials.with_columns(accuracy=np.random.default_rng(seed).normal(0.7, 0.03, trials.height))


def comparisons(report):
    return [one for row in report.rows for one in row.comparisons if one is not None]


def test_holms_p_is_over_every_comparison_of_the_report_each_counted_once():
    report = tables.build(plan(), noisy(plan()))
    once = {round(one.p, 12): one.p_holm for one in comparisons(report)}  # Original against F stands in both rows
    assert (len(comparisons(report)), len(once), report.num_comparisons) == (12, 11, 11)
    _, expected, *_ = multipletests([*once], method="holm")
    assert [*once.values()] == pytest.approx(expected)


def test_no_table_shows_a_p_that_is_not_adjusted_unless_details_are_asked_for():
    report = tables.build(plan(), whole(plan()))
    for format in (Format.TERMINAL, Format.MARKDOWN):
        shown = formats.render([report], format)
        heads = re.findall(r"(?<![\w-])p\b(?: \w+)?", shown.split("p Holm:")[0])
        assert set(heads) == {"p Holm"}


def test_comparisons_by_expression_are_a_family_of_their_own():
    predictions = predict(("original", "f"))
    report = tables.build(small(), trials_of(predictions), predictions)
    found = [one for row in report.rows for part in row.expressions for one in part.comparisons if one and one.p]
    _, expected, *_ = multipletests([one.p for one in found], method="holm")
    assert [one.p_holm for one in found] == pytest.approx(expected)
    assert any(f"{len(found)} more comparisons, a family of their own" in note for note in report.notes)
    assert [one.p_holm for one in comparisons(report)] == [one.p for one in comparisons(report)]  # a single one


def test_seeds_and_folds_are_told_apart_in_the_spread_of_a_difference():
    two = plan(seeds=3, folds=4)
    two["cells"] = two["cells"][:2]
    rng = np.random.default_rng(1)
    differences = rng.normal(0, 0.02, (4, 1)) + rng.normal(0.01, 0.01, (4, 3))
    rows = [trial(0, fold, seed, accuracy=0.7) for fold in range(4) for seed in range(3)]
    rows += [trial(1, fold, seed, accuracy=0.7 + differences[fold, seed]) for fold in range(4) for seed in range(3)]
    (comparison,) = tables.build(two, pl.DataFrame(rows)).rows[1].comparisons[:1]
    within = 1e4 * differences.var(axis=1, ddof=1).mean()
    between = max(1e4 * differences.mean(1).var(ddof=1) - within / 3, 0)
    assert comparison.spread.between_seeds == pytest.approx(within)
    assert comparison.spread.between_folds == pytest.approx(between)
    assert (comparison.spread.num_seeds, comparison.spread.test_to_train) == (3, pytest.approx(144 / 1296))
    assert comparison.effect == pytest.approx(differences.mean() / differences.mean(1).std(ddof=1))


def test_the_difference_over_subjects_counts_the_frames_of_the_trials_that_both_have():
    predictions = predict(("original", "f"), seeds=(0, 1))
    lost = predictions.filter(pl.col("trial_id") != "f-1-1")
    report = tables.build(small(seeds=[0, 1]), trials_of(lost), lost)
    right = {}
    for row in lost.to_dicts():
        cell, fold, seed = row["trial_id"].split("-")
        right[cell, fold, seed, row["subject"], row["frame"]] = 100.0 * (guess(row) == row["label"])
    of_subject = {}
    for (cell, fold, seed, subject, frame), value in right.items():
        other = right.get(("original", fold, seed, subject, frame))
        if cell == "f" and other is not None:
            of_subject.setdefault((fold, subject), {}).setdefault(seed, []).append(value - other)
    sums = [np.mean([sum(values) for values in seeds.values()]) for seeds in of_subject.values()]
    frames = [np.mean([len(values) for values in seeds.values()]) for seeds in of_subject.values()]
    found = report.rows[1].comparisons[0].by_subject
    assert found.num_folds == len(of_subject) == 12
    assert found.mean == pytest.approx(np.sum(sums) / np.sum(frames))
    assert found.low < found.mean < found.high


def test_details_are_the_same_in_every_format():
    asked = details(seeds=2)
    report = tables.build(asked, noisy(asked))
    exact = json.loads(formats.render([report], Format.JSON))["rows"]
    records = list(csv.DictReader(io.StringIO(formats.render([report], Format.CSV))))
    for format, width in ((Format.TERMINAL, 80), (Format.MARKDOWN, 0)):
        shown = formats.render([report], format, width)
        assert max(map(len, shown.splitlines())) <= 80 or format is Format.MARKDOWN
        for index, baseline in enumerate(report.baselines):
            begin = shown.index(f"SYNTHETIC minus {baseline} in detail")
            for row, record in zip(exact, records, strict=True):
                line = re.search(rf"^[ |]*{re.escape(row['label'])} .*$", shown[begin:], re.MULTILINE)[0]
                one = row["comparisons"][index]
                if one is None:
                    assert set(re.sub(r"[|\s]", "", line.replace(row["label"], "", 1))) == {"-"}
                    continue
                assert f"{one['effect']:+.2f}" in line
                assert detailed(report.rows[exact.index(row)].comparisons[index])[-1] in line
                assert record[f"minus_{baseline}_settled_by"] == one["outlook"]
                assert float(record[f"minus_{baseline}_effect"]) == pytest.approx(one["effect"], abs=0.005)
    assert any("Settled by: the seeds" in note for note in report.notes)


def test_one_seed_cannot_tell_what_more_seeds_would_do():
    found = comparisons(tables.build(plan(), noisy(plan())))
    assert {(one.outlook, one.more_seeds) for one in found if one.p_holm >= 0.05} == {("unknown: one seed", None)}
    assert {detailed(one)[-1] for one in found if one.p_holm >= 0.05} == {"unknown: one seed"}


def test_a_number_of_seeds_that_nobody_would_run_is_not_told_to_the_last_digit():
    asked = Comparison("f", Estimate(10, 1.0), p=0.5, p_holm=0.5, outlook="more seeds")
    shown = [detailed(replace(asked, more_seeds=more))[-1] for more in (1, 2, 1000, 1001, 20_968)]
    assert shown == ["1 more seed", "2 more seeds", "1,000 more seeds", "over 1,000 seeds", "over 1,000 seeds"]


def test_cells_that_are_one_configuration_are_named_and_not_compared():
    twice = plan()
    twice["cells"][1] |= {"configuration_id": twice["cells"][0]["configuration_id"], "also": [{"alpha": 0}]}
    report = tables.build(twice, whole(twice))
    assert "Original; F; alpha 0: the same configuration, trained once." in report.notes
    assert report.rows[1].comparisons[:2] == (None, None)


def components():
    labels = ["all", "all but fusion", "none"]
    cells = [
        {"label": {"components": name}, "settings": {"depth": 16}, "configuration_id": f"{index:032x}"}
        for index, name in enumerate(labels)
    ]
    report = {"by": "components", "baselines": [{"components": "all"}], "show": []}
    return plan(cells=cells, report=report, reference=None)


def test_components_are_called_by_their_names():
    report = tables.build(components(), whole(components()))
    assert [row.label for row in report.rows] == ["All", "All but fusion", "None"]
    assert report.baselines == ("All",)
    shown = formats.render([report], Format.TERMINAL, 80)
    assert re.search(r"^ components +minus All +p Holm$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("inputs", "said"), [({"trunk_emotion": "e" * 32}, True), ({"recipe": "1"}, False), ({}, False)]
)
def test_that_all_trials_share_their_trunks_is_said_where_they_have_any(inputs, said):
    asked = plan()
    for cell in asked["cells"]:
        cell["inputs"] = inputs
    notes = tables.build(asked, whole(asked)).notes
    assert any("no interval has in it how trunks of another seed would move" in note for note in notes) == said
