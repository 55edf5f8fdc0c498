"""A report as CSV: one table, in which each record says what it is of."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple

from orchestrator.report.model import Expression, Report, Row, Searched
from orchestrator.report.search_blocks import settings
from orchestrator.statistics.folds import Comparison, Estimate

Record = dict[str, object]


def to_csv(reports: Sequence[Report]) -> str:
    """One table over all reports: a record a cell, and whatever else the studies ask to show or have searched."""
    records = [record for report in reports for record in _records(report)]
    columns = list(dict.fromkeys(column for record in records for column in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _records(report: Report) -> list[Record]:
    """A report as CSV records: each cell's own, then what the study asks to show or has searched, told apart by `part`.

    Percent with two decimals, p with six digits; empty where there is no number.
    """
    study: Record = {
        "study": report.study,
        "profile": report.profile,
        "dataset": report.dataset,
        "data": "SYNTHETIC" if report.synthetic else "real",
        "mixed": " ".join(report.mixed),
    }
    parted = bool(report.searched or set(report.show) - {"details"})
    return [study | record for row in report.rows for record in _of_cell(row, report, parted)] + [
        study | record for record in (_of_search(report.searched) if report.searched else ())
    ]


def _of_cell(row: Row, report: Report, parted: bool) -> Iterator[Record]:
    cell: Record = {"cell": row.label}
    if report.across:
        cell |= {report.by: row.row, report.across: row.column}
    yield cell | ({"part": "all", "name": ""} if parted else {}) | _whole(row, report)
    if "expressions" in report.show:
        for part in row.expressions:
            yield cell | {"part": "expression", "name": part.name} | _part(part, report)
    if "confusion" in report.show and row.confusion:
        for name, frames, sequences in zip(report.expressions, *astuple(row.confusion), strict=True):
            for taken_for, *counts in zip(report.expressions, frames, sequences, strict=True):
                told = {"part": "confusion", "name": name, "taken_for": taken_for}
                yield cell | told | {"frames": counts[0], "sequences": counts[1]}
    if "subjects" in report.show:
        for subject in row.subjects:
            yield cell | {
                "part": "subject",
                "name": subject.name,
                "frames": subject.frames,
                "pooled_accuracy": _field(subject.accuracy),
                "sequence_accuracy": _field(subject.sequence_accuracy),
            }


def _of_search(found: Searched) -> Iterator[Record]:
    """What was chosen by which score, the procedure's estimate, every point asked, the surface, what matters."""
    for choice, score in zip(found.chosen, found.chosen_scores, strict=True):
        yield {"part": "chosen", "name": settings(found.points[choice]), "asked_as": choice} | _estimate(score)
    if found.nested is not None:
        yield {"part": "nested", "name": "the procedure"} | _estimate(found.nested)
    for point in found.points:
        yield {
            "part": "configuration",
            "name": settings(point),
            "asked_as": point.number,
            "state": point.state,
            **dict(zip(found.objectives, (f"{value:.6g}" for value in point.values), strict=False)),
            "accuracy": _field(point.accuracy),
            "best_so_far": _field(point.best_so_far),
        }
    if surface := found.surface:
        for row, means, counts in zip(surface.row_names, surface.means, surface.counts, strict=True):
            for column, mean, count in zip(surface.column_names, means, counts, strict=True):
                name = f"{surface.rows} {row}, {surface.columns} {column}"
                yield {"part": "surface", "name": name, "accuracy": _field(mean), "configurations": count}
    for name, share in found.importance.items():
        yield {"part": "importance", "name": name, "importance": _field(share)}


def _estimate(found: Estimate) -> Record:
    return {"accuracy": _field(found.mean), "accuracy_half_width": _field(found.half_width)}


def _whole(row: Row, report: Report) -> Record:
    record: Record = {
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


def _part(part: Expression, report: Report) -> Record:
    return {
        "frames": part.frames,
        "folds_done": part.accuracy.num_folds if report.folds else "none",
        "accuracy": _field(part.accuracy.mean),
        "accuracy_half_width": _field(part.accuracy.half_width),
        "pooled_accuracy": _field(part.pooled),
        "sequence_accuracy": _field(part.sequence_accuracy),
        **_beside(part, report),
    }


def _beside(of: Row | Expression, report: Report) -> Record:
    """The differences to the baselines, and the paper's value."""
    record: Record = {}
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
