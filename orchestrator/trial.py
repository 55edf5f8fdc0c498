"""The vocabulary: configuration, trial, pack, result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from idennet_core.ids import content_id

Setting = bool | int | float | str
State = Literal["complete", "pruned", "failed"]

NUM_FOLDS = 10
IDENNET = "orchestrator.idennet:Idennet"  # the workload of a study that names none
SELECTED = "selection saw these subjects"  # what is said of the tested accuracy of what a search chose
COMPONENTS = "components"  # what a cell of switched components is labelled by, in place of settings


@dataclass(frozen=True)
class Configuration:
    """Every setting of a training run but fold and seed, and what else decides its result."""

    settings: Mapping[str, Setting]  # canonical: complete, without those that cannot matter
    inputs: Mapping[str, str]  # data id, trunk ids, recipe version

    @cached_property
    def configuration_id(self) -> str:
        """128 bits (32 hex digits) of settings and inputs."""
        return content_id([dict(self.settings), dict(self.inputs)])


@dataclass(frozen=True)
class Trial:
    """A configuration on one fold with one seed; fold None: on the publisher's train and test splits.

    `without` is a fold that it neither trains on nor is scored by: its score on `fold` is then a validation accuracy,
    by which a search may select.
    """

    configuration: Configuration
    fold: int | None
    seed: int
    without: int | None = None

    @cached_property
    def trial_id(self) -> str:
        """128 bits (32 hex digits) of all that decides the trial's result."""
        return identified(self.configuration.configuration_id, self.fold, self.seed, self.without)


def identified(configuration_id: str, fold: int | None, seed: int, without: int | None = None) -> str:
    """The trial_id of such a trial."""
    return content_id([configuration_id, fold, seed, *([] if without is None else [without])])


@dataclass(frozen=True)
class Rungs:
    """What the configurations of one batch of a search must reach to go on, frozen when the batch was asked.

    A rung is a number of epochs done. `cutoffs` has a mean accuracy (a share) a rung, None where there is none yet;
    `best` the accuracies by fold, in the order of `folds`, of the best configuration before, empty where there is none.
    """

    epochs: tuple[int, ...]
    cutoffs: tuple[float | None, ...]
    best: tuple[tuple[float, ...], ...]
    folds: tuple[int | None, ...]  # a configuration is judged by all of them, with all seeds
    seeds: tuple[int, ...]
    level: float  # of the test against the best, over all rungs together
    test_to_train: float  # pictures that an accuracy is from, over pictures trained on

    @cached_property
    def rungs_id(self) -> str:
        """128 bits (32 hex digits) of all that decides who is dropped."""
        return content_id(asdict(self))

    @staticmethod
    def read(content: Mapping[str, Any]) -> "Rungs":
        """The rungs that `dataclasses.asdict` and JSON made this content of."""
        lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list | tuple)}
        return Rungs(**{**content, **lists, "best": tuple(map(tuple, content["best"]))})


@dataclass(frozen=True)
class Pack:
    """Trials that train together on one device, from the same epoch on; with rungs, those below them leave."""

    trials: tuple[Trial, ...]
    first_epoch: int = 0
    rungs: Rungs | None = None

    @cached_property
    def trial_ids(self) -> tuple[str, ...]:
        """Those of its trials, in order."""
        return tuple(trial.trial_id for trial in self.trials)

    @cached_property
    def pack_id(self) -> str:
        """32 hex digits; the same trials under the same rungs are the same pack."""
        ids = sorted(self.trial_ids)
        return content_id([ids, self.rungs.rungs_id] if self.rungs else ids)


@dataclass(frozen=True)
class Predictions:
    """Class probabilities [N, classes] of a trial's test frames, and what each frame is, [N] each."""

    subject: Sequence[str]
    sequence: Sequence[str]
    frame: Sequence[str]
    label: Sequence[str]
    probabilities: NDArray[np.float32]
    classes: Sequence[str]


@dataclass(frozen=True)
class TrialResult:
    """What a worker found out about a trial. Accuracies are shares; a failed trial has none, but a reason."""

    trial: Trial
    state: State
    synthetic: bool
    n_train: int
    n_test: int
    seconds: float  # the trial's share of the pack's wall time
    reason: str | None = None
    epochs: int = 0
    accuracy: float | None = None
    sequence_accuracy: float | None = None
    curve: Sequence[Mapping[str, Any]] = ()  # a row an epoch
    predictions: Predictions | None = None
