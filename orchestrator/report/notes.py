"""The sentences under a report: what is incomplete, how sure the numbers are, and what they do not say."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from orchestrator.report.by_class import Outcomes, lacking
from orchestrator.report.cells import NotRun, axes, cell_label, not_run
from orchestrator.report.model import Row
from orchestrator.report.wording import in_one_line
from orchestrator.statistics.bootstrap import RESAMPLES
from orchestrator.statistics.power import POWER


def cell_notes(rows: Sequence[Row], trials: pl.DataFrame, plan: Mapping[str, Any]) -> list[str]:
    """What is incomplete, failed, said twice or not computable, each sentence once with the cells it holds for."""
    planned = len(plan["folds"]) * len(plan["seeds"])
    unfinished, failed = _unfinished(trials, planned), _not_run(not_run(plan, trials))
    labels_of: dict[str, list[str]] = {}
    for row in rows:
        missing = _missing(row, failed.get(row.configuration_id, {}), planned)
        for sentence in [*unfinished.get(row.configuration_id, ()), *missing, *_row_notes(row)]:
            labels_of.setdefault(sentence, []).append(row.label)
    return [
        f"{'Every cell' if len(labels) == len(rows) else '; '.join(labels)}: {sentence}."
        for sentence, labels in labels_of.items()
    ] + _same_notes(rows, plan)


def mixed(rows: Sequence[Row], trials: pl.DataFrame, plan: Mapping[str, Any]) -> list[str]:
    """What the numbers of a comparison do not have in common although nobody asked for it, and in which cells."""
    recipes = {cell["configuration_id"]: cell.get("inputs", {}).get("recipe") for cell in plan["cells"]}
    complete = trials.filter(state="complete").with_columns(
        recipe=pl.col("configuration_id").replace_strict(recipes, return_dtype=pl.String)
    )
    found = []
    for column, kinds in (("device", "devices"), ("recipe", "versions of the recipe"), ("version", "idenctl versions")):
        counts: dict[str, dict[str, int]] = {}
        for cell, value, count in complete.group_by("configuration_id", column).len().sort(column).iter_rows():
            if value is not None:
                counts.setdefault(value, {})[cell] = count
        if len(counts) > 1:
            parts = "; ".join(f"{value}: {_where(rows, of_cell)}" for value, of_cell in counts.items())
            found.append(
                f"MIXED {kinds}, from which a part of the differences may come: {parts}. Train the cells anew alike."
            )
    return found


def _where(rows: Sequence[Row], counts: Mapping[str, int]) -> str:
    """The cells with these numbers of trials, and how many of a cell's that are where it is not all."""
    return ", ".join(
        row.label if count == row.complete else f"{row.label} ({count} of {row.complete} trials)"
        for row in rows
        if (count := counts.get(row.configuration_id))
    )


def _same_notes(rows: Sequence[Row], plan: Mapping[str, Any]) -> list[str]:
    """Which cells are one configuration."""
    labels_of: dict[str, list[str]] = {}
    for row, cell in zip(rows, plan["cells"], strict=True):
        labels = [row.label, *(cell_label(label, axes(plan["report"]["by"])[0]) for label in cell.get("also", ()))]
        labels_of.setdefault(row.configuration_id, []).extend(labels)
    several = [labels for labels in labels_of.values() if len(labels) > 1]
    return [f"{'; '.join(labels)}: the same configuration, trained once." for labels in several]


def _unfinished(trials: pl.DataFrame, planned: int) -> dict[str, list[str]]:
    """By configuration_id, which of its trials failed or were pruned, and why."""
    found: dict[str, list[str]] = {}
    groups = (
        trials.filter(pl.col("state") != "complete")
        .group_by("configuration_id", "state", "reason", maintain_order=True)
        .agg(pl.len(), pl.col("fold").drop_nulls().unique().sort())
        .sort("state", maintain_order=True)
    )
    for cell, state, reason, count, folds in groups.iter_rows():
        why = f" ({in_one_line(reason)})" if reason else ""
        sentence = f"{count} of {planned} trials {state}{why}{_in_folds(folds)}; in no number here"
        found.setdefault(cell, []).append(sentence)
    return found


def _not_run(trials: Sequence[NotRun]) -> dict[str, dict[str, list[int | None]]]:
    """By configuration_id, and by why their packs failed, the folds of these trials."""
    found: dict[str, dict[str, list[int | None]]] = {}
    for cell, fold, _, reason in trials:
        found.setdefault(cell, {}).setdefault(reason, []).append(fold)
    return found


def _missing(row: Row, failed: Mapping[str, Sequence[int | None]], planned: int) -> list[str]:
    """How many trials of a cell have no row, and why as far as it is known."""
    sentences = [
        f"{len(folds)} of {planned} trials not run, as their pack failed ({in_one_line(reason)})"
        + _in_folds(sorted({fold for fold in folds if fold is not None}))
        for reason, folds in failed.items()
    ]
    yet = row.missing - sum(map(len, failed.values()))
    return [*sentences, f"{yet} of {planned} trials not run yet"] if yet else sentences


def _in_folds(folds: Sequence[int]) -> str:
    return f", fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}" if folds else ""


def _row_notes(row: Row) -> list[str]:
    notes = []
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


def prediction_notes(
    rows: Sequence[Row], found: Outcomes | None, show: Sequence[str], num_comparisons: int
) -> list[str]:
    """What the tables that are made of predictions count and leave out, or why they are not there.

    `num_comparisons` are those by expression.
    """
    tables = [name for name in show if name != "details"]
    if tables and found is None:
        return [f"The store holds no predictions of these trials, so these tables are missing: {', '.join(tables)}."]
    notes = _class_notes(rows, found, num_comparisons) if found and "expressions" in tables else []
    if "subjects" in tables and not any(row.subjects for row in rows):
        notes.append("The predictions name no subjects, so the table of subjects is missing.")
    return notes


def _class_notes(rows: Sequence[Row], found: Outcomes, num_comparisons: int) -> list[str]:
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
    if num_comparisons:
        notes.append(f"By expression there are {num_comparisons} more comparisons, a family of their own for p Holm.")
    return notes


def method_notes(
    num_comparisons: int,
    plan: Mapping[str, Any],
    num_pictures: int,
    synthetic: bool,
) -> list[str]:
    """How the numbers were made. `num_pictures` are those of the test set whose predictions are stored."""
    reference, seeds, folds = plan["reference"], len(plan["seeds"]), plan["folds"] != [None]
    if folds:
        notes = [
            "Percent. ± is half the width of the 95% interval over folds, with the variance corrected for "
            "overlapping training sets (Nadeau & Bengio 2003) and k-1 degrees of freedom. Pooled counts every "
            "test frame once."
        ]
    elif not num_pictures:
        notes = [
            "Percent, on the publisher's test split after training on its train split. There is no interval: it would "
            "be over test pictures, of which the store holds no predictions."
        ]
    else:
        notes = [
            "Percent, on the publisher's test split after training on its train split. ± is half the width of the "
            f"95% percentile bootstrap interval over the {num_pictures:,} test pictures ({RESAMPLES:,} resamples, the "
            "same pictures for every cell): how far other pictures would move the number, not another training run."
        ]
    if any(name.startswith("trunk_") for cell in plan["cells"] for name in cell.get("inputs", ())):
        notes.append(
            "All trials of a depth share their frozen trunks: no interval has in it how trunks of another seed would "
            "move the numbers."
        )
    if seeds > 1:
        notes.append(f"The {seeds} seeds are averaged within a {'fold' if folds else 'picture'} first.")
    if num_comparisons:
        test = (
            "two-sided corrected paired t-test over common folds"
            if folds
            else "twice the share of resamples in which the difference is 0 or has the other sign"
        )
        family = (
            f"the {num_comparisons} comparisons of a cell with a baseline" if num_comparisons > 1 else "one comparison"
        )
        notes.append(
            f"p Holm: {test}, adjusted by Holm's method for the family of this report, {family}. "
            "An interval is of its number alone."
        )
        if "details" in plan["report"].get("show", ()):
            notes += _details_notes(folds)
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


def _details_notes(folds: bool) -> list[str]:
    """What the details of the comparisons mean."""
    if not folds:
        return ["p is of the comparison alone. Without folds nothing says what further seeds would do."]
    return [
        "p is of the comparison alone. Effect: the difference in standard deviations of its folds. Over subjects: the "
        "95% percentile interval of the difference over all test frames at once when whole subjects are drawn "
        f"({RESAMPLES:,} resamples): what other people would move, with the same trained networks.",
        f"Settled by: the seeds with which a true difference as large as the measured one is found in {POWER:.0%} of "
        "studies at Holm's level for its place, from how much the differences vary between folds and between seeds; "
        "only more subjects, where the folds alone vary too much for any number of seeds; unknown with one seed, which "
        "cannot tell the two apart. A guess: the measured "
        "difference and variances are taken for the true ones.",
    ]
