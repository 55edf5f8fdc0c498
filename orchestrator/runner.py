"""A study from its file to its rows: plan, train what is missing, and say what came of it."""

import json
import os
import platform
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator import inline_engine, planning, study, workload
from orchestrator.design import Cell, cells
from orchestrator.planning import Capacity, Estimate
from orchestrator.progress import Event
from orchestrator.store import Store, write_text
from orchestrator.study import IDENNET, Study
from orchestrator.trial import Configuration, Pack, Setting, Trial


@dataclass(frozen=True)
class Plan:
    """Exactly what `run` will do."""

    study: Study
    cells: tuple[Cell, ...]
    configurations: tuple[Configuration, ...]  # of the cells, in order
    synthetic: bool  # the data is drawn
    trials: tuple[Trial, ...]  # each once
    states: Mapping[str, str]  # of the trials that are stored, by trial_id
    trunks: Mapping[str, Mapping[str, Setting]]  # recipes of those to train first, by trunk_id
    packs: tuple[Pack, ...]
    estimates: tuple[Estimate, ...]  # of the packs, in order
    capacity: Capacity

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials whose stored result is a failure."""
        return tuple(trial for trial in self.trials if self.states.get(trial.trial_id) == "failed")

    @property
    def seconds(self) -> float:
        """The wall time that the packs are expected to take."""
        return planning.wall_seconds(self.estimates, self.capacity.devices * self.capacity.share)


def this_machine() -> Capacity:
    """What this machine has: its GPUs, each with its share of the cores, or all cores as one device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if visible is not None:
        gpus = min(gpus, len([name for name in visible.split(",") if name not in ("", "-1")]))
    if gpus:
        return Capacity("gpu", gpus, max(cores // gpus, 1), _gpu_memory())
    return Capacity("cpu", 1, cores, _host_memory())


def _host_memory() -> int:
    """Bytes of this machine, or of the container that this process is in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return whole


def _gpu_memory() -> int:
    """Bytes of the smallest GPU; 0 where its driver does not say."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return min(int(line) for line in done.stdout.split()) * 2**20
    except (OSError, ValueError, subprocess.CalledProcessError):
        return 0


def load(path: Path, profile: str | None, overrides: Mapping[str, str], store: Store) -> Study:
    """The study in a file, as its workload accepts it; see `study.load`."""
    return study.load(path, profile, overrides, rules_of=lambda name: workload.load(name, store).rules)


def plan(wanted: Study, store: Store, capacity: Capacity) -> Plan:
    """What running the study would do, given what the store holds. Raises ValueError for what cannot be run."""
    members = cells(wanted)
    runs = workload.load(wanted.workload, store)
    configured = runs.configure(wanted, members)
    configurations = tuple(_of(wanted.workload, configuration) for configuration in configured.configurations)
    trials = planning.unique(
        Trial(configuration, fold, seed)
        for configuration in configurations
        for seed in wanted.seeds
        for fold in wanted.folds
    )
    states = store.states()
    checkpointed = {trial_id: epoch for trial_id, (epoch, _) in store.checkpointed().items()}

    def estimate(pack: Pack) -> Estimate:
        return runs.estimate(pack, capacity.kind, capacity.threads)

    packs = planning.packs(
        trials, states, checkpointed, runs.pack_key, capacity.devices, lambda pack: capacity.fits(estimate(pack))
    )
    capacity = planning.shared(capacity, packs, [estimate(pack) for pack in packs])
    return Plan(
        study=wanted,
        cells=members,
        configurations=configurations,
        synthetic=configured.synthetic,
        trials=trials,
        states={trial.trial_id: states[trial.trial_id] for trial in trials if trial.trial_id in states},
        trunks=configured.trunks,
        packs=packs,
        estimates=tuple(estimate(pack) for pack in packs),
        capacity=capacity,
    )


def run_packs(
    planned: Plan,
    store: Store,
    listen: Callable[[Event], None],
    engine: str = "tune",
    address: str | None = None,
    verbose: bool = False,
) -> None:
    """Run the plan's packs; an empty plan never starts Ray."""
    if not planned.packs:
        return
    runs = workload.load(planned.study.workload, store)
    if engine == "inline":
        inline_engine.run(planned.packs, runs, store, planned.capacity, listen)
        return
    from orchestrator import tune_engine

    tune_engine.run(planned.packs, runs, store, planned.capacity, listen, address, verbose)


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
    write_text(folder / "plan.json", json.dumps(_cells(planned, command), indent=1) + "\n")
    write_text(folder / "provenance.json", json.dumps(_provenance(planned, command), indent=1) + "\n")
    return folder


def accuracies(planned: Plan, store: Store) -> dict[str, float]:
    """The accuracy (a share) of each of the plan's trials that is stored complete, by trial_id."""
    rows = store.trials().select("trial_id", "accuracy").drop_nulls().iter_rows()
    return {trial_id: accuracy for trial_id, accuracy in rows if trial_id in planned.states}


def stored_studies(store: Store) -> list[dict[str, Any]]:
    """What the store knows of each study that was run: its cells, its trials, and how many have which state."""
    rows = store.trials().select("configuration_id", "fold", "seed", "state").iter_rows()
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
            }
        )
    return found


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


def _of(name: str, configuration: Configuration) -> Configuration:
    """The configuration with its workload among its inputs: two workloads never share a trial."""
    named = {} if name == IDENNET else {"workload": name}  # IDEnNet's were stored before there were others
    return replace(configuration, inputs={**configuration.inputs, **named})


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
        "data_id": planned.configurations[0].inputs.get("data", ""),
        "folds": list(wanted.folds),
        "seeds": list(wanted.seeds),
        "cells": [
            {
                "label": dict(cell.label),
                "settings": dict(cell.settings),
                "configuration_id": configuration.configuration_id,
                "inputs": dict(configuration.inputs),
            }
            for cell, configuration in zip(planned.cells, planned.configurations, strict=True)
        ],
        "reference": wanted.reference.model_dump() if wanted.reference else None,
        "report": wanted.report.model_dump(),
    }


def _provenance(planned: Plan, command: Sequence[str]) -> dict[str, Any]:
    packages = ("idenctl", "torch", "ray", "numpy", "polars", "pyarrow", "opencv-python-headless")
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
