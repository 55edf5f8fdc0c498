"""How sure numbers are: over the folds of a cross-validation, or over the pictures of one test set.

All cells of a study at once: their trials lie in one array, and no Python looks at a single trial.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from idennet_core import streams
from orchestrator.statistics import folds, power
from orchestrator.statistics.bootstrap import bootstrap_compare, bootstrap_estimate, over_subjects, resample
from orchestrator.statistics.folds import Comparison, Estimate, Floats, Spread, known, seeds_averaged

Baselines = Mapping[str, Sequence[str]]  # by name, what each cell is compared with: configuration_ids
Compared = tuple[Comparison | None, ...]  # of a cell, an entry a baseline; None where it is the baseline


class Scores(Protocol):
    """One metric of every cell, by configuration_id."""

    def estimates(self, cells: Sequence[str]) -> list[Estimate]:
        """Of each cell its mean with its interval."""

    def minus(self, cells: Sequence[str], others: Sequence[str], name: str) -> list[Comparison]:
        """Each cell minus the other beside it, which is called `name`, on what both have."""


def compared(scores: Scores, cells: Sequence[str], baselines: Baselines) -> list[Compared]:
    """Every cell minus each of its baselines."""
    found = [(others, scores.minus(cells, others, name)) for name, others in baselines.items()]
    return [
        tuple(None if others[index] == cell else made[index] for others, made in found)
        for index, cell in enumerate(cells)
    ]


def in_family(rows: Sequence[Compared], keys: Sequence[Sequence[Hashable]]) -> tuple[list[Compared], int]:
    """The comparisons with what their family says of each, and how many tests the family has.

    Those with the same key are one comparison: Original against F and F against Original.
    """
    tests = {
        key: found.p
        for row, names in zip(rows, keys, strict=True)
        for found, key in zip(row, names, strict=True)
        if found is not None and found.p is not None
    }
    p = np.array(list(tests.values()))
    adjusted, levels = (dict(zip(tests, of(p).tolist(), strict=True)) for of in (folds.holm, folds.holm_levels))

    def with_family(found: Comparison | None, key: Hashable) -> Comparison | None:
        if found is None or key not in tests:
            return found
        found = replace(found, p_holm=adjusted[key])
        outlook, more_seeds = power.outlook(found, levels[key])
        return replace(found, outlook=outlook, more_seeds=more_seeds)

    return [tuple(map(with_family, row, names)) for row, names in zip(rows, keys, strict=True)], len(tests)


class FoldScores:
    """Over folds, from a row a trial: configuration_id, fold, seed, n_train, n_test and the metric.

    The metric lies in `values` [cells + 1, folds, seeds], NaN where there is none; the last cell has none at all.
    """

    def __init__(self, trials: pl.DataFrame, metric: str) -> None:
        measured = trials.drop_nulls(metric)
        places, size, self.cells = _placed(measured, "configuration_id", "fold", "seed")
        self.values, self.n_test, self.n_train = np.full(size, np.nan), np.zeros(size), np.zeros(size)
        self.values[places], self.n_test[places] = measured[metric], measured["n_test"]
        self.n_train[places] = measured["n_train"]

    def estimates(self, cells: Sequence[str]) -> list[Estimate]:
        """Seeds are averaged within a fold."""
        rows = self._rows(cells)
        return folds.estimates(seeds_averaged(self.values[rows]), self._held_out(rows, True))

    def minus(self, cells: Sequence[str], others: Sequence[str], name: str) -> list[Comparison]:
        """Over the folds and seeds that both have: one that a cell lacks never moves the difference.

        A fold's difference is the mean over its common seeds.
        """
        own = self._rows(cells)
        differences = self.values[own] - self.values[self._rows(others)]
        ratio = self._held_out(own, ~np.isnan(differences))
        found = folds.comparisons(name, seeds_averaged(differences), ratio)
        seeds = (~np.isnan(differences)).sum(-1).max(-1, initial=0)
        columns = (seeds, ratio, *power.variance_components(differences))
        return [
            replace(one, spread=Spread(count, held_out, known(of_folds), known(of_seeds)))
            for one, count, held_out, of_folds, of_seeds in zip(found, *(c.tolist() for c in columns), strict=True)
        ]

    def _rows(self, cells: Sequence[str]) -> list[int]:
        return [self.cells.get(cell, -1) for cell in cells]

    def _held_out(self, rows: Sequence[int], there: "np.ndarray | bool") -> Floats:
        """n_test/n_train over a row's trials, in frames before augmentation: 1/(k-1) for k folds; 0 for no trial."""
        tested = np.where(there, self.n_test[rows], 0.0).sum((-2, -1))
        trained = np.where(there, self.n_train[rows], 0.0).sum((-2, -1))
        return np.asarray(tested / np.where(trained > 0, trained, 1.0))


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

    def estimates(self, cells: Sequence[str]) -> list[Estimate]:
        """Seeds are averaged for each picture."""
        return [self._estimate([*self.columns.get(cell, {}).values()]) for cell in cells]

    def minus(self, cells: Sequence[str], others: Sequence[str], name: str) -> list[Comparison]:
        """Over the seeds that both have."""
        pairs = zip(cells, others, strict=True)
        return [self._minus(self.columns.get(cell, {}), self.columns.get(other, {}), name) for cell, other in pairs]

    def _estimate(self, columns: Sequence[int]) -> Estimate:
        if not columns:
            return Estimate(0, reason="no test picture")
        return bootstrap_estimate(self.means[columns].mean().item(), self.resampled[:, columns].mean(1))

    def _minus(self, own: Mapping[int, int], other: Mapping[int, int], name: str) -> Comparison:
        seeds = [seed for seed in own if seed in other]
        if not seeds:
            return Comparison(name, Estimate(0, reason="no seed in common"))
        ours, theirs = [own[seed] for seed in seeds], [other[seed] for seed in seeds]
        difference = (self.means[ours] - self.means[theirs]).mean().item()
        return bootstrap_compare(name, difference, (self.resampled[:, ours] - self.resampled[:, theirs]).mean(1))


class SubjectScores:
    """Over the people tested, from a row a trial and frame: configuration_id, subject, fold, seed and right.

    `sums` and `frames` are [cells + 1, people, seeds], a person's percent and number of frames in a trial.
    """

    def __init__(self, outcomes: pl.DataFrame, *names: str) -> None:
        self.names = names
        keys = ("configuration_id", "subject", "seed")
        rows = outcomes.filter(pl.col("subject") != "").group_by(keys).agg(pl.col("right").sum(), pl.len())
        places, size, self.cells = _placed(rows, *keys)
        self.sums, self.frames = np.zeros(size), np.zeros(size)
        self.sums[places], self.frames[places] = rows["right"], rows["len"]

    def minus(self, cells: Sequence[str], others: Sequence[str]) -> list[Estimate]:
        """Each cell minus the other over all frames of the people and seeds that both have; seeds are averaged."""
        own, other = ([self.cells.get(cell, -1) for cell in names] for names in (cells, others))
        both = (self.frames[own] > 0) & (self.frames[other] > 0)
        seeds = np.maximum(both.sum(-1), 1)
        differences = np.where(both, self.sums[own] - self.sums[other], 0.0).sum(-1) / seeds
        frames = np.where(both, self.frames[own], 0.0).sum(-1) / seeds
        return over_subjects(differences.T, frames.T, streams.generator("bootstrap", *self.names, "subjects"))


def _placed(
    rows: pl.DataFrame, cell: str, *others: str
) -> tuple[tuple[NDArray[np.int64], ...], tuple[int, ...], dict[str, int]]:
    """Where each row lies in an array over these columns, the array's size, and the place of each cell.

    The array has a cell more than there are, the last, for what has no row.
    """
    places = tuple((rows[name].rank("dense").to_numpy() - 1).astype(np.int64) for name in (cell, *others))
    size = tuple(int(axis.max(initial=-1)) + 1 for axis in places)
    known = {name: place for place, name in enumerate(rows[cell].unique().sort())}
    return places, (size[0] + 1, *size[1:]), known
