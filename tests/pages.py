"""Pages of studies whose numbers are known, how they are stored, and how what they show is read."""

import json
from html.parser import HTMLParser

import numpy as np
import polars as pl
from test_report import plan as design
from test_report import trial, whole
from test_report_parts import plan as small
from test_report_parts import predict, trials_of

from orchestrator.report import Format, cells, formats, tables
from orchestrator.report.evidence import Evidence
from orchestrator.report.stored import with_everything

EPOCHS = 3
VOID = {"meta", "link", "img", "br", "input", "hr"}


def curves_of(trials):
    """Three epochs a trial, the last one its accuracy."""
    done = trials.filter(pl.col("state") == "complete")
    rows = [
        {"trial_id": name, "pack_id": "p", "epoch": epoch, "test_accuracy": accuracy - 0.05 * (EPOCHS - 1 - epoch)}
        for name, accuracy in done.select("trial_id", "accuracy").iter_rows()
        for epoch in range(EPOCHS)
    ]
    schema = {"trial_id": pl.String, "pack_id": pl.String, "epoch": pl.Int64, "test_accuracy": pl.Float64}
    frame = pl.DataFrame(rows, schema)
    return frame.with_columns(train_accuracy=pl.col("test_accuracy") + 0.02)


def beside(plan, trials, **more):
    return Evidence(trials, curves_of(trials), cells.baselines(plan), **more)


def designed(**changes):
    """Ten folds of seven cells: the report and what is shown beside it."""
    wanted = with_everything(design(**changes))
    trials = whole(wanted)
    return tables.build(wanted, trials), beside(wanted, trials)


def predicted(**changes):
    """Three folds of two cells with predictions by frame, sequence, expression and person."""
    wanted, predictions = with_everything(small(**changes)), predict(("original", "f"))
    trials = trials_of(predictions)
    return tables.build(wanted, trials, predictions), beside(wanted, trials)


def html(*pairs):
    reports, evidence = zip(*pairs, strict=True)
    return formats.render(reports, Format.HTML, evidence=evidence)


def store(root, wanted, trials, predictions=None):
    """The study as a pack of its own in the store."""
    name = tables.full_name(wanted)
    for folder in ("trials", "curves", "predictions", f"studies/{name}"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "studies" / name / "plan.json").write_text(json.dumps(wanted))
    (root / "studies" / name / "provenance.json").write_text(json.dumps({"git": "abc", "versions": {"torch": "9.9"}}))
    ended = pl.lit("2026-01-01").str.to_datetime(time_unit="us", time_zone="UTC")
    rows = trials.with_columns(pack_id=pl.lit(name), finished_at=ended, trained_epochs=pl.lit(EPOCHS))
    rows.write_parquet(root / "trials" / f"{name}.parquet")
    curves_of(trials).with_columns(pack_id=pl.lit(name)).write_parquet(root / "curves" / f"{name}.parquet")
    if predictions is None:
        predictions = predict(("none",)).clear()
    predictions.with_columns(pack_id=pl.lit(name)).write_parquet(root / "predictions" / f"{name}.parquet")


def noisy(wanted, seed=3):
    """Every trial of the plan, all cells alike but for chance."""
    trials = whole(wanted)
    return trials.with_columns(accuracy=np.random.default_rng(seed).normal(0.7, 0.03, trials.height))


def failures_alone():
    """Every trial of seven cells and ten folds, each failed."""
    failed = [trial(cell, fold, state="failed") for cell in range(7) for fold in range(10)]
    return pl.DataFrame(failed, schema_overrides={"accuracy": pl.Float64, "sequence_accuracy": pl.Float64})


def two(value, spec="z.2f"):
    return "-" if value is None else format(value, spec)


def spread(estimate, sign=""):
    mean = two(estimate["mean"], f"{sign}z.2f")
    return mean if estimate["half_width"] is None else f"{mean} ± {estimate['half_width']:.2f}"


def p_of(value):
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


class Page(HTMLParser):
    """A page's elements as (tag, attributes), its tables by their title, its text outside of styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.texts, self.inside, self.marks = [], {}, [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag not in VOID:
            self.inside.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(given["aria-label"], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif given.get("role") == "graphics-symbol" and "aria-label" in given:
            self.marks.append(given["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.inside.pop()

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.inside and self.inside[-1] in ("style", "script"):
            return
        self.texts.append(data)
        if self.inside and "table" in self.inside and {"td", "th"} & set(self.inside):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def of(self, tag):
        return [given for name, given in self.elements if name == tag]
