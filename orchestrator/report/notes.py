"""The sentences under a report: what is incomplete, how sure the numbers are, and what they do not say."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from orchestrator.analysis import RESAMPLES
from orchestrator.report.by_class import Outcomes, lacking
from orchestrator.report.model import Row


def cell_notes(rows: Sequence[Row], trials: pl.DataFrame, plan: Mapping[str, Any]) -> list[str]:
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
            folds = sorted(set(group["fold"].drop_nulls()))
            where = f", fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}" if folds else ""
            why = f" ({reason[0]})" if reason[0] else ""
            notes.append(f"{group.height} of {planned} trials {state}{why}{where}; in no number here")
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


def class_notes(rows: Sequence[Row], found: Outcomes) -> list[str]:
    """What the tables by expression count and leave out."""
    notes = []
    unread = sum(row.complete for row in rows) - found.frames["trial_id"].n_unique()
    if unread:
        notes.append(
            f"The predictions of {unread} complete trials are not in the store; nothing by expression has them."
        )
    for name, folds in lacking(found).items():
        where = f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
        notes.append(f"No test frame of {name} in {where}, left out of its mean of folds.")
    compared = sum(
        c is not None and c.p is not None for row in rows for part in row.expressions for c in part.comparisons
    )
    if compared:
        notes.append(f"By expression there are {compared} more comparisons, each p on its own.")
    return notes


def method_notes(
    num_comparisons: int,
    plan: Mapping[str, Any],
    num_pictures: int,
    synthetic: bool,
) -> list[str]:
    """How the numbers were made. `num_pictures` are those of the test set of a study without folds."""
    reference, seeds, folds = plan["reference"], len(plan["seeds"]), plan["folds"] != [None]
    if folds:
        notes = [
            "Percent. ± is half the width of the 95% interval over folds, with the variance corrected for "
            "overlapping training sets (Nadeau & Bengio 2003) and k-1 degrees of freedom. Pooled counts every "
            "test frame once."
        ]
    else:
        notes = [
            "Percent, on the publisher's test split after training on its train split. ± is half the width of the "
            f"95% percentile bootstrap interval over the {num_pictures:,} test pictures ({RESAMPLES:,} resamples, the "
            "same pictures for every cell): how far other pictures would move the number, not another training run."
        ]
    if seeds > 1:
        notes.append(f"The {seeds} seeds are averaged within a {'fold' if folds else 'picture'} first.")
    if num_comparisons:
        test = (
            "two-sided corrected paired t-test over common folds"
            if folds
            else "twice the share of resamples in which the difference is 0 or has the other sign"
        )
        notes.append(f"p: {test}; not corrected for the number of comparisons, which is {num_comparisons}.")
    if reference is not None:
        notes.append(f"paper: {reference['source']}, {reference['metric'].replace('_', ' ')}.")
        if reference.get("note"):
            notes.append(str(reference["note"]))
    if synthetic:
        notes.append(
            "SYNTHETIC: the data is drawn. These numbers show that the machinery works; they say nothing "
            "about real data" + (", and their distance to the paper's means nothing." if reference else ".")
        )
    return notes
