"""The page's figures: what each shows, in which words, and what is left out. Pure but for the drawing.

Every mark carries what a reader may ask of it as its text, `cell · what · value`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from orchestrator.report import page_charts as charts
from orchestrator.report.answer import significant
from orchestrator.report.evidence import Evidence, fold_differences, learning_curves
from orchestrator.report.figure import left_out, told, values
from orchestrator.report.model import Report, Searched, Tried
from orchestrator.report.page_blocks import full_name
from orchestrator.report.page_charts import HALF, NARROW, WIDE, Panel, Spec
from orchestrator.report.search_blocks import settings
from orchestrator.report.wording import number, p_value, synthetic_mark, with_interval

MOST_CELLS, MOST_CURVES = 40, 16
MOST_POINTS = 12  # epochs of a curve that have a mark of their own


@dataclass(frozen=True)
class Figure:
    """A figure: `wide` and `narrow` are SVG; `legend` pairs a mark's kind with its meaning."""

    title: str
    label: str
    note: str
    legend: tuple[tuple[str, str], ...]
    wide: str
    narrow: str
    half: bool = False


def main(reports: Sequence[Report], evidence: Sequence[Evidence]) -> Figure | None:
    """Every fold a dot, means with intervals, the paper's values: a panel a study, of one study a column's."""
    panels: list[Panel] = []
    told_of = 0
    for report, beside in zip(reports, evidence, strict=True):
        shown = replace(report, rows=told(report.rows, MOST_CELLS))
        told_of += len(shown.rows)
        for column, points in groupby(sorted(values(shown, beside.trials), key=_column(report)), key=_column(report)):
            found = [_said(point, report) for point in points]
            title = [full_name(report)] if len(reports) > 1 else []
            title += [f"{report.across} {column}"] if report.across else []
            panels.append((", ".join(title), list(dict.fromkeys(one["cell"] for one in found)), found))
    if not panels:
        return None
    first, mark = reports[0], "SYNTHETIC " if any(report.synthetic for report in reports) else ""
    legend = [("mean", f"mean with its 95% interval{' (SYNTHETIC)' if mark else ''}")]
    legend += [("fold", f"a fold{' (SYNTHETIC)' if mark else ''}")] if any(report.folds for report in reports) else []
    sources = dict.fromkeys(report.reference_source for report in reports if report.reference_source)
    legend += [("paper", ", ".join(sources))] if sources else []
    return _figure(
        title=f"{mark}accuracy by {first.by}" if len(reports) == 1 else f"{mark}accuracy of every cell",
        label=f"{mark}accuracy in percent, a line a cell; the table below holds the numbers",
        note=" ".join(left_out(sum(len(report.rows) for report in reports), told_of)),
        legend=legend,
        draw=lambda width: charts.dots(panels, f"{mark}accuracy %", width, zero=False),
    )


def differences(report: Report, evidence: Evidence) -> Figure | None:
    """Every cell minus a baseline, a panel a baseline: folds, mean, interval; filled where it is significant."""
    rows = told(report.rows, MOST_CELLS)
    by_fold, panels = fold_differences(rows, report, evidence), []
    for place, baseline in enumerate(report.baselines):
        points: list[Mapping[str, Any]] = []
        for row in rows:
            one = row.comparisons[place]
            if one is None or one.difference.mean is None:
                continue
            for fold, value in by_fold.get(baseline, {}).get(row.configuration_id, {}).items():
                text = f"{row.label} · fold {fold} · {number(value, '+z.2f')} points"
                points.append({"cell": row.label, "kind": "fold", "accuracy": value, "fold": fold, "text": text})
            found, kind = one.difference, "mean" if significant(one) else "open"
            text = f"{row.label} · minus {baseline} · {with_interval(found, '+')}, p Holm {p_value(one.p_holm)}"
            ends = {"low": found.low, "high": found.high} if found.low is not None else {}
            points.append({"cell": row.label, "kind": kind, "accuracy": found.mean, "text": text, **ends})
        if points:
            panels.append((f"minus {baseline}", list(dict.fromkeys(point["cell"] for point in points)), points))
    if not panels:
        return None
    mark = synthetic_mark(report)
    legend = [("mean", "significant, p Holm < 0.05"), ("open", "not significant")]
    legend += [("fold", "a fold's difference")] if report.folds else []
    return _figure(
        title=f"{mark}paired differences",
        label=f"{mark}differences to {', '.join(report.baselines)} in points of accuracy, a line a cell",
        note=" ".join(
            [
                "Lines are 95% intervals of their number alone; p is corrected for all comparisons.",
                *left_out(len(report.rows), len(rows)),
            ]
        ),
        legend=legend,
        draw=lambda width: charts.dots(panels, f"{mark}points of accuracy", width, zero=True),
    )


def curves(report: Report, evidence: Evidence) -> Figure | None:
    """Learning curves, a panel a cell, with bands over folds."""
    rows = told(report.rows, MOST_CURVES)
    found = learning_curves(rows, evidence)
    if not found:
        return None
    mark, last = synthetic_mark(report), max(point.epoch for point in found)
    every = max(1, -(-last // MOST_POINTS))
    data = [
        {
            "cell": point.cell,
            "epoch": point.epoch,
            "tested": point.tested,
            "trained": point.trained,
            "low": point.tested if point.low is None else point.low,
            "high": point.tested if point.high is None else point.high,
            "marked": point.epoch == last or point.epoch % every == 0,
            "text": f"{point.cell} · epoch {point.epoch} · tested {point.tested:.2f} %"
            + (f", 95% interval {point.low:.2f} to {point.high:.2f}" if point.low is not None else ""),
        }
        for point in found
    ]
    band = "mean over test folds, band: 95% interval" if report.folds else "test split"
    return _figure(
        title=f"{mark}learning curves",
        label=f"{mark}accuracy in percent by epoch, a panel a cell",
        note=" ".join(left_out(len(report.rows), len(rows))),
        legend=[("line", band), ("dashed", "training batches")],
        draw=lambda width: charts.curves(data, [row.label for row in rows], f"{mark}%", width),
    )


def by_expression(report: Report) -> Figure | None:
    """Accuracy of every cell on each expression, a panel an expression."""
    rows = [row for row in told(report.rows, MOST_CURVES) if row.expressions]
    data = [
        {
            "panel": part.name,
            "cell": row.label,
            "accuracy": part.accuracy.mean,
            "low": part.accuracy.low,
            "high": part.accuracy.high,
            "text": f"{row.label} · {part.name} · {with_interval(part.accuracy)} %, {part.frames:,} frames",
        }
        for row in rows
        for part in row.expressions
        if part.accuracy.mean is not None
    ]
    if not data:
        return None
    mark = synthetic_mark(report)
    return _figure(
        title=f"{mark}accuracy by expression",
        label=f"{mark}accuracy in percent, a panel an expression, a line a cell",
        note=" ".join(left_out(len(report.rows), len(rows))),
        legend=[("mean", "mean with its 95% interval" + (" (SYNTHETIC)" if mark else ""))],
        draw=lambda width: charts.expressions(data, [row.label for row in rows], f"{mark}%", width),
    )


def search(report: Report) -> list[Figure]:
    """How a search went, and where in its space the accuracies are; none for a study that searches nothing."""
    found = report.searched
    if found is None or not any(point.accuracy is not None for point in found.points):
        return []
    mark = synthetic_mark(report)
    unknown = sum(point.accuracy is None for point in found.points)
    history = [_point(point) for point in found.points if point.accuracy is not None]
    figures = [
        _figure(
            title=f"{mark}best so far",
            label=f"{mark}accuracy in percent of every configuration in the order asked",
            note=f"{unknown} that were pruned, failed or wait have no accuracy." if unknown else "",
            legend=[("point", "trained to the end"), ("line", "best so far")],
            draw=lambda width: charts.history(history, f"{mark}accuracy %, {found.select}", width),
            half=True,
        )
    ]
    if found.surface:
        axes, log = (found.surface.columns, found.surface.rows), found.surface.log[::-1]
        points = _in_space(found, axes)
        figures.append(
            _figure(
                title=f"{mark}accuracy by {axes[1]} and {axes[0]}",
                label=f"{mark}every configuration by two of its settings, its accuracy as colour",
                note="",
                legend=[("point", "trained to the end, its colour the accuracy"), ("pruned", "pruned or failed")],
                draw=lambda width: charts.surface(points, axes, log, f"{mark}accuracy %", width),
                half=True,
            )
        )
    return figures


def _in_space(found: Searched, axes: tuple[str, str]) -> list[Mapping[str, Any]]:
    """The points that have both settings, as x and y."""
    return [
        _point(point) | {"x": point.settings[axes[0]], "y": point.settings[axes[1]]}
        for point in found.points
        if set(axes) <= point.settings.keys()
    ]


def _point(point: Tried) -> dict[str, Any]:
    text = f"{settings(point)} · configuration {point.number + 1}, {point.state} · {number(point.accuracy)} %"
    return {"number": point.number + 1, "accuracy": point.accuracy, "best": point.best_so_far, "text": text}


def _column(report: Report) -> Callable[[Mapping[str, Any]], Any]:
    columns = list(dict.fromkeys(row.column for row in report.rows))
    return lambda point: columns.index(point["column"]) if report.across and point["column"] in columns else 0


def _said(point: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
    """The point with its description."""
    mark = " (SYNTHETIC)" if report.synthetic and point["kind"] != "paper" else ""
    what = {"fold": f"fold {point.get('fold')}", "mean": "mean", "paper": report.reference_source}[point["kind"]]
    value = number(point["accuracy"])
    if point["kind"] == "mean" and point["high"] > point["low"]:
        value += f" ± {(point['high'] - point['low']) / 2:.2f}"
    return {**point, "text": f"{point['cell']} · {what} · {value} %{mark}"}


def _figure(
    title: str,
    label: str,
    note: str,
    legend: Sequence[tuple[str, str]],
    draw: Callable[[int], Spec],
    half: bool = False,
) -> Figure:
    wide, narrow = (charts.svg(draw, width) for width in (HALF if half else WIDE, NARROW))
    return Figure(title, label, note, tuple(legend), wide, narrow, half)
