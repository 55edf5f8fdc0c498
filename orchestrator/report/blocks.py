"""A report's tables as text: the main ones and those beside them, which the formats share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from orchestrator.report.model import Expression, Report, Row
from orchestrator.report.wording import (
    DETAILS,
    compared,
    detailed,
    measured,
    number,
    p_value,
    synthetic_mark,
    with_interval,
)

Lines = Mapping[str, str]  # of a cell, by name; the first one's name is ''


@dataclass(frozen=True)
class Line:
    """A line of a table; one that is not `first` says more about the line above it."""

    name: str
    texts: tuple[str, ...]
    first: bool = True


@dataclass(frozen=True)
class Block:
    """A table under its title; `corner` names the lines, `columns` the texts of each line."""

    title: str
    corner: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def blocks(report: Report) -> list[Block]:
    """A two-way report's tables, the details of comparisons, then what the study asks to show of the predictions."""
    found = two_way(report) if report.across else []
    if "details" in report.show:
        found += [details(index, report) for index in range(len(report.baselines))]
    if report.expressions and "expressions" in report.show:
        found += by_expression(report)
    if report.expressions and "confusion" in report.show:
        found += [confusion(row, report) for row in report.rows if row.confusion and row.complete]
    if "subjects" in report.show and any(row.subjects for row in report.rows):
        found.append(by_subject(report))
    return found


def accuracies(report: Report) -> Block:
    """A row a cell: accuracy with its interval, pooled, by sequence, and what a trial took."""
    mark = synthetic_mark(report)
    lines = []
    for row in report.rows:
        name, *texts = measured(row, report)
        lines.append(Line(name, (*texts, number(row.seconds))))
    columns = ("folds", f"{mark}accuracy %", "pooled", "sequences", "s/trial")
    return Block(f"{mark}accuracy %", report.by, columns, tuple(lines))


def differences(report: Report) -> Block:
    """Every cell minus every baseline, with its interval and Holm's p."""
    columns = [head for name in report.baselines for head in (f"minus {name}", f"p Holm ({name})")]
    lines = [Line(row.label, tuple(text for one in row.comparisons for text in compared(one))) for row in report.rows]
    return Block(f"{synthetic_mark(report)}paired differences, points", report.by, tuple(columns), tuple(lines))


def beside_the_paper(report: Report) -> Block:
    """Ours, the paper's value, the distance, and whether our interval holds the paper's value."""
    mark = synthetic_mark(report)
    lines = []
    for row in report.rows:
        if row.reference is not None:
            inside, low, high = "-", row.accuracy.low, row.accuracy.high
            if low is not None and high is not None:
                inside = "yes" if low <= row.reference <= high else "no"
            texts = with_interval(row.accuracy), number(row.reference), number(row.deviation, "+z.2f"), inside
            lines.append(Line(row.label, texts))
    columns = (f"{mark}ours, %", "paper", f"{mark}minus paper", "paper in our interval")
    return Block(f"{mark}beside {report.reference_source}", report.by, columns, tuple(lines))


def two_way(report: Report) -> list[Block]:
    """Accuracies, differences and times with a column a value of `across`."""
    columns = list(dict.fromkeys(row.column for row in report.rows))

    def grid(title: str, lines: Callable[[Row], Lines]) -> Block:
        cells: dict[str, dict[str, Lines]] = {}
        for row in report.rows:
            cells.setdefault(row.row, {})[row.column] = lines(row)
        heads = {column: f"{report.across} {column}" for column in columns}
        return _grid(title, report.by, heads, cells)

    def accuracy(row: Row) -> Lines:
        return {"": with_interval(row.accuracy), **_paper(row, report)}

    def against(row: Row, index: int) -> Lines:
        difference, p = compared(row.comparisons[index])
        return {"": difference, "p Holm": p}

    over = f"mean of {report.num_folds} folds" if report.folds else "on the test split"
    mark = synthetic_mark(report)
    found = [grid(f"{mark}accuracy %, {over}", accuracy)]
    for index, baseline in enumerate(report.baselines):
        found.append(
            grid(f"{mark}accuracy minus {baseline} at the same {report.across}", partial(against, index=index))
        )
    if report.folds:
        found.append(grid(f"{mark}accuracy % of all test frames at once, and of sequences", _pooled))
    return [*found, grid("seconds a trial", lambda row: {"": number(row.seconds)})]


def _pooled(row: Row) -> Lines:
    return {"": number(row.pooled), "sequences": number(row.sequence_accuracy.mean)}


def details(index: int, report: Report) -> Block:
    """What the comparisons with a baseline say beside their differences."""
    lines = tuple(Line(row.label, detailed(row.comparisons[index])) for row in report.rows)
    return Block(f"{synthetic_mark(report)}minus {report.baselines[index]} in detail", report.by, DETAILS, lines)


def by_expression(report: Report) -> list[Block]:
    """Intervals stand under the means, so that eight expressions fit side by side in 80 columns."""

    def grid(title: str, lines: Callable[[Expression], Lines]) -> Block:
        cells = {row.label: {part.name: lines(part) for part in row.expressions} for row in report.rows}
        return _grid(f"{synthetic_mark(report)}{title}", report.by, {name: name for name in report.expressions}, cells)

    published = any(part.reference is not None for row in report.rows for part in row.expressions)

    def accuracy(part: Expression) -> Lines:
        lines = {"": number(part.accuracy.mean, "z.1f"), "±": number(part.accuracy.half_width, ".1f")}
        if report.folds:
            lines["pooled"] = number(part.pooled, "z.1f")
        if part.sequence_accuracy is not None:
            lines["sequences"] = number(part.sequence_accuracy, "z.1f")
        return lines | (_paper(part, report, digits=1) if published else {})

    def against(part: Expression, index: int) -> Lines:
        comparison = part.comparisons[index]
        if comparison is None:
            return {"": "-"}
        difference = comparison.difference
        return {
            "": number(difference.mean, "+z.1f"),
            "±": number(difference.half_width, ".1f"),
            "p Holm": p_value(comparison.p_holm),
        }

    over = "mean of the folds that have it" if report.folds else "on the test split"
    found = [grid(f"accuracy % by expression, {over}", accuracy)]
    for index, baseline in enumerate(report.baselines):
        found.append(grid(f"accuracy by expression minus {baseline}", partial(against, index=index)))
    return found


def _paper(of: Row | Expression, report: Report, digits: int = 2) -> dict[str, str]:
    if not report.reference_source:
        return {}
    return {"paper": number(of.reference, f"z.{digits}f"), "minus paper": number(of.deviation, f"+z.{digits}f")}


def confusion(row: Row, report: Report) -> Block:
    """What the frames of each expression were taken for, in percent."""
    counts = row.confusion.frames if row.confusion else ()
    lines = []
    for name, taken in zip(report.expressions, counts, strict=True):
        shares = [100 * count / sum(taken) if sum(taken) else None for count in taken]
        lines.append(Line(name, (*(number(share, ".1f") for share in shares), f"{sum(taken):,}")))
    title = f"{row.label}: {synthetic_mark(report)}what the frames of an expression (line) were taken for, %"
    return Block(title, "expression", (*report.expressions, "frames"), tuple(lines))


def by_subject(report: Report) -> Block:
    """The subjects, hardest first."""
    of_row = [{subject.name: subject.accuracy for subject in row.subjects} for row in report.rows]
    names = {name for found in of_row for name in found}
    mean = {name: fmean(found[name] for found in of_row if name in found) for name in names}
    lines = [
        Line(name, tuple(number(found.get(name), "z.1f") for found in of_row))
        for name in sorted(names, key=lambda name: (mean[name], name))
    ]
    columns = tuple(row.label for row in report.rows)
    return Block(f"{synthetic_mark(report)}accuracy % by subject, hardest first", "subject", columns, tuple(lines))


def _grid(title: str, corner: str, heads: Mapping[str, str], cells: Mapping[str, Mapping[str, Lines]]) -> Block:
    """A block of cells by row and column; a cell's further lines stand under its first."""
    lines = []
    for row, by_column in cells.items():
        names = dict.fromkeys(name for found in by_column.values() for name in found)
        for name in names:
            texts = tuple(by_column.get(column, {}).get(name, "-") for column in heads)
            lines.append(Line(name or row, texts, first=not name))
    return Block(title, corner, tuple(heads.values()), tuple(lines))
