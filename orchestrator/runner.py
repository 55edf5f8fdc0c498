"""A study from its file to its rows: plan, train what is missing, and say what came of it."""

import json
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import costs, inline_engine, planning, study, trunks, workload
from orchestrator.costs import Cost, Took
from orchestrator.design import Cell, cells
from orchestrator.planning import Capacity, Estimate
from orchestrator.progress import Event
from orchestrator.source import Listed, Source
from orchestrator.store import Store, write_text
from orchestrator.study import IDENNET, Budget, Study
from orchestrator.trial import Configuration, Pack, Setting, Trial
from orchestrator.workload import Calibrated, Configured, Workload

if TYPE_CHECKING:
    from orchestrator.search_packs import SearchPacks

SELECTED = "selection saw these subjects"  # what the frozen plan says of a search's chosen configurations


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
    def done(self) -> bool:
        """Whether there is nothing to run."""
        return self.search.answered if self.search else self.left == 0

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials whose stored result is a failure."""
        return tuple(trial for trial in self.trials if self.states.get(trial.trial_id) == "failed")


def this_machine() -> Capacity:
    """What this machine has: its GPUs, each with its share of the cores, or all cores as one device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if visible is not None:
        gpus = min(gpus, len([name for name in visible.split(",") if name not in ("", "-1")]))
    return Capacity("gpu", gpus, max(cores // gpus, 1)) if gpus else Capacity("cpu", 1, cores)


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
    # what a search stopped early answers no design
    states = {trial_id: state for trial_id, state in store.states().items() if state != "pruned"}
    checkpointed = {trial_id: epoch for trial_id, (epoch, _) in store.checkpointed().items()}
    packs = planning.packs(trials, states, checkpointed, runs.pack_key, capacity.devices)
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
        estimates=tuple(runs.estimate(pack, capacity.kind, capacity.cpus) for pack in packs),
        capacity=capacity,
    )


def _plan_search(wanted: Study, store: Store, runs: Workload, capacity: Capacity) -> Plan:
    """The plan of a search: what was asked, its next packs, and where it is over what it chose."""
    from orchestrator.search_packs import SearchPacks, short, structures  # Optuna, for searches only

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
    waiting = {trial.trial_id for pack in packs for trial in pack.trials}
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
        estimates=tuple(runs.estimate(pack, capacity.kind, capacity.cpus) for pack in packs),
        capacity=capacity,
        search=search,
    )


def calibrate(planned: Plan, store: Store) -> None:
    """Measure on this machine what the plan's estimates are made of. Raises ValueError where there is nothing to."""
    runs = workload.load(planned.study.workload, store)
    if not isinstance(runs, Calibrated):
        raise ValueError(f"the workload {planned.study.workload} measures nothing beforehand; leave out --calibrate")
    trunks.calibrate(planned.trunks, store, planned.capacity)
    runs.calibrate(planned.packs, planned.capacity.kind, planned.capacity.cpus)


def cost(planned: Plan, store: Store) -> Cost:
    """What the plan will take, trunks first."""
    first = trunks.estimates(planned.trunks, store, planned.capacity)
    return costs.cost(planned.estimates, list(first.values()), planned.capacity)


def stored_by_study(planned: Plan, store: Store) -> dict[str, int]:
    """How many of the plan's stored trials each study that was run holds, by name."""
    plans = {path.parent.name: json.loads(path.read_text()) for path in sorted(store.studies.glob("*/plan.json"))}
    return costs.shared((trial for trial in planned.trials if trial.trial_id in planned.states), plans)


def run_packs(
    planned: Plan,
    store: Store,
    listen: Callable[[Event], None],
    engine: str = "tune",
    address: str | None = None,
    verbose: bool = False,
    show: Callable[["SearchPacks"], None] = lambda search: None,
) -> None:
    """Run the plan's packs, and those that a search asks for after them; an empty plan never starts Ray.

    `show` is called with a search whenever something was asked or told.
    """
    runs = workload.load(planned.study.workload, store)
    packs: Source = Listed(planned.packs)
    if planned.search:
        from orchestrator.search_packs import SearchPacks

        configure = partial(_configure, runs)
        packs = SearchPacks(planned.study, store, runs, configure, planned.capacity, True, listen, show)
    if packs.over:
        return
    ends = deadline(planned.study.budget, _seconds(planned, store), planned.capacity.devices, time.time())
    if engine == "inline":
        inline_engine.run(packs, runs, store, planned.capacity, listen, ends)
        return
    from orchestrator import tune_engine

    tune_engine.run(packs, runs, store, planned.capacity, listen, ends, address, verbose)


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


def freeze(planned: Plan, store: Store, command: Sequence[str]) -> Path:
    """Write the study as it is run by `command`, its cells and its provenance to its folder; gives the folder.

    A study file that was frozen there before and differs is kept beside, by the time of its last use.
    """
    folder = store.studies / planned.study.folder
    frozen, text = folder / "study.yaml", study.dump(planned.study)
    if frozen.is_file() and frozen.read_text() != text:
        used = datetime.fromtimestamp(frozen.stat().st_mtime, UTC)
        frozen.replace(folder / f"study-{used:%Y%m%dT%H%M%S.%f}.yaml")
    write_text(frozen, text)
    content = _cells(planned, command) | {"predicted": _predicted(planned, store, folder)}
    write_text(folder / "plan.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "provenance.json", json.dumps(_provenance(planned, command), indent=1) + "\n")
    return folder


def accuracies(planned: Plan, store: Store) -> dict[str, float]:
    """The accuracy (a share) of each of the plan's trials that is stored complete, by trial_id."""
    rows = store.trials(["trial_id", "accuracy"]).drop_nulls().iter_rows()
    return {trial_id: accuracy for trial_id, accuracy in rows if trial_id in planned.states}


def stored_studies(store: Store) -> list[dict[str, Any]]:
    """What the store knows of each study that was run: its cells, its trials, and how many have which state."""
    rows = store.trials(["configuration_id", "fold", "seed", "state"]).iter_rows()
    states = {(configuration_id, fold, seed): state for configuration_id, fold, seed, state in rows}
    found = []
    for path in sorted(store.studies.glob("*/plan.json")):
        kept = json.loads(path.read_text())
        ids = {cell["configuration_id"] for cell in kept["cells"]}
        wanted = [(i, fold, seed) for i in sorted(ids) for fold in kept["folds"] for seed in kept["seeds"]]
        counts = [states.get(trial) for trial in wanted]
        found.append(
            {
                "study": path.parent.name,
                "dataset": kept["dataset"],
                "synthetic": kept["synthetic"],
                "cells": len(kept["cells"]),
                "trials": len(wanted),
                "complete": counts.count("complete"),
                "failed": counts.count("failed"),
                "search": _search_of(path.parent),
            }
        )
    return found


def _search_of(folder: Path) -> dict[str, int] | None:
    """How many configurations a stored search has asked for and how many have an outcome; None for a design."""
    if not (record := folder / "search.json").is_file():
        return None
    procedures = json.loads(record.read_text())["procedures"]
    states = [point["state"] for each in procedures for point in each["points"] if point["repeats"] is None]
    return {"asked": len(states), "done": len(states) - states.count("waiting")}


def took(store: Store, name: str) -> list[Took]:
    """What the trunks and packs of a study that was run were to take, beside what they took."""
    kept = json.loads((store.studies / name / "plan.json").read_text())
    rows = list(store.trials().select("trial_id", "pack_id", "seconds").iter_rows())
    stored = [json.loads(path.read_text()) for path in store.trunks.glob("[!.]*/trunk.json")]
    seconds = {trunk["trunk_id"]: float(trunk["seconds"]) for trunk in stored}
    return costs.took(kept.get("predicted", {}), rows, seconds)


@contextmanager
def only_run(store: Store, name: str) -> Any:
    """Hold the study's lock, which ends with this process however it ends. Raises ValueError where it is taken."""
    import fcntl

    path = store.studies / name / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"a study runs once at a time, {name} is being run by process {file.read().strip()}; wait for it"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _configure(runs: Workload, wanted: Study, members: Sequence[Cell]) -> Configured:
    """What the workload makes of the cells, with its name among their inputs: two workloads never share a trial."""
    found, name = runs.configure(wanted, members), wanted.workload
    if name == IDENNET:  # its configurations were stored before there were other workloads
        return found
    named = [replace(each, inputs={**each.inputs, "workload": name}) for each in found.configurations]
    return replace(found, configurations=named)


def _cells(planned: Plan, command: Sequence[str]) -> dict[str, Any]:
    wanted = planned.study
    return {
        "study": wanted.name,
        "profile": wanted.profile,
        "command": shlex.join(command),
        "question": wanted.question,
        "workload": wanted.workload,
        "dataset": wanted.dataset,
        "synthetic": planned.synthetic,
        "data_id": planned.data_id,
        "folds": list(wanted.folds),
        "seeds": list(wanted.seeds),
        "cells": [
            {
                "label": dict(cell.label),
                "also": [dict(label) for label in cell.also],
                "settings": dict(cell.settings),
                "configuration_id": configuration.configuration_id,
                "inputs": dict(configuration.inputs),
            }
            for cell, configuration in zip(planned.cells, planned.configurations, strict=True)
        ],
        "reference": wanted.reference.model_dump() if wanted.reference else None,
        "report": wanted.report.model_dump(),
        "search": wanted.search.model_dump() if wanted.search else None,
        "selection": SELECTED if wanted.search else None,
    }


def _predicted(planned: Plan, store: Store, folder: Path) -> dict[str, Any]:
    """What this run is expected to take, with what earlier runs of the study were."""
    try:
        earlier = json.loads((folder / "plan.json").read_text()).get("predicted", {})
    except FileNotFoundError:
        earlier = {}
    first = trunks.estimates(planned.trunks, store, planned.capacity)
    return costs.predicted(planned.packs, planned.estimates, first, earlier)


def _provenance(planned: Plan, command: Sequence[str]) -> dict[str, Any]:
    packages = ("idenctl", "torch", "ray", "optuna", "numpy", "polars", "pyarrow", "opencv-python-headless")
    return {
        "written_at": datetime.now(UTC).isoformat(),
        "command": list(command),
        "git": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain")),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "device": planned.capacity.kind,
        "workload": planned.study.workload,
        "overrides": dict(planned.study.overrides),
    }


def _git(*arguments: str) -> str | None:
    """What git says of the code that runs; None where it is not in a git checkout."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines: Sequence[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
