"""A report as text: Markdown and JSON here, the others in files of their own; all say the same."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.report import Format
from orchestrator.report.blocks import Block, blocks
from orchestrator.report.model import Report, Row
from orchestrator.report.records import to_csv
from orchestrator.report.search_blocks import search_blocks
from orchestrator.report.wording import beside_paper, compared, measured, number, provenance_lines, synthetic_mark

if TYPE_CHECKING:
    from orchestrator.report.evidence import Evidence


def render(
    reports: Sequence[Report],
    format: Format,
    width: int = 120,
    styled: bool = False,
    evidence: Sequence["Evidence"] = (),
) -> str:
    """The reports as one text; `width` and `styled` (colours) matter to the terminal only, `evidence` to HTML.

    CSV is one table over all reports; JSON, in full precision, one object for one report, else a list.
    """
    match format:
        case Format.TERMINAL:
            from orchestrator.report.terminal import to_terminal  # rich, for this format only

            return "\n".join(to_terminal(report, width, styled) for report in reports)
        case Format.MARKDOWN:
            return "\n".join(_markdown(report) for report in reports)
        case Format.CSV:
            return to_csv(reports)
        case Format.JSON:
            found = [asdict(report) for report in reports]
            return json.dumps(found[0] if len(found) == 1 else found, indent=2, allow_nan=False) + "\n"
        case Format.HTML:
            from orchestrator.report.page import to_html  # altair and jinja2, for this format only

            return to_html(reports, evidence)
        case Format.LATEX:
            from orchestrator.report.latex import to_latex

            return to_latex(reports)


def _markdown(report: Report) -> str:
    mark = synthetic_mark(report)
    header = [report.by, "folds", f"{mark}accuracy %", "pooled", "sequences"]
    for baseline in report.baselines:
        header += [f"minus {baseline}", f"p Holm ({baseline})"]
    if report.reference_source:
        header += ["paper", f"{mark}minus paper"]
    header.append("s/trial")
    main = (
        ""
        if report.across or not report.rows
        else f"{_table(header, [_markdown_row(row, report) for row in report.rows])}\n\n"
    )
    more = "".join(
        f"## {_text(block.title)}\n\n{_markdown_block(block)}\n\n"
        for block in [*search_blocks(report), *blocks(report)]
    )
    notes = "\n".join(f"- {_text(note)}" for note in report.notes)
    source = "\n".join(f"- {name}: {_code(value)}" for name, value in provenance_lines(report))
    return f"# {_text(report.title)}\n\n{main}{more}{notes}\n\nProvenance of {_code(report.study)}:\n\n{source}\n"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    whole = [list(map(_text, header)), ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in whole)


def _markdown_block(block: Block) -> str:
    names = [_text(line.name) if line.first else f"*{_text(line.name)}*" for line in block.lines]
    lines = [[name, *map(_text, line.texts)] for name, line in zip(names, block.lines, strict=True)]
    return _table([block.corner, *block.columns], lines)


def _markdown_row(row: Row, report: Report) -> list[str]:
    differences = [text for comparison in row.comparisons for text in compared(comparison)]
    texts = [*measured(row, report), *differences, *beside_paper(row, report), number(row.seconds, ".2f")]
    return list(map(_text, texts))


def _text(text: str) -> str:
    """The text with what Markdown would obey escaped; an underline within a word is left as it is."""
    return re.sub(r"[\\`*\[\]|~$]|<(?=[a-zA-Z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def _code(text: str) -> str:
    """The text as Markdown's code, in one more backtick than it has itself."""
    runs = [len(run) for run in re.findall("`+", text)]
    return f"`{text}`" if not runs else f"{'`' * (max(runs) + 1)} {text} {'`' * (max(runs) + 1)}"
