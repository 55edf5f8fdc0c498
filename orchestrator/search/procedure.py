"""One search from its first point to its choice: what it asked, what came of it, and what it has chosen.

A configuration is scored by its mean over folds. With `select: validation` the score on fold i comes from fold
(i + 1) % 10, which the trial did not train on either; what is chosen is trained again and tested on i. A nested
search has a procedure of its own for each outer fold, which none of its trials sees.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from idennet_core.ids import content_id
from orchestrator.search import pruning
from orchestrator.search.sampler import MOST_REPEATS, Outcome, Point, Search
from orchestrator.search.space import ACCURACY, Parameter, as_plain
from orchestrator.store import write_text
from orchestrator.study import Study
from orchestrator.trial import NUM_FOLDS, Configuration, Rungs, Setting, State, Trial

Configure = Callable[[Mapping[str, Setting]], Configuration]
Costs = Mapping[str, Callable[[Configuration], float]]


@dataclass(frozen=True)
class Result:
    """What the store has of a trial: its score (a share) on the fold that it is scored by, and its curve."""

    state: State
    score: float | None
    curve: Sequence[float]


Results = Mapping[str, Result]  # by trial_id


@dataclass(frozen=True)
class Batch:
    """What was asked at once, under which rungs, and the numbers of the points told since the batch before."""

    points: tuple[Point, ...]
    told: tuple[int, ...]
    rungs: Rungs | None


def scored_by(
    configuration: Configuration, folds: Sequence[int], seeds: Sequence[int], select: str, outer: int | None
) -> tuple[Trial, ...]:
    """The trials whose mean is a configuration's score; within an outer fold those that never see it."""
    inner: list[tuple[int, int | None]]
    if outer is not None:
        inner = [(fold, outer) for fold in folds if fold != outer]
    elif select == "test":
        inner = [(fold, None) for fold in folds]
    else:
        inner = [((fold + 1) % NUM_FOLDS, fold) for fold in folds]
    return tuple(Trial(configuration, fold, seed, without) for fold, without in inner for seed in seeds)


def dominated(values: Sequence[float], others: Iterable[Sequence[float]], signs: Sequence[int]) -> bool:
    """Whether another point is at least as good in every objective and better in one; sign 1 is more is better."""
    own = [sign * value for sign, value in zip(signs, values, strict=True)]
    for other in others:
        theirs = [sign * value for sign, value in zip(signs, other, strict=True)]
        if theirs != own and all(b >= a for a, b in zip(own, theirs, strict=True)):
            return True
    return False


class Procedure:
    """A search of a study, or the one within an outer fold; its batches are kept as files in `folder`."""

    def __init__(
        self,
        study: Study,
        outer: int | None,
        space: Mapping[str, Parameter],
        configure: Configure,
        costs: Costs,
        folder: Path,
        keeps: bool,
    ) -> None:
        """Nothing asked yet. With `keeps`, new batches are written to the folder."""
        assert study.search is not None
        self.wanted, self.study, self.outer = study.search, study, outer
        self.configure, self.costs = configure, costs
        self.folds = [fold for fold in study.folds if fold is not None]
        self.signs = [1 if objective == ACCURACY else -1 for objective in self.wanted.objectives]
        name = () if outer is None else ("without", outer)
        self.search = Search(
            space,
            self.wanted.sampler,
            (self.wanted.seed, *name),
            ["maximize" if sign == 1 else "minimize" for sign in self.signs],
            self.wanted.batch,
            self.wanted.enqueue,
        )
        self.folder, self.keeps = folder / "-".join(map(str, name or ("search",))), keeps
        self.configurations: dict[int, Configuration] = {}  # by number, of the points that repeat none
        self.asked: dict[str, tuple[Trial, ...]] = {}  # the trials that score each, by configuration_id
        self.rungs: dict[int, Rungs | None] = {}
        self.waiting: list[Point] = []  # asked and not told
        self.outcomes: dict[int, Outcome] = {}
        self.batches = 0
        self.written = 0  # points of the batches that are kept in the folder
        self.told: list[int] = []  # since the last batch was asked
        self.exhausted = False

    @property
    def over(self) -> bool:
        """Whether nothing more will be asked, and everything was told."""
        return not self.waiting and (self.exhausted or len(self.configurations) >= self.wanted.configurations)

    def num_done(self, results: Results) -> int:
        """How many configurations have an outcome, whether the sampler was told it or not yet."""
        return sum(self.outcome(self.search.points[number], results) is not None for number in self.configurations)

    def outcome(self, point: Point, results: Results) -> Outcome | None:
        """What came of a point, whether the sampler was told it or not yet; None before its trials say it."""
        told = self.outcomes.get(point.number)
        return told or self._outcome(point.number if point.repeats is None else point.repeats, results)

    def trials(self, configuration: Configuration) -> tuple[Trial, ...]:
        """The trials that score a configuration."""
        return scored_by(configuration, self.folds, self.study.seeds, self.wanted.select, self.outer)

    def advance(self, results: Results, hungry: bool) -> bool:
        """Tell the sampler what the results say and ask for the next batch; False where it has to wait, or is over.

        In synchronous order it waits for all results of the batches before; else it asks when there is a device to
        feed (`hungry`). A batch that was asked in an earlier run is the next one before any new.
        """
        count = min(self.wanted.batch, self.wanted.configurations - len(self.configurations))
        kept = self._kept() if count > 0 else None
        if kept is not None:
            if not all(self._told(number, results) for number in kept.told):
                return False
            self.search.restore(kept.points, self._identify)
            self._take(kept, count)
            self.written = len(self.search.points)
            return True
        self.told += [point.number for point in [*self.waiting] if self._told(point.number, results)]
        if self.waiting and (self.wanted.order == "synchronous" or not hungry):
            return False
        if count <= 0 or self.exhausted:
            return False
        rungs = self._freeze(results)
        batch = Batch(tuple(self.search.ask(count, self._identify)), tuple(self.told), rungs)
        if self.keeps:
            write_text(self.next_batch, json.dumps(asdict(batch)) + "\n")
            self.written = len(self.search.points)
        self._take(batch, count)
        return True

    def missing(self, results: Results) -> list[tuple[Trial, Rungs | None]]:
        """The trials that have to be trained before all that was asked has an outcome, each with its rungs."""
        return [
            (trial, self.rungs[number])
            for number in self.configurations
            if number not in self.outcomes and self._outcome(number, results) is None
            for trial in self.asked[self.configurations[number].configuration_id]
            if trial.trial_id not in results or results[trial.trial_id].state == "pruned"
        ]

    def refit(self) -> list[Trial]:
        """The ordinary trials of what was chosen once all is over: tested on folds that they did not train on."""
        if not self.over or (self.outer is None and self.wanted.select == "test"):
            return []
        folds = self.folds if self.outer is None else [self.outer]
        chosen = [self.configurations[number] for number in self.chosen()]
        return [
            Trial(configuration, fold, seed) for configuration in chosen for fold in folds for seed in self.study.seeds
        ]

    def chosen(self) -> list[int]:
        """The numbers of the best points: the one with the highest score, or those that no other dominates."""
        complete = {
            number: outcome.values
            for number, outcome in self.outcomes.items()
            if outcome.state == "complete" and number in self.configurations
        }
        if len(self.signs) == 1:
            return [max(complete, key=lambda number: (complete[number], -number))] if complete else []
        return [
            number
            for number, values in sorted(complete.items())
            if not dominated(values, complete.values(), self.signs)
        ]

    def _identify(self, settings: Mapping[str, Setting]) -> str:
        return self.configure(settings).configuration_id

    def _take(self, batch: Batch, count: int) -> None:
        self.batches, self.told = self.batches + 1, []
        self.waiting += batch.points
        new = [point for point in batch.points if point.repeats is None]
        self.exhausted = len(new) < count and sum(point.repeats is not None for point in batch.points) >= MOST_REPEATS
        for point in new:
            configuration = self.configure(point.settings)
            self.configurations[point.number] = configuration
            self.asked[configuration.configuration_id] = self.trials(configuration)
            self.rungs[point.number] = batch.rungs

    def _told(self, number: int, results: Results) -> bool:
        """Whether the point has an outcome, which is told where it was not."""
        if number in self.outcomes:
            return True
        point = self.search.points[number]
        outcome = self.outcome(point, results)
        if outcome is None:
            return False
        self.search.tell(point, outcome)
        self.outcomes[number] = outcome
        self.waiting.remove(point)
        return True

    def _outcome(self, number: int, results: Results) -> Outcome | None:
        """What the results say of a configuration, as far as its batch's rungs let it go; None before they do."""
        configuration, rungs = self.configurations[number], self.rungs[number]
        trials = self.asked[configuration.configuration_id]
        found = [results[trial.trial_id] for trial in trials if trial.trial_id in results]
        if any(result.state == "failed" for result in found):
            return Outcome("failed") if len(found) == len(trials) else None
        if rungs is not None:
            curves = {"": _curves(trials, results)}
            dropped = pruning.replay(rungs, curves)
            if dropped:
                until = [curve[: dropped[""][0]] for curve in curves[""].values()]
                return Outcome(
                    "pruned", curve={epoch: fmean(point) for epoch, point in enumerate(zip(*until, strict=True))}
                )
        scores = [result.score for result in found if result.state == "complete" and result.score is not None]
        if len(scores) < len(trials):
            return None
        values = [
            fmean(scores) if objective == ACCURACY else self.costs[objective](configuration)
            for objective in self.wanted.objectives
        ]
        return Outcome("complete", values)

    def _freeze(self, results: Results) -> Rungs | None:
        """The rungs of a batch that is asked now."""
        if self.wanted.pruning is None:
            return None
        earlier: dict[str, Mapping[pruning.FoldSeed, Sequence[float]]] = {}
        for number, configuration in self.configurations.items():
            rungs, curves = (
                self.rungs[number],
                {configuration.configuration_id: _curves(self.asked[configuration.configuration_id], results)},
            )
            if number in self.outcomes:
                earlier |= curves if rungs is None else pruning.cut(curves, pruning.replay(rungs, curves))
        some = self.trials(Configuration({}, {}))
        folds = list(dict.fromkeys(trial.fold for trial in some))
        held = 1 if some[0].without is None else 2
        epochs = int(self.configure(_first_values(self.search.space)).settings["epochs"])
        ratio = 1 / (NUM_FOLDS - held)
        return pruning.freeze(earlier, self.wanted.pruning, epochs, folds, self.study.seeds, ratio)

    @property
    def next_batch(self) -> Path:
        """The file of the batch that comes next, whether it was asked or not."""
        return self.folder / f"{self.batches:05}.json"

    def _kept(self) -> Batch | None:
        if not self.next_batch.is_file():
            return None
        try:
            content = json.loads(self.next_batch.read_text())
            points = tuple(Point(**point) for point in content["points"])
            return Batch(points, tuple(content["told"]), Rungs.read(content["rungs"]) if content["rungs"] else None)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{self.next_batch} must hold the points that were asked, it is damaged; restore a copy of it, "
                "or remove it and those after it: they are asked anew"
            ) from None


def folder_of(study: Study, space: Mapping[str, Parameter], configure: Configure, root: Path) -> Path:
    """Where the batches of a search are kept; with another space or other data the study has another place."""
    assert study.search is not None
    first = configure(_first_values(space)).configuration_id
    content = [as_plain(study.search), first, list(study.folds), list(study.seeds)]
    return root / study.folder / "asked" / content_id(content)[:16]


def _first_values(space: Mapping[str, Parameter]) -> dict[str, Setting]:
    """A point of the space, from which is read what all have in common."""
    return {name: parameter.values()[0] for name, parameter in space.items() if not parameter.when}


def _curves(trials: Iterable[Trial], results: Results) -> dict[pruning.FoldSeed, Sequence[float]]:
    """By fold and seed, the curves as pruning takes them: that of a failed trial ends with NaN."""
    found: dict[pruning.FoldSeed, Sequence[float]] = {}
    for trial in trials:
        if (result := results.get(trial.trial_id)) is not None:
            ended = [float("nan")] if result.state == "failed" else []
            found[trial.fold, trial.seed] = [*result.curve, *ended]
    return found
