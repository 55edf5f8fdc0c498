"""Reports on frames whose answers are known, in every format, and the command's refusals."""

import csv
import io
import json
import re
import shlex
import subprocess
import sys

import polars as pl
import pytest

from orchestrator.cli import report as command
from orchestrator.report import Format, cells, formats, tables

RATES = [0.2, 0.4, 0.6, 0.8, 1.0]
PAPER = {"0": 87.18, "0.2": 87.56, "0.4": 89.06, "0.6": 89.46, "0.8": 91.02, "1": 93.95}


def plan(folds=10, seeds=1, profile="quick", synthetic=True, **changes):
    base = {"variant": "if", "depth": 16, "id_rate": 1.0}
    labels = [{"variant": "original"}, {"variant": "f"}, *({"id_rate": rate} for rate in RATES)]
    return {
        "study": "oulu_idrate",
        "question": "How does accuracy move with the share of supervised identities?",
        "profile": profile,
        "dataset": "oulu-casia",
        "synthetic": synthetic,
        "data_id": "d" * 32,
        "folds": list(range(folds)),
        "seeds": list(range(seeds)),
        "cells": [
            {"label": label, "settings": {**base, **label}, "configuration_id": f"{index:032x}"}
            for index, label in enumerate(labels)
        ],
        "reference": {
            "source": "IDEnNet, Fig. 3",
            "metric": "accuracy",
            "by": "id_rate",
            "values": PAPER,
            "note": "The paper's definition of rate 0 is unclear.",
        },
        "report": {"by": "id_rate", "baselines": [{"variant": "original"}, {"variant": "f"}]},
        **changes,
    }


def trial(cell, fold, seed=0, state="complete", accuracy=0.8, **changes):
    done = state == "complete"
    return {
        "trial_id": f"{cell}-{fold}-{seed}",
        "configuration_id": f"{cell:032x}",
        "fold": fold,
        "seed": seed,
        "state": state,
        "reason": "" if done else "NaN in the loss",
        "accuracy": accuracy if done else None,
        "sequence_accuracy": accuracy + 0.02 if done else None,
        "n_train": 1296,
        "n_test": 144,
        "seconds": 2.0,
        "synthetic": True,
        "trunk_ids": ["e" * 32, "f" * 32],
        "version": "0.1.0",
        "device": "cpu",
        **changes,
    }


def whole(plan):
    """Every trial of the plan; accuracy grows with the cell and the fold, and no two cells differ evenly."""
    return pl.DataFrame(
        [
            trial(cell, fold, seed, accuracy=0.70 + 0.02 * cell + 0.01 * fold + 0.004 * (cell * fold % 7))
            for cell in range(len(plan["cells"]))
            for fold in plan["folds"]
            for seed in plan["seeds"]
        ]
    )


def text(report, format, width=120):
    return formats.render([report], format, width)


def test_rows_stand_in_design_order_under_the_names_of_the_paper():
    report = tables.build(plan(), whole(plan()))
    assert [row.label for row in report.rows] == ["Original", "F", "0.2", "0.4", "0.6", "0.8", "1.0"]


def test_a_cell_keeps_every_setting_that_the_study_wrote_for_it():
    assert cells.cell_label({"depth": 16, "id_rate": 0.2}, "id_rate") == "0.2, depth 16"
    assert cells.cell_label({"variant": "if"}, "id_rate") == "IF"


@pytest.mark.parametrize("value", ["AdamW", "SGD", "ReLU"])
def test_a_value_that_has_capitals_keeps_them_so_that_no_two_become_one(value):
    assert cells.cell_label({"optimizer": value}, "optimizer") == value
    assert cells.cell_label({"optimizer": value.lower()}, "optimizer") == value.lower().capitalize() != value


def test_a_known_study_has_known_numbers():
    # two folds of 10 and 30 frames: Original 50 and 70 %, F 60 and 90 %
    small = plan(folds=2)
    small["cells"] = small["cells"][:2]
    rows = [
        trial(cell, fold, accuracy=value, n_test=size, n_train=40 - size)
        for cell, values in enumerate([(0.5, 0.7), (0.6, 0.9)])
        for fold, (value, size) in enumerate(zip(values, (10, 30), strict=True))
    ]
    original, f = tables.build(small, pl.DataFrame(rows)).rows
    assert (original.accuracy.mean, f.accuracy.mean) == (pytest.approx(60.0), pytest.approx(75.0))
    assert original.pooled == pytest.approx((0.5 * 10 + 0.7 * 30) / 40 * 100)
    assert original.sequence_accuracy.mean == pytest.approx(62.0)
    assert f.comparisons[0].difference.mean == pytest.approx(15.0)  # +10 and +20
    assert (original.comparisons[0], f.comparisons[1]) == (None, None)
    assert original.deviation == pytest.approx(60.0 - 87.18)
    assert original.seconds == 2.0


def test_original_stands_beside_rate_0_and_f_beside_nothing_unless_the_reference_names_it():
    report = tables.build(plan(), whole(plan()))
    assert [row.reference for row in report.rows] == [87.18, None, 87.56, 89.06, 89.46, 91.02, 93.95]
    named = plan()["reference"] | {"values": {"f": 91.39}}
    assert cells.reference_value({"variant": "f"}, named) == 91.39
    assert cells.reference_value({"variant": "original"}, named) is None


def test_comparing_original_with_f_is_counted_once():
    # five rates against each of two baselines, and the baselines with each other
    report = tables.build(plan(), whole(plan()))
    assert report.num_comparisons == 11
    assert any("adjusted by Holm's method for the family" in note and "11 comparisons" in note for note in report.notes)


def test_every_format_says_the_same_numbers():
    report = tables.build(plan(), whole(plan()))
    exact = json.loads(text(report, Format.JSON))["rows"]
    records = list(csv.DictReader(io.StringIO(text(report, Format.CSV))))
    markdown = markdown_rows(text(report, Format.MARKDOWN))
    for width in (80, 120):
        accuracies, differences = terminal_rows(text(report, Format.TERMINAL, width), report)
        for row, record, line, seen, compared in zip(exact, records, markdown, accuracies, differences, strict=True):
            beside = [] if row["reference"] is None else [row["reference"], row["deviation"]]
            measured = [row["accuracy"]["mean"], row["accuracy"]["half_width"], row["pooled"]]
            measured += [row["sequence_accuracy"]["mean"], *beside, row["seconds"]]
            against = []
            for c in filter(None, row["comparisons"]):
                against += rounded([c["difference"]["mean"], c["difference"]["half_width"]])
                against.append(max(round(c["p_holm"], 3), 0.001))  # a p never reads 0
            assert numbers(seen) == rounded(measured)
            assert numbers(compared) == against
            assert numbers(line) == rounded(measured[:4]) + against + rounded([*beside, row["seconds"]])
            columns = ["accuracy", "accuracy_half_width", "pooled_accuracy", "sequence_accuracy"]
            assert [float(record[name]) for name in columns] == rounded(measured[:4])
            for baseline, c in zip(report.baselines, row["comparisons"], strict=True):
                if c is not None:
                    assert float(record[f"minus_{baseline}"]) == rounded([c["difference"]["mean"]])[0]
                    assert float(record[f"minus_{baseline}_p"]) == pytest.approx(c["p"], rel=1e-5)
                    assert float(record[f"minus_{baseline}_p_holm"]) == pytest.approx(c["p_holm"], rel=1e-5)


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [" ".join(line.split("|")[3:]) for line in lines[2:]]


def terminal_rows(text, report):
    """Of every cell: what the first table prints after the folds, and what the second prints."""
    found = [
        [line for line in text.splitlines() if re.match(rf" {re.escape(row.label)} +[\d+-]", line)]
        for row in report.rows
    ]
    assert all(len(lines) == 2 for lines in found)
    first = [re.sub(r"^.*?/\d+", "", line) for line, _ in found]
    return first, [line[len(" Original") :] for _, line in found]


def numbers(text):
    return [float(match) for match in re.findall(r"[+-]?\d+\.?\d*", text.replace("<", ""))]


def rounded(values):
    return [round(value, 2) for value in values]


def test_drawn_data_says_synthetic_in_the_title_and_in_each_table_with_the_papers_numbers():
    report = tables.build(plan(), whole(plan()))
    assert "SYNTHETIC" in report.title
    for width in (80, 120):
        table = text(report, Format.TERMINAL, width).split("Original")[0]
        assert table.count("SYNTHETIC") == 3  # title, accuracy, distance to the paper
    header = next(line for line in text(report, Format.MARKDOWN).splitlines() if "paper" in line and "|" in line)
    assert header.count("SYNTHETIC") == 2
    assert all(record["data"] == "SYNTHETIC" for record in csv.DictReader(io.StringIO(text(report, Format.CSV))))
    assert json.loads(text(report, Format.JSON))["synthetic"] is True


def test_rows_that_are_synthetic_mark_the_report_even_if_the_plan_does_not():
    assert tables.build(plan(synthetic=False), whole(plan())).synthetic
    real = whole(plan()).with_columns(synthetic=pl.lit(False))
    assert "SYNTHETIC" not in text(tables.build(plan(synthetic=False), real), Format.TERMINAL)


@pytest.mark.parametrize("width", [80, 100, 110, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width):
    trials = whole(plan()).with_columns(seconds=pl.lit(12345.67), accuracy=pl.lit(1.0) - pl.col("accuracy") / 9)
    shown = text(tables.build(plan(), trials), Format.TERMINAL, width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    assert "\x1b" not in shown


def test_a_wide_terminal_draws_each_interval_on_one_axis_with_the_papers_value():
    shown = text(tables.build(plan(), whole(plan())), Format.TERMINAL, 120).splitlines()
    strips = [line for line in shown if "├" in line and "◇" in line and "95%" not in line]
    means = [line.index("●") for line in shown if "●" in line and "95%" not in line]
    assert len(strips) == 6  # F has no value in the paper
    assert means == sorted(means)


def test_failed_and_missing_trials_are_named_and_never_averaged():
    trials = whole(plan())
    bad = [trial(3, fold, state="failed") for fold in (2, 5)]
    kept = trials.filter(~pl.col("trial_id").is_in(["3-2-0", "3-5-0", "4-9-0"]))
    report = tables.build(plan(), pl.concat([kept, pl.DataFrame(bad)], how="diagonal_relaxed"))
    row = report.rows[3]
    rest = trials.filter(configuration_id=row.configuration_id).filter(~pl.col("fold").is_in([2, 5]))
    assert (row.accuracy.num_folds, row.failed, row.missing) == (8, 2, 0)
    assert row.accuracy.mean == pytest.approx(rest["accuracy"].mean() * 100)
    assert row.comparisons[0].difference.num_folds == 8
    assert "0.4: 2 of 10 trials failed (NaN in the loss), folds 2, 5; in no number here." in report.notes
    assert "0.6: 1 of 10 trials not run yet." in report.notes


def test_a_cell_without_a_trial_is_a_dash_with_0_of_10():
    report = tables.build(plan(), whole(plan()).filter(pl.col("configuration_id") != f"{2:032x}"))
    line = next(line for line in text(report, Format.MARKDOWN).splitlines() if line.startswith("| 0.2 "))
    assert line == "| 0.2 | 0/10 | - | - | - | - | - | - | - | 87.56 | - | - |"
    assert re.search(r"^ 0\.2 +0/10 +- +- +- +87\.56 +- +-$", text(report, Format.TERMINAL, 80), re.MULTILINE)


def test_one_fold_is_reported_without_intervals_and_says_why():
    report = tables.build(plan(folds=1), whole(plan(folds=1)))
    assert "Every cell: a single fold has no interval." in report.notes
    shown = text(report, Format.TERMINAL, 120)
    assert "├" not in shown.split("95% interval")[0].replace("├─┤", "")
    assert report.num_comparisons == 0


def test_the_provenance_tells_what_was_used_and_how_to_do_it_again():
    source = tables.build(plan(seeds=2), whole(plan(seeds=2))).provenance
    assert source["data"] == "d" * 32
    assert source["trunks"] == ["e" * 32, "f" * 32]
    assert (source["trials_complete"], source["trials_planned"], source["seconds"]) == (140, 140, 280.0)
    assert source["settings"] == {"depth": 16}  # what all cells share
    assert (
        source["command"]
        == "idenctl study run studies/oulu_idrate.yaml --profile quick && idenctl report oulu_idrate@quick"
    )


@pytest.mark.parametrize("written", [["--store", "a b"], ["--store=a b"], ["--store", "else", "--store", "a b"]])
def test_the_report_is_made_again_from_the_store_that_the_study_was_run_in(written):
    command = shlex.join(["idenctl", "study", "run", "s.yaml", *written])
    again = tables.build(plan(command=command), whole(plan())).provenance["command"]
    run, report = again.split(" && ")
    assert run == command
    assert shlex.split(report) == ["idenctl", "report", "oulu_idrate@quick", "--store", "a b"]


def test_several_studies_share_one_csv_and_one_json_list():
    first = tables.build(plan(), whole(plan()))
    one = plan(report={"by": "id_rate", "baselines": []}, study="other", reference=None)
    second = tables.build(one, whole(one))
    records = list(csv.DictReader(io.StringIO(formats.render([first, second], Format.CSV))))
    assert [record["study"] for record in records] == ["oulu_idrate"] * 7 + ["other"] * 7
    assert [found["study"] for found in json.loads(formats.render([first, second], Format.JSON))] == [
        "oulu_idrate",
        "other",
    ]


def test_a_study_with_nothing_stored_names_the_next_step():
    with pytest.raises(ValueError, match=r"no trial in the store yet.*idenctl study run .*--profile quick"):
        tables.build(plan(), whole(plan()).clear())


def test_a_baseline_must_be_one_cell():
    for settings in ({"variant": "i"}, {"variant": "if"}):
        with pytest.raises(ValueError, match="one cell of the design"):
            tables.build(plan(report={"by": "id_rate", "baselines": [settings]}), whole(plan()))


def test_a_name_means_the_study_or_its_only_profile():
    assert command.resolve("a", ["a", "a@quick"]) == "a"
    assert command.resolve("a", ["a@quick", "ab"]) == "a@quick"
    with pytest.raises(ValueError, match="a@full, a@quick"):
        command.resolve("a", ["a@full", "a@quick"])
    with pytest.raises(ValueError, match="did you mean 'oulu_idrate@quick'"):
        command.resolve("oulu_irate", ["oulu_idrate@quick", "zzz"])
    with pytest.raises(ValueError, match="idenctl study run FILE"):
        command.resolve("a", [])


@pytest.fixture
def store(tmp_path):
    for folder in ("trials", "curves", "predictions", "studies/oulu_idrate@quick"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "studies/oulu_idrate@quick/plan.json").write_text(json.dumps(plan()))
    rows = whole(plan()).with_columns(
        pack_id=pl.lit("p"), finished_at=pl.lit("2026-01-01").str.to_datetime(time_unit="us", time_zone="UTC")
    )
    rows.write_parquet(tmp_path / "trials" / "p.parquet")
    rows.select("trial_id", "pack_id").write_parquet(tmp_path / "curves" / "p.parquet")
    frame = {"subject": "P1", "sequence": "P1/fear", "frame": "1", "label": "fear"}
    given = {"probabilities": [0.25, 0.75], "classes": ["anger", "fear"]}
    predictions = [{"trial_id": trial_id, "pack_id": "p", **frame, **given} for trial_id in rows["trial_id"]]
    pl.DataFrame(predictions).write_parquet(tmp_path / "predictions" / "p.parquet")
    return tmp_path


def test_the_command_prints_a_stored_study_and_writes_it_whole(store, capsys):
    command.report(["oulu_idrate"], Format.JSON, store=store)
    report = json.loads(capsys.readouterr().out)
    assert [row["accuracy"]["num_folds"] for row in report["rows"]] == [10] * 7
    assert [row["confusion"]["frames"] for row in report["rows"]] == [[[0, 0], [0, 10]]] * 7
    out = store / "report.txt"
    out.write_text("old")
    command.report(["oulu_idrate", "oulu_idrate@quick"], Format.TERMINAL, out, store)
    assert capsys.readouterr().out == ""
    assert out.read_text().count(report["title"]) == 2
    assert "\x1b" not in out.read_text()
    assert [path.name for path in store.iterdir() if "report" in path.name] == ["report.txt"]


def test_wrong_requests_are_refused_in_one_line_that_names_the_next_step(store):
    plan_file = store / "studies/oulu_idrate@quick/plan.json"
    missing = store / "no/such/folder/report.md"
    with pytest.raises(NotADirectoryError, match="existing folder") as refused:
        command.report(["oulu_idrate"], Format.MARKDOWN, missing, store)
    assert "\n" not in str(refused.value)
    plan_file.write_text("{")
    with pytest.raises(ValueError, match=r"plan\.json is not JSON.*idenctl study run") as refused:
        command.report(["oulu_idrate"], store=store)
    assert "\n" not in str(refused.value)
    plan_file.unlink()
    with pytest.raises(ValueError, match="holds no study yet; next: idenctl study run"):
        command.report(["oulu_idrate"], store=store)


def test_a_study_that_stored_nothing_yet_is_refused_too(store):
    (store / "trials/p.parquet").unlink()
    with pytest.raises(ValueError, match="no trial in the store yet"):
        command.report(["oulu_idrate"], store=store)


def test_reporting_loads_neither_torch_nor_ray():
    code = "import sys, orchestrator.report.terminal, orchestrator.store, orchestrator.cli.report; "
    code += "print({'torch', 'ray', 'cv2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


FORMATS = {"terminal": Format.TERMINAL, "markdown": Format.MARKDOWN, "csv": Format.CSV, "json": Format.JSON}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("column", "kinds", "one", "other"),
    [("device", "devices", "cpu", "gpu"), ("version", "idenctl versions", "0.1.0", "0.2.0")],
)
def test_what_a_comparison_mixes_is_said_with_its_cells_in_every_format(format, column, kinds, one, other):
    study = plan()
    moved = (pl.col("configuration_id") == f"{3:032x}") | (
        (pl.col("configuration_id") == f"{1:032x}") & (pl.col("fold") < 4)
    )
    trials = whole(study).with_columns(pl.when(moved).then(pl.lit(other)).otherwise(pl.col(column)).alias(column))
    alike, different = tables.build(study, whole(study)), tables.build(study, trials)
    said = f"MIXED {kinds}, from which a part of the differences may come: "
    said += f"{one}: Original, F (6 of 10 trials), 0.2, 0.6, 0.8, 1.0; {other}: F (4 of 10 trials), 0.4. "
    assert different.mixed == (said + "Train the cells anew alike.",)
    assert " ".join(said.split()) in " ".join(text(different, format, width=400).split())
    assert "MIXED" not in text(alike, format)


def test_cells_of_different_recipes_are_named_and_failed_trials_mix_nothing():
    study = plan(folds=2)
    for cell in study["cells"]:
        cell["inputs"] = {"recipe": "2" if cell["label"].get("variant") == "f" else "3"}
    trials = pl.concat(
        [whole(study), pl.DataFrame([trial(0, 0, state="failed", device="gpu")])], how="diagonal_relaxed"
    )
    (said,) = tables.build(study, trials).mixed
    assert "2: F; 3: Original, 0.2," in said
    assert said.startswith("MIXED versions of the recipe")
