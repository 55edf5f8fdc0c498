"""Simulated training runs: fold accuracies drawn from a stated model, for studies whose truth is known.

In percent, configuration c on fold f with seed s reaches at epoch e

    mean + level + fold_sd F_f + sd (√rho C_c + √(1 - rho) D_cf) + noise N_cfse - lag · exp(-(e + 1) / tau)

with all of F, C, D, N independent and standard normal. F, of the draw alone, is what a fold does to every
configuration, so differences of two configurations are free of it. Their folds are correlated by rho, as those of
a cross-validation are by sharing training data, through C. N is anew with each seed and epoch. A trial's accuracy is
that of its last epoch. A pack's rungs drop its trials as they do those that train.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from idennet_core.streams import generator
from orchestrator.design import Cell
from orchestrator.planning import Estimate
from orchestrator.search.pruning import leaving
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.study_rules import Rules, complete
from orchestrator.trial import NUM_FOLDS, Configuration, Pack, Setting, Trial, TrialResult
from orchestrator.workload import Configured, Context

RECIPE = "1"  # raised whenever the same settings would draw other accuracies
N_TRAIN, N_TEST = 900, 100
SETTINGS: dict[str, Setting] = {
    "mean": 80.0,  # percent, as all that follows but rho, tau and takes
    "level": 0.0,  # what the configuration adds
    "x": 0.0,  # takes `slope` times its square
    "y": 0.0,
    "slope": 1.0,
    "arm": "",  # enters the random streams and nothing else
    "draw": 0,  # another world: all random numbers anew
    "fold_sd": 3.0,
    "sd": 2.0,
    "rho": 0.1,  # share of the variance sd² that all folds have in common
    "noise": 1.0,
    "lag": 0.0,
    "tau": 5.0,  # epochs
    "epochs": 1,
    "takes": 0.0,  # seconds, that a pack takes for each of its trials, less for those that leave it
}


def checked(settings: Mapping[str, Setting], defaults: Mapping[str, Setting]) -> dict[str, Setting]:
    """As `complete`; raises ValueError too for numbers without meaning."""
    whole = complete(settings, defaults)
    if not 0 <= float(whole["rho"]) <= 1:
        raise ValueError(f"rho must be a share from 0 to 1, got {whole['rho']}")
    for name, least in (("fold_sd", 0), ("sd", 0), ("noise", 0), ("takes", 0), ("epochs", 1), ("draw", 0)):
        if float(whole[name]) < least:
            raise ValueError(f"{name} must be at least {least}, got {whole[name]}")
    if float(whole["tau"]) <= 0:
        raise ValueError(f"tau must be more than 0, got {whole['tau']}")
    return whole


class Simulated:
    """The model as a workload; its results are marked synthetic. A pack holds thousands of trials a second."""

    rules = Rules(
        SETTINGS, datasets=("simulated",), complete=checked, costs={"cost": lambda one: abs(float(one.settings["y"]))}
    )

    def __init__(self, store: Store) -> None:
        """Take nothing from the store."""

    def configure(self, study: Study, cells: Sequence[Cell]) -> Configured:
        """A configuration a cell. Raises ValueError for a study without folds."""
        if study.folds == [None]:
            raise ValueError("simulated accuracies are of folds; set folds: all")
        found = []
        for cell in cells:
            settings = checked(cell.settings, SETTINGS)
            inputs = {"data": f"simulated {settings['draw']}", "recipe": RECIPE}
            found.append(Configuration({"dataset": study.dataset, **settings}, inputs))
        return Configured(found, synthetic=True)

    def pack_key(self, trial: Trial) -> str:
        """All trials go together that have as many epochs."""
        return str(trial.configuration.settings["epochs"])

    def estimate(self, pack: Pack, device: str, threads: int) -> Estimate:
        """The time that the settings state."""
        return Estimate(_seconds(pack), 2**27, measured=True)

    def run(self, pack: Pack, context: Context) -> list[TrialResult]:
        """Draw the pack's accuracies."""
        found: dict[tuple[str, int], NDArray[np.float64]] = {}
        curves: dict[str, list[float]] = {}
        for trial in pack.trials:
            assert trial.fold is not None
            key = (trial.configuration.configuration_id, trial.seed)
            if key not in found:
                found[key] = accuracies(trial.configuration, trial.seed) / 100
            curves[trial.trial_id] = found[key][trial.fold].tolist()
        pruned: dict[str, str] = {}
        for epoch in pack.rungs.epochs if pack.rungs else ():
            reached = {name: curve[epoch - 1] for name, curve in curves.items() if name not in pruned}
            for name, reason in leaving(pack, epoch, reached).items():
                pruned[name], curves[name] = reason, curves[name][:epoch]
        results = [_result(trial, curves[trial.trial_id], pruned.get(trial.trial_id)) for trial in pack.trials]
        time.sleep(sum(result.seconds for result in results))
        return results


def accuracies(configuration: Configuration, seed: int) -> NDArray[np.float64]:
    """Percent, [folds, epochs]."""
    numbers = {name: value for name, value in configuration.settings.items() if not isinstance(value, str)}
    epochs = int(numbers["epochs"])
    own = configuration.configuration_id
    of_folds = generator("simulated", "folds", int(numbers["draw"])).standard_normal(NUM_FOLDS)
    common, *apart = generator("simulated", "configuration", own).standard_normal(1 + NUM_FOLDS)
    noise = generator("simulated", "noise", own, seed).standard_normal((NUM_FOLDS, epochs))
    missing = numbers["lag"] * np.exp(-np.arange(1, epochs + 1) / numbers["tau"])
    means = final(configuration.settings, of_folds, np.array(common), np.array(apart))
    found: NDArray[np.float64] = means[:, None] + numbers["noise"] * noise - missing
    return found


def final(
    settings: Mapping[str, Setting],
    of_folds: NDArray[np.float64],
    common: NDArray[np.float64],
    apart: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Percent without noise and lag, [..., folds], from the standard normal F [..., folds], C [..., 1] and D."""
    fold_sd, sd, rho = (float(settings[name]) for name in ("fold_sd", "sd", "rho"))
    own = sd * (np.sqrt(rho) * common + np.sqrt(1 - rho) * apart)
    found: NDArray[np.float64] = truth(settings) + fold_sd * of_folds + own
    return found


def truth(settings: Mapping[str, Setting]) -> float:
    """The mean over all draws of a configuration's accuracy once it has learnt, percent."""
    mean, level, x, y, slope = (float(settings[name]) for name in ("mean", "level", "x", "y", "slope"))
    return mean + level - slope * (x**2 + y**2)


def _result(trial: Trial, curve: Sequence[float], pruned: str | None) -> TrialResult:
    settings = trial.configuration.settings
    wrong = next((accuracy for accuracy in curve if not 0 <= accuracy <= 1), None)
    failed = None if wrong is None else f"an accuracy lies between 0 and 100%, drawn was {wrong:.1%}"
    return TrialResult(
        trial=trial,
        state="failed" if failed else "pruned" if pruned else "complete",
        reason=failed or pruned,
        synthetic=True,
        epochs=len(curve),
        accuracy=None if failed or pruned else curve[-1],
        n_train=N_TRAIN,
        n_test=N_TEST,
        seconds=float(settings["takes"]) * len(curve) / int(settings["epochs"]),
        curve=[{"epoch": epoch, "test_accuracy": accuracy} for epoch, accuracy in enumerate(curve)],
    )


def _seconds(pack: Pack) -> float:
    return sum(float(trial.configuration.settings["takes"]) for trial in pack.trials)
