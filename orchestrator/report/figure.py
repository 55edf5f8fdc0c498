"""A report's main figure, sized for a paper: every fold a dot, means with their intervals, the paper's values beside.

It is as wide as a column, 8.4 cm, or, where that would take more than half a page, as two, 17.5 cm. Letters: 7.5 pt.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import polars as pl

from orchestrator.report.model import Report, Row
from orchestrator.report.tex import points
from orchestrator.report.wording import ends

COLUMN, BOTH, TALLEST = 238, 496, 360  # points: 8.4 cm, 17.5 cm, half a page
PAD, LETTER, LINE = 3, 7.5, 9  # around all; from a line of text to the next
STEP, LINES = 20, 16  # of a cell's line; where there are more than so many in a column, they come closer
BESIDE, NAMES, FOLDS = 58, 87, 13  # of a panel's height, title and axis; at most the names of cells; the dots of folds
EM = LETTER / 8 * 1.1  # `points` are of 8 pt with serifs, letters without are wider
MOST_CELLS = 80
OURS, PAPER, FOLD, DIM = "#1f4e79", "#c8553d", "#8fa9c2", "#555"
CONFIG: dict[str, Any] = {
    "padding": PAD,
    "view": {"stroke": "#ddd"},
    "axis": {"labelFontSize": LETTER, "titleFontSize": LETTER, "titleFontWeight": "normal", "labelLimit": 0},
    "title": {
        "fontSize": LETTER,
        "fontWeight": "normal",
        "lineHeight": LINE,
        "anchor": "start",
        "frame": "bounds",
        "offset": 4,
        "subtitleFontSize": LETTER,
        "subtitleLineHeight": LINE,
        "subtitleColor": DIM,
    },
}


def draw(report: Report, trials: pl.DataFrame, suffix: str) -> bytes:
    """The figure of a report from its numbers and the store's `trials`, as a picture of this kind."""
    import vl_convert

    drawn = chart(report, trials)
    match suffix:
        case ".svg":
            return svg(drawn).encode()
        case ".pdf":
            return bytes(vl_convert.vegalite_to_pdf(drawn.to_dict()))
        case _:
            return bytes(vl_convert.vegalite_to_png(drawn.to_dict(), ppi=288))


def svg(drawn: alt.ConcatChart) -> str:
    """The figure as SVG, as large as the PDF."""
    import vl_convert

    return re.sub(r' (width|height)="([\d.]+)"', r' \1="\2pt"', vl_convert.vegalite_to_svg(drawn.to_dict()), count=2)


def chart(report: Report, trials: pl.DataFrame) -> alt.ConcatChart:
    """Accuracy in percent, a line a cell, a panel a column of a two-way study. Drawn data says so in title and axis.

    Of very many cells it shows the baselines and the best, and says so. Raises ValueError where nothing was tested yet.
    """
    if not report.rows:
        raise ValueError(f"a figure draws what was tested, {report.study} has chosen nothing yet; run it again")
    rows = told(report.rows, MOST_CELLS)
    found = values(replace(report, rows=rows), trials)
    names = {name: wrapped(name, NAMES) for name in (_name(row, report) for row in rows)}
    closest = LINE * max(map(len, names.values())) + 2
    panels = [[row for row in rows if row.column == column] for column in dict.fromkeys(row.column for row in rows)]
    columns = 1 if BESIDE * len(panels) + closest * len(rows) <= TALLEST else 2
    step = max(closest, min(STEP, STEP * LINES * columns // len(rows)))
    if len(panels) < columns:
        middle = (len(rows) + 1) // 2
        panels = [list(rows[:middle]), list(rows[middle:])]
    drawn = [_panel(own, found, names, step, report) for own in panels]
    room = (COLUMN if columns == 1 else BOTH) - 2 * PAD
    title = alt.TitleParams(
        [*wrapped(report.heading, room, bold=True), *wrapped(report.about, room, bold=True)],
        subtitle=wrapped(_legend(report, len(rows)), room),
        fontWeight="bold",
    )
    gap = {"row": 10, "column": BOTH - 2 * COLUMN + 2 * PAD}
    shared = alt.Resolve(scale={"x": "shared"})
    return alt.ConcatChart(concat=drawn, columns=columns, spacing=gap, resolve=shared, title=title, config=CONFIG)


def _panel(
    rows: Sequence[Row],
    found: Sequence[Mapping[str, Any]],
    names: Mapping[str, Sequence[str]],
    step: int,
    report: Report,
) -> alt.LayerChart:
    """Some of the cells, a line each."""
    cells = [_name(row, report) for row in rows]
    own = [value for value in found if value["cell"] in cells and value["column"] == rows[0].column]
    extent = math.ceil(max(_width(line) for lines in names.values() for line in lines)) + 4
    scale = alt.Scale(zero=False, nice=False, padding=5)
    said = ["accuracy %", "dots and bars SYNTHETIC"] if report.synthetic else ["accuracy %"]
    x = alt.X("accuracy:Q", scale=scale, title=said, axis=alt.Axis(tickCount=5, labelFlush=7))
    label = alt.Axis(
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelLineHeight=LINE,
        minExtent=extent,
        maxExtent=extent,
        domain=False,
        ticks=False,
        title=None,
    )
    lines = alt.Scale(domain=cells, paddingInner=max(0.3, 1 - FOLDS / step), paddingOuter=0.2)
    y = alt.Y("cell:N", sort=cells, axis=label, scale=lines)
    table = alt.Chart(alt.InlineData(own))
    folds = table.transform_filter("datum.kind == 'fold'").mark_circle(size=8, color=FOLD, opacity=0.9)
    means = table.transform_filter("datum.kind == 'mean'")
    paper = table.transform_filter("datum.kind == 'paper'")
    layers = [
        folds.encode(x=x, y=y, yOffset=alt.YOffset("fold:N", sort=None)),
        means.mark_rule(color=OURS, strokeWidth=1.2).encode(
            x=alt.X("low:Q", scale=scale, title=said), x2="high:Q", y=y
        ),
        means.mark_point(filled=True, size=24, color=OURS, opacity=1).encode(x=x, y=y),
        paper.mark_point(shape="diamond", size=22, strokeWidth=1.5, color=PAPER).encode(x=x, y=y),
    ]
    title = f"{report.by}, {report.across} {rows[0].column}" if report.across else report.by
    return alt.LayerChart(
        layer=layers,
        width=COLUMN - 2 * PAD - extent - 2,
        height=step * len(cells),
        title=wrapped(title, COLUMN - 2 * PAD),
    )


def _legend(report: Report, shown: int) -> str:
    legend = "large dots: means, bars: 95% intervals" + (", small dots: folds" if report.folds else "")
    if report.reference_source:
        legend += f", diamonds: {report.reference_source}"
    return "; ".join([legend, *left_out(len(report.rows), shown)])


def values(report: Report, trials: pl.DataFrame) -> list[Mapping[str, Any]]:
    """What the figure shows of each row, in percent: of `kind` fold, mean (with `low` and `high`) or paper."""
    found: list[Mapping[str, Any]] = []
    for row in report.rows:
        place = {"cell": _name(row, report), "column": row.column}
        own = trials.filter(configuration_id=row.configuration_id, state="complete")
        if report.folds:
            folds = own.group_by("fold").agg(pl.col("accuracy").mean() * 100).sort("fold")
            found += [place | {"kind": "fold", **fold} for fold in folds.iter_rows(named=True)]
        if row.accuracy.mean is not None:
            low, high = ends(row.accuracy)
            found.append(place | {"kind": "mean", "accuracy": row.accuracy.mean, "low": low, "high": high})
        if row.reference is not None:
            found.append(place | {"kind": "paper", "accuracy": row.reference})
    return found


def told(rows: Sequence[Row], most: int) -> tuple[Row, ...]:
    """The rows that a figure shows, in their order: the baselines and the best, at most so many."""
    if len(rows) <= most:
        return tuple(rows)
    ranked = sorted(rows, key=lambda row: (None not in row.comparisons, -(row.accuracy.mean or 0.0)))
    kept = {id(row) for row in ranked[:most]}
    return tuple(row for row in rows if id(row) in kept)


def left_out(count: int, shown: int) -> list[str]:
    """What is said where a figure shows fewer cells than there are."""
    return [] if shown >= count else [f"{shown} of {count} cells: the baselines and the best; the table holds all."]


def wrapped(text: str, room: float, bold: bool = False) -> list[str]:
    """The text in lines of at most `room` points; a word that has more is broken."""
    lines = [""]
    for word in text.split():
        if _width(f"{lines[-1]} {word}", bold) <= room:
            lines[-1] = f"{lines[-1]} {word}".strip()
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if _width(lines[-1] + letter, bold) > room:
                lines.append("")
            lines[-1] += letter
    return lines


def _width(text: str, bold: bool = False) -> float:
    """About how wide a text is, in points; rather more than less."""
    return points(text) * EM * (1.08 if bold else 1.0)


def _name(row: Row, report: Report) -> str:
    return row.row if report.across else row.label
