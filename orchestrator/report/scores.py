"""How sure a number is: over the folds of a cross-validation, or over the pictures of one test set."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import polars as pl

from idennet_core import streams
from orchestrator.analysis import (
    Comparison,
    Estimate,
    bootstrap_compare,
    bootstrap_estimate,
    mean_over_folds,
    paired_comparison,
    resample,
)


class Scores(Protocol):
    """One metric of every cell, by configuration_id."""

    def estimate(self, cell: str) -> Estimate:
        """The cell's mean with its interval."""

    def compare(self, cell: str, baseline: str, name: str) -> Comparison:
        """The cell minus the baseline, which is called `name`, on what both have."""


def compared(scores: Scores, cell: str, baselines: Mapping[str, str]) -> tuple[Comparison | None, ...]:
    """The cell minus each baseline, given by name; None where it is that baseline."""
    return tuple(None if other == cell else scores.compare(cell, other, name) for name, other in baselines.items())


class FoldScores:
    """Over folds, from a row a trial: configuration_id, fold, seed, n_train, n_test and the metric."""

    def __init__(self, trials: pl.DataFrame, metric: str) -> None:
        self.metric = metric
        self.trials = {key[0]: rows for key, rows in trials.group_by("configuration_id", maintain_order=True)}
        self.none = trials.clear()

    def estimate(self, cell: str) -> Estimate:
        """Seeds are averaged within a fold."""
        return mean_over_folds(self.trials.get(cell, self.none), self.metric)

    def compare(self, cell: str, baseline: str, name: str) -> Comparison:
        """Over the folds and seeds that both have."""
        own, other = (self.trials.get(key, self.none) for key in (cell, baseline))
        return paired_comparison(own, other, name, self.metric)


class PictureScores:
    """Over test pictures, from a row a trial and picture: configuration_id, trial_id, seed, picture and right.

    The resamples come from the stream `names`; all cells share them.
    """

    def __init__(self, outcomes: pl.DataFrame, *names: str) -> None:
        trials = outcomes.select("configuration_id", "trial_id", "seed").unique(maintain_order=True)
        self.columns: dict[str, dict[int, int]] = {}
        for column, (cell, _, seed) in enumerate(trials.iter_rows()):
            self.columns.setdefault(cell, {})[seed] = column
        by_trial = outcomes.partition_by("trial_id", maintain_order=True)
        if by_trial:
            values = np.stack([rows["right"].to_numpy() for rows in by_trial], 1)
            self.means = values.mean(0)
            self.resampled = resample(values, streams.generator("bootstrap", *names))

    def estimate(self, cell: str) -> Estimate:
        """Seeds are averaged for each picture."""
        columns = [*self.columns.get(cell, {}).values()]
        if not columns:
            return Estimate(0, reason="no test picture")
        return bootstrap_estimate(self.means[columns].mean().item(), self.resampled[:, columns].mean(1))

    def compare(self, cell: str, baseline: str, name: str) -> Comparison:
        """Over the seeds that both have."""
        own, other = self.columns.get(cell, {}), self.columns.get(baseline, {})
        seeds = [seed for seed in own if seed in other]
        if not seeds:
            return Comparison(name, Estimate(0, reason="no seed in common"))
        ours, theirs = [own[seed] for seed in seeds], [other[seed] for seed in seeds]
        difference = (self.means[ours] - self.means[theirs]).mean().item()
        return bootstrap_compare(name, difference, (self.resampled[:, ours] - self.resampled[:, theirs]).mean(1))
