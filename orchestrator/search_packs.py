"""The packs of a search: asked as results come in, taken by an engine, and at the end the chosen trained again."""

import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import polars as pl

from orchestrator import planning
from orchestrator.design import Cell, describe
from orchestrator.planning import Capacity
from orchestrator.procedure import Procedure, Result, folder_of
from orchestrator.progress import Asked, Event
from orchestrator.search_space import Parameter
from orchestrator.store import Store, write_text
from orchestrator.study import Study
from orchestrator.trial import Configuration, Pack, Rungs, Setting, Trial
from orchestrator.workload import Configured, Workload

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
    ) -> None:
        """Read what was asked before; with `keeps`, what is asked from now on is written down."""
        assert study.search is not None
        self.study, self.store, self.workload, self.capacity, self.listen = study, store, workload, capacity, listen
        self.keeps = keeps
        space = study.search.typed(workload.rules.settings)

        def configured(settings: Mapping[str, Setting]) -> Configuration:
            return configure(study, [Cell(settings, {**study.base, **settings})]).configurations[0]

        self.folder = folder_of(study, space, configured, store.studies)
        outer = [fold for fold in study.folds if study.search.nested]
        self.procedures = [
            Procedure(study, fold, space, configured, workload.rules.costs, self.folder, keeps)
            for fold in (None, *outer)
        ]
        self.results: dict[str, Result] = {}
        self.seconds: dict[str, float] = {}
        self.read = False
        self.handed: set[tuple[str, str]] = set()
        self.queue: deque[Pack] = deque()
        self.running: dict[str, Pack] = {}
        self.changed = True

    def next(self) -> Pack | None:
        """The next pack; None while results are waited for, and when all is over."""
        self.fill()
        if not self.queue:
            return None
        pack = self.queue.popleft()
        self.running[pack.pack_id] = pack
        return pack

    def done(self, pack_id: str) -> None:
        """The pack has ended, with or without rows."""
        self._read([trial.trial_id for trial in self.running.pop(pack_id).trials])
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

    def trials(self) -> list[Trial]:
        """All trials so far."""
        asked = [t for p in self.procedures for c in p.configurations.values() for t in p.trials(c)]
        return [*planning.unique([*asked, *(t for p in self.procedures for t in p.refit())])]

    def fill(self) -> None:
        """Ask until there is a pack to hand out, or nothing more to ask before results are in."""
        if not self.changed:
            return
        if not self.read:
            self._read(None)
            self.read = True
        asking = True
        while asking:
            self._plan()
            hungry = len(self.running) < self.capacity.devices
            asking = not self.queue and any([each.advance(self.results, hungry) for each in self.procedures])
        self._plan()  # what was chosen, where all is over now
        self.changed = False
        if self.keeps:
            self.write()

    def write(self) -> None:
        """Write what a report shows to the study's folder."""
        write_text(self.store.studies / self.study.folder / "search.json", json.dumps(self.record(), indent=1) + "\n")

    @property
    def progress(self) -> str:
        """How far the search is, in words."""
        assert self.study.search is not None
        asked, wanted = sum(len(p.configurations) for p in self.procedures), self.study.search.configurations
        told = sum(len(p.outcomes.keys() & p.configurations.keys()) for p in self.procedures)
        if any(p.exhausted for p in self.procedures):
            return f"{told} of {asked} configurations have an outcome, and the sampler finds no others"
        return f"{told} of {wanted * len(self.procedures)} configurations have an outcome"

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
            outcome = procedure.outcomes.get(point.number)
            configuration = procedure.configurations[point.number if point.repeats is None else point.repeats]
            curves = [
                self.results[t.trial_id].curve for t in procedure.trials(configuration) if t.trial_id in self.results
            ]
            points.append(
                {
                    "number": point.number,
                    "settings": dict(point.settings),
                    "repeats": point.repeats,
                    "configuration_id": configuration.configuration_id,
                    "state": outcome.state if outcome else "waiting",
                    "values": list(outcome.values) if outcome else [],
                    "curve": {str(epoch): value for epoch, value in outcome.curve.items()} if outcome else {},
                    "trial_epochs": sum(map(len, curves)),
                }
            )
        return {
            "outer": procedure.outer,
            "over": procedure.over,
            "points": points,
            "chosen": procedure.chosen(),
            "importance": procedure.search.importance(),
        }

    def _tested(self, trial: Trial) -> bool:
        """Whether the store holds the whole trial; a pruned one answers no ordinary trial."""
        return trial.trial_id in self.results and self.results[trial.trial_id].state != "pruned"

    def _plan(self) -> None:
        """Packs of what is to be trained and was not handed out: those under the same rungs together."""
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
            packs = planning.packs(trials, [], checkpointed, self.workload.pack_key, self.capacity.devices)
            self.queue += [replace(pack, rungs=rungs) for pack in packs]
        if wanted:
            asked = {t.trial_id: name_of(t, self.study) for _, trials in wanted.values() for t in trials}
            self.listen(Asked(asked, len(self.queue)))

    def _read(self, trial_ids: Sequence[str] | None) -> None:
        """Take from the store what it has of these trials, or of all."""
        rows = self.store.every_trial()
        if trial_ids is not None:
            rows = rows.filter(pl.col("trial_id").is_in(trial_ids))
        curves: dict[str, list[float]] = defaultdict(list)
        points = self.store.curves(rows).sort("trial_id", "epoch").select("trial_id", "test_accuracy")
        for trial_id, accuracy in points.iter_rows():
            curves[trial_id].append(accuracy)
        columns = rows.select("trial_id", "state", "accuracy", "validation_accuracy", "seconds").iter_rows()
        for trial_id, state, accuracy, validation, seconds in columns:
            score = validation if accuracy is None else accuracy
            self.results[trial_id] = Result(state, score, curves[trial_id])
            self.seconds[trial_id] = seconds


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
    varied = {name: trial.configuration.settings[name] for name in study.varied if name in trial.configuration.settings}
    return describe({name: round(value, 4) if isinstance(value, float) else value for name, value in varied.items()})
