"""What the page shows of a study beyond its report: its trials by fold, their curves, what they cost. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from orchestrator.costs import Took
from orchestrator.report.cells import NotRun
from orchestrator.report.model import Report, Row
from orchestrator.report.scores import FoldScores


@dataclass(frozen=True)
class Evidence:
    """What the store holds of a study beyond its report.

    `trials` are the rows of its plan, `curves` theirs, `baselines` by name what each cell of the plan is compared
    with, `not_run` the trials that have no row as their pack failed. `alone` and `packed` are predicted seconds of the
    packs that say both, `reused` the seconds of the trials that were stored before the study first ran. `record` is its
    provenance, empty where it is damaged.
    """

    trials: pl.DataFrame
    curves: pl.DataFrame
    baselines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    took: Sequence[Took] = ()
    alone: float | None = None
    packed: float | None = None
    reused: Sequence[float] = ()
    not_run: Sequence[NotRun] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Learnt:
    """A cell at the end of an epoch, counted from 1: accuracies in percent, over its folds."""

    cell: str
    epoch: int
    tested: float
    low: float | None
    high: float | None
    trained: float | None


def fold_differences(rows: Sequence[Row], report: Report, evidence: Evidence) -> dict[str, dict[str, dict[int, float]]]:
    """By baseline and configuration_id, each fold's difference in percent, the mean over the seeds both have."""
    keys = ["fold", "seed"]
    complete = evidence.trials.filter(state="complete").select("configuration_id", *keys, pl.col("accuracy") * 100)
    by_cell = {cell: part for (cell,), part in complete.partition_by("configuration_id", as_dict=True).items()}
    wanted = {row.configuration_id for row in rows}
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name, others in evidence.baselines.items():
        for row, other in zip(report.rows, others, strict=True):
            cell = row.configuration_id
            if cell not in wanted or cell == other or not {cell, other} <= by_cell.keys():
                continue
            both = by_cell[cell].join(by_cell[other], on=keys, suffix="_other")
            minus = both.group_by("fold").agg((pl.col("accuracy") - pl.col("accuracy_other")).mean()).sort("fold")
            found.setdefault(name, {})[cell] = dict(minus.iter_rows())
    return found


def learning_curves(rows: Sequence[Row], evidence: Evidence) -> list[Learnt]:
    """Every cell's accuracy by epoch, with the interval over folds of the report's own numbers."""
    columns = {"test_accuracy", "train_accuracy", "epoch"}
    if not columns <= set(evidence.curves.columns):
        return []
    labels = {row.configuration_id: row.label for row in rows}
    trials = evidence.trials.filter(pl.col("configuration_id").is_in(list(labels)), state="complete")
    keep = ["trial_id", "configuration_id", "fold", "seed", "n_train", "n_test"]
    points = evidence.curves.join(trials.select(keep), on="trial_id").with_columns(
        pl.col("test_accuracy", "train_accuracy") * 100, pl.col("fold").fill_null(0)
    )
    cells = points.select("configuration_id", "epoch").unique().sort("configuration_id", "epoch")
    if points["test_accuracy"].is_null().all():
        return []
    at = pl.format("{} {}", "configuration_id", "epoch")
    keyed, names = points.with_columns(configuration_id=at), cells.select(at.alias("at"))["at"].to_list()
    tested, trained = (FoldScores(keyed, metric).estimates(names) for metric in ("test_accuracy", "train_accuracy"))
    return [
        Learnt(labels[cell], epoch + 1, test.mean, test.low, test.high, train.mean)
        for (cell, epoch), test, train in zip(cells.iter_rows(), tested, trained, strict=True)
        if test.mean is not None
    ]
