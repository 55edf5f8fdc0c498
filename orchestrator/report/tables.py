"""From a study's plan and the store's rows to its report."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import polars as pl

from orchestrator.report import by_class
from orchestrator.report.by_class import Outcomes
from orchestrator.report.cells import Cell, axes, baselines, cell_label, not_run, published
from orchestrator.report.model import Report, Row
from orchestrator.report.notes import cell_notes, method_notes, mixed, prediction_notes
from orchestrator.report.scores import Compared, FoldScores, Scores, SubjectScores, compared, in_family
from orchestrator.statistics.folds import Estimate
from orchestrator.trial import IDENNET

METRICS = ("accuracy", "sequence_accuracy")
NO_TRIAL = {"complete": 0, "failed": 0, "pruned": 0, "pooled": None, "seconds": None}


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

    Without `predictions` it has nothing by expression or subject, and without folds no interval. Raises ValueError
    when none of the plan's trials is stored, when a baseline is not one cell of the design, and when the reference's
    metric is not one that the report measures.
    """
    show = tuple(plan["report"].get("show", ()))
    wanted = chosen(plan, trials).with_columns(pl.col(*METRICS) * 100)
    if wanted.is_empty():
        reasons = "; ".join(dict.fromkeys(reason for *_, reason in not_run(plan, wanted)))
        why = f", as its packs failed: {reasons}; see to that and run it again: " if reasons else "; run it first: "
        raise ValueError(f"study '{full_name(plan)}' has no trial in the store yet{why}{_command(plan)}")
    found = None if predictions is None or predictions.is_empty() else by_class.outcomes(predictions, wanted)
    others = baselines(plan)
    measured = _measured(plan, wanted, found)
    differences, num_comparisons = _differences(plan, others, measured["accuracy"], found)
    rows = _rows(plan, measured, differences, wanted)
    by_expression = 0
    if found is not None:
        expressions, by_expression = by_class.expressions(found, plan, others, _reference_metric(plan))
        confusions, subjects = by_class.confusions(found), by_class.subjects(found)
        nothing = by_class.no_confusion(found)
        rows = [
            replace(
                row,
                expressions=parts,
                confusion=confusions.get(row.configuration_id, nothing),
                subjects=subjects.get(row.configuration_id, ()),
            )
            for row, parts in zip(rows, expressions, strict=True)
        ]
    bare, differing = without_rows(plan, wanted), mixed(rows, wanted, plan)
    return replace(
        bare,
        show=show,
        baselines=tuple(others),
        reference_source=plan["reference"]["source"] if plan["reference"] else "",
        num_comparisons=num_comparisons,
        expressions=found.classes if found else (),
        rows=tuple(rows),
        mixed=tuple(differing),
        notes=(
            *differing,
            *cell_notes(rows, wanted, plan),
            *prediction_notes(rows, found, show, by_expression),
            *method_notes(num_comparisons, plan, max(wanted["n_test"], default=0) if found else 0, bare.synthetic),
        ),
    )


def without_rows(plan: Mapping[str, Any], trials: pl.DataFrame) -> Report:
    """What a report says of its study before it says anything of a cell; `trials` are the plan's."""
    by, across = axes(plan["report"]["by"])
    synthetic = bool(plan["synthetic"]) or bool(trials["synthetic"].any())
    about = _about(plan, synthetic)
    return Report(
        study=plan["study"],
        profile=plan["profile"] or "",
        question=plan.get("question", ""),
        dataset=plan["dataset"],
        synthetic=synthetic,
        title=f"{plan.get('question') or plan['study']} - {about}",
        about=about,
        unit="percent",
        by=by,
        across=across,
        show=(),
        folds=plan["folds"] != [None],
        num_folds=len(plan["folds"]),
        num_seeds=len(plan["seeds"]),
        baselines=(),
        reference_source="",
        num_comparisons=0,
        expressions=(),
        rows=(),
        mixed=(),
        notes=(),
        provenance=_provenance(plan, trials),
    )


def _measured(plan: Mapping[str, Any], trials: pl.DataFrame, found: Outcomes | None) -> dict[str, Scores]:
    """The scores of both metrics; without folds they are made of predictions, where there are any."""
    complete = trials.filter(state="complete")
    if found is None or plan["folds"] != [None]:
        whole = complete.with_columns(pl.col("fold").fill_null(0))  # one test set is one fold
        return {metric: FoldScores(whole, metric) for metric in METRICS}
    return {
        "accuracy": by_class.scores(found.frames, False, plan["data_id"], "frames"),
        "sequence_accuracy": by_class.scores(found.sequences, False, plan["data_id"], "sequences"),
    }


def _differences(
    plan: Mapping[str, Any], others: Mapping[str, Sequence[str]], accuracy: Scores, found: Outcomes | None
) -> tuple[list[Compared], int]:
    """Each cell's comparisons, judged as one family, and how many that are."""
    ids = [cell["configuration_id"] for cell in plan["cells"]]
    keys = [[frozenset((cell, other)) for other in row] for cell, row in zip(ids, _by_cell(others, ids), strict=True)]
    rows, count = in_family(compared(accuracy, ids, others), keys)
    if found is not None and plan["folds"] != [None]:
        people = SubjectScores(found.frames, plan["data_id"])
        by_subject = [people.minus(ids, names) for names in others.values()]
        rows = [
            tuple(one and replace(one, by_subject=column[place]) for one, column in zip(row, by_subject, strict=True))
            for place, row in enumerate(rows)
        ]
    return rows, count


def _by_cell(others: Mapping[str, Sequence[str]], ids: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*others.values(), strict=True)) if others else [()] * len(ids)


def _rows(
    plan: Mapping[str, Any], measured: Mapping[str, Scores], differences: Sequence[Compared], trials: pl.DataFrame
) -> list[Row]:
    ids = [cell["configuration_id"] for cell in plan["cells"]]
    counts = _counts(trials)
    estimates = {metric: scores.estimates(ids) for metric, scores in measured.items()}
    return [
        _row(cell, counts.get(cell["configuration_id"], NO_TRIAL), dict(zip(METRICS, means, strict=True)), found, plan)
        for cell, *means, found in zip(plan["cells"], *(estimates[name] for name in METRICS), differences, strict=True)
    ]


def _counts(trials: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """By configuration_id: trials by state, the accuracy over all frames at once, seconds of a complete trial."""
    complete = pl.col("state") == "complete"
    right, frames = (pl.col("accuracy") * pl.col("n_test")).filter(complete), pl.col("n_test").filter(complete)
    found = trials.group_by("configuration_id").agg(
        **{state: (pl.col("state") == state).sum() for state in ("complete", "failed", "pruned")},
        pooled=pl.when(complete.any()).then(right.sum() / frames.sum()),
        seconds=pl.col("seconds").filter(complete).mean(),
    )
    return {row.pop("configuration_id"): row for row in found.to_dicts()}


def _row(
    cell: Cell,
    counts: Mapping[str, Any],
    means: Mapping[str, Estimate],
    comparisons: Compared,
    plan: Mapping[str, Any],
) -> Row:
    by, across = axes(plan["report"]["by"])
    paper = published(cell, plan["reference"]).get("all")
    mean = means[_reference_metric(plan)].mean
    done = sum(counts[state] for state in ("complete", "failed", "pruned"))
    return Row(
        label=cell_label(cell["label"], by),
        row=cell_label({key: value for key, value in cell["label"].items() if key != across}, by),
        column=str(cell["settings"].get(across, "")),
        configuration_id=cell["configuration_id"],
        complete=counts["complete"],
        failed=counts["failed"],
        pruned=counts["pruned"],
        missing=len(plan["folds"]) * len(plan["seeds"]) - done,
        accuracy=means["accuracy"],
        pooled=counts["pooled"],
        sequence_accuracy=means["sequence_accuracy"],
        comparisons=comparisons,
        reference=paper,
        deviation=None if paper is None or mean is None else mean - paper,
        seconds=counts["seconds"],
    )


def _reference_metric(plan: Mapping[str, Any]) -> str:
    metric = plan["reference"]["metric"] if plan["reference"] else METRICS[0]
    if metric not in METRICS:
        raise ValueError(f"the reference's metric must be one of {', '.join(METRICS)}, got '{metric}'")
    return str(metric)


def _about(plan: Mapping[str, Any], synthetic: bool) -> str:
    """On which data."""
    about = [plan["dataset"]]
    if plan["profile"]:
        about.append(f"profile {plan['profile']}")
    if synthetic:
        about.append("SYNTHETIC (drawn data)")
    return ", ".join(about)


def _provenance(plan: Mapping[str, Any], trials: pl.DataFrame) -> dict[str, Any]:
    """Where the numbers of these rows of `trials` come from."""
    complete = trials.filter(state="complete")
    cells = plan["cells"]
    shared = {
        key: value
        for key, value in (cells[0]["settings"] if cells else {}).items()
        if all(key in cell["settings"] and cell["settings"][key] == value for cell in cells)
    }
    planned = len({cell["configuration_id"] for cell in cells}) * len(plan["folds"]) * len(plan["seeds"])
    return {
        "workload": plan.get("workload", IDENNET),
        "data": plan["data_id"],
        "trunks": trials["trunk_ids"].explode().drop_nulls().unique().sort().to_list(),
        "settings": shared,
        "trials_complete": complete.height,
        "trials_planned": planned,
        "folds": list(plan["folds"]),
        "seeds": list(plan["seeds"]),
        "seconds": float(complete["seconds"].sum()),
        "version": sorted(set(trials["version"])),
        "command": f"{_command(plan)} && {_report_command(plan)}",
    }


def full_name(plan: Mapping[str, Any]) -> str:
    """The study's folder in the store."""
    return f"{plan['study']}@{plan['profile']}" if plan["profile"] else str(plan["study"])


def _command(plan: Mapping[str, Any]) -> str:
    profile = f" --profile {plan['profile']}" if plan["profile"] else ""
    return str(plan.get("command") or f"idenctl study run studies/{plan['study']}.yaml{profile}")


def _report_command(plan: Mapping[str, Any]) -> str:
    """The command that gives the report again, from the store that the study's command names."""
    words = shlex.split(_command(plan))
    stores = [after for word, after in pairwise(words) if word == "--store"]
    stores += [word.removeprefix("--store=") for word in words if word.startswith("--store=")]
    return shlex.join(["idenctl", "report", full_name(plan), *(("--store", stores[-1]) if stores else ())])
