"""The report as one HTML file: it holds the numbers of the other formats, asks for nothing, and trusts no name."""

import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pages import (
    EPOCHS,
    Page,
    beside,
    designed,
    failures_alone,
    html,
    noisy,
    p_of,
    predicted,
    spread,
    store,
    two,
)
from scipy import stats
from test_report import plan as design
from test_report import trial, whole
from test_report_parts import plan as small
from test_report_parts import predict, trials_of

from orchestrator.cli import report as command
from orchestrator.costs import Took
from orchestrator.report import Format, evidence, figure, formats, page, page_figures, tables
from orchestrator.report.stored import with_everything

ROOT = Path(__file__).parent.parent
HOSTILE = '"><script>window.ran = 1</script><img src=x onerror="window.ran = 1">'


def test_the_tables_hold_the_numbers_of_json():
    report, shown = designed()
    rows = json.loads(formats.render([report], Format.JSON))["rows"]
    found = Page(html((report, shown))).tables
    accuracy, differences = found["SYNTHETIC accuracy %"][1:], found["SYNTHETIC paired differences, points"][1:]
    papers = {line[0]: line[1:] for line in found["SYNTHETIC beside IDEnNet, Fig. 3"][1:]}
    for row, line, compared in zip(rows, accuracy, differences, strict=True):
        sequences, seconds = two(row["sequence_accuracy"]["mean"]), two(row["seconds"])
        assert line == [row["label"], "10/10", spread(row["accuracy"]), two(row["pooled"]), sequences, seconds]
        against = []
        for one in row["comparisons"]:
            against += ["-", "-"] if one is None else [spread(one["difference"], "+"), p_of(one["p_holm"])]
        assert compared == [row["label"], *against]
        if row["reference"] is not None:
            inside = row["accuracy"]["low"] <= row["reference"] <= row["accuracy"]["high"]
            told = [spread(row["accuracy"]), two(row["reference"]), two(row["deviation"], "+z.2f")]
            assert papers.pop(row["label"]) == [*told, "yes" if inside else "no"]
    assert not papers


def test_expressions_confusions_and_people_hold_the_numbers_of_json():
    report, shown = predicted()
    rows = json.loads(formats.render([report], Format.JSON))["rows"]
    found = Page(html((report, shown))).tables
    (title,) = (name for name in found if "accuracy % by expression" in name)
    by_cell = {line[0]: line[1:] for line in found[title][1:]}
    people = {line[0]: line[1:] for name, lines in found.items() if "by subject" in name for line in lines[1:]}
    for place, row in enumerate(rows):
        assert by_cell[row["label"]] == [f"{part['accuracy']['mean']:.1f}" for part in row["expressions"]]
        (name,) = (name for name in found if name.startswith(f"{row['label']}: SYNTHETIC what the frames"))
        for line, counts in zip(found[name][1:], row["confusion"]["frames"], strict=True):
            assert line[1:] == [*(f"{100 * count / sum(counts):.1f}" for count in counts), str(sum(counts))]
        for subject in row["subjects"]:
            assert people[subject["name"]][place] == f"{subject['accuracy']:.1f}"


@pytest.mark.parametrize("form", ["wide", "narrow"])
def test_every_fold_mean_and_paper_value_is_a_mark_of_the_main_figure(form):
    report, shown = designed()
    marks = Page(getattr(page_figures.main([report], [shown]), form)).marks
    for row in report.rows:
        folds = shown.trials.filter(configuration_id=row.configuration_id).sort("fold")["accuracy"] * 100
        mark = f"{row.label} · mean · {row.accuracy.mean:.2f} ± {row.accuracy.half_width:.2f} % (SYNTHETIC)"
        expected = [f"{row.label} · fold {fold} · {value:.2f} % (SYNTHETIC)" for fold, value in enumerate(folds)]
        expected += [] if row.reference is None else [f"{row.label} · IDEnNet, Fig. 3 · {row.reference:.2f} %"]
        assert sorted(one for one in marks if one.startswith(f"{row.label} · ")) == sorted([mark, *expected])


def test_the_dots_of_a_difference_have_its_mean():
    report, shown = designed(seeds=2)
    found = evidence.fold_differences(report.rows, report, shown)
    checked = 0
    for row in report.rows:
        for one in filter(None, row.comparisons):
            folds = found[one.baseline][row.configuration_id]
            assert len(folds) == 10
            assert np.mean(list(folds.values())) == pytest.approx(one.difference.mean)
            checked += 1
    assert checked == 12


def test_bands_of_learning_curves_are_the_corrected_intervals_over_folds():
    report, shown = designed()
    found = evidence.learning_curves(report.rows, shown)
    assert len(found) == EPOCHS * len(report.rows)
    for row in report.rows:
        own = {point.epoch: point for point in found if point.cell == row.label}
        folds = shown.trials.filter(configuration_id=row.configuration_id)["accuracy"].to_numpy() * 100
        width = stats.t.ppf(0.975, 9) * folds.std(ddof=1) * np.sqrt(1 / 10 + 144 / 1296)
        last = own[EPOCHS]
        assert [last.low, last.tested, last.high] == pytest.approx([folds.mean() + k * width for k in (-1, 0, 1)])
        assert own[1].tested == pytest.approx(folds.mean() - 10)
        assert own[1].trained == pytest.approx(folds.mean() - 8)


def test_nothing_in_a_page_refers_to_anything_outside_of_it():
    text = html(designed(), predicted())
    found = Page(text)
    assert not re.findall(r"https?:|//[a-z]+\.[a-z]|@import|url\((?!#)", text)
    for tag, given in found.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img", "form"}
        outside = {"src", "action", "data", "poster", "srcset", "xlink:href", "ping"} & given.keys()
        assert not outside, (tag, given)
        assert given.get("href", "#").startswith("#")
    ids = [given["id"] for _, given in found.elements if "id" in given]
    assert len(ids) == len(set(ids))
    assert {given["href"][1:] for given in found.of("a")} <= set(ids)
    policy = next(given["content"] for given in found.of("meta") if given.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_names_reasons_and_questions_are_text_and_nothing_else():
    wanted = design(question=HOSTILE, dataset=HOSTILE)
    wanted["cells"][2]["label"] = {"id_rate": HOSTILE}
    wanted["reference"]["source"] = wanted["reference"]["note"] = HOSTILE
    failed = trial(3, 2, state="failed", reason=HOSTILE)
    trials = pl.concat([whole(wanted).filter(pl.col("trial_id") != "3-2-0"), pl.DataFrame([failed])], how="diagonal")
    report = tables.build(wanted, trials)
    record = {"versions": {HOSTILE: HOSTILE}, "git": HOSTILE, "overrides": {HOSTILE: HOSTILE}}
    found = Page(html((report, beside(wanted, trials, record=record)), designed()))
    assert len(found.of("script")) == 1
    assert not found.of("img")
    assert not [given for _, given in found.elements if any(name.startswith("on") for name in given)]
    assert found.text.count(HOSTILE) >= 10
    (reasons,) = (lines for title, lines in found.tables.items() if title == "1 failed trial, in no number here")
    assert reasons[1] == ["0.4", HOSTILE, "2", "0"]


def test_drawn_data_says_synthetic_in_title_answer_figures_and_tables():
    text = html(predicted())
    found = Page(text)
    title, answer = (
        re.search(pattern, text, re.DOTALL).group(1) for pattern in ("<title>(.*?)</title>", "Answer</span>(.*?)</p>")
    )
    assert "SYNTHETIC" in title
    assert "SYNTHETIC" in answer
    captions = re.findall(r'<strong class="name">(.*?)</strong>', text)
    assert len(captions) == 4
    assert all("SYNTHETIC" in name for name in captions)
    assert len(found.tables) >= 8
    assert all("SYNTHETIC" in name for name in found.tables)
    titles = re.findall(r"<text[^>]*>([^<]*(?:%|points)[^<]*)</text>", text)
    assert titles
    assert all("SYNTHETIC" in name for name in titles)


def test_real_data_is_not_called_synthetic():
    wanted, predictions = small(synthetic=False), predict(("original", "f"))
    trials = trials_of(predictions).with_columns(synthetic=pl.lit(False))
    pair = tables.build(with_everything(wanted), trials, predictions), beside(wanted, trials)
    assert "synthetic" not in html(pair).lower()


def test_a_figure_of_many_cells_says_which_it_shows_and_the_table_holds_all():
    wanted = design(reference=None)
    wanted["cells"] = [
        {"label": {"id_rate": n}, "settings": {"id_rate": n}, "configuration_id": f"{n:032x}"} for n in range(200)
    ]
    wanted["report"]["baselines"] = [{"id_rate": 7}]
    trials = noisy(wanted)
    report = tables.build(wanted, trials)
    shown = figure.told(report.rows, 40)
    best = sorted(report.rows, key=lambda row: -row.accuracy.mean)[:39]
    assert {row.label for row in shown} == {"7", *(row.label for row in best)}
    text = html((report, beside(wanted, trials)))
    assert text.count("40 of 200 cells") == 2  # the main figure and that of differences
    assert "16 of 200 cells" in text
    assert len(Page(text).tables["SYNTHETIC accuracy %"]) == 201


def test_several_studies_stand_beside_each_other_and_each_line_says_which_data_it_is_of():
    real = design(study="real", synthetic=False)
    trials = whole(real).with_columns(synthetic=pl.lit(False))
    found = Page(html(designed(), (tables.build(real, trials), beside(real, trials))))
    lines = found.tables["all cells"][1:]
    assert [line[:2] for line in lines] == [["oulu_idrate@quick", "SYNTHETIC"]] * 7 + [["real@quick", "real"]] * 7
    assert lines[0][2:] == lines[7][2:]
    assert "Between studies nothing is tested" in found.text


def test_what_packing_and_reuse_saved_is_what_was_predicted_and_what_reused_trials_took():
    report, shown = designed()  # 70 trials of 2 seconds
    shown = replace(shown, alone=1000.0, packed=250.0, reused=[2.0] * 14, took=[Took("pack", 70, 250.0, 140.0, True)])
    found = Page(html((report, shown))).tables
    assert found["time of devices, seconds"][1:] == [["packs", "1", "250.0", "140.0", "0.56"]]
    assert found["saved"][1:] == [
        ["packing, predicted seconds", "1,000", "250", "750", "75"],
        ["reuse of 14 trials, seconds", "140", "112", "28", "20"],
    ]


def test_a_page_without_evidence_has_the_tables_alone():
    report, shown = designed()
    found = Page(formats.render([report], Format.HTML))
    assert found.tables.keys() == Page(html((report, shown))).tables.keys()
    assert "provenance.json is missing or damaged" in found.text


def test_the_files_of_the_page_are_installed_with_the_package():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    (files,) = patterns["orchestrator.report"]
    assert {path.name for path in page.FOLDER.glob(files)} >= {"page.html.j2", "page.css", "page.js"}


@pytest.fixture
def stored(tmp_path):
    store(tmp_path, design(), whole(design()))
    return tmp_path


def made(root, *names, **more):
    out = root / "page.html"
    command.report(list(names) or ["oulu_idrate"], Format.HTML, out, root, **more)
    return Page(out.read_text())


def test_the_command_writes_the_page_of_a_stored_study(stored):
    found = made(stored)
    assert len(found.tables["SYNTHETIC accuracy %"]) == 8
    assert "torch 9.9" in found.text
    assert any("epoch 3" in mark for mark in found.marks)
    assert "idenctl report oulu_idrate@quick" in found.text


def test_drawn_and_real_data_share_a_report_only_where_it_is_asked_for(stored):
    real = design(study="real", synthetic=False, profile=None)
    for place, cell in enumerate(real["cells"]):
        cell["configuration_id"] = f"{place + 100:032x}"
    rows = whole(real).with_columns(
        synthetic=pl.lit(False),
        trial_id="r" + pl.col("trial_id"),
        configuration_id=pl.lit("0" * 29)
        + (pl.col("configuration_id").str.slice(31).cast(pl.Int64) + 100).map_elements(
            lambda n: f"{n:03x}", return_dtype=pl.String
        ),
    )
    store(stored, real, rows)
    for format in Format:
        with pytest.raises(ValueError, match=r"stand apart, oulu_idrate is SYNTHETIC.*--mixed"):
            command.report(["oulu_idrate", "real"], format, None, stored)
    kinds = [line[1] for line in made(stored, "oulu_idrate", "real", mixed=True).tables["all cells"][1:]]
    assert kinds == ["SYNTHETIC"] * 7 + ["real"] * 7


def test_an_unknown_study_names_the_known_ones(stored):
    with pytest.raises(ValueError, match=r"did you mean 'oulu_idrate@quick'\? valid: .*oulu_idrate@quick"):
        made(stored, "oulu_irate")
    with pytest.raises(ValueError, match="valid: oulu_idrate@quick"):
        made(stored, "zzz")


def test_a_folder_that_does_not_exist_is_refused_before_anything_is_read(stored):
    (stored / "studies/oulu_idrate@quick/plan.json").write_text("{")
    with pytest.raises(NotADirectoryError, match=r"existing folder.*create .*nowhere"):
        command.report(["oulu_idrate"], Format.HTML, stored / "nowhere" / "page.html", stored)


def test_a_study_of_failures_alone_has_a_page_with_their_reasons(tmp_path):
    store(tmp_path, design(), failures_alone())
    found = made(tmp_path)
    assert "no answer, 70 trials failed and none is complete" in found.text
    assert len(found.tables["70 failed trials, in no number here"]) == 71
    assert {line[1] for line in found.tables["70 failed trials, in no number here"][1:]} == {"NaN in the loss"}


def test_a_study_with_nothing_finished_is_refused_with_the_next_step(stored):
    shutil.rmtree(stored / "trials")
    with pytest.raises(ValueError, match=r"no trial in the store yet; run it first: idenctl study run"):
        made(stored)


def test_what_is_left_of_a_damaged_study_is_still_a_page(stored, caplog):
    (stored / "studies/oulu_idrate@quick/provenance.json").write_text("{")
    found = made(stored)
    assert "provenance.json is missing or damaged" in found.text
    assert any("provenance.json is not JSON" in message for message in caplog.messages)
    other = design(study="other")
    store(stored, other, whole(other).with_columns(trial_id="o" + pl.col("trial_id")).filter(pl.col("fold") > 4))
    (stored / "trials/oulu_idrate@quick.parquet").write_bytes(b"PAR1 and no more")
    left = made(stored)
    assert "so far, with 35 of 70 trials" in left.text
    assert [line[1] for line in left.tables["SYNTHETIC accuracy %"][1:]] == ["5/10"] * 7
