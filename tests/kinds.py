"""A report of each kind that there is, of numbers that are known or drawn."""

# ruff: noqa: RUF001 the letters that look like others are meant

import json

import polars as pl
from conftest import Killed
from pages import designed, failures_alone, noisy, predicted
from searching import NUMBERS, kept, plan, run, text
from test_report import plan as design
from test_report import trial, whole
from test_report_parts import plan as small
from test_report_parts import predict, trials_of

from orchestrator import record
from orchestrator.progress import PackDone
from orchestrator.report import search, tables
from orchestrator.report.stored import with_details, with_everything
from orchestrator.store import Store

ODD = "a_b & 50% of $x$ #1 {y} ~ ^ \\ -- 'q' `r` \"s\" <t> |u| é ł Ş ß α Ω ± × – … 中文 🙂"
LONG = "averylongnamewithoutanyplacewhereitcouldbebroken/and_another.one=0.0001"


def depths():
    """The paper's Table 4: variants by depth, with its values."""
    values = {"original": {"16": 91.19, "22": 95.16, "40": 98.23}, "if": {"16": 93.46, "22": 96.63, "40": 98.42}}
    cells = [
        {"label": settings, "settings": settings, "configuration_id": f"{place:032x}"}
        for place, settings in enumerate({"variant": v, "depth": d} for v in values for d in (16, 22, 40))
    ]
    reference = design()["reference"] | {"by": ["variant", "depth"], "values": values}
    report = {"by": ["variant", "depth"], "baselines": [{"variant": "original"}]}
    wanted = design(cells=cells, reference=reference, report=report)
    return tables.build(wanted, whole(wanted))


def variants(**changes):
    """The paper's Table 1: the four variants."""
    cells = [
        {"label": {"variant": name}, "settings": {"variant": name}, "configuration_id": f"{place:032x}"}
        for place, name in enumerate(("original", "i", "f", "if"))
    ]
    values = {"original": 87.18, "i": 87.66, "f": 91.39, "if": 93.95}
    reference = design()["reference"] | {"source": "IDEnNet, Table 1", "by": "variant", "values": values, "note": ""}
    report = {"by": "variant", "baselines": [{"variant": "original"}]}
    wanted = design(cells=cells, reference=reference, report=report, **changes)
    return tables.build(wanted, whole(wanted))


def detailed():
    wanted = with_details(design(seeds=2))
    return tables.build(wanted, noisy(wanted))


def split():
    """A publisher's split: intervals over pictures, no folds."""
    wanted, predictions = with_everything(small(folds=[None], reference=None)), predict(("original", "f"), (None,))
    return tables.build(wanted, trials_of(predictions), predictions)


def failing():
    """A cell that failed, one that is missing, one with a fold that failed, on two devices."""
    wanted, trials = design(), whole(design())
    kept = trials.filter(~pl.col("configuration_id").is_in([f"{2:032x}", f"{4:032x}"]), pl.col("trial_id") != "3-2-0")
    failed = [trial(3, 2, state="failed", reason=ODD), *(trial(4, fold, state="failed") for fold in range(10))]
    moved = kept.with_columns(device=pl.when(pl.col("fold") < 4).then(pl.lit("gpu")).otherwise(pl.lit("cpu")))
    return tables.build(wanted, pl.concat([moved, pl.DataFrame(failed)], how="diagonal_relaxed"))


def oddly_named():
    """Names that LaTeX, Markdown and HTML would obey."""
    wanted = design(question=ODD, dataset=ODD, study="odd_study")
    wanted["cells"][2]["label"], wanted["cells"][3]["label"] = {"id_rate": ODD}, {"id_rate": LONG}
    wanted["reference"]["source"] = wanted["reference"]["note"] = ODD
    wanted["report"]["baselines"] = [{"id_rate": ODD}, {"id_rate": LONG}]
    return tables.build(wanted, whole(wanted))


def many():
    """More cells than a page has lines."""
    wanted = design(reference=None)
    wanted["cells"] = [
        {"label": {"id_rate": n}, "settings": {"id_rate": n}, "configuration_id": f"{n:032x}"} for n in range(90)
    ]
    wanted["report"]["baselines"] = [{"id_rate": 7}]
    return tables.build(wanted, noisy(wanted))


def real():
    wanted = design(study="real", synthetic=False)
    return tables.build(wanted, whole(wanted).with_columns(synthetic=pl.lit(False)))


def searched(root, over=True):
    """A search by two settings, nested where it is over."""
    content = text(space=NUMBERS, more=", nested: true" if over else "").replace("by: y", "by: [x, y]")

    def listen(event):
        if isinstance(event, PackDone) and not over:
            raise Killed

    try:
        run(root, content, listen)
    except Killed:
        assert not over
    planned = plan(root, content)
    record.freeze(planned, Store(root), ["idenctl", "study", "run", "study.yaml"])
    planned.search.write()
    frozen = json.loads((root / "studies/top/plan.json").read_text())
    return search.build(frozen, kept(root), Store(root).trials())


KINDS = {
    "design": lambda root: [designed()[0]],
    "variants": lambda root: [variants()],
    "two-way": lambda root: [depths()],
    "details": lambda root: [detailed()],
    "predictions": lambda root: [predicted()[0]],
    "split": lambda root: [split()],
    "search": lambda root: [searched(root)],
    "search that goes on": lambda root: [searched(root, over=False)],
    "several": lambda root: [designed()[0], real()],
    "failures": lambda root: [failing()],
    "failures alone": lambda root: [tables.build(design(), failures_alone())],
    "odd names": lambda root: [oddly_named()],
    "many cells": lambda root: [many()],
}
