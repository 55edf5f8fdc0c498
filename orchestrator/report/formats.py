"""A report as text: Markdown, CSV and JSON here, the terminal's in `terminal.py`; all say the same."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from orchestrator.analysis import Comparison, Estimate
from orchestrator.report import Format
from orchestrator.report.tables import Report, Row
from orchestrator.report.wording import compared, number, provenance_lines, with_interval


def render(reports: Sequence[Report], format: Format, width: int = 120, styled: bool = False) -> str:
    """The reports as one text; `width` and `styled` (colours) matter to the terminal only.

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


def _markdown(report: Report) -> str:
    mark = "SYNTHETIC " if report.synthetic else ""
    header = [report.by, "folds", f"{mark}accuracy %", "pooled", "sequences"]
    for baseline in report.baselines:
        header += [f"minus {baseline}", f"p ({baseline})"]
    if report.reference_source:
        header += ["paper", f"{mark}minus paper"]
    header.append("s/trial")
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    lines += [_markdown_row(row, report) for row in report.rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
    notes = "\n".join(f"- {note}" for note in report.notes)
    source = "\n".join(f"- {name}: `{value}`" for name, value in provenance_lines(report))
    return f"# {report.title}\n\n{table}\n\n{notes}\n\nProvenance of `{report.study}`:\n\n{source}\n"


def _markdown_row(row: Row, report: Report) -> list[str]:
    cells = [
        row.label,
        f"{row.accuracy.num_folds}/{report.num_folds}",
        with_interval(row.accuracy),
        number(row.pooled),
        number(row.sequence_accuracy.mean),
    ]
    for comparison in row.comparisons:
        cells += compared(comparison)
    if report.reference_source:
        cells += [number(row.reference), number(row.deviation, "+z.2f")]
    return [*cells, number(row.seconds, ".2f")]


def _csv(reports: Sequence[Report]) -> str:
    records = [_record(row, report) for report in reports for row in report.rows]
    columns = list(dict.fromkeys(column for record in records for column in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(row: Row, report: Report) -> dict[str, object]:
    """A row as CSV: percent with two decimals, p with six digits; empty where there is no number."""
    record: dict[str, object] = {
        "study": report.study,
        "profile": report.profile,
        "dataset": report.dataset,
        "data": "SYNTHETIC" if report.synthetic else "real",
        "cell": row.label,
        "folds_done": row.accuracy.num_folds,
        "folds_planned": report.num_folds,
        "trials_complete": row.complete,
        "trials_failed": row.failed,
        "trials_pruned": row.pruned,
        "trials_missing": row.missing,
        "accuracy": _field(row.accuracy.mean),
        "accuracy_half_width": _field(row.accuracy.half_width),
        "pooled_accuracy": _field(row.pooled),
        "sequence_accuracy": _field(row.sequence_accuracy.mean),
    }
    for baseline, comparison in zip(report.baselines, row.comparisons, strict=True):
        shown = comparison or Comparison(baseline, Estimate(0))
        record |= {
            f"minus_{baseline}": _field(shown.difference.mean),
            f"minus_{baseline}_half_width": _field(shown.difference.half_width),
            f"minus_{baseline}_folds": shown.difference.num_folds if comparison else "",
            f"minus_{baseline}_p": _field(shown.p, ".6g"),
        }
    if report.reference_source:
        record |= {"paper": _field(row.reference), "minus_paper": _field(row.deviation)}
    return record | {"seconds_per_trial": _field(row.seconds)}


def _field(value: float | None, spec: str = "z.2f") -> str:
    return "" if value is None else format(value, spec)
