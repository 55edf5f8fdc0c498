"""What the predictions say beyond one accuracy: by frame, sequence, expression and subject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from orchestrator.report.cells import published
from orchestrator.report.model import Confusion, Expression, Subject
from orchestrator.report.scores import Baselines, FoldScores, PictureScores, Scores, compared, in_family

TRIAL = ("configuration_id", "trial_id", "fold", "seed", "n_train", "n_test")


@dataclass(frozen=True)
class Outcomes:
    """What became of every test frame and every test sequence of the complete trials.

    A row has the columns `TRIAL`, subject, label, guess, right (0 or 100) and picture, its number in its trial.
    Frames that belong to no sequence are in no row of `sequences`.
    """

    classes: tuple[str, ...]
    frames: pl.DataFrame
    sequences: pl.DataFrame


def outcomes(predictions: pl.DataFrame, trials: pl.DataFrame) -> Outcomes:
    """The outcomes of these rows of the store's `trials`, as far as their `predictions` are stored."""
    rows = predictions.join(trials.filter(state="complete").select(TRIAL), on="trial_id", maintain_order="left")
    classes = tuple(rows["classes"][0].to_list()) if rows.height else ()
    sure = [pl.col("probabilities").list.get(number).cast(pl.Float64) for number in range(len(classes))]
    by = [*TRIAL, "subject", "sequence", "label"]
    in_sequences = rows.filter(pl.col("sequence") != "")
    means = in_sequences.group_by(by, maintain_order=True).agg(probabilities=pl.concat_list([p.mean() for p in sure]))
    return Outcomes(classes, _judged(rows, classes), _judged(means if classes else rows, classes))


def _judged(rows: pl.DataFrame, classes: Sequence[str]) -> pl.DataFrame:
    names = dict(enumerate(classes))
    best = pl.col("probabilities").list.arg_max()
    guessed = rows.with_columns(guess=best.replace_strict(names, return_dtype=pl.String) if names else pl.lit(""))
    return guessed.select(
        *TRIAL,
        "subject",
        "label",
        "guess",
        right=(pl.col("guess") == pl.col("label")) * 100.0,
        picture=pl.int_range(pl.len()).over("trial_id"),
    )


def scores(rows: pl.DataFrame, folds: bool, *names: str) -> Scores:
    """How right the outcomes are: over the folds that have any, or over their pictures with the stream `names`."""
    if not folds:
        return PictureScores(rows, *names)
    return FoldScores(rows.group_by(TRIAL, maintain_order=True).agg(pl.col("right").mean()), "right")


def expressions(
    found: Outcomes, plan: Mapping[str, Any], baselines: Baselines, metric: str
) -> tuple[list[tuple[Expression, ...]], int]:
    """What every cell does on each expression, and how many comparisons that are.

    They are one family over all cells and expressions. `metric` is that of the paper's values. Without folds the
    resamples of an expression come from a stream of the data's and its name.
    """
    cells = [cell["configuration_id"] for cell in plan["cells"]]
    papers = [published(cell, plan["reference"]) for cell in plan["cells"]]
    columns = [_expression(name, found, plan, baselines, papers, metric) for name in found.classes]
    keys = [
        [(name, frozenset((cell, others[place]))) for others in baselines.values()]
        for name in found.classes
        for place, cell in enumerate(cells)
    ]
    judged, count = in_family([part.comparisons for column in columns for part in column], keys)
    whole = [
        [replace(part, comparisons=judged[number * len(cells) + place]) for place, part in enumerate(column)]
        for number, column in enumerate(columns)
    ]
    return list(zip(*whole, strict=True)) if whole else [()] * len(cells), count


def _expression(
    name: str,
    found: Outcomes,
    plan: Mapping[str, Any],
    baselines: Baselines,
    papers: Sequence[Mapping[str, float]],
    metric: str,
) -> list[Expression]:
    """Of every cell, what it does on this expression."""
    frames, sequences = (rows.filter(label=name) for rows in (found.frames, found.sequences))
    measured = scores(frames, plan["folds"] != [None], plan["data_id"], name)
    cells = [cell["configuration_id"] for cell in plan["cells"]]
    of_frames, of_sequences = _right(frames, "configuration_id"), _right(sequences, "configuration_id")
    parts = []
    every = zip(cells, papers, measured.estimates(cells), compared(measured, cells, baselines), strict=True)
    for cell, paper, accuracy, comparisons in every:
        (count, right), (_, of_sequence) = of_frames.get((cell,), (0, None)), of_sequences.get((cell,), (0, None))
        mean, reference = accuracy.mean if metric == "accuracy" else of_sequence, paper.get(name)
        parts.append(
            Expression(
                name=name,
                frames=count,
                accuracy=accuracy,
                pooled=right,
                sequence_accuracy=of_sequence,
                comparisons=comparisons,
                reference=reference,
                deviation=None if reference is None or mean is None else mean - reference,
            )
        )
    return parts


def _right(rows: pl.DataFrame, *by: str) -> dict[tuple[str, ...], tuple[int, float]]:
    """By these columns, how many rows and their percentage right."""
    found = rows.group_by(by).agg(pl.len(), pl.col("right").mean())
    return {tuple(key): (count, right) for *key, count, right in found.iter_rows()}


def confusions(found: Outcomes) -> dict[str, Confusion]:
    """The confusions of every cell, by configuration_id."""
    frames, sequences = (_counts(rows, found.classes) for rows in (found.frames, found.sequences))
    nothing = no_confusion(found).sequences
    return {cell: Confusion(counts, sequences.get(cell, nothing)) for cell, counts in frames.items()}


def no_confusion(found: Outcomes) -> Confusion:
    """That of a cell without a trial."""
    nothing = tuple((0,) * len(found.classes) for _ in found.classes)
    return Confusion(nothing, nothing)


def _counts(rows: pl.DataFrame, classes: Sequence[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
    number = {name: index for index, name in enumerate(classes)}
    counts: dict[str, NDArray[np.int64]] = {}
    for cell, label, guess, count in rows.group_by("configuration_id", "label", "guess").len().iter_rows():
        own = counts.setdefault(cell, np.zeros((len(classes), len(classes)), dtype=np.int64))
        own[number[label], number[guess]] = count
    return {cell: tuple(map(tuple, own.tolist())) for cell, own in counts.items()}


def subjects(found: Outcomes) -> dict[str, tuple[Subject, ...]]:
    """Every cell's accuracy on each person, sorted by name; nobody where the data names nobody."""
    sequences = _right(found.sequences, "configuration_id", "subject")
    people: dict[str, list[Subject]] = {}
    for (cell, name), (frames, accuracy) in sorted(_right(found.frames, "configuration_id", "subject").items()):
        if name:
            people.setdefault(cell, []).append(
                Subject(name, frames, accuracy, sequences.get((cell, name), (0, None))[1])
            )
    return {cell: tuple(own) for cell, own in people.items()}


def lacking(found: Outcomes) -> dict[str, list[int]]:
    """By expression, the folds whose test frames hold none of it."""
    folds = set(found.frames["fold"].drop_nulls())
    return {
        name: missing
        for name in found.classes
        if (missing := sorted(folds - set(found.frames.filter(label=name)["fold"])))
    }
