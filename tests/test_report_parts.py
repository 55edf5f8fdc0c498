"""What reports say by expression, sequence and subject, and in two-way tables, counted again here by hand."""

import csv
import io
import json
import re
from collections import defaultdict

import numpy as np
import polars as pl
import pytest

from orchestrator.report import Format, formats, tables

CLASSES = ("anger", "fear", "joy")
VARIANTS = ("original", "f")
PAPER = {"original": {"anger": 70.0, "fear": 60, "all": 65.0}, "f": {"anger": 75.0, "all": 66.0}}


def plan(**changes):
    return {
        "study": "small",
        "question": "Which?",
        "profile": "quick",
        "dataset": "oulu-casia",
        "synthetic": True,
        "data_id": "d" * 32,
        "folds": [0, 1, 2],
        "seeds": [0],
        "cells": [
            {"label": {"variant": name}, "settings": {"variant": name}, "configuration_id": name} for name in VARIANTS
        ],
        "reference": {
            "source": "a paper",
            "metric": "accuracy",
            "by": ["variant", "expression"],
            "values": PAPER,
            "note": "",
        },
        "report": {
            "by": "variant",
            "baselines": [{"variant": "original"}],
            "show": ["expressions", "confusion", "subjects"],
        },
        **changes,
    }


def predict(cells, folds=(0, 1, 2), seeds=(0,), sequences=True, seed=0):
    """Random predictions as the store has them: 4 subjects a fold, 2 frames a sequence; fold 2 has no fear."""
    rng = np.random.default_rng(seed)
    rows = []
    for cell in cells:
        for fold in folds:
            for run in seeds:
                for person in range(4):
                    for label in CLASSES:
                        if fold == 2 and label == "fear":
                            continue
                        for frame in range(2 if sequences else 1):
                            subject = f"P{fold}{person}" if sequences else ""
                            given = rng.dirichlet([1.0, 1.0, 1.0]) + 0.4 * (np.array(CLASSES) == label)
                            rows.append(
                                {
                                    "trial_id": f"{cell}-{fold}-{run}",
                                    "subject": subject,
                                    "sequence": f"{subject}/{label}" if sequences else "",
                                    "frame": f"{person}{label}{frame}",
                                    "label": label,
                                    "probabilities": (given / given.sum()).tolist(),
                                    "classes": list(CLASSES),
                                }
                            )
    schema = {"probabilities": pl.List(pl.Float32)}
    return pl.DataFrame(rows, schema_overrides=schema)


def trials_of(predictions):
    rows = []
    for (trial_id,), own in predictions.group_by("trial_id", maintain_order=True):
        cell, fold, seed = trial_id.split("-")
        right = [guess(row) == row["label"] for row in own.to_dicts()]
        rows.append(
            {
                "trial_id": trial_id,
                "configuration_id": cell,
                "fold": None if fold == "None" else int(fold),
                "seed": int(seed),
                "state": "complete",
                "reason": None,
                "accuracy": np.mean(right),
                "sequence_accuracy": None,
                "n_train": 60 - own.height,
                "n_test": own.height,
                "seconds": 1.0,
                "synthetic": True,
                "trunk_ids": [],
                "version": "0",
                "device": "cpu",
            }
        )
    return pl.DataFrame(rows, schema_overrides={"fold": pl.Int64, "sequence_accuracy": pl.Float64})


def guess(row):
    return row["classes"][int(np.argmax(np.array(row["probabilities"], np.float32)))]


def share(values):
    return 100 * sum(values) / len(values)


@pytest.fixture(scope="module")
def predictions():
    return predict(VARIANTS)


@pytest.fixture(scope="module")
def report(predictions):
    return tables.build(plan(), trials_of(predictions), predictions)


def numbers(text):
    return [float(found) for found in re.findall(r"[+-]?\d+\.\d+", text)]


def test_accuracy_by_expression_is_the_mean_of_the_folds_that_have_it_and_pooled(report, predictions):
    for row in report.rows:
        by_fold = defaultdict(list)
        for found in predictions.filter(pl.col("trial_id").str.starts_with(f"{row.label.lower()}-")).to_dicts():
            by_fold[found["label"], found["trial_id"].split("-")[1]].append(guess(found) == found["label"])
        assert [part.name for part in row.expressions] == list(CLASSES)
        for part in row.expressions:
            folds = [share(right) for (label, _), right in by_fold.items() if label == part.name]
            every = [one for (label, _), right in by_fold.items() if label == part.name for one in right]
            assert part.accuracy.num_folds == len(folds) == (2 if part.name == "fear" else 3)
            assert part.accuracy.mean == pytest.approx(np.mean(folds))
            assert part.pooled == pytest.approx(share(every))
            assert part.frames == len(every)


def test_a_fold_without_an_expression_is_said_and_not_averaged_as_nothing(report):
    assert "No test frame of fear in fold 2, left out of its mean of folds." in report.notes
    assert sum("No test frame" in note for note in report.notes) == 1


def test_a_difference_by_expression_is_the_mean_of_paired_folds(report, predictions):
    own = {(row["trial_id"], row["label"]): [] for row in predictions.to_dicts()}
    for row in predictions.to_dicts():
        own[row["trial_id"], row["label"]].append(guess(row) == row["label"])
    for part in report.rows[1].expressions:
        folds = [0, 1] if part.name == "fear" else [0, 1, 2]
        differences = [
            share(own[f"f-{fold}-0", part.name]) - share(own[f"original-{fold}-0", part.name]) for fold in folds
        ]
        (comparison,) = part.comparisons
        assert comparison.difference.mean == pytest.approx(np.mean(differences))
        assert comparison.difference.num_folds == len(folds)
    assert all(part.comparisons == (None,) for part in report.rows[0].expressions)
    compared = sum(part.comparisons[0].p is not None for part in report.rows[1].expressions)
    assert any(f"{compared} more comparisons" in note for note in report.notes)


def test_confusions_count_each_frame_and_each_sequence_once(report, predictions):
    for row in report.rows:
        own = predictions.filter(pl.col("trial_id").str.starts_with(f"{row.label.lower()}-")).to_dicts()
        frames, of_sequence = np.zeros((3, 3), int), defaultdict(list)
        for found in own:
            frames[CLASSES.index(found["label"]), CLASSES.index(guess(found))] += 1
            of_sequence[found["sequence"]].append(np.array(found["probabilities"], np.float32).astype(float))
        sequences = np.zeros((3, 3), int)
        for name, probabilities in of_sequence.items():
            sequences[CLASSES.index(name.split("/")[1]), int(np.sum(probabilities, 0).argmax())] += 1
        assert row.confusion.frames == tuple(map(tuple, frames.tolist()))
        assert row.confusion.sequences == tuple(map(tuple, sequences.tolist()))
        assert frames.sum() == 2 * sequences.sum() == len(own)
        for part, counts in zip(row.expressions, sequences, strict=True):
            right = counts[CLASSES.index(part.name)]
            assert part.sequence_accuracy == pytest.approx(100 * right / counts.sum())


def test_every_subject_has_an_accuracy(report, predictions):
    for row in report.rows:
        own = predictions.filter(pl.col("trial_id").str.starts_with(f"{row.label.lower()}-")).to_dicts()
        right = defaultdict(list)
        for found in own:
            right[found["subject"]].append(guess(found) == found["label"])
        assert [subject.name for subject in row.subjects] == sorted(right)
        for subject in row.subjects:
            assert subject.accuracy == pytest.approx(share(right[subject.name]))
            assert subject.frames == len(right[subject.name])


def test_the_papers_numbers_by_expression_stand_where_they_belong(report):
    found = {row.label: {part.name: part.reference for part in row.expressions} for row in report.rows}
    assert found == {
        "Original": {"anger": 70.0, "fear": 60.0, "joy": None},
        "F": {"anger": 75.0, "fear": None, "joy": None},
    }
    assert [row.reference for row in report.rows] == [65.0, 66.0]
    part = report.rows[0].expressions[0]
    assert part.deviation == pytest.approx(part.accuracy.mean - 70)


def test_every_format_says_the_same_by_expression(report):
    exact = {row["label"]: row["expressions"] for row in json.loads(formats.render([report], Format.JSON))["rows"]}
    records = [
        record
        for record in csv.DictReader(io.StringIO(formats.render([report], Format.CSV)))
        if record["part"] == "expression"
    ]
    assert len(records) == 6
    for record in records:
        (part,) = [part for part in exact[record["cell"]] if part["name"] == record["name"]]
        assert float(record["accuracy"]) == round(part["accuracy"]["mean"], 2)
        assert float(record["pooled_accuracy"]) == round(part["pooled"], 2)
        assert record["paper"] == ("" if part["reference"] is None else f"{part['reference']:.2f}")
    for format, width in ((Format.TERMINAL, 80), (Format.TERMINAL, 120), (Format.MARKDOWN, 0)):
        text = formats.render([report], format, width)
        begin = text.index("SYNTHETIC accuracy % by expression, mean of the folds that have it")
        lines = text[begin : text.index("by expression minus", begin)].splitlines()
        for label, parts in exact.items():
            start = next(i for i, line in enumerate(lines) if re.match(rf"\W*{label}\b", line))
            means, half_widths, pooled = (numbers(line) for line in lines[start : start + 3])
            assert means == [float(f"{part['accuracy']['mean']:.1f}") for part in parts]
            assert half_widths == [float(f"{part['accuracy']['half_width']:.1f}") for part in parts]
            assert pooled == [float(f"{part['pooled']:.1f}") for part in parts]


def test_confusions_and_subjects_are_in_every_format(report):
    records = list(csv.DictReader(io.StringIO(formats.render([report], Format.CSV))))
    counted = [int(record["frames"]) for record in records if record["part"] == "confusion"]
    assert counted == [count for row in report.rows for line in row.confusion.frames for count in line]
    assert sum(record["part"] == "subject" for record in records) == 24
    for format in (Format.TERMINAL, Format.MARKDOWN):
        text = formats.render([report], format, 80)
        assert text.count("SYNTHETIC what the frames of an expression (line) were taken for, %") == 2
        begin = text.index("accuracy % by subject, hardest first")
        people = re.findall(r"P\d\d.*", text[begin:])
        means = [np.mean(numbers(line)) for line in people]
        assert len(people) == 12
        assert means == sorted(means)


def test_what_is_not_asked_for_is_in_json_alone(predictions):
    asked = plan(report={"by": "variant", "baselines": []})
    report = tables.build(asked, trials_of(predictions), predictions)
    assert "expression" not in formats.render([report], Format.TERMINAL, 80).replace("every expression", "")
    assert "part" not in formats.render([report], Format.CSV).splitlines()[0]
    assert report.rows[0].expressions
    without = tables.build(asked, trials_of(predictions))
    assert formats.render([without], Format.CSV) == formats.render([report], Format.CSV)


def test_predictions_that_are_lost_are_said(predictions):
    some = predictions.filter(pl.col("trial_id") != "f-1-0")
    report = tables.build(plan(), trials_of(predictions), some)
    assert any("predictions of 1 complete trials are not in the store" in note for note in report.notes)
    assert report.rows[1].accuracy.num_folds == 3
    assert report.rows[1].expressions[0].accuracy.num_folds == 2


# two-way tables

DEPTHS = (16, 22, 40)
TWO_WAY = {name: {str(depth): 50.0 + 10 * i + depth for depth in DEPTHS} for i, name in enumerate(VARIANTS)}


def two_way(**changes):
    cells = [
        {
            "label": {"variant": name, "depth": depth},
            "settings": {"variant": name, "depth": depth},
            "configuration_id": f"{name}{depth}",
        }
        for name in VARIANTS
        for depth in DEPTHS
    ]
    reference = plan()["reference"] | {"by": ["variant", "depth"], "values": TWO_WAY}
    report = {"by": ["variant", "depth"], "baselines": [{"variant": "original"}]}
    return plan(cells=cells, reference=reference, report=report) | changes


@pytest.fixture(scope="module")
def grid():
    asked = two_way()
    return tables.build(asked, trials_of(predict([cell["configuration_id"] for cell in asked["cells"]])))


def test_a_two_way_table_compares_each_cell_with_the_baseline_of_its_column(grid):
    by_place = {(row.row, row.column): row for row in grid.rows}
    assert list(by_place) == [(name, str(depth)) for name in ("Original", "F") for depth in DEPTHS]
    for depth in map(str, DEPTHS):
        own, base = by_place["F", depth], by_place["Original", depth]
        (comparison,) = own.comparisons
        assert comparison.baseline == "Original"
        assert comparison.difference.mean == pytest.approx(own.accuracy.mean - base.accuracy.mean)
        assert base.comparisons == (None,)
        assert (base.reference, own.reference) == (50.0 + int(depth), 60.0 + int(depth))
        assert own.deviation == pytest.approx(own.accuracy.mean - own.reference)
    assert grid.num_comparisons == 3


@pytest.mark.parametrize("width", [80, 120])
def test_a_two_way_table_reads_like_the_papers_and_fits(grid, width):
    text = formats.render([grid], Format.TERMINAL, width)
    assert max(map(len, text.splitlines())) <= width
    head, original, paper = re.search(
        r"SYNTHETIC accuracy %, mean of 3 folds\n\n(.*)\n.*\n( Original .*)\n(   paper .*)\n", text
    ).groups()
    assert re.findall(r"depth \d+", head) == ["depth 16", "depth 22", "depth 40"]
    rows = [row for row in grid.rows if row.row == "Original"]
    assert numbers(original) == [
        round(value, 2) for row in rows for value in (row.accuracy.mean, row.accuracy.half_width)
    ]
    assert numbers(paper) == [row.reference for row in rows]
    assert text.count("SYNTHETIC accuracy minus Original at the same depth") == 1


def test_a_two_way_table_is_the_same_in_markdown_csv_and_json(grid):
    markdown = formats.render([grid], Format.MARKDOWN)
    first = next(line for line in markdown.splitlines() if line.startswith("| F "))
    records = list(csv.DictReader(io.StringIO(formats.render([grid], Format.CSV))))
    exact = json.loads(formats.render([grid], Format.JSON))
    rows = [row for row in exact["rows"] if row["row"] == "F"]
    assert numbers(first)[::2] == [round(row["accuracy"]["mean"], 2) for row in rows]
    assert [(record["variant"], record["depth"]) for record in records] == [(row.row, row.column) for row in grid.rows]
    assert [float(record["minus_Original"]) for record in records[3:]] == [
        round(row["comparisons"][0]["difference"]["mean"], 2) for row in rows
    ]


def test_a_two_way_table_with_many_columns_is_cut_between_columns_and_a_hole_is_a_dash():
    cells = [
        {"label": s, "settings": s, "configuration_id": f"f{depth}"}
        for depth in range(10, 100, 6)
        for s in [{"variant": "f", "depth": depth}]
    ]
    cells += [{"label": s, "settings": s, "configuration_id": "i16"} for s in [{"variant": "i", "depth": 16}]]
    asked = two_way(cells=cells, report={"by": ["variant", "depth"], "baselines": []}, reference=None)
    ids = [cell["configuration_id"] for cell in cells]
    text = formats.render([tables.build(asked, trials_of(predict(ids)))], Format.TERMINAL, 80)
    table = text[text.index("mean of 3 folds") : text.index("all test frames")]
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"depth (\d+)", table) == [str(depth) for depth in range(10, 100, 6)]
    assert len(numbers(" ".join(re.findall(r"^ F .*$", table, re.MULTILINE)))) == 30
    assert " ".join(re.findall(r"^ I .*$", table, re.MULTILINE)).count("- ") >= 10


# without folds


def no_folds(**changes):
    return plan(folds=[None], report={"by": "variant", "baselines": [{"variant": "original"}]}, **changes)


def test_without_folds_a_difference_is_paired_over_pictures_and_seeds():
    found = predict(VARIANTS, folds=(None,), seeds=(0, 1), sequences=False)
    report = tables.build(no_folds(seeds=[0, 1], reference=None), trials_of(found), found)
    right = defaultdict(dict)
    for row in found.to_dicts():
        cell, _, seed = row["trial_id"].split("-")
        right[cell][seed, row["frame"]] = 100.0 * (guess(row) == row["label"])
    own, base = report.rows[1], report.rows[0]
    assert own.accuracy.mean == pytest.approx(np.mean([*right["f"].values()]))
    (comparison,) = own.comparisons
    differences = [right["f"][key] - right["original"][key] for key in right["f"]]
    assert comparison.difference.mean == pytest.approx(np.mean(differences))
    assert base.accuracy.low < base.accuracy.mean < base.accuracy.high
    assert own.sequence_accuracy.mean is None
    assert not own.subjects
    assert "The 2 seeds are averaged within a picture first." in report.notes


def test_without_folds_a_seed_that_one_cell_lacks_never_moves_the_difference():
    found = predict(VARIANTS, folds=(None,), seeds=(0, 1), sequences=False)
    some = found.filter(pl.col("trial_id") != "f-None-1")
    report = tables.build(no_folds(seeds=[0, 1], reference=None), trials_of(some), some)
    one = found.filter(pl.col("trial_id").str.ends_with("-0"))
    alone = tables.build(no_folds(reference=None), trials_of(one), one)
    assert report.rows[1].comparisons[0].difference.mean == pytest.approx(alone.rows[1].comparisons[0].difference.mean)
    assert "F: 1 of 2 trials not run yet." in report.notes


def test_without_folds_and_without_predictions_there_are_means_and_no_intervals():
    found = predict(VARIANTS, folds=(None,), sequences=False)
    assert tables.needs_predictions(no_folds())
    whole, bare = (tables.build(no_folds(), trials_of(found), rows) for rows in (found, found.clear()))
    for one, other in zip(whole.rows, bare.rows, strict=True):
        assert other.accuracy.mean == pytest.approx(one.accuracy.mean)
        assert other.accuracy.half_width is None
        differences = [c.difference.mean for row in (one, other) for c in row.comparisons if c]
        assert differences[: len(differences) // 2] == pytest.approx(differences[len(differences) // 2 :])
    assert any("no predictions" in note for note in bare.notes)
    assert not any("bootstrap" in note for note in bare.notes)
