"""A report's main figure: every fold a dot, means with their intervals, the paper's values beside."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from orchestrator.report.model import Report, Row

WIDTH, HEIGHT = 52, 260  # pixels: a cell, the axis of accuracy
OURS, PAPER, FOLD = "#1f4e79", "#c8553d", "#8fa9c2"


def draw(report: Report, trials: pl.DataFrame, suffix: str) -> bytes:
    """The figure of a report from its numbers and the store's `trials`, as a picture of this kind."""
    import vl_convert

    if suffix == ".svg":
        return svg(chart(report, trials)).encode()
    spec = chart(report, trials).to_dict()
    match suffix:
        case ".pdf":
            return bytes(vl_convert.vegalite_to_pdf(spec))
        case _:
            return bytes(vl_convert.vegalite_to_png(spec, scale=2))


def svg(drawn: alt.FacetChart) -> str:
    """The figure as SVG."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(drawn.to_dict()))


def chart(report: Report, trials: pl.DataFrame) -> alt.FacetChart:
    """Accuracy in percent by cell; a panel a column in a two-way study. Drawn data says so in the title.

    Raises ValueError where nothing was tested yet.
    """
    if not report.rows:
        raise ValueError(f"a figure draws what was tested, {report.study} has chosen nothing yet; run it again")
    order = list(dict.fromkeys(_name(row, report) for row in report.rows))
    scale = alt.Scale(zero=False, nice=True)
    x = alt.X("cell:N", sort=order, title=report.by, axis=alt.Axis(labelAngle=0, labelLimit=WIDTH))
    y = alt.Y("accuracy:Q", scale=scale, title="accuracy %" + (", dots and bars SYNTHETIC" if report.synthetic else ""))
    table = alt.Chart(alt.InlineData(values(report, trials)))
    folds = table.transform_filter("datum.kind == 'fold'").mark_circle(size=22, color=FOLD, opacity=0.7)
    jitter = folds.transform_calculate(offset="datum.fold").encode(x=x, y=y, xOffset=alt.XOffset("offset:N", sort=None))
    means = table.transform_filter("datum.kind == 'mean'")
    bars = means.mark_rule(color=OURS, strokeWidth=2).encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
    points = means.mark_point(filled=True, size=70, color=OURS, opacity=1).encode(x=x, y=y)
    paper = table.transform_filter("datum.kind == 'paper'").mark_point(shape="diamond", size=60, color=PAPER)
    layers = alt.layer(jitter, bars, points, paper.encode(x=x, y=y)).properties(width=WIDTH * len(order), height=HEIGHT)
    legend = "large dots: means, bars: 95% intervals" + (", small dots: folds" if report.folds else "")
    if report.reference_source:
        legend += f", diamonds: {report.reference_source}"
    title = alt.TitleParams(_lines(report.title), subtitle=legend, anchor="start", fontSize=13, subtitleColor="#555")
    header = alt.Header(title=report.across or None, labels=bool(report.across))
    return layers.facet(column=alt.Column("column:N", sort=None, header=header)).properties(title=title)


def values(report: Report, trials: pl.DataFrame) -> list[Mapping[str, Any]]:
    """What the figure shows of each row, in percent: of `kind` fold, mean (with `low` and `high`) or paper."""
    found: list[Mapping[str, Any]] = []
    for row in report.rows:
        place = {"cell": _name(row, report), "column": row.column if report.across else ""}
        own = trials.filter(configuration_id=row.configuration_id, state="complete")
        if report.folds:
            folds = own.group_by("fold").agg(pl.col("accuracy").mean() * 100).sort("fold")
            found += [place | {"kind": "fold", **fold} for fold in folds.iter_rows(named=True)]
        if row.accuracy.mean is not None:
            half = row.accuracy.half_width or 0.0
            ends = {"low": row.accuracy.mean - half, "high": row.accuracy.mean + half}
            found.append(place | {"kind": "mean", "accuracy": row.accuracy.mean, **ends})
        if row.reference is not None:
            found.append(place | {"kind": "paper", "accuracy": row.reference})
    return found


def _name(row: Row, report: Report) -> str:
    return row.row if report.across else row.label


def _lines(title: str) -> list[str]:
    question, dash, about = title.rpartition(" - ")
    return [question, about] if dash else [title]
