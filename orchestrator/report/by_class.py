"""What the predictions say beyond one accuracy: by frame, sequence, expression and subject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from orchestrator.report.model import Confusion, Expression, Subject
from orchestrator.report.scores import FoldScores, PictureScores, Scores, compared

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


class OfExpression:
    """The outcomes of one expression; without folds its resamples come from a stream of the data's and its name."""

    def __init__(self, name: str, found: Outcomes, folds: bool, data_id: str) -> None:
        self.name = name
        self.frames, self.sequences = (rows.filter(label=name) for rows in (found.frames, found.sequences))
        self.scores = scores(self.frames, folds, data_id, name)

    def of(self, cell: str, baselines: Mapping[str, str], paper: float | None, metric: str) -> Expression:
        """What a cell does on it, beside its `baselines` by name and the paper's value of this metric."""
        frames, sequences = (rows.filter(configuration_id=cell)["right"] for rows in (self.frames, self.sequences))
        accuracy, of_sequences = self.scores.estimate(cell), _mean(sequences)
        measured = accuracy.mean if metric == "accuracy" else of_sequences
        return Expression(
            name=self.name,
            frames=len(frames),
            accuracy=accuracy,
            pooled=_mean(frames),
            sequence_accuracy=of_sequences,
            comparisons=compared(self.scores, cell, baselines),
            reference=paper,
            deviation=None if paper is None or measured is None else measured - paper,
        )


def _mean(right: pl.Series) -> float | None:
    return float(right.sum()) / len(right) if len(right) else None


def confusion(found: Outcomes, cell: str) -> Confusion:
    """The confusions of a cell."""
    return Confusion(
        *(_counts(rows.filter(configuration_id=cell), found.classes) for rows in (found.frames, found.sequences))
    )


def _counts(rows: pl.DataFrame, classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    number = {name: index for index, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for label, guess, count in rows.group_by("label", "guess").len().iter_rows():
        counts[number[label], number[guess]] = count
    return tuple(map(tuple, counts.tolist()))


def subjects(found: Outcomes, cell: str) -> tuple[Subject, ...]:
    """A cell's accuracy on each person, sorted by name; nobody where the data names nobody."""
    sequences = _by_subject(found.sequences, cell)
    return tuple(
        Subject(name, frames, accuracy, sequences.get(name, (0, None))[1])
        for name, (frames, accuracy) in sorted(_by_subject(found.frames, cell).items())
        if name
    )


def _by_subject(rows: pl.DataFrame, cell: str) -> Mapping[str, tuple[int, float]]:
    by = rows.filter(configuration_id=cell).group_by("subject").agg(pl.len(), pl.col("right").mean())
    return {name: (count, right) for name, count, right in by.iter_rows()}


def lacking(found: Outcomes) -> dict[str, list[int]]:
    """By expression, the folds whose test frames hold none of it."""
    folds = set(found.frames["fold"].drop_nulls())
    return {
        name: missing
        for name in found.classes
        if (missing := sorted(folds - set(found.frames.filter(label=name)["fold"])))
    }
