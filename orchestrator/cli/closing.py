"""What a study found, in a few lines: what a run ends with."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from orchestrator.cli.console import View
from orchestrator.cli.screen import plain, written
from orchestrator.cli.wording import difference, duration, several

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.store import Store

REASONS = 3  # of failures that are told one by one


def closing(store: "Store", name: str, seconds: float | None = None) -> None:
    """Say on stderr what the store knows of a study: the answer, the best cell, failures, time; `seconds` of this run.

    Nothing where no trial of it is stored.
    """
    from orchestrator import failures, frozen
    from orchestrator.report import tables

    plan = frozen.read_plan(store.studies / name / "plan.json")
    own = tables.chosen(plan, store.trials())
    if own.is_empty():
        return
    waiting = not_run(failures.standing(store, name))
    facts = {**_found(plan, store), **_failures(own), **waiting, **_time(store, name, seconds)}
    console = View(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        for title, text in facts.items():
            print(f"{title}: {written(text, console)}", file=sys.stderr)
        return
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for title, text in facts.items():
        style = {"found": "bold", "failures": "red", "not run": "red"}.get(title, "")
        rows.add_row(title, Text(written(text, console), style=style))
    console.print(rows)


def _found(plan: dict[str, Any], store: "Store") -> dict[str, str]:
    """The answer, and the cell with the highest accuracy; why there is none where the report cannot be made."""
    from orchestrator.report import stored
    from orchestrator.report.answer import answer
    from orchestrator.report.wording import folds_done, with_interval

    try:
        (found,) = stored.gather(store, [plan | {"report": plan["report"] | {"show": []}}])
    except ValueError as error:
        return {"found": f"no answer: {error}"}
    report = found.report
    rows = [row for row in report.rows if row.accuracy.mean is not None]
    if not rows:
        return {"found": answer(report)}
    best = rows[0] if report.searched else max(rows, key=lambda row: row.accuracy.mean or 0.0)
    folds = f" over {folds_done(best, report)} folds" if report.folds else ""
    return {"found": answer(report), "best": f"{best.label}: {with_interval(best.accuracy)} %{folds}"}


def _failures(trials: "pl.DataFrame") -> dict[str, str]:
    failed = trials.filter(trials["state"] == "failed")["reason"].to_list()
    return {"failures": _reasons(failed)} if failed else {}


def not_run(why: Mapping[str, str]) -> dict[str, str]:
    """How many trials were not run as their pack failed, of the reason of each by trial_id; nothing without any."""
    return {"not run": f"as their pack failed, {_reasons(why.values())}"} if why else {}


def _reasons(of: Iterable[str]) -> str:
    """Why so many trials failed, the most frequent reason first."""
    counts = Counter(map(plain, of))
    told = [f"{reason} ({count})" for reason, count in counts.most_common(REASONS)]
    more = f"; {len(counts) - REASONS} more reasons" if len(counts) > REASONS else ""
    return f"{several(counts.total(), 'trial')}: {'; '.join(told)}{more}"


def _time(store: "Store", name: str, seconds: float | None) -> dict[str, str]:
    """How long this run was, and what devices worked on all that is stored, beside what they were to."""
    from orchestrator import frozen

    stored = [time for time in frozen.took(store, name) if time.actual is not None]
    parts = [] if seconds is None else [f"{duration(seconds)} in this run"]
    if stored:
        spent, wanted = sum(time.actual or 0.0 for time in stored), sum(time.predicted for time in stored)
        parts.append(f"{duration(spent)} of devices, {duration(wanted)} foreseen ({difference(stored)})")
    return {"time": "; ".join(parts)} if parts else {}
