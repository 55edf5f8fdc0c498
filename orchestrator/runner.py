"""A study from its file to its rows: plan, train what is missing, and say what came of it."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import costs, inline_engine, planning, study, trunks, workload
from orchestrator.costs import Cost
from orchestrator.design import Cell, cells, describe
from orchestrator.planning import Capacity, Estimate
from orchestrator.progress import Event, Foreseen, RunState, TrialFailed
from orchestrator.source import ALONE, Listed, Source
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.study_sections import Budget
from orchestrator.trial import IDENNET, NUM_FOLDS, Configuration, Pack, Setting, Trial
from orchestrator.workload import Calibrated, Configured, Workload

if TYPE_CHECKING:
    from orchestrator.cluster.placement import Cluster
    from orchestrator.search.packs import SearchPacks


@dataclass(frozen=True)
class Plan:
    """Exactly what `run` will do."""

    study: Study
    cells: tuple[Cell, ...]  # of a search, what was chosen
    configurations: tuple[Configuration, ...]  # of the cells, in order
    synthetic: bool  # the data is drawn
    data_id: str
    trials: tuple[Trial, ...]  # each once; of a search, those asked so far
    states: Mapping[str, str]  # of the trials that are stored, by trial_id
    trunks: Mapping[str, Mapping[str, Setting]]  # recipes of those to train first, by trunk_id
    packs: tuple[Pack, ...]
    estimates: tuple[Estimate, ...]  # of the packs, in order
    capacity: Capacity
    search: "SearchPacks | None" = None  # as far as it can go by itself

    @property
    def left(self) -> int:
        """How many of the trials so far are not stored."""
        return len(self.trials) - len(self.states)

    @property
    def again(self) -> int:
        """How many of the stored trials run again: they failed for what may be otherwise another time."""
        return sum(trial.trial_id in self.states for pack in self.packs for trial in pack.trials)

    @property
    def done(self) -> bool:
        """Whether everything has a result."""
        return self.search.answered if self.search else self.left == 0

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials whose stored result is a failure."""
        return tuple(trial for trial in self.trials if self.states.get(trial.trial_id) == "failed")


def load(path: Path, profile: str | None, overrides: Mapping[str, str], store: Store) -> Study:
    """The study in a file, as its workload accepts it; see `study.load`."""
    return study.load(path, profile, overrides, rules_of=lambda name: workload.load(name, store).rules)


def plan(wanted: Study, store: Store, capacity: Capacity) -> Plan:
    """What running the study would do, given what the store holds. Raises ValueError for what cannot be run."""
    runs = workload.load(wanted.workload, store)
    if wanted.search:
        return _plan_search(wanted, store, runs, capacity)
    members = cells(wanted)
    configured = _configure(runs, wanted, members)
    configurations = tuple(configured.configurations)
    trials = planning.unique(
        Trial(configuration, fold, seed)
        for configuration in configurations
        for seed in wanted.seeds
        for fold in wanted.folds
    )
    rows = store.every_trial(["trial_id", "state", "reason"])
    # what a search stopped early answers no design
    states = {name: state for name, state, _ in rows.iter_rows() if state != "pruned"}
    # these run again, each in a pack of its own: it harms no other
    harmful = {name for name, state, reason in rows.drop_nulls().iter_rows() if reason.startswith(ALONE)}
    checkpointed = {trial_id: epoch for trial_id, (epoch, _) in store.checkpointed().items()}

    pack_key = workload.answered(wanted.workload, runs.pack_key)
    takes = workload.answered(wanted.workload, runs.estimate)

    def key(trial: Trial) -> str:
        return f"{pack_key(trial)}{trial.trial_id if trial.trial_id in harmful else ''}"

    def estimate(pack: Pack) -> Estimate:
        return takes(pack, capacity.kind, capacity.threads)

    packs = planning.packs(
        trials, states.keys() - harmful, checkpointed, key, capacity.devices, lambda pack: capacity.fits(estimate(pack))
    )
    capacity = planning.shared(capacity, packs, [estimate(pack) for pack in packs])
    return Plan(
        study=wanted,
        cells=members,
        configurations=configurations,
        synthetic=configured.synthetic,
        data_id=configurations[0].inputs.get("data", ""),
        trials=trials,
        states={trial.trial_id: states[trial.trial_id] for trial in trials if trial.trial_id in states},
        trunks=configured.trunks,
        packs=packs,
        estimates=tuple(estimate(pack) for pack in packs),
        capacity=capacity,
    )


def _plan_search(wanted: Study, store: Store, runs: Workload, capacity: Capacity) -> Plan:
    """The plan of a search: what was asked, its next packs, and where it is over what it chose."""
    from orchestrator.search.packs import SearchPacks, short, structures  # Optuna, for searches only

    assert wanted.search is not None
    configure = partial(_configure, runs)
    needed = structures(wanted, wanted.search.typed(runs.rules.settings), configure)
    search = SearchPacks(wanted, store, runs, configure, capacity, keeps=False)
    search.fill()
    whole = search.procedures[0]
    chosen = whole.chosen() if whole.over else []
    points = [dict(whole.search.points[number].settings) for number in chosen]
    trials = tuple(search.trials())
    packs = tuple(search.queue)
    waiting = {trial_id for pack in packs for trial_id in pack.trial_ids}
    return Plan(
        study=wanted,
        cells=tuple(Cell(short(point), wanted.base | point) for point in points),
        configurations=tuple(whole.configurations[number] for number in chosen),
        synthetic=needed.synthetic,
        data_id=needed.configurations[0].inputs.get("data", ""),
        trials=trials,
        states={
            trial.trial_id: search.results[trial.trial_id].state
            for trial in trials
            if trial.trial_id in search.results and trial.trial_id not in waiting
        },
        trunks=needed.trunks,
        packs=packs,
        estimates=tuple(map(search.estimate, packs)),
        capacity=capacity,
        search=search,
    )


def measures(planned: Plan, store: Store) -> bool:
    """Whether the study's workload can be calibrated."""
    return isinstance(workload.load(planned.study.workload, store), Calibrated)


def calibrate(planned: Plan, store: Store) -> None:
    """Measure on this machine what the plan's estimates are made of. Raises ValueError where there is nothing to."""
    runs = workload.load(planned.study.workload, store)
    if not isinstance(runs, Calibrated):
        raise ValueError(f"the workload {planned.study.workload} measures nothing beforehand; leave out --calibrate")
    trunks.calibrate(planned.trunks, store, planned.capacity)
    runs.calibrate(planned.packs, planned.capacity.kind, planned.capacity.threads)


def alone(planned: Plan, store: Store) -> list[Estimate]:
    """What the first trial of each of the plan's packs would take in a pack of its own."""
    runs, capacity = workload.load(planned.study.workload, store), planned.capacity
    return [
        runs.estimate(replace(pack, trials=pack.trials[:1]), capacity.kind, capacity.threads) for pack in planned.packs
    ]


def cost(planned: Plan, store: Store) -> Cost:
    """What the plan will take, trunks first."""
    first = trunks.estimates(planned.trunks, store, planned.capacity)
    return costs.cost(planned.estimates, list(first.values()), planned.capacity)


def run_packs(
    planned: Plan,
    store: Store,
    listen: Callable[[Event], None],
    engine: str = "tune",
    cluster: "Cluster | None" = None,
    verbose: bool = False,
    show: Callable[["SearchPacks"], None] = lambda search: None,
) -> None:
    """Run the plan's packs, and those that a search asks for after them; an empty plan never starts Ray.

    `show` is called with a search whenever something was asked or told.
    """
    runs = workload.load(planned.study.workload, store)

    def told(event: Event) -> None:
        if isinstance(event, TrialFailed):
            workload.write_failed(event, runs, store, planned.capacity.kind, planned.synthetic)
        listen(event)

    packs: Source = Listed(planned.packs)
    if planned.search:
        from orchestrator.search.packs import SearchPacks

        configure = partial(_configure, runs)
        packs = SearchPacks(planned.study, store, runs, configure, planned.capacity, True, listen, show)
    if packs.over:
        return
    busy = 1 if engine == "inline" else planned.capacity.devices
    budget = planned.study.budget
    spent = 0.0 if budget.device_hours is None else _seconds(planned, store)
    ends = deadline(budget, spent, busy, time.time())
    if engine == "inline":
        inline_engine.run(packs, runs, store, planned.capacity, told, ends)
        return
    from orchestrator import tune_engine

    tune_engine.run(packs, runs, store, planned.capacity, told, ends, cluster, verbose)


def used_up(planned: Plan, store: Store) -> bool:
    """Whether the study's trials have taken the device-hours of its budget."""
    hours = planned.study.budget.device_hours
    return hours is not None and _seconds(planned, store) >= 3600 * hours


def deadline(budget: Budget, seconds: float, devices: int, now: float) -> float | None:
    """When a run that starts now has to end, `seconds` of devices having been spent before; None without a budget."""
    ends = []
    if budget.wall_clock_hours is not None:
        ends.append(now + 3600 * budget.wall_clock_hours)
    if budget.device_hours is not None:
        ends.append(now + (3600 * budget.device_hours - seconds) / devices)
    return min(ends, default=None)


def _seconds(planned: Plan, store: Store) -> float:
    """What the trials of the study have taken of devices so far."""
    rows = store.every_trial(["trial_id", "seconds"]).iter_rows()
    return sum(float(seconds) for trial_id, seconds in rows if trial_id in planned.states)


def watched(planned: Plan, store: Store, engine: str = "tune") -> RunState:
    """What whoever watches a run of the plan knows as it begins."""
    capacity, called, stored = planned.capacity, planned.study.folder, accuracies(planned, store)
    cells = names(planned, stored)
    again = {trial_id for pack in planned.packs for trial_id in pack.trial_ids}  # what failed alone among them
    held = 1 if planned.search is None or planned.study.search is None or planned.study.search.select == "test" else 2
    return RunState(
        title=f"{called} (synthetic)" if planned.synthetic else called,
        cells=cells,
        stored=stored,
        packs=0 if planned.search else len(planned.packs),
        folds={trial.trial_id: trial.fold for trial in planned.trials},
        test_to_train=1 / (NUM_FOLDS - held),
        foreseen={
            pack.pack_id: Foreseen.of(pack, estimate)
            for pack, estimate in zip(planned.packs, planned.estimates, strict=True)
            if not planned.search
        },
        failed={i: "" for i in (trial.trial_id for trial in planned.failed) if i in cells and i not in again},
        slots=1 if engine == "inline" else capacity.devices * capacity.share,
    )


def accuracies(planned: Plan, store: Store) -> dict[str, float]:
    """The accuracy (a share), a search's score, of each of the plan's trials that is stored complete, by trial_id."""
    if planned.search:
        found = {trial_id: planned.search.results[trial_id].score for trial_id in planned.states}
        return {trial_id: score for trial_id, score in found.items() if score is not None}
    rows = store.trials(["trial_id", "accuracy"]).drop_nulls().iter_rows()
    return {trial_id: accuracy for trial_id, accuracy in rows if trial_id in planned.states}


def names(planned: Plan, stored: Collection[str]) -> dict[str, str]:
    """What the cell of each trial is called, by trial_id; of a search the `stored` ones, as it names what it asks."""
    if planned.search:
        from orchestrator.search.packs import name_of

        return {trial.trial_id: name_of(trial, planned.study) for trial in planned.trials if trial.trial_id in stored}
    pairs = zip(planned.configurations, planned.cells, strict=True)
    called = {configuration.configuration_id: describe(cell.label) for configuration, cell in pairs}
    return {trial.trial_id: called[trial.configuration.configuration_id] for trial in planned.trials}


def _configure(runs: Workload, wanted: Study, members: Sequence[Cell]) -> Configured:
    """What the workload makes of the cells, with its name among their inputs: two workloads never share a trial."""
    name = wanted.workload
    found = workload.answered(name, runs.configure)(wanted, members)
    if name == IDENNET:  # its configurations were stored before there were other workloads
        return found
    named = [replace(each, inputs={**each.inputs, "workload": name}) for each in found.configurations]
    return replace(found, configurations=named)
