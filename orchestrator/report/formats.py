"""A report as text: Markdown, CSV and JSON here, the terminal's in `terminal.py`; all say the same."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING

from orchestrator.report import Format
from orchestrator.report.blocks import Block, blocks
from orchestrator.report.model import Expression, Report, Row
from orchestrator.report.search_blocks import search_blocks
from orchestrator.report.wording import beside_paper, compared, measured, number, provenance_lines, synthetic_mark
from orchestrator.statistics.folds import Comparison, Estimate

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
            return _csv(reports)
        case Format.JSON:
            found = [asdict(report) for report in reports]
            return json.dumps(found[0] if len(found) == 1 else found, indent=2, allow_nan=False) + "\n"
        case Format.HTML:
            from orchestrator.report.page import to_html  # altair and jinja2, for this format only

            return to_html(reports, evidence)


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
        f"## {block.title}\n\n{_markdown_block(block)}\n\n" for block in [*search_blocks(report), *blocks(report)]
    )
    notes = "\n".join(f"- {note}" for note in report.notes)
    source = "\n".join(f"- {name}: `{value}`" for name, value in provenance_lines(report))
    return f"# {report.title}\n\n{main}{more}{notes}\n\nProvenance of `{report.study}`:\n\n{source}\n"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    whole = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in whole)


def _markdown_block(block: Block) -> str:
    lines = [[line.name if line.first else f"*{line.name}*", *line.texts] for line in block.lines]
    return _table([block.corner, *block.columns], lines)


def _markdown_row(row: Row, report: Report) -> list[str]:
    differences = [text for comparison in row.comparisons for text in compared(comparison)]
    return [*measured(row, report), *differences, *beside_paper(row, report), number(row.seconds, ".2f")]


def _csv(reports: Sequence[Report]) -> str:
    records = [record for report in reports for row in report.rows for record in _records(row, report)]
    columns = list(dict.fromkeys(column for record in records for column in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _records(row: Row, report: Report) -> list[dict[str, object]]:
    """A row as CSV records: the cell's own, then what the study asks to show, told apart by `part`.

    Percent with two decimals, p with six digits; empty where there is no number.
    """
    cell: dict[str, object] = {
        "study": report.study,
        "profile": report.profile,
        "dataset": report.dataset,
        "data": "SYNTHETIC" if report.synthetic else "real",
        "mixed": " ".join(report.mixed),
        "cell": row.label,
    }
    if report.across:
        cell |= {report.by: row.row, report.across: row.column}
    if not set(report.show) - {"details"}:
        return [cell | _whole(row, report)]
    records = [{"part": "all", "name": ""} | _whole(row, report)]
    if "expressions" in report.show:
        records += [{"part": "expression", "name": part.name} | _part(part, report) for part in row.expressions]
    if "confusion" in report.show and row.confusion:
        for name, frames, sequences in zip(report.expressions, *astuple(row.confusion), strict=True):
            for taken_for, *counts in zip(report.expressions, frames, sequences, strict=True):
                told = {"part": "confusion", "name": name, "taken_for": taken_for}
                records.append(told | {"frames": counts[0], "sequences": counts[1]})
    if "subjects" in report.show:
        records += [
            {
                "part": "subject",
                "name": subject.name,
                "frames": subject.frames,
                "pooled_accuracy": _field(subject.accuracy),
                "sequence_accuracy": _field(subject.sequence_accuracy),
            }
            for subject in row.subjects
        ]
    return [cell | record for record in records]


def _whole(row: Row, report: Report) -> dict[str, object]:
    record: dict[str, object] = {
        "folds_done": row.accuracy.num_folds if report.folds else "none",
        "folds_planned": report.num_folds if report.folds else "none",
        "trials_complete": row.complete,
        "trials_failed": row.failed,
        "trials_pruned": row.pruned,
        "trials_missing": row.missing,
        "accuracy": _field(row.accuracy.mean),
        "accuracy_half_width": _field(row.accuracy.half_width),
        "pooled_accuracy": _field(row.pooled),
        "sequence_accuracy": _field(row.sequence_accuracy.mean),
    }
    record |= _beside(row, report)
    return record | {"seconds_per_trial": _field(row.seconds)}


def _part(part: Expression, report: Report) -> dict[str, object]:
    return {
        "frames": part.frames,
        "folds_done": part.accuracy.num_folds if report.folds else "none",
        "accuracy": _field(part.accuracy.mean),
        "accuracy_half_width": _field(part.accuracy.half_width),
        "pooled_accuracy": _field(part.pooled),
        "sequence_accuracy": _field(part.sequence_accuracy),
        **_beside(part, report),
    }


def _beside(of: Row | Expression, report: Report) -> dict[str, object]:
    """The differences to the baselines, and the paper's value."""
    record: dict[str, object] = {}
    for baseline, comparison in zip(report.baselines, of.comparisons, strict=True):
        shown = comparison or Comparison(baseline, Estimate(0))
        record |= {
            f"minus_{baseline}": _field(shown.difference.mean),
            f"minus_{baseline}_half_width": _field(shown.difference.half_width),
            f"minus_{baseline}_folds": shown.difference.num_folds if comparison else "",
            f"minus_{baseline}_p": _field(shown.p, ".6g"),
            f"minus_{baseline}_p_holm": _field(shown.p_holm, ".6g"),
            f"minus_{baseline}_effect": _field(shown.effect),
            f"minus_{baseline}_settled_by": shown.outlook,
            f"minus_{baseline}_more_seeds": "" if shown.more_seeds is None else shown.more_seeds,
        }
        if over := shown.by_subject:
            record |= {
                f"minus_{baseline}_over_subjects_low": _field(over.low),
                f"minus_{baseline}_over_subjects_high": _field(over.high),
            }
    if report.reference_source:
        record |= {"paper": _field(of.reference), "minus_paper": _field(of.deviation)}
    return record


def _field(value: float | None, spec: str = "z.2f") -> str:
    return "" if value is None else format(value, spec)
