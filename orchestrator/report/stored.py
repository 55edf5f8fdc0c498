"""From what a store holds of studies to their reports, and to what a page shows beside them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from orchestrator import costs, failures, frozen
from orchestrator.report import cells, search, tables
from orchestrator.report.evidence import Evidence
from orchestrator.report.model import Report
from orchestrator.store import Store

log = logging.getLogger("idenctl")


@dataclass(frozen=True)
class Stored:
    """A study's plan, its report, the rows of its trials in a store, and those of every trial there."""

    plan: dict[str, Any]
    report: Report
    trials: pl.DataFrame
    every_trial: pl.DataFrame
    store: Store

    @cached_property
    def evidence(self) -> Evidence:
        """What the page shows beyond the report; what is damaged is named in a warning and left out."""
        plan, name, predicted = self.plan, tables.full_name(self.plan), self.plan.get("predicted", {})
        rows_by = cells.axes(plan["report"]["by"])[0]
        first = plan | {"report": plan["report"] | {"by": rows_by}} if plan.get("search") else plan
        alone, packed = costs.packing(predicted) or (None, None)
        try:
            provenance = frozen.read_provenance(self.store.studies / name / "provenance.json")
        except ValueError as error:
            log.warning("%s", error)
            provenance = {}
        return Evidence(
            trials=self.trials,
            curves=self.store.curves(self.trials),
            baselines=cells.baselines(first) if not self.trials.is_empty() else {},
            took=frozen.took_of(plan, self.every_trial.select(frozen.RAN).iter_rows(), self.store),
            alone=alone,
            packed=packed,
            not_run=cells.not_run(plan, self.trials),
            reused=self.trials.filter(pl.col("trial_id").is_in(predicted.get("reused", [])))["seconds"].to_list(),
            record=provenance,
        )


def gather(store: Store, plans: Sequence[dict[str, Any]], exact: bool = False) -> list[Stored]:
    """The reports of these plans; `exact` reads the predictions of those too whose tables need none.

    Raises ValueError as `tables.build` does, and for a search whose record is damaged.
    """
    every_trial, found = store.every_trial(), []
    trials = every_trial.filter(pl.col("without").is_null())  # store.trials(), without reading again
    for plan in plans:
        plan = plan | {"raised": failures.standing(store, tables.full_name(plan), every_trial["trial_id"])}
        own = tables.chosen(plan, trials)
        predictions = store.predictions(own) if exact or tables.needs_predictions(plan) else None
        if plan.get("search"):
            record = frozen.read_search(store.studies / tables.full_name(plan) / "search.json")
            report = search.build(plan, record, trials, predictions)
        else:
            report = tables.build(plan, trials, predictions)
        found.append(Stored(plan, report, own, every_trial, store))
    return found


def with_details(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan, asking for the details of its comparisons."""
    shown = [name for name in plan["report"].get("show", ()) if name != "details"]
    return plan | {"report": plan["report"] | {"show": ["details", *shown]}}


def with_everything(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan, asking for every table that there is."""
    details = ["details"] if plan["report"]["baselines"] else []
    return plan | {"report": plan["report"] | {"show": [*details, "expressions", "confusion", "subjects"]}}


def check_mixed(reports: Sequence[Report], mixed: bool) -> None:
    """Raise ValueError where drawn and real data would stand in one report that nobody asked to be `mixed`."""
    drawn = [report.study for report in reports if report.synthetic]
    if not mixed and 0 < len(drawn) < len(reports):
        raise ValueError(
            f"drawn and real data stand apart, {', '.join(drawn)} is SYNTHETIC and the others are real; "
            "report them one by one, or ask for --mixed"
        )
