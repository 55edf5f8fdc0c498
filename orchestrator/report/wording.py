"""How numbers, intervals and provenance read, in every format that people read."""

from collections.abc import Mapping
from typing import Any

from orchestrator.report.model import Report, Row
from orchestrator.statistics.folds import Comparison, Estimate
from orchestrator.trial import IDENNET

DETAILS = ("p", "p Holm", "effect", "over subjects", "settled by")
MOST_SEEDS = 1000  # a larger number of seeds is not told exactly


def synthetic_mark(report: Report) -> str:
    """What stands before whatever the report says of drawn data."""
    return "SYNTHETIC " if report.synthetic else ""


def number(value: float | None, spec: str = "z.2f") -> str:
    """A number as tables show it, `-` where there is none; `z` keeps a rounded zero from reading -0.00."""
    return "-" if value is None else format(value, spec)


def in_one_line(reason: str) -> str:
    """Why something failed, which may be told in several lines."""
    return " ".join(reason.split())


def with_interval(estimate: Estimate, sign: str = "") -> str:
    """`63.21 ± 4.10`, in the unit of the estimate; the mean alone where there is no interval."""
    mean = number(estimate.mean, f"{sign}z.2f")
    return mean if estimate.half_width is None else f"{mean} ± {estimate.half_width:.2f}"


def ends(estimate: Estimate) -> tuple[float, float]:
    """Where a drawn interval begins and ends: at the mean where there is none; over pictures that is not its middle."""
    assert estimate.mean is not None
    return (
        estimate.mean if estimate.low is None else estimate.low,
        estimate.mean if estimate.high is None else estimate.high,
    )


def folds_done(row: Row, report: Report) -> str:
    """How many of the folds a row is the mean of: `9/10`, or `none` where the study has no folds."""
    return f"{row.accuracy.num_folds}/{report.num_folds}" if report.folds else "none"


def measured(row: Row, report: Report) -> list[str]:
    """A row's name, folds, accuracy, pooled accuracy and sequences, as tables show them."""
    accuracies = with_interval(row.accuracy), number(row.pooled), number(row.sequence_accuracy.mean)
    return [row.label, folds_done(row, report), *accuracies]


def beside_paper(row: Row, report: Report) -> list[str]:
    """The paper's value and the distance to it; nothing where the report has no paper beside it."""
    return [number(row.reference), number(row.deviation, "+z.2f")] if report.reference_source else []


def p_value(p: float | None) -> str:
    """Three decimals, never 0."""
    return "<0.001" if p is not None and p < 0.001 else number(p, ".3f")


def compared(comparison: Comparison | None) -> tuple[str, str]:
    """A comparison's difference and Holm's p as tables show them; `-` in the baseline's own row."""
    if comparison is None:
        return "-", "-"
    return with_interval(comparison.difference, "+"), p_value(comparison.p_holm)


def detailed(comparison: Comparison | None) -> tuple[str, ...]:
    """Under `DETAILS`, what a comparison says beside its difference."""
    if comparison is None:
        return ("-",) * len(DETAILS)
    over = comparison.by_subject
    interval = "-" if over is None or over.low is None else f"{over.low:+z.2f} to {number(over.high, '+z.2f')}"
    return (
        p_value(comparison.p),
        p_value(comparison.p_holm),
        number(comparison.effect, "+z.2f"),
        interval,
        _settled_by(comparison) or "-",
    )


def _settled_by(comparison: Comparison) -> str:
    more = comparison.more_seeds
    if not more:
        return comparison.outlook
    return f"over {MOST_SEEDS:,} seeds" if more > MOST_SEEDS else f"{more:,} more seed{'s' * (more != 1)}"


def provenance_lines(report: Report) -> list[tuple[str, str]]:
    """Where the numbers come from, as (name, value) lines for a reader."""
    source = report.provenance
    lines = [("data", source["data"] + (" (SYNTHETIC)" if report.synthetic else ""))]
    if source["workload"] != IDENNET:
        lines.append(("workload", source["workload"]))
    if source["trunks"]:
        lines.append(("trunks", ", ".join(source["trunks"])))
    lines += [
        ("settings", listed(source["settings"])),
        ("trials", "{trials_complete} of {trials_planned}, {seconds:.1f} s in all".format(**source)),
        ("folds", ", ".join(map(str, source["folds"])) if report.folds else "none"),
        ("seeds", ", ".join(map(str, source["seeds"]))),
        ("version", ", ".join(source["version"])),
        ("again", source["command"]),
    ]
    return [(name, value) for name, value in lines if value]


def listed(values: Mapping[str, Any]) -> str:
    """`alpha 0.1, gamma 15`."""
    return ", ".join(f"{key} {value}" for key, value in values.items())
