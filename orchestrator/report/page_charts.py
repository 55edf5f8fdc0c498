"""The page's charts as SVG, wide or narrow; their colours are the page's own (CSS variables)."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt
from altair.utils import schemapi

WIDE, HALF, NARROW = 880, 420, 318  # pixels: a desktop's column, half of it, a phone's
STEP = 30  # pixels of a cell's line
LETTER = 6.6  # pixels, about
SAID = alt.Description("text:N")
INK, DIM, RULE, SURFACE = "var(--ink)", "var(--dim)", "var(--rule)", "var(--surface)"
OURS, PAPER, FOLD = "var(--ours)", "var(--paper)", "var(--fold)"

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "sans-serif",
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": DIM,
        "gridColor": RULE,
        "domainColor": DIM,
        "tickColor": DIM,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "header": {"labelColor": INK, "labelFontSize": 12, "labelFontWeight": "bold", "titleColor": DIM},
    "title": {"color": INK, "fontSize": 13, "anchor": "start", "offset": 8},
    "legend": {"labelColor": INK, "titleColor": DIM, "labelFontSize": 12, "titleFontSize": 12},
}

Spec = dict[str, Any]  # of Vega-Lite
Points = Sequence[Mapping[str, Any]]
ZERO: Mapping[str, Any] = {"kind": "zero", "accuracy": 0.0}
Panel = tuple[str, Sequence[str], Points]  # title, cells from the top, what to show of them


def svg(draw: Callable[[int], Spec], width: int) -> str:
    """The chart as SVG to stand within HTML, where it needs no name spaces."""
    import vl_convert

    with schemapi.debug_mode(False):  # checking every part against the schema takes most of a second a chart
        spec = draw(width)
    drawn: str = vl_convert.vegalite_to_svg(spec)
    drawn = re.sub(r'<g class="mark-[^>]*/>', "", drawn)  # layers without a mark, which have no name to be read
    return re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", drawn, count=3)


def _layers(width: int, height: int, *charts: alt.Chart) -> Spec:
    """Charts of the same points above each other; plain, as altair copies all of a part at each step."""
    apart = ("$schema", "config", "data")
    layers = [{n: v for n, v in one.to_dict(validate=False).items() if n not in apart} for one in charts]
    return {"layer": layers, "width": width, "height": height}


def _placed(part: Spec, place: int = 0, title: Any = "") -> Spec:
    """The part of the points in this place, under its title."""
    return part | {"data": {"name": str(place)}} | ({"title": title} if title else {})


def _whole(spec: Spec, *points: Points) -> Spec:
    return spec | {"config": CONFIG, "datasets": {str(place): list(own) for place, own in enumerate(points)}}


def dots(panels: Sequence[Panel], title: str, width: int, zero: bool) -> Spec:
    """Panels under each other, a line a cell: points of `kind` fold, mean, open or paper at `accuracy`, intervals."""
    room = _room([cell for _, cells, _ in panels for cell in cells], width)
    ends = [point.get(name) for _, _, points in panels for point in points for name in ("accuracy", "low", "high")]
    scale = _scale([*ends, 0.0] if zero else ends, 0.04)
    charts = []
    for place, (name, cells, _) in enumerate(panels):
        x = alt.X("accuracy:Q", scale=scale, title=title, axis=alt.Axis(tickCount=max(3, width // 90)))
        y = alt.Y(
            "cell:N",
            sort=list(cells),
            title=None,
            scale=alt.Scale(paddingInner=0.45, paddingOuter=0.3),
            axis=alt.Axis(labelLimit=room, domain=False, ticks=False, minExtent=room, maxExtent=room, grid=True),
        )
        table = alt.Chart()
        jitter = alt.YOffset("fold:N", sort=None)
        layers: list[alt.Chart] = []
        if zero:
            line = table.transform_filter("datum.kind == 'zero'").mark_rule(color=DIM, strokeDash=[4, 3], aria=False)
            layers.append(line.encode(x=x))
        folds = table.transform_filter("datum.kind == 'fold'").mark_circle(size=26, color=FOLD, opacity=0.9)
        layers.append(folds.encode(x=x, y=y, yOffset=jitter, description=SAID))
        means = table.transform_filter("isValid(datum.low)").mark_rule(color=OURS, strokeWidth=2.5, aria=False)
        layers.append(means.encode(x=alt.X("low:Q", scale=scale, title=title), x2=alt.X2("high"), y=y))
        marks: dict[str, dict[str, Any]] = {
            "mean": {"fill": OURS, "stroke": SURFACE, "strokeWidth": 1},
            "open": {"fill": SURFACE, "stroke": OURS, "strokeWidth": 2},
            "paper": {"fill": PAPER, "stroke": SURFACE, "strokeWidth": 1, "shape": "diamond"},
        }
        for kind, mark in marks.items():
            own = table.transform_filter(f"datum.kind == '{kind}'")
            layers.append(own.mark_point(size=110, opacity=1, **mark).encode(x=x, y=y, description=SAID))
        charts.append(_placed(_layers(width - room - 24, STEP * len(cells), *layers), place, name))
    return _whole({"vconcat": charts, "spacing": 18}, *([*points, ZERO] for _, _, points in panels))


def curves(data: Points, order: Sequence[str], title: str, width: int) -> Spec:
    """A panel a cell: `tested` with its band from `low` to `high`, and `trained`, by epoch."""
    columns = _columns(len(order), width)
    scale = _scale([point[name] for point in data for name in ("low", "high", "trained")], 0.03)

    @cache
    def panel(left: bool, bottom: bool) -> Spec:
        table = alt.Chart()
        axis = alt.Axis(tickMinStep=1, tickCount=4, grid=False)
        x = alt.X("epoch:Q", title="epoch" if bottom else None, axis=axis, scale=alt.Scale(nice=False))
        axis = alt.Axis(tickCount=4, labels=left, ticks=False, domain=False)
        y = {name: alt.Y(f"{name}:Q", title=title if left else None, scale=scale, axis=axis)
             for name in ("tested", "trained", "low")}  # fmt: skip
        band = table.mark_area(color=OURS, opacity=0.2, aria=False).encode(x=x, y=y["low"], y2=alt.Y2("high"))
        train = table.mark_line(color=DIM, strokeDash=[4, 3], strokeWidth=1.5, aria=False)
        line = table.mark_line(color=OURS, strokeWidth=2, aria=False).encode(x=x, y=y["tested"])
        points = table.transform_filter("datum.marked").mark_circle(color=OURS, size=34, opacity=1)
        points = points.encode(x=x, y=y["tested"], description=SAID)
        return _layers((width - 52) // columns - 20, 110, band, train.encode(x=x, y=y["trained"]), line, points)

    return _whole(_grid(order, columns, panel), *([p for p in data if p["cell"] == cell] for cell in order))


def expressions(data: Points, order: Sequence[str], title: str, width: int) -> Spec:
    """A panel an expression, a line a cell: `accuracy` with its interval from `low` to `high`."""
    panels = list(dict.fromkeys(point["panel"] for point in data))
    columns, room = _columns(len(panels), width), _room(order, width)
    scale = _scale([point[name] for point in data for name in ("accuracy", "low", "high")], 0.03)
    size = {"width": (width - room - 16) // columns - 20, "height": 20 * len(order)}

    @cache
    def panel(left: bool, bottom: bool) -> Spec:
        table = alt.Chart()
        axis = alt.Axis(tickCount=max(2, size["width"] // 45))
        x = alt.X("accuracy:Q", title=title if bottom else None, scale=scale, axis=axis)
        axis = alt.Axis(labelLimit=room, labels=left, domain=False, ticks=False, grid=True)
        y = alt.Y("cell:N", sort=list(order), title=None, axis=axis)
        bars = table.transform_filter("isValid(datum.low)").mark_rule(color=OURS, strokeWidth=2, aria=False)
        bars = bars.encode(x=alt.X("low:Q", scale=scale), x2=alt.X2("high"), y=y)
        points = table.mark_circle(color=OURS, size=60, opacity=1).encode(x=x, y=y, description=SAID)
        return _layers(size["width"], size["height"], bars, points)

    return _whole(_grid(panels, columns, panel), *([p for p in data if p["panel"] == name] for name in panels))


def history(data: Points, title: str, width: int) -> Spec:
    """The `accuracy` of configurations by `number`, and the `best` so far."""
    table = alt.Chart()
    axis = alt.Axis(tickMinStep=1, tickCount=5, grid=False)
    x = alt.X("number:Q", title="configuration", axis=axis, scale=alt.Scale(nice=False))
    scale = _scale([point["accuracy"] for point in data], 0.06)
    y, best = (
        alt.Y(f"{name}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5)) for name in ("accuracy", "best")
    )
    line = table.mark_line(interpolate="step-after", color=OURS, strokeWidth=2, aria=False).encode(x=x, y=best)
    points = table.mark_circle(color=OURS, size=50, opacity=1).encode(x=x, y=y, description=SAID)
    return _whole(_placed(_layers(width - 64, 240, line, points)), data)


def surface(data: Points, axes: tuple[str, str], log: tuple[bool, bool], title: str, width: int) -> Spec:
    """Configurations by their settings `x` and `y`, which `axes` name, the `accuracy` as colour, hollow without."""
    x, y = (
        _setting(field, name, is_log, [point[field] for point in data])
        for field, name, is_log in zip("xy", axes, log, strict=True)
    )
    place = {"x": alt.X(**x), "y": alt.Y(**y), "description": SAID}
    table = alt.Chart()
    legend = alt.Legend(
        orient="bottom",
        title=title,
        titleFontWeight="normal",
        type="symbol",
        symbolType="circle",
        symbolStrokeWidth=0,
        columns=width // 60,
    )
    colour = alt.Color("accuracy:Q", scale=alt.Scale(scheme="viridis", zero=False), legend=legend)
    left = table.transform_filter("!isValid(datum.accuracy)").mark_point(stroke=DIM, size=45, strokeWidth=1.5)
    whole = table.transform_filter("isValid(datum.accuracy)")
    whole = whole.mark_circle(size=110, opacity=1, stroke=INK, strokeWidth=0.7)
    layers = left.encode(**place), whole.encode(**place, color=colour)
    return _whole(_placed(_layers(width - 64, 240, *layers)), data)


def _setting(field: str, title: str, log: bool, found: Sequence[Any]) -> dict[str, Any]:
    """A setting's axis: of numbers, or of names."""
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in found):
        return {"shorthand": f"{field}:N", "title": title}
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    return {"shorthand": f"{field}:Q", "title": title, "scale": scale, "axis": alt.Axis(tickCount=4)}


def _columns(count: int, width: int) -> int:
    """How many panels stand side by side: where it goes, so that the last row is as long as the others."""
    most = 4 if width == WIDE else 2
    return next((columns for columns in range(most, 1, -1) if count % columns == 0), min(count, most))


def _grid(names: Sequence[str], columns: int, panel: Callable[[bool, bool], Spec]) -> Spec:
    """Panels under their names; those at the left and at the bottom say what their axes are."""
    title = {"fontSize": 12, "offset": 6, "limit": (WIDE - 52) // columns}
    parts = [
        _placed(panel(place % columns == 0, place >= len(names) - columns), place, {"text": name, **title})
        for place, name in enumerate(names)
    ]
    return {"concat": parts, "columns": columns, "spacing": 20}


def _scale(found: Sequence[float | None], room: float) -> alt.Scale:
    """From the least to the most, with a share of the way between as room at both ends."""
    known = [value for value in found if value is not None]
    space = (max(known) - min(known)) * room or 1.0
    return alt.Scale(domain=[min(known) - space, max(known) + space], nice=False)


def _room(cells: Sequence[str], width: int) -> int:
    """Pixels for the names of cells."""
    longest = max((len(cell) for cell in cells), default=0)
    return int(min(longest * LETTER + 12, width * 0.36))
