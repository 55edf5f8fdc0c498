"""A report for the eye: tables that fit 80 columns and, where there is room, a strip of drawn intervals."""

import io
import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.report.blocks import Block, accuracies, beside_the_paper, blocks, differences
from orchestrator.report.model import Report, Row
from orchestrator.report.search_blocks import search_blocks
from orchestrator.report.wording import beside_paper, compared, ends, measured, number, provenance_lines

NARROWEST, USUAL = 40, 80  # columns: a narrower terminal wraps by itself; below the usual, tables come in parts
STRIP_WIDTHS = (24, 48)  # columns of the strip, least and most
COMPARISONS_ACROSS = 2  # baselines side by side in 80 columns


def to_terminal(report: Report, width: int, styled: bool) -> str:
    """The report in `width` columns (at least 40); without control characters unless `styled`."""
    console = Console(
        file=io.StringIO(),
        width=max(width, NARROWEST),
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        _print(console, report)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _print(console: Console, report: Report) -> None:
    _print_title(console, report.title)
    if report.across or not report.rows:
        console.print()
    elif console.width < USUAL:
        found = [accuracies(report), differences(report), beside_the_paper(report)]
        for block in found:
            if block.lines and block.columns:
                _print_block(console, block)
    else:
        _print_one_way(console, report)
    for block in [*search_blocks(report), *blocks(report)]:
        _print_block(console, block)
    for note in report.notes:
        _print_hanging(console, "-", note, "yellow" if note.startswith(("SYNTHETIC", "MIXED")) else "")
    console.print()
    for name, value in provenance_lines(report):
        _print_hanging(console, f"{name:<8}", value, "dim")


def _print_title(console: Console, text: str) -> None:
    title = Text(text, style="bold")
    title.highlight_words(["SYNTHETIC"], style="bold yellow")
    console.print(title)


def _print_one_way(console: Console, report: Report) -> None:
    table = _accuracies(report, strip=0)
    room = console.width - _width(console, table) - 3  # the strip's own padding
    if room >= STRIP_WIDTHS[0] and any(row.accuracy.num_folds for row in report.rows):
        strip = min(room, STRIP_WIDTHS[1])
        console.print(_accuracies(report, strip))
        console.print(Text(_legend(report), style="dim"), end="\n" if report.baselines else "\n\n")
    else:
        console.print(table)
    for start in range(0, len(report.baselines), COMPARISONS_ACROSS):
        console.print(_differences(report, start, min(start + COMPARISONS_ACROSS, len(report.baselines))))


def _print_block(console: Console, block: Block) -> None:
    """A block as one table, or as few as its columns fit in, of the same number of columns where that goes."""
    count = len(block.columns)
    for tables in range(1, count + 1):
        size = math.ceil(count / tables)
        parts = [_block_table(block, start, start + size) for start in range(0, count, size)]
        if size == 1 or all(_width(console, part) <= console.width for part in parts):
            break
    _print_title(console, block.title)
    for part in parts:
        console.print(part)


def _block_table(block: Block, start: int, stop: int) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(block.corner, overflow="fold")
    for column in block.columns[start:stop]:
        table.add_column(column, justify="right", no_wrap=True)
    for line in block.lines:
        style = "" if line.first else "cyan" if "paper" in line.name else "dim"
        table.add_row(line.name if line.first else f"  {line.name}", *line.texts[start:stop], style=style)
    return table


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum


def _print_hanging(console: Console, head: str, text: str, style: str) -> None:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(head, style=style), Text(text, style=style))
    console.print(Padding(grid, (0, 0, 0, 1)))


def _accuracies(report: Report, strip: int) -> Table:
    """One row a cell; `strip` is the width of the drawn column, 0 for none."""
    mark = "SYNTHETIC\n" if report.synthetic else ""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(report.by, overflow="fold")
    for header in ("folds", f"{mark}accuracy %", "pooled", "seq."):
        table.add_column(header, justify="right", no_wrap=True)
    if report.reference_source:
        table.add_column("paper", justify="right", no_wrap=True, style="cyan")
        table.add_column(f"{mark}minus paper", justify="right", no_wrap=True)
    table.add_column("s/trial", justify="right", no_wrap=True)
    axis = _axis(report) if strip else (0.0, 1.0, 1.0)
    if strip:
        table.add_column(_ticks(axis, strip), no_wrap=True, header_style="dim")
    for row in report.rows:
        drawn = [_strip(row, axis, strip)] if strip else []
        table.add_row(*measured(row, report), *beside_paper(row, report), number(row.seconds, ".2f"), *drawn)
    return table


def _differences(report: Report, start: int, stop: int) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(report.by, overflow="fold")
    for baseline in report.baselines[start:stop]:
        table.add_column(f"minus {baseline}", justify="right", no_wrap=True)
        table.add_column("p Holm", justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(row.label, *(text for c in row.comparisons[start:stop] for text in compared(c)))
    return table


def _axis(report: Report) -> tuple[float, float, float]:
    """Lowest value, highest value and distance of the ticks, in percent; all intervals fit in."""
    drawn = [end for row in report.rows if row.accuracy.mean is not None for end in ends(row.accuracy)]
    drawn += [row.reference for row in report.rows if row.reference is not None]
    span = max(drawn) - min(drawn)
    step = next((step for step in (1, 2, 5, 10, 20) if span / step <= 6), 50)
    low = math.floor(min(drawn) / step) * step
    high = math.ceil(max(drawn) / step) * step
    return float(low), float(max(high, low + step)), float(step)


def _column(value: float, axis: tuple[float, float, float], width: int) -> int:
    low, high, _ = axis
    return round((value - low) / (high - low) * (width - 1))


def _ticks(axis: tuple[float, float, float], width: int) -> str:
    low, high, step = axis
    line = [" "] * width
    free_from = 0
    for index in range(round((high - low) / step) + 1):
        label = f"{low + index * step:g}"
        centred = _column(low + index * step, axis, width) - len(label) // 2
        start = min(max(centred, 0), width - len(label))
        if start >= free_from:
            line[start : start + len(label)] = label
            free_from = start + len(label) + 1
    return "".join(line)


def _strip(row: Row, axis: tuple[float, float, float], width: int) -> Text:
    line = [" "] * width
    if row.accuracy.mean is not None:
        if row.accuracy.half_width is not None:
            left, right = (_column(end, axis, width) for end in ends(row.accuracy))
            line[left : right + 1] = ["─"] * (right + 1 - left)
            line[left], line[right] = "├", "┤"
        line[_column(row.accuracy.mean, axis, width)] = "●"
    if row.reference is not None:
        at = _column(row.reference, axis, width)
        line[at] = "◈" if line[at] == "●" else "◇"
    strip = Text("".join(line))
    strip.highlight_regex("[◇◈]", "cyan")
    strip.highlight_regex("●", "bold")
    return strip


def _legend(report: Report) -> str:
    mark = " (SYNTHETIC)" if report.synthetic else ""
    legend = f" ● mean, ├─┤ 95% interval{mark}"
    if report.reference_source:
        legend += f"   ◇ the paper's value, {report.reference_source}   ◈ both"
    return legend
