"""The vocabulary: configuration, trial, pack, result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Setting = bool | int | float | str
State = Literal["complete", "pruned", "failed"]


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Configuration:
    """Every setting of a training run but fold and seed, and what else decides its result."""

    settings: Mapping[str, Setting]  # canonical: complete, without those that cannot matter
    inputs: Mapping[str, str]  # data id, trunk ids, recipe version

    @cached_property
    def configuration_id(self) -> str:
        """128 bits (32 hex digits) of settings and inputs."""
        return _hash([dict(self.settings), dict(self.inputs)])


@dataclass(frozen=True)
class Trial:
    """A configuration on one fold with one seed; fold None: on the publisher's train and test splits."""

    configuration: Configuration
    fold: int | None
    seed: int

    @cached_property
    def trial_id(self) -> str:
        """128 bits (32 hex digits) of all that decides the trial's result."""
        return _hash([self.configuration.configuration_id, self.fold, self.seed])


@dataclass(frozen=True)
class Pack:
    """Trials that train together on one device, from the same epoch on."""

    trials: tuple[Trial, ...]
    first_epoch: int = 0

    @cached_property
    def pack_id(self) -> str:
        """32 hex digits; the same trials are the same pack."""
        return _hash(sorted(trial.trial_id for trial in self.trials))


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
