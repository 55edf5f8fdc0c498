"""Optuna behind ask and tell: a study in memory, which the points asked before and their results build again.

Every batch has a sampler of its own, seeded by the study and the batch's number, so that what is asked depends on
the study file and the results of earlier batches alone. What QMC, CMA-ES and NSGA-II know beyond the trials is
built again by asking again; the points of the others are put in their places.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState, create_trial

from idennet_core import streams
from orchestrator.search.space import Parameter, active
from orchestrator.trial import Setting, State

HAS_STATE = ("qmc", "cma-es", "nsga-ii")
MOST_REPEATS = 20  # suggestions in a row that bring nothing new, after which the space counts as used up
FEWEST_BEST = 5  # configurations that count as the best where importance is told

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Point:
    """A point of the space as it was asked; `repeats` is the number of an earlier one of the same configuration."""

    number: int
    settings: Mapping[str, Setting]
    repeats: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a point: its objectives' values, or where it was pruned the accuracies by epoch until then."""

    state: State
    values: Sequence[float] = ()
    curve: Mapping[int, float] = field(default_factory=dict)


class Search:
    """A sampler and all that it was told, in this process."""

    def __init__(
        self,
        space: Mapping[str, Parameter],
        sampler: str,
        stream: Sequence[str | int],
        directions: Sequence[Literal["maximize", "minimize"]],
        batch: int,
        enqueue: Sequence[Mapping[str, Setting]] = (),
    ) -> None:
        """Nothing asked yet. `space` has what a condition names before it; all seeds come from `stream`."""
        self.space, self.sampler, self.stream, self.batch = space, sampler, tuple(stream), batch
        self.enqueue = list(enqueue)
        self.distributions = {name: _distribution(parameter) for name, parameter in space.items()}
        self.storage = optuna.storages.InMemoryStorage()  # where a trial's id is its number
        self.study = optuna.create_study(storage=self.storage, directions=list(directions))
        self.common = optuna.search_space.IntersectionSearchSpace(include_pruned=True)
        self.first: dict[str, int] = {}  # by what identifies a configuration, the number of its first point
        self.points: list[Point] = []
        self.batches = 0

    def ask(self, count: int, identify: Callable[[Mapping[str, Setting]], str]) -> list[Point]:
        """The next batch: up to `count` points of new configurations, and those that repeat one on the way.

        Fewer, or none, where the sampler keeps suggesting what was asked before. `identify` tells configurations
        apart.
        """
        self._begin()
        found: list[Point] = []
        new = repeats = 0
        while new < count and repeats < MOST_REPEATS:
            point = self._known(self._suggest(), identify)
            found.append(point)
            new, repeats = (new + 1, 0) if point.repeats is None else (new, repeats + 1)
        return found

    def restore(self, points: Sequence[Point], identify: Callable[[Mapping[str, Setting]], str]) -> None:
        """Take a batch as asked before. Raises ValueError where the sampler would ask otherwise."""
        if self.sampler in HAS_STATE:
            self._begin()
            for point in points:
                again = self._known(self._suggest(), identify)
                if dict(again.settings) != dict(point.settings):
                    raise ValueError(
                        f"{self.sampler} must suggest what it did, point {point.number} was {dict(point.settings)} and "
                        f"is {dict(again.settings)} now; install the versions in the study's provenance.json, or give "
                        "the study another name"
                    )
            return
        self.batches += 1
        for point in points:
            chosen = {name: self.distributions[name] for name in point.settings}
            self.study.add_trial(
                create_trial(state=TrialState.RUNNING, params=dict(point.settings), distributions=chosen)
            )
            self._known(point.settings, identify)

    def tell(self, point: Point, outcome: Outcome) -> None:
        """What came of a point."""
        if outcome.state == "failed":
            self.study.tell(point.number, state=TrialState.FAIL)
        elif outcome.state == "complete":
            self.study.tell(point.number, list(outcome.values))
        else:
            for epoch, accuracy in outcome.curve.items() if len(self.study.directions) == 1 else ():
                self.storage.set_trial_intermediate_value(point.number, epoch, accuracy)
            self.study.tell(point.number, state=TrialState.PRUNED)

    def importance(self) -> dict[str, float]:
        """How much each parameter matters for being among the best tenth, the sum being 1; empty with too few results.

        The one that matters most comes first, of equal ones the first by name.

        PED-ANOVA: Watanabe, Bansal & Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
        Arbitrary Subspaces", IJCAI.
        """
        complete = [t for t in self.study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        if len(complete) <= FEWEST_BEST or len({tuple(trial.values) for trial in complete}) < 2:
            return {}
        best = max(0.1, FEWEST_BEST / len(complete))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)
        with warnings.catch_warnings(action="ignore"):  # of parameters with few results
            found = optuna.importance.get_param_importances(self.study, evaluator=evaluator, normalize=False)
        total = math.fsum(found.values())  # in any order, as Optuna's is another in every process
        shares = {name: value / total if total else 1 / len(found) for name, value in found.items()}
        return dict(sorted(shares.items(), key=lambda share: (-share[1], share[0])))

    def _begin(self) -> None:
        seed = streams.key("search", *self.stream, self.batches) % 2**31
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            self.study.sampler = self._new_sampler(seed)
        self.batches += 1

    def _new_sampler(self, seed: int) -> BaseSampler:
        match self.sampler:
            case "tpe":
                grouped = any(parameter.when for parameter in self.space.values())
                sampler = TPESampler(seed=seed, group=grouped, multivariate=True if grouped else None)
                sampler._search_space = self.common  # found once, not anew from all trials with each batch
                return sampler
            case "qmc":  # its points are those of one scrambled sequence
                scramble = streams.key("search", *self.stream, "scramble") % 2**31
                return QMCSampler(scramble=True, seed=scramble, independent_sampler=RandomSampler(seed=seed))
            case "cma-es":
                return CmaEsSampler(seed=seed)
            case "gp":
                return GPSampler(seed=seed)
            case "nsga-ii":  # a batch is a generation
                return NSGAIISampler(seed=seed, population_size=max(self.batch, 2))
        return RandomSampler(seed=seed)

    def _suggest(self) -> dict[str, Setting]:
        number = len(self.points)
        if number < len(self.enqueue):
            self.study.enqueue_trial(dict(self.enqueue[number]))
        trial = self.study.ask()
        settings: dict[str, Setting] = {}
        for name, distribution in self.distributions.items():
            if active(self.space, settings, name):
                settings[name] = _suggested(trial, name, distribution)
        return settings

    def _known(self, settings: Mapping[str, Setting], identify: Callable[[Mapping[str, Setting]], str]) -> Point:
        number = len(self.points)
        first = self.first.setdefault(identify(settings), number)
        self.points.append(Point(number, settings, None if first == number else first))
        return self.points[-1]


def _suggested(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Setting:
    of: Any = distribution
    found: Any
    match distribution:
        case CategoricalDistribution():
            found = trial.suggest_categorical(name, of.choices)
        case IntDistribution():
            found = trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
        case _:
            found = trial.suggest_float(name, of.low, of.high, step=of.step, log=of.log)
    return found  # type: ignore[no-any-return]


def _distribution(parameter: Parameter) -> BaseDistribution:
    low: Any = parameter.low
    high: Any = parameter.high
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if integers := parameter.integers:
        return IntDistribution(low, high, log=parameter.log, step=integers.step)
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)
