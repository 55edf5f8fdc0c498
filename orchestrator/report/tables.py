"""From a study's plan and the store's rows to its report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from orchestrator.analysis import pooled
from orchestrator.report import by_class
from orchestrator.report.by_class import Outcomes
from orchestrator.report.model import Report, Row
from orchestrator.report.notes import cell_notes, class_notes, method_notes
from orchestrator.report.scores import FoldScores, Scores, compared

METRICS = ("accuracy", "sequence_accuracy")
Cell = Mapping[str, Any]


def chosen(plan: Mapping[str, Any], trials: pl.DataFrame) -> pl.DataFrame:
    """The rows of the store's `trials` that are in the plan."""
    return trials.filter(
        pl.col("configuration_id").is_in([cell["configuration_id"] for cell in plan["cells"]])
        & pl.col("fold").is_in(plan["folds"], nulls_equal=True)
        & pl.col("seed").is_in(plan["seeds"])
    )


def needs_predictions(plan: Mapping[str, Any]) -> bool:
    """Whether the report of this plan is more than the accuracies of its trials."""
    return plan["folds"] == [None] or bool(plan["report"].get("show"))


def build(plan: Mapping[str, Any], trials: pl.DataFrame, predictions: pl.DataFrame | None = None) -> Report:
    """The report of a study from its plan (`plan.json`) and the store's tables.

    Without `predictions` it has nothing by expression or subject. Raises ValueError when none of the plan's trials
    is stored, when a baseline is not one cell of the design, when the reference's metric is not one that the
    report measures, and for a plan without folds that comes without predictions.
    """
    cells = plan["cells"]
    wanted = chosen(plan, trials).with_columns(pl.col(*METRICS) * 100)
    if wanted.is_empty():
        raise ValueError(f"study '{_full_name(plan)}' has no trial in the store yet; run it first: {_command(plan)}")
    found = None if predictions is None else by_class.outcomes(predictions, wanted)
    by, across = _axes(plan["report"]["by"])
    baselines = [_baselines(cell, plan) for cell in cells]
    names = tuple(baselines[0])
    measured = _measured(plan, wanted, found)
    rows = [_row(cell, others, measured, wanted, plan) for cell, others in zip(cells, baselines, strict=True)]
    if found is not None:
        by_name = [
            by_class.OfExpression(name, found, plan["folds"] != [None], plan["data_id"]) for name in found.classes
        ]
        rows = [
            _with_classes(row, cell, others, by_name, found, plan)
            for row, cell, others in zip(rows, cells, baselines, strict=True)
        ]
    # Original against F and F against Original are one comparison
    made = {
        frozenset((row.configuration_id, other))
        for row, others in zip(rows, baselines, strict=True)
        for other, comparison in zip(others.values(), row.comparisons, strict=True)
        if comparison is not None and comparison.p is not None
    }
    synthetic = bool(plan["synthetic"]) or bool(wanted["synthetic"].any())
    return Report(
        study=plan["study"],
        profile=plan["profile"] or "",
        question=plan.get("question", ""),
        dataset=plan["dataset"],
        synthetic=synthetic,
        title=_title(plan, synthetic),
        unit="percent",
        by=by,
        across=across,
        show=tuple(plan["report"].get("show", ())),
        folds=plan["folds"] != [None],
        num_folds=len(plan["folds"]),
        num_seeds=len(plan["seeds"]),
        baselines=names,
        reference_source=plan["reference"]["source"] if plan["reference"] else "",
        num_comparisons=len(made),
        expressions=found.classes if found else (),
        rows=tuple(rows),
        notes=(
            *cell_notes(rows, wanted, plan),
            *(class_notes(rows, found) if found and "expressions" in plan["report"].get("show", ()) else ()),
            *method_notes(len(made), plan, max(wanted["n_test"], default=0), synthetic),
        ),
        provenance=_provenance(plan, wanted),
    )


def cell_label(settings: Mapping[str, Any], by: str) -> str:
    """A cell's name in the table: the value of `by` or the variant, then what else the study wrote for it."""
    head = by if by in settings else "variant"
    first = [_spoken(settings[head])] if head in settings else []
    return ", ".join(first + [f"{key} {value}" for key, value in settings.items() if key != head])


def reference_value(settings: Mapping[str, Any], reference: Mapping[str, Any]) -> Any:
    """What the reference has for a cell with these settings, as the study wrote them, or None.

    Looked up by the value of the (first) `by`, else by the variant's name. Original supervises no identity: it
    stands beside the paper's rate 0.
    """
    by, _ = _axes(reference["by"])
    variant = settings.get("variant", "")
    value = _under(reference["values"], settings.get(by, variant))
    if value is None and variant == "original" and by == "id_rate":
        value = _under(reference["values"], 0)
    return value


def published(cell: Cell, reference: Mapping[str, Any] | None) -> Mapping[str, float]:
    """The paper's percentages for a cell, by expression; `all` is the whole test set."""
    if reference is None:
        return {}
    across = _axes(reference["by"])[1]
    value = reference_value({**cell["settings"], **cell["label"]} if across else cell["label"], reference)
    if across == "expression":
        return value or {}
    if across:
        value = _under(value or {}, cell["settings"].get(across))
    return {} if value is None else {"all": float(value)}


def _axes(by: str | Sequence[str]) -> tuple[str, str]:
    rows, columns = (by, "") if isinstance(by, str) else (*by, "")[:2]
    return rows, columns


def _under(values: Mapping[Any, Any], key: object) -> Any:
    return {_key(name): value for name, value in values.items()}.get(_key(key))


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


def _baselines(cell: Cell, plan: Mapping[str, Any]) -> dict[str, str]:
    """The configuration_id of what a cell is compared with, by name; in a two-way table from the cell's column."""
    by, across = _axes(plan["report"]["by"])
    found = {}
    for settings in plan["report"]["baselines"]:
        baseline = _baseline(settings, plan["cells"], cell, across)
        found[cell_label(settings if across else baseline["label"], by)] = baseline["configuration_id"]
    return found


def _baseline(settings: Mapping[str, Any], cells: Sequence[Cell], cell: Cell, across: str) -> Cell:
    column = {across: cell["settings"].get(across)} if across else {}
    exact = [other for other in cells if other["label"] == settings]
    found = exact or [other for other in cells if {**settings, **column}.items() <= other["settings"].items()]
    if len(found) != 1:
        raise ValueError(
            f"a baseline of the report must be one cell of the design, but {dict(settings)} is {len(found)}; "
            f"cells: {'; '.join(str(dict(other['label'])) for other in cells)}"
        )
    return found[0]


def _measured(plan: Mapping[str, Any], trials: pl.DataFrame, found: Outcomes | None) -> dict[str, Scores]:
    """The scores of both metrics; without folds they are made of predictions."""
    complete = trials.filter(state="complete")
    if plan["folds"] != [None]:
        return {metric: FoldScores(complete, metric) for metric in METRICS}
    if found is None:
        raise ValueError("a report without folds is made of predictions, got none")
    return {
        "accuracy": by_class.scores(found.frames, False, plan["data_id"], "frames"),
        "sequence_accuracy": by_class.scores(found.sequences, False, plan["data_id"], "sequences"),
    }


def _row(
    cell: Cell,
    baselines: Mapping[str, str],
    measured: Mapping[str, Scores],
    trials: pl.DataFrame,
    plan: Mapping[str, Any],
) -> Row:
    by, across = _axes(plan["report"]["by"])
    own = trials.filter(configuration_id=cell["configuration_id"])
    complete = own.filter(state="complete")
    estimates = {metric: scores.estimate(cell["configuration_id"]) for metric, scores in measured.items()}
    paper = published(cell, plan["reference"]).get("all")
    mean = estimates[_reference_metric(plan)].mean
    return Row(
        label=cell_label(cell["label"], by),
        row=cell_label({key: value for key, value in cell["label"].items() if key != across}, by),
        column=str(cell["settings"].get(across, "")),
        configuration_id=cell["configuration_id"],
        complete=complete.height,
        failed=own.filter(state="failed").height,
        pruned=own.filter(state="pruned").height,
        missing=len(plan["folds"]) * len(plan["seeds"]) - own.height,
        accuracy=estimates["accuracy"],
        pooled=pooled(complete),
        sequence_accuracy=estimates["sequence_accuracy"],
        comparisons=compared(measured["accuracy"], cell["configuration_id"], baselines),
        reference=paper,
        deviation=None if paper is None or mean is None else mean - paper,
        seconds=float(complete["seconds"].sum() / complete.height) if complete.height else None,
    )


def _with_classes(
    row: Row,
    cell: Cell,
    baselines: Mapping[str, str],
    by_name: Sequence[by_class.OfExpression],
    found: Outcomes,
    plan: Mapping[str, Any],
) -> Row:
    own, paper = row.configuration_id, published(cell, plan["reference"])
    return replace(
        row,
        expressions=tuple(one.of(own, baselines, paper.get(one.name), _reference_metric(plan)) for one in by_name),
        confusion=by_class.confusion(found, own),
        subjects=by_class.subjects(found, own),
    )


def _reference_metric(plan: Mapping[str, Any]) -> str:
    metric = plan["reference"]["metric"] if plan["reference"] else METRICS[0]
    if metric not in METRICS:
        raise ValueError(f"the reference's metric must be one of {', '.join(METRICS)}, got '{metric}'")
    return str(metric)


def _title(plan: Mapping[str, Any], synthetic: bool) -> str:
    about = [plan["dataset"]]
    if plan["profile"]:
        about.append(f"profile {plan['profile']}")
    if synthetic:
        about.append("SYNTHETIC (drawn data)")
    return f"{plan.get('question') or plan['study']} - {', '.join(about)}"


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
