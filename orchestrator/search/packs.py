"""The packs of a search: asked as results come in, taken by an engine, and at the end the chosen trained again."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any

from orchestrator import planning
from orchestrator.design import Cell, describe
from orchestrator.planning import Capacity, Estimate
from orchestrator.progress import Asked, Event, Foreseen
from orchestrator.search.procedure import Procedure, Result, folder_of
from orchestrator.search.space import Parameter
from orchestrator.store import Store, write_json
from orchestrator.study import Study
from orchestrator.trial import Configuration, Pack, Rungs, Setting, Trial
from orchestrator.workload import Configured, Workload

WRITE_EVERY = 10.0  # seconds between two writings of what a report shows
MOST_STRUCTURES = 100  # combinations of settings that change a trial's inputs, such as its trunks


class SearchPacks:
    """A source of packs for an engine; `procedures` are the search and, where it is nested, one for each outer fold."""

    def __init__(
        self,
        study: Study,
        store: Store,
        workload: Workload,
        configure: Callable[[Study, Sequence[Cell]], Configured],
        capacity: Capacity,
        keeps: bool,
        listen: Callable[[Event], None] = lambda event: None,
        show: Callable[["SearchPacks"], None] = lambda search: None,
    ) -> None:
        """Read what was asked before; with `keeps`, what is asked from now on is written down.

        `show` is called with this each time that something was asked or told.
        """
        assert study.search is not None
        self.study, self.store, self.workload, self.capacity, self.listen = study, store, workload, capacity, listen
        self.keeps, self.show = keeps, show
        space = study.search.typed(workload.rules.settings)

        known: dict[tuple[tuple[str, Setting], ...], Configuration] = {}

        def configured(settings: Mapping[str, Setting]) -> Configuration:
            key = tuple(settings.items())
            if key not in known:
                known[key] = configure(study, [Cell(settings, {**study.base, **settings})]).configurations[0]
            return known[key]

        self.folder = folder_of(study, space, configured, store.studies)
        outer = [fold for fold in study.folds if study.search.nested]
        self.procedures = [
            Procedure(study, fold, space, configured, workload.rules.costs, self.folder, keeps)
            for fold in (None, *outer)
        ]
        self.results: dict[str, Result] = {}
        self.looked: set[str] = set()  # ids of the trials that were looked for in the store
        self.handed: set[tuple[str, str]] = set()
        self.queue: deque[Pack] = deque()
        self.running: dict[str, Pack] = {}
        self.changed = True
        self.written = time.monotonic()

    def next(self) -> Pack | None:
        """The next pack; None while results are waited for, and when all is over."""
        self.fill()
        if not self.queue:
            return None
        pack = self.queue.popleft()
        self.running[pack.pack_id] = pack
        self.changed = not self.queue  # another device may be free, for which the asynchronous order asks
        return pack

    def done(self, pack_id: str) -> None:
        """The pack has ended, with or without rows."""
        self.looked -= {trial.trial_id for trial in self.running.pop(pack_id).trials}
        self.changed = True

    @property
    def over(self) -> bool:
        """Whether no pack will come any more."""
        self.fill()
        return not self.queue and not self.running

    @property
    def answered(self) -> bool:
        """Whether every procedure has chosen, and the chosen are trained."""
        return all(p.over and all(map(self._tested, p.refit())) for p in self.procedures)

    def estimate(self, pack: Pack) -> Estimate:
        """What the pack will take. A search does not share devices: packs of later batches may fill them."""
        return self.workload.estimate(pack, self.capacity.kind, self.capacity.threads)

    def trials(self) -> list[Trial]:
        """All trials so far."""
        found: dict[str, Trial] = {}
        for procedure in self.procedures:
            for trials in (*procedure.asked.values(), procedure.refit()):
                found |= {trial.trial_id: trial for trial in trials}
        return [*found.values()]

    def fill(self) -> None:
        """Ask until there is a pack to hand out, or nothing more to ask before results are in."""
        if not self.changed:
            return
        asking = True
        while asking:
            self._plan()
            hungry = len(self.running) < self.capacity.devices
            asking = not self.queue and any([self._advance(each, hungry) for each in self.procedures])
        self._plan()  # what was chosen, where all is over now
        self.changed = False
        self.show(self)
        if self.keeps and time.monotonic() - self.written > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write what a report shows to the study's folder."""
        self.written = time.monotonic()
        path = self.store.studies / self.study.folder / "search.json"
        write_json(path, self.record())
        self.store.keep(path)

    @property
    def progress(self) -> str:
        """How far the search is, in words."""
        assert self.study.search is not None
        asked, wanted = sum(len(p.configurations) for p in self.procedures), self.study.search.configurations
        told = sum(p.num_done(self.results) for p in self.procedures)
        if any(p.exhausted for p in self.procedures):
            return f"{told} of {asked} configurations have an outcome, and the sampler finds no others"
        return f"{told} of {wanted * len(self.procedures)} configurations have an outcome"

    def trials_to_come(self) -> dict[str, int]:
        """Of how many trials the whole search is, without pruning: itself, each chosen anew, all nested within it."""
        assert self.study.search is not None
        folds, seeds, asked = len(self.study.folds), len(self.study.seeds), self.study.search.configurations
        refit = 0 if self.study.search.select == "test" else folds * seeds
        nested = folds * seeds * (asked * (folds - 1) + 1) if self.study.search.nested else 0
        return {"search": asked * folds * seeds, "refit": refit, "nested": nested}

    def record(self) -> dict[str, Any]:
        """What was asked, what came of it and what was chosen, as plain values: all that a report of a search shows."""
        assert self.study.search is not None
        return {
            "search": self.study.search.model_dump(),
            "procedures": [self._record_of(procedure) for procedure in self.procedures],
        }

    def _record_of(self, procedure: Procedure) -> dict[str, Any]:
        points = []
        for point in procedure.search.points:
            outcome = procedure.outcome(point, self.results)
            configuration = procedure.configurations[point.number if point.repeats is None else point.repeats]
            trials = procedure.asked[configuration.configuration_id]
            found = [self.results[trial.trial_id] for trial in trials if trial.trial_id in self.results]
            points.append(
                {
                    "number": point.number,
                    "settings": dict(point.settings),
                    "repeats": point.repeats,
                    "configuration_id": configuration.configuration_id,
                    "state": outcome.state if outcome else "waiting",
                    "values": list(outcome.values) if outcome else [],
                    "folds": _by_fold(trials, self.results) if outcome and outcome.state == "complete" else [],
                    "trials": len(trials),
                    "trained_epochs": sum(len(result.curve) for result in found),
                    "epochs": configuration.settings.get("epochs"),
                }
            )
        return {
            "outer": procedure.outer,
            "over": procedure.over,
            "points": points,
            "chosen": procedure.chosen() if procedure.over else [],
            "importance": procedure.search.importance(),
            "refit": [
                {
                    "configuration_id": trial.configuration.configuration_id,
                    "fold": trial.fold,
                    "seed": trial.seed,
                    "accuracy": self.results[trial.trial_id].score if self._tested(trial) else None,
                }
                for trial in procedure.refit()
            ],
        }

    @property
    def _devices(self) -> int:
        """On how many devices a batch is spread: all, or in asynchronous order one, as others follow on the rest."""
        assert self.study.search is not None
        return self.capacity.devices if self.study.search.order == "synchronous" else 1

    def _fits(self, pack: Pack) -> bool:
        return self.capacity.fits(self.estimate(pack))

    def _tested(self, trial: Trial) -> bool:
        """Whether the store holds the whole trial; a pruned one answers no ordinary trial."""
        return trial.trial_id in self.results and self.results[trial.trial_id].state != "pruned"

    def _plan(self) -> None:
        """Packs of what is to be trained and was not handed out: those under the same rungs together."""
        self._look()
        wanted: dict[str, tuple[Rungs | None, list[Trial]]] = {}
        for procedure in self.procedures:
            found = [*procedure.missing(self.results)]
            found += [(trial, None) for trial in procedure.refit() if not self._tested(trial)]
            for trial, rungs in found:
                key = (trial.trial_id, rungs.rungs_id if rungs else "")
                if key not in self.handed:
                    self.handed.add(key)
                    wanted.setdefault(key[1], (rungs, []))[1].append(trial)
        for rungs, trials in wanted.values():
            checkpointed = {trial_id: epoch for trial_id, (epoch, _) in self.store.checkpointed(rungs).items()}
            packs = planning.packs(trials, [], checkpointed, self.workload.pack_key, self._devices, self._fits)
            self.queue += [replace(pack, rungs=rungs) for pack in packs]
        if wanted:
            asked = [trial for _, trials in wanted.values() for trial in trials]
            self.listen(
                Asked(
                    cells={trial.trial_id: name_of(trial, self.study) for trial in asked},
                    packs=len(self.queue),
                    trials={trial.trial_id: trial for trial in asked},
                    foreseen={pack.pack_id: Foreseen.of(pack, self.estimate(pack)) for pack in self.queue},
                    to_come=max(sum(self.trials_to_come().values()) - len(self.trials()), 0),
                )
            )

    def _advance(self, procedure: Procedure, hungry: bool) -> bool:
        """See `Procedure.advance`; a batch that another run of the study has asked meanwhile is the next one."""
        batch = procedure.next_batch
        if not batch.is_file():
            self.store.fetch(*batch.relative_to(self.store.root).parts)
        asked = procedure.advance(self.results, hungry)
        if asked and self.keeps:
            self.store.keep(batch)
        return asked

    def _look(self) -> None:
        """Take from the store what it has of the trials so far that were not looked for."""
        wanted = {trial.trial_id for trial in self.trials()} - self.looked
        if not wanted:
            return
        self.looked |= wanted
        self.results |= {trial_id: Result(*found) for trial_id, found in self.store.scores(wanted).items()}


def _by_fold(trials: Sequence[Trial], results: Mapping[str, Result]) -> list[float]:
    """The scores of whole trials by the fold that scores them, seeds averaged within it."""
    found: dict[int | None, list[float]] = {}
    for trial in trials:
        if (score := results[trial.trial_id].score) is not None:
            found.setdefault(trial.fold, []).append(score)
    return [fmean(scores) for scores in found.values()]


def structures(
    study: Study, space: Mapping[str, Parameter], configure: Callable[[Study, Sequence[Cell]], Configured]
) -> Configured:
    """What the workload needs for any point of the space: trunks above all, of each depth that may be asked.

    Raises ValueError where a range has such a setting take any value, or where there are too many combinations.
    """
    first = {name: parameter.values()[0] for name, parameter in space.items()}

    def cell(settings: Mapping[str, Setting]) -> Cell:
        return Cell(settings, {**study.base, **settings})

    structural: dict[str, Sequence[Setting]] = {}
    for name, parameter in space.items():
        values = parameter.values()
        found = configure(study, [cell({**first, name: value}) for value in values]).configurations
        if any(configuration.inputs != found[0].inputs for configuration in found):
            structural[name] = values
            if isinstance(parameter.low, float):
                raise ValueError(f"{name} changes what a trial is made from, got a range of floats; give choices")
    combinations = [dict(zip(structural, values, strict=True)) for values in product(*structural.values())]
    if len(combinations) > MOST_STRUCTURES:
        raise ValueError(
            f"a search prepares every combination of {', '.join(structural)}, at most {MOST_STRUCTURES}, "
            f"got {len(combinations)}; give fewer choices"
        )
    return configure(study, [cell({**first, **values}) for values in combinations])


def name_of(trial: Trial, study: Study) -> str:
    """What people call the trial's configuration: the settings that the study varies."""
    settings = trial.configuration.settings
    return describe(short({name: settings[name] for name in study.varied if name in settings}))


def short(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings with numbers as people read them, of four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in settings.items()}
