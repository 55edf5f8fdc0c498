"""What the store keeps of a study that is run: its file, its cells and provenance, and who is running it."""

import os
import platform
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from idennet_core import locks
from orchestrator import costs, runner, study, trunks
from orchestrator.frozen import read_plan, read_search
from orchestrator.machine import processor
from orchestrator.runner import Plan
from orchestrator.store import Store, write_json, write_text
from orchestrator.trial import SELECTED

LOOK = 60.0  # seconds for which whoever looks at a study's lock, and so shares it, may be held up in the middle of that


def freeze(planned: Plan, store: Store, command: Sequence[str]) -> Path:
    """Write the study as it is run by `command`, its cells and its provenance to its folder; gives the folder.

    A study file that was frozen there before and differs is kept beside, by the time of its last use.
    """
    folder = store.studies / planned.study.folder
    frozen, text = folder / "study.yaml", study.dump(planned.study)
    with suppress(FileNotFoundError):  # it is the first, or another run has just done the same
        if (before := frozen.read_text()) != text:
            used = datetime.fromtimestamp(frozen.stat().st_mtime, UTC)
            earlier = folder / f"study-{used:%Y%m%dT%H%M%S.%f}.yaml"
            write_text(earlier, before)  # a copy: killed here, the study still has its file
            store.keep(earlier)
    write_text(frozen, text)
    predicted, now = _predicted(planned, store, folder), {"written_at": datetime.now(UTC).isoformat()}
    write_json(folder / "provenance.json", now | _provenance(planned, command))
    # last: a study that has a plan has all of these
    write_json(folder / "plan.json", now | _cells(planned, command) | {"predicted": predicted})
    store.keep(frozen, folder / "provenance.json", folder / "plan.json")
    return folder


def stored_studies(store: Store) -> list[dict[str, Any]]:
    """What the store knows of each study that was run: its cells, its trials, and how many have which state."""
    rows = store.trials(["configuration_id", "fold", "seed", "state"]).iter_rows()
    states = {(configuration_id, fold, seed): state for configuration_id, fold, seed, state in rows}
    found = []
    for path in sorted(store.studies.glob("*/plan.json")):
        plan = read_plan(path)
        ids = {cell["configuration_id"] for cell in plan["cells"]}
        wanted = [(i, fold, seed) for i in sorted(ids) for fold in plan["folds"] for seed in plan["seeds"]]
        counts = [states.get(trial) for trial in wanted]
        found.append(
            {
                "study": path.parent.name,
                "dataset": plan["dataset"],
                "synthetic": plan["synthetic"],
                "cells": len(plan["cells"]),
                "trials": len(wanted),
                "complete": counts.count("complete"),
                "failed": counts.count("failed"),
                "search": search_of(path.parent),
            }
        )
    return found


def search_of(folder: Path) -> dict[str, int] | None:
    """How many configurations a stored search has asked for and how many have an outcome; None for a design."""
    if not (record := folder / "search.json").is_file():
        return None
    procedures = read_search(record)["procedures"]
    states = [point["state"] for each in procedures for point in each["points"] if point["repeats"] is None]
    return {"asked": len(states), "done": len(states) - states.count("waiting")}


def stored_by_study(planned: Plan, store: Store) -> dict[str, int]:
    """How many of the plan's stored trials each study that was run holds, by name."""
    plans = {path.parent.name: read_plan(path) for path in sorted(store.studies.glob("*/plan.json"))}
    return costs.shared((trial for trial in planned.trials if trial.trial_id in planned.states), plans)


@contextmanager
def only_run(store: Store, name: str) -> Iterator[None]:
    """Hold the study's lock, which ends with this process however it ends; the store's folder is made for it.

    Raises ValueError where it is taken, PermissionError where the store cannot be written.

    It saves work and guards nothing: two runs from two machines, or on a file system without locks, go on side by side.
    """
    path = store.make().studies / name / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(store.root / ".lock", alone=False) as holder:
        if holder is not None:
            raise ValueError(f"the store {store} is being cleaned by {holder}; wait for it")
        with _held(path, alone=True, patience=LOOK) as holder:
            if holder is not None:
                raise ValueError(f"a study runs once at a time, {name} is being run by {holder}; wait for it")
            yield


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """Hold the store's lock while no study runs in it. Raises ValueError where one does."""
    with _held(store.root / ".lock", alone=True) as holder:
        if holder is not None:
            who = " and ".join(all_running(store)) or "somebody"
            raise ValueError(f"a store is cleaned while nobody writes in it, {who} runs in {store}; wait for it")
        yield


@contextmanager
def _held(path: Path, alone: bool, patience: float = 0.0) -> Iterator[str | None]:
    """Hold a lock file, alone or with others; gives None, or where another process has it in the way, which, in words.

    For so many seconds of patience nobody who only looks is in the way.

    On a file system without locks there is nothing to hold.
    """
    # the file itself, never what a link in its place leads to: it is emptied
    with open(path, "a+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)) as file:
        if not _taken(file, path, alone, patience):
            file.seek(0)
            process = file.read().strip()
            yield f"process {process}" if process else "a process that has just begun"
            return
        if alone:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield None


def _taken(file: IO[str], path: Path, alone: bool, patience: float) -> bool:
    """Take a lock; for so many seconds wait for those who share it, but never for one who has it alone."""
    deadline = time.monotonic() + patience
    while not (taken := locks.take(file, shared=not alone)) and not _locked(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    return taken


def running(store: Store, name: str) -> bool | None:
    """Whether a process holds the study's lock; None where there is none to see, as of a run on another machine."""
    path = store.studies / name / ".lock"
    return _locked(path) if path.exists() else None


def all_running(store: Store) -> list[str]:
    """The studies whose locks processes of this machine hold, planned or not yet."""
    return [path.parent.name for path in sorted(store.studies.glob("*/.lock")) if _locked(path)]


def locked_at(store: Store, name: str) -> float:
    """When the study's lock was last taken, in seconds since 1970; 0 where there is none to see."""
    path = store.studies / name / ".lock"
    return path.stat().st_mtime if path.exists() else 0.0


def stop(store: Store, name: str) -> int:
    """Interrupt the run of a study on this machine and wait for its end; gives what its process was.

    Raises ValueError where none runs here.
    """
    path = store.studies / name / ".lock"
    if not _locked(path):
        raise ValueError(f"only a study that runs can be stopped, {name} does not; see: idenctl study status {name}")
    text = path.read_text().strip()
    if not text:
        raise ValueError(f"only a study that runs can be stopped, {name} is just beginning or ending; try again")
    process = int(text)
    if not _holds(process, path):
        raise ValueError(f"{name} is being run by process {process} of another machine; stop it there")
    # as SIGINT, which a shell lets its background processes ignore
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(process, signal.SIGTERM)
    while _locked(path):
        time.sleep(0.2)
    return process


def _locked(path: Path) -> bool:
    """Whether somebody holds the lock."""
    if not path.is_file():
        return False
    with path.open() as file:
        return not locks.take(file, shared=True)


def _holds(process: int, path: Path) -> bool:
    """Whether this machine's process of that number has the lock's file open."""
    try:
        return any(file.samefile(path) for file in Path(f"/proc/{process}/fd").iterdir() if file.exists())
    except OSError:  # no such process, or somebody else's
        return False


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
                "epochs": configuration.settings.get("epochs"),
            }
            for cell, configuration in zip(planned.cells, planned.configurations, strict=True)
        ],
        "reference": wanted.reference.model_dump() if wanted.reference else None,
        "report": wanted.report.model_dump(),
        "search": wanted.search.model_dump() if wanted.search else None,
        "selection": SELECTED if wanted.search else None,
    }


def _predicted(planned: Plan, store: Store, folder: Path) -> dict[str, Any]:
    """What this run is expected to take, with what earlier runs of the study were as far as their plan is readable.

    `reused` are the trials that were complete before the study was first run.
    """
    earlier: dict[str, Any] = {}
    if not (folder / "plan.json").exists():
        earlier = {"reused": [trial_id for trial_id, state in planned.states.items() if state == "complete"]}
    else:
        with suppress(ValueError):
            earlier = read_plan(folder / "plan.json").get("predicted", {})
    first = trunks.estimates(planned.trunks, store, planned.capacity)
    alone = runner.alone(planned, store)
    return costs.predicted(planned.packs, planned.estimates, alone, first, earlier) | {
        "reused": earlier.get("reused", []),
        "side_by_side": planned.capacity.devices * planned.capacity.share,  # packs
    }


def _provenance(planned: Plan, command: Sequence[str]) -> dict[str, Any]:
    packages = ("idenctl", "torch", "ray", "optuna", "numpy", "polars", "pyarrow", "opencv-python-headless")
    return {
        "command": list(command),
        "git": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain")),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
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
