"""The report of a search: its answer, how it came to it, what it saved, and what its numbers may be taken for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import polars as pl

from orchestrator.report import tables
from orchestrator.report.cells import axes, not_run
from orchestrator.report.model import Report, Searched, Surface, Tried
from orchestrator.report.wording import in_one_line, listed
from orchestrator.statistics.folds import Estimate, estimates
from orchestrator.trial import NUM_FOLDS, SELECTED

BINS = 4  # of each axis of the surface
Points = Sequence[Mapping[str, Any]]


def build(
    plan: Mapping[str, Any], record: Mapping[str, Any], trials: pl.DataFrame, predictions: pl.DataFrame | None = None
) -> Report:
    """The report of a search from its plan, its record (`search.json`) and the store's tables.

    The rows are the chosen configurations, trained again and tested; there are none before the search is over.
    """
    by, across = axes(plan["report"]["by"])
    single = {**plan, "report": {**plan["report"], "by": by}}
    tested = not tables.chosen(single, trials).is_empty()
    report = tables.build(single, trials, predictions) if tested else tables.without_rows(single, trials.clear())
    found = searched(record, by, across)
    on_test = "SELECTED ON TEST FOLDS, so optimistic: " if plan["search"]["select"] == "test" else ""
    labels = {cell["configuration_id"]: listed(cell["label"]) for cell in plan["cells"]}
    rows = tuple(replace(row, label=labels[row.configuration_id]) for row in report.rows)
    return replace(
        report,
        title=on_test + report.title,
        by="chosen",
        rows=rows,
        searched=found,
        notes=(*_notes(found), *_failed(single, trials if tested else trials.clear()), *report.notes),
    )


def _failed(plan: Mapping[str, Any], tested: pl.DataFrame) -> list[str]:
    """Why trials that the search asked for were not run, but those of the chosen cells, whose own notes say it."""
    said = Counter(reason for *_, reason in not_run(plan, tested)) if not tested.is_empty() else Counter[str]()
    reasons = Counter(plan.get("raised", {}).values()) - said
    return [
        f"{count} trials that it asked for not run, as their pack failed ({in_one_line(reason)}); run it again, it "
        "goes on."
        for reason, count in reasons.items()
    ]


def searched(record: Mapping[str, Any], by: str, across: str) -> Searched:
    """What a search asked and found, in percent."""
    whole, *outer = record["procedures"]
    search, points = record["search"], whole["points"]
    found = [_accuracy(point, search) for point in points]
    best = accumulate((-np.inf if accuracy is None else accuracy for accuracy in found), max)
    tried = tuple(
        Tried(
            number=point["number"],
            settings=point["settings"],
            state=point["state"],
            repeats=point["repeats"],
            values=tuple(point["values"]),
            accuracy=accuracy,
            best_so_far=None if top == -np.inf else top,
        )
        for point, accuracy, top in zip(points, found, best, strict=True)
    )
    ratio = 1 / (NUM_FOLDS - (1 if search["select"] == "test" else 2))
    folds = [points[number]["folds"] for number in whole["chosen"]]
    scores = tuple(one for values in folds for one in estimates(100 * np.array([values]), ratio))
    trained, full = _epochs(points)
    return Searched(
        sampler=search["sampler"],
        order=search["order"],
        select=search["select"],
        objectives=tuple(search["objectives"]),
        wanted=search["configurations"],
        points=tried,
        chosen=tuple(whole["chosen"]),
        chosen_scores=scores,
        importance=whole["importance"],
        surface=_surface(points, search, by, across),
        trained_epochs=trained,
        whole_epochs=full,
        nested=_nested(outer) if outer else None,
        nested_points=sum(len(procedure["points"]) for procedure in outer),
    )


def _accuracy(point: Mapping[str, Any], search: Mapping[str, Any]) -> float | None:
    return 100 * point["values"][search["objectives"].index("accuracy")] if point["values"] else None


def _nested(outer: Points) -> Estimate:
    """What the whole procedure gives on subjects that it never saw: one accuracy an outer fold, seeds averaged."""
    folds = []
    for procedure in outer:
        found = [100 * one["accuracy"] for one in procedure["refit"] if one["accuracy"] is not None]
        folds.append(sum(found) / len(found) if found else np.nan)
    return estimates(np.array([folds]), 1 / (NUM_FOLDS - 1))[0]


def _epochs(points: Points) -> tuple[int, int]:
    """Epochs trained for configurations that are done, of how many without pruning, all trials together."""
    done = [p for p in points if p["repeats"] is None and p["state"] in ("complete", "pruned") and p["epochs"]]
    return sum(p["trained_epochs"] for p in done), sum(p["epochs"] * p["trials"] for p in done)


def _surface(points: Points, search: Mapping[str, Any], by: str, across: str) -> Surface | None:
    """Mean accuracy by the two axes, numbers in `BINS` ranges of equal width; None without two axes."""
    if not across:
        return None
    rows, columns = (_bins(search["space"][name]) for name in (by, across))
    cells: dict[tuple[int, int], list[float]] = {}
    for point in points:
        accuracy = _accuracy(point, search)
        if accuracy is None or not {by, across} <= point["settings"].keys():
            continue
        place = (_place(point["settings"][by], rows), _place(point["settings"][across], columns))
        cells.setdefault(place, []).append(accuracy)
    counts = tuple(tuple(len(cells.get((i, j), ())) for j in range(len(columns))) for i in range(len(rows)))
    means = tuple(
        tuple(sum(cells[i, j]) / len(cells[i, j]) if (i, j) in cells else None for j in range(len(columns)))
        for i in range(len(rows))
    )
    log = (search["space"][by]["log"], search["space"][across]["log"])
    return Surface(by, across, tuple(map(_said, rows)), tuple(map(_said, columns)), means, counts, log)


def _bins(parameter: Mapping[str, Any]) -> list[Any]:
    """The choices of a parameter, or the (low, high) of its ranges."""
    if parameter["choices"]:
        return list(parameter["choices"])
    spread = np.geomspace if parameter["log"] else np.linspace
    edges = spread(parameter["low"], parameter["high"], BINS + 1).tolist()
    return list(pairwise(edges))


def _place(value: Any, bins: Sequence[Any]) -> int:
    if not isinstance(bins[0], tuple):
        return bins.index(value)
    return next((place for place, (_, high) in enumerate(bins) if value < high), len(bins) - 1)


def _said(part: Any) -> str:
    return f"{part[0]:.3g} to {part[1]:.3g}" if isinstance(part, tuple) else str(part)


def _notes(found: Searched) -> list[str]:
    states = [point.state for point in found.points if point.repeats is None]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed", "waiting"))
    repeats = len(found.points) - len(states)
    again = f"; {repeats} more repeat an earlier one" if repeats else ""
    notes = [
        f"Search by {found.sampler} in {found.order} order: {len(states)} of {found.wanted} "
        f"configurations asked ({counts}{again})."
    ]
    if not found.chosen:
        return [*notes, "The search is not over, so nothing is chosen: run it again, it goes on."]
    if found.select == "test":
        notes.append(
            "Selected on test folds: the chosen accuracy is the best of many on the subjects that it is reported on, "
            "and too high; select: validation, or nested: true."
        )
    else:
        notes.append(
            "Chosen by validation on a fold held out beside the tested one, then trained on nine folds; yet "
            f"{SELECTED}: each of them voted once."
        )
    if found.nested is not None:
        notes.append(
            f"Nested: the procedure anew within each outer fold ({found.nested_points} points asked beside), its "
            "choice tested on subjects that no part of it saw: the unbiased estimate of what the procedure gives."
        )
    else:
        notes.append("Only nested: true estimates without bias what the procedure gives on other subjects.")
    if found.trained_epochs < found.whole_epochs:
        saved = 1 - found.trained_epochs / found.whole_epochs
        notes.append(
            f"Pruning by folds trained {found.trained_epochs:,} of {found.whole_epochs:,} epochs of trials: "
            f"{saved:.0%} saved."
        )
    return notes
