"""A study's report as data: one row a cell, in the order of the design. Every format prints these numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from orchestrator.analysis import Comparison, Estimate, mean_over_folds, paired_comparison, pooled

METRICS = ("accuracy", "sequence_accuracy")


@dataclass(frozen=True)
class Row:
    """A cell of the design: what was measured and what stands beside it, in percent.

    `comparisons` has one entry a baseline of the report, None where the cell is that baseline.
    """

    label: str
    configuration_id: str
    complete: int
    failed: int
    pruned: int
    missing: int
    accuracy: Estimate
    pooled: float | None
    sequence_accuracy: Estimate
    comparisons: tuple[Comparison | None, ...]
    reference: float | None
    deviation: float | None
    seconds: float | None  # mean of a complete trial


@dataclass(frozen=True)
class Report:
    """A report of one study; `notes` are sentences to print under the tables."""

    study: str
    profile: str
    question: str
    dataset: str
    synthetic: bool
    title: str
    unit: str
    by: str
    num_folds: int
    num_seeds: int
    baselines: tuple[str, ...]
    reference_source: str
    num_comparisons: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    provenance: dict[str, Any]


def build(plan: Mapping[str, Any], trials: pl.DataFrame) -> Report:
    """The report of a study from its plan (`plan.json`) and the store's `trials` table.

    Raises ValueError when none of the plan's trials is stored, when a baseline is not one cell of the design,
    and when the reference's metric is not one that the report measures.
    """
    cells = plan["cells"]
    wanted = trials.filter(
        pl.col("configuration_id").is_in([cell["configuration_id"] for cell in cells])
        & pl.col("fold").is_in(plan["folds"])
        & pl.col("seed").is_in(plan["seeds"])
    ).with_columns(pl.col(*METRICS) * 100)
    if wanted.is_empty():
        raise ValueError(f"study '{_full_name(plan)}' has no trial in the store yet; run it first: {_command(plan)}")
    reference = plan["reference"]
    by = plan["report"]["by"]
    baselines = [_baseline(settings, cells) for settings in plan["report"]["baselines"]]
    rows = tuple(_row(cell, by, baselines, reference, wanted, plan) for cell in cells)
    synthetic = bool(plan["synthetic"]) or bool(wanted["synthetic"].any())
    # Original against F and F against Original are one comparison
    made = {
        frozenset((row.configuration_id, other["configuration_id"]))
        for row in rows
        for other, comparison in zip(baselines, row.comparisons, strict=True)
        if comparison is not None and comparison.p is not None
    }
    return Report(
        study=plan["study"],
        profile=plan["profile"] or "",
        question=plan.get("question", ""),
        dataset=plan["dataset"],
        synthetic=synthetic,
        title=_title(plan, synthetic),
        unit="percent",
        by=by,
        num_folds=len(plan["folds"]),
        num_seeds=len(plan["seeds"]),
        baselines=tuple(cell_label(cell["label"], by) for cell in baselines),
        reference_source=reference["source"] if reference else "",
        num_comparisons=len(made),
        rows=rows,
        notes=(
            *_cell_notes(rows, wanted, plan),
            *_method_notes(len(made), len(plan["seeds"]), reference, synthetic),
        ),
        provenance=_provenance(plan, wanted),
    )


def cell_label(settings: Mapping[str, Any], by: str) -> str:
    """A cell's name in the table: the value of `by` or the variant, then what else the study wrote for it."""
    head = by if by in settings else "variant"
    first = [_spoken(settings[head])] if head in settings else []
    return ", ".join(first + [f"{key} {value}" for key, value in settings.items() if key != head])


def reference_value(settings: Mapping[str, Any], reference: Mapping[str, Any] | None) -> float | None:
    """The paper's value in percent for a cell with these settings, as the study wrote them, or None.

    Looked up by the value of the reference's `by`, else by the variant's name. Original supervises no
    identity: it stands beside the paper's rate 0.
    """
    if reference is None:
        return None
    values = {_key(key): float(value) for key, value in reference["values"].items()}
    variant = settings.get("variant", "")
    value = values.get(_key(settings.get(reference["by"], variant)))
    if value is None and variant == "original" and reference["by"] == "id_rate":
        value = values.get(_key(0))
    return value


def _key(value: object) -> float | str:
    # JSON turned the numbers of the study file into strings
    try:
        return float(str(value))
    except ValueError:
        return str(value).lower()


def _spoken(value: object) -> str:
    if not isinstance(value, str):
        return str(value)
    return value.upper() if len(value) <= 2 else value.capitalize()


def _baseline(settings: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    exact = [cell for cell in cells if cell["label"] == settings]
    found = exact or [cell for cell in cells if settings.items() <= cell["settings"].items()]
    if len(found) != 1:
        raise ValueError(
            f"a baseline of the report must be one cell of the design, but {dict(settings)} is {len(found)}; "
            f"cells: {'; '.join(str(dict(cell['label'])) for cell in cells)}"
        )
    return found[0]


def _row(
    cell: Mapping[str, Any],
    by: str,
    baselines: Sequence[Mapping[str, Any]],
    reference: Mapping[str, Any] | None,
    trials: pl.DataFrame,
    plan: Mapping[str, Any],
) -> Row:
    own = _of(cell, trials)
    complete = own.filter(state="complete")
    measured = {metric: mean_over_folds(complete, metric) for metric in METRICS}
    paper = reference_value(cell["label"], reference)
    mean = None
    if reference is not None:
        if reference["metric"] not in METRICS:
            raise ValueError(f"the reference's metric must be one of {', '.join(METRICS)}, got '{reference['metric']}'")
        mean = measured[reference["metric"]].mean
    return Row(
        label=cell_label(cell["label"], by),
        configuration_id=cell["configuration_id"],
        complete=complete.height,
        failed=own.filter(state="failed").height,
        pruned=own.filter(state="pruned").height,
        missing=len(plan["folds"]) * len(plan["seeds"]) - own.height,
        accuracy=measured["accuracy"],
        pooled=pooled(complete),
        sequence_accuracy=measured["sequence_accuracy"],
        comparisons=tuple(
            None
            if other["configuration_id"] == cell["configuration_id"]
            else paired_comparison(
                complete,
                _of(other, trials).filter(state="complete"),
                cell_label(other["label"], by),
                "accuracy",
            )
            for other in baselines
        ),
        reference=paper,
        deviation=None if paper is None or mean is None else mean - paper,
        seconds=float(complete["seconds"].sum() / complete.height) if complete.height else None,
    )


def _of(cell: Mapping[str, Any], trials: pl.DataFrame) -> pl.DataFrame:
    return trials.filter(configuration_id=cell["configuration_id"])


def _title(plan: Mapping[str, Any], synthetic: bool) -> str:
    about = [plan["dataset"]]
    if plan["profile"]:
        about.append(f"profile {plan['profile']}")
    if synthetic:
        about.append("SYNTHETIC (drawn faces)")
    return f"{plan.get('question') or plan['study']} - {', '.join(about)}"


def _cell_notes(rows: Sequence[Row], trials: pl.DataFrame, plan: Mapping[str, Any]) -> list[str]:
    """What is incomplete, failed or not computable, each sentence once with the cells it holds for."""
    labels_of: dict[str, list[str]] = {}
    for row in rows:
        for sentence in _row_notes(row, trials.filter(configuration_id=row.configuration_id), plan):
            labels_of.setdefault(sentence, []).append(row.label)
    return [
        f"{'Every cell' if len(labels) == len(rows) else '; '.join(labels)}: {sentence}."
        for sentence, labels in labels_of.items()
    ]


def _row_notes(row: Row, trials: pl.DataFrame, plan: Mapping[str, Any]) -> list[str]:
    planned = len(plan["folds"]) * len(plan["seeds"])
    notes = []
    for state in ("failed", "pruned"):
        for reason, group in trials.filter(state=state).group_by("reason", maintain_order=True):
            folds = sorted(set(group["fold"]))
            where = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
            why = f" ({reason[0]})" if reason[0] else ""
            notes.append(f"{group.height} of {planned} trials {state}{why}, {where}; in no number here")
    if row.missing:
        notes.append(f"{row.missing} of {planned} trials not run yet")
    if row.accuracy.num_folds and row.accuracy.reason:
        notes.append(row.accuracy.reason)
    for comparison in row.comparisons:
        if comparison is None or not row.accuracy.num_folds:
            continue
        difference = comparison.difference
        if difference.num_folds < row.accuracy.num_folds:
            notes.append(f"folds in common with {comparison.baseline}: {difference.num_folds}")
        if difference.num_folds and difference.reason not in ("", row.accuracy.reason):
            notes.append(f"minus {comparison.baseline}: {difference.reason}")
    return notes


def _method_notes(
    num_comparisons: int, num_seeds: int, reference: Mapping[str, Any] | None, synthetic: bool
) -> list[str]:
    notes = [
        "Percent. ± is half the width of the 95% interval over folds, with the variance corrected for "
        "overlapping training sets (Nadeau & Bengio 2003) and k-1 degrees of freedom. Pooled counts every "
        "test frame once."
    ]
    if num_seeds > 1:
        notes.append(f"The {num_seeds} seeds are averaged within a fold first.")
    if num_comparisons:
        notes.append(
            "p: two-sided corrected paired t-test over common folds; not corrected for the number of "
            f"comparisons, which is {num_comparisons}."
        )
    if reference is not None:
        notes.append(f"paper: {reference['source']}, {reference['metric'].replace('_', ' ')}.")
        if reference.get("note"):
            notes.append(str(reference["note"]))
    if synthetic:
        notes.append(
            "SYNTHETIC: the faces are drawn. These numbers show that the machinery works; they say nothing "
            "about real faces" + (", and their distance to the paper's means nothing." if reference else ".")
        )
    return notes


def _provenance(plan: Mapping[str, Any], trials: pl.DataFrame) -> dict[str, Any]:
    complete = trials.filter(state="complete")
    cells = plan["cells"]
    shared = {
        key: value
        for key, value in cells[0]["settings"].items()
        if all(key in cell["settings"] and cell["settings"][key] == value for cell in cells)
    }
    planned = len({cell["configuration_id"] for cell in cells}) * len(plan["folds"]) * len(plan["seeds"])
    return {
        "data": plan["data_id"],
        "trunks": trials["trunk_ids"].explode().drop_nulls().unique().sort().to_list(),
        "settings": shared,
        "trials_complete": complete.height,
        "trials_planned": planned,
        "folds": list(plan["folds"]),
        "seeds": list(plan["seeds"]),
        "seconds": float(complete["seconds"].sum()),
        "version": sorted(set(trials["version"])),
        "command": f"{_command(plan)} && idenctl report {_full_name(plan)}",
    }


def _full_name(plan: Mapping[str, Any]) -> str:
    return f"{plan['study']}@{plan['profile']}" if plan["profile"] else str(plan["study"])


def _command(plan: Mapping[str, Any]) -> str:
    profile = f" --profile {plan['profile']}" if plan["profile"] else ""
    return str(plan.get("command") or f"idenctl study run studies/{plan['study']}.yaml{profile}")
