"""Scikit-learn's digits as a workload: each trial fits a support vector machine on nine folds of the pictures.

The seed shuffles the pictures into the folds. Written after docs/how-to/workload.md.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold
from sklearn.svm import SVC

from orchestrator.design import Cell
from orchestrator.planning import Estimate
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.study_rules import Rules, complete
from orchestrator.trial import Configuration, Pack, Trial, TrialResult
from orchestrator.workload import Configured, Context


class Digits:
    """Support vector machines on 1,797 pictures of digits, 8x8 each, which scikit-learn ships."""

    rules = Rules({"kernel": "rbf", "C": 1.0, "gamma": 0.001}, datasets=("digits",))

    def __init__(self, store: Store) -> None:
        """Take nothing from the store: scikit-learn has the data."""

    def configure(self, study: Study, cells: Sequence[Cell]) -> Configured:
        """A configuration a cell; a linear machine has no gamma."""
        if study.folds == [None]:
            raise ValueError("the digits have no test split; set folds: all")
        found = []
        for cell in cells:
            settings = complete(cell.settings, self.rules.settings)
            if settings["kernel"] == "linear":
                del settings["gamma"]
            found.append(Configuration({"dataset": study.dataset, **settings}, {"data": "digits", "recipe": "1"}))
        return Configured(found, synthetic=False)

    def pack_key(self, trial: Trial) -> str:
        """A pack a configuration."""
        return trial.configuration.configuration_id

    def estimate(self, pack: Pack, device: str, threads: int) -> Estimate:
        """About 0.1 s and 200 MB, whatever the device."""
        return Estimate(0.1 * len(pack.trials), 200 * 10**6, measured=False)

    def run(self, pack: Pack, context: Context) -> list[TrialResult]:
        """Fit and test one trial after the other."""
        return [_fit(trial) for trial in pack.trials]


def _fit(trial: Trial) -> TrialResult:
    began = time.monotonic()
    assert trial.fold is not None
    settings: dict[str, Any] = {**trial.configuration.settings}
    del settings["dataset"]
    pictures, digits = load_digits(return_X_y=True)
    folds = KFold(10, shuffle=True, random_state=trial.seed)
    parts = list(folds.split(pictures))
    training, test = parts[trial.fold]
    if trial.without is not None:  # a search's trial: this fold is held out too
        training = np.setdiff1d(training, parts[trial.without][1])
    accuracy = SVC(**settings).fit(pictures[training], digits[training]).score(pictures[test], digits[test])
    return TrialResult(
        trial=trial,
        state="complete",
        synthetic=False,
        n_train=len(training),
        n_test=len(test),
        seconds=time.monotonic() - began,
        accuracy=accuracy,
    )
