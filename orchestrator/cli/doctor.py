"""`idenctl doctor`: what this machine has of all that studies need, and what to do where something is wrong."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from orchestrator.cli.options import Json, StoreAddress

if TYPE_CHECKING:
    from orchestrator.store import Store

State = Literal["fine", "note", "wrong"]
ROOM = 10**9  # bytes free on a disk, below which results and checkpoints may not fit
MEMORY = 10**9  # bytes free, below which no pack fits
MARKS: dict[State, tuple[str, str]] = {"fine": ("ok", "green"), "note": ("--", "yellow"), "wrong": ("!!", "bold red")}


@dataclass(frozen=True)
class Finding:
    """What is there of one thing; `remedy` is what to do, where there is something to do."""

    subject: str
    state: State
    found: str
    remedy: str = ""


Findings = Iterator[Finding]


def doctor(
    store: StoreAddress = "runs",
    as_json: Json = False,
) -> None:
    """Look at Python, torch, devices, Ray, the store, its data and the detector; exit status 1 where one is wrong.

    Loading torch and starting a Ray take some seconds; all else is quick. Nothing is changed.
    """
    from orchestrator.cli.console import plain_console

    console, note = plain_console(), plain_console(stderr=True)
    answers: list[dict[str, Any]] = []
    checks: list[tuple[str, Callable[[], Findings]]] = [
        ("", _python),
        ("", _memory),
        ("", lambda: _store(store)),
        ("loading torch", _torch),
        ("starting a Ray", _ray),
    ]
    for slow, check in checks:
        if slow and note.is_terminal:
            note.print(f"{slow} …", style="dim", end="\r")
        began = time.monotonic()
        for finding in _guarded(check):
            answers.append(asdict(finding) | {"seconds": round(time.monotonic() - began, 2)})
            if not as_json:
                mark, style = MARKS[finding.state]
                console.print(f"{mark} ", style=style, end="")
                console.print(f"{finding.subject}: {finding.found}", soft_wrap=True)
                if finding.remedy:
                    console.print(f"   next: {finding.remedy}", soft_wrap=True)
    wrong = sum(answer["state"] == "wrong" for answer in answers)
    if as_json:
        typer.echo(json.dumps({"store": store, "wrong": wrong, "findings": answers}, indent=1))
    else:
        print(f"{wrong} to put right" if wrong else "nothing is wrong", file=sys.stderr)
    raise typer.Exit(1 if wrong else 0)


def _guarded(check: Callable[[], Findings]) -> Findings:
    """What a check finds, and where it breaks off, why: the others are still looked at."""
    try:
        yield from check()
    except Exception as error:
        said = f"could not be looked at to the end: {type(error).__name__}: {error}".splitlines()[0]
        yield Finding("the rest of this", "wrong", said, "mend that, then run idenctl doctor again")


def _python() -> Findings:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    wanted = SpecifierSet(importlib.metadata.metadata("idenctl")["Requires-Python"])
    here = f"{platform.python_version()} in {sys.prefix}"
    if platform.python_version() in wanted:
        yield Finding("Python", "fine", here)
    else:
        yield Finding("Python", "wrong", f"{here}, idenctl needs {wanted}", "make a new environment with such a Python")
    broken = []
    requirements = [Requirement(line) for line in importlib.metadata.requires("idenctl") or ()]
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            broken.append((f"{requirement.name} is not installed", requirement))
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            broken.append((f"{requirement.name} {there}, wanted {requirement.specifier}", requirement))
    if broken:
        missing = " ".join(f"'{requirement}'" for _, requirement in broken)
        yield Finding("packages", "wrong", "; ".join(said for said, _ in broken), f"pip install {missing}")
    else:
        yield Finding("packages", "fine", f"idenctl {importlib.metadata.version('idenctl')} and all that it needs")


def _memory() -> Findings:
    from orchestrator.machine import free_memory, this_machine

    capacity = this_machine()
    free = free_memory()
    there = f"{_gigabytes(free)} free, {capacity.cpus * capacity.devices} cores"
    if free < MEMORY:
        yield Finding(
            "memory", "wrong", f"{there}: less than {_gigabytes(MEMORY)}", "end other programs, or use a larger machine"
        )
    else:
        yield Finding("memory", "fine", there)
    scratch = Path(tempfile.gettempdir())
    yield _room("scratch folder", scratch, "export TMPDIR=DIR, a short path on a disk with room")


def _room(subject: str, folder: Path, remedy: str) -> Finding:
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        return Finding(subject, "wrong", f"{folder} has {_gigabytes(free)} free, less than {_gigabytes(ROOM)}", remedy)
    return Finding(subject, "fine", f"{folder} has {_gigabytes(free)} free")


def _store(address: str) -> Findings:
    from orchestrator.store import at

    try:
        place = at(address).check()
    except (ValueError, OSError) as error:
        rule, _, step = str(error).rpartition("; ")
        yield Finding("store", "wrong", rule or step, step if rule else "give another --store")
        return
    standing = place.root if place.root.is_dir() else _nearest_folder(place.root)
    if place.bucket:
        yield Finding("store", "fine", f"{place} is reached; what this machine needs of it lies in {place.root}")
    else:
        new = "" if place.root.is_dir() else " (not there yet, a first run makes it)"
        yield Finding("store", "fine", f"{place}{new}")
    yield _room("room for the store", standing, f"idenctl store clean --store {address}, or another --store")
    yield from _writing(standing)
    yield from _data(place, address)
    yield from _detector(place, address)


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB"


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _writing(folder: Path) -> Findings:
    """Whether files can be made in the store's folder, and locked."""
    from idennet_core import locks

    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".doctor-")
        with os.fdopen(handle, "w") as first, Path(name).open() as second:
            Path(name).unlink()
            locks.take(first)
            locked = not locks.take(second)
    except OSError as error:
        found = f"{folder} cannot be written: {error.strerror}"
        yield Finding("writing to the store", "wrong", found, f"chmod u+w {folder}, or give another --store")
        return
    if locked:
        yield Finding("writing to the store", "fine", "files can be made and locked")
    else:
        found = f"{folder} is on a file system without locks: two runs of one study would do its work twice"
        yield Finding("writing to the store", "note", found, "run a study once at a time")


def _data(place: "Store", address: str) -> Findings:
    from idennet_core.config import DATASETS
    from idennet_core.datasets import prepared

    there, real = [], True
    for name in DATASETS:
        try:
            facts = prepared.read_metadata(place.data / name)
        except FileNotFoundError:
            continue
        except ValueError as error:
            remedy = f"idenctl data prepare {name} --root DIR --store {address}"
            yield Finding(f"data set {name}", "wrong", str(error), remedy)
            continue
        real = real and not facts["synthetic"]
        there.append(f"{name}{' (synthetic)' if facts['synthetic'] else ''}, {facts['num_faces']:,} faces")
    if there:
        yield Finding("prepared data", "fine", "; ".join(there))
    else:
        remedy = (
            f"idenctl data prepare NAME --root DIR --store {address}; without data: idenctl data synth NAME --out DIR"
        )
        yield Finding("prepared data", "wrong", f"none in {place}, so no study of IDEnNet can run", remedy)
    trunks = place.trunk_facts()
    known = f"{len(trunks)} pre-trained" if trunks else "none yet, a study's first run trains those it needs"
    yield Finding("trunks", "fine", known)


def _detector(place: "Store", address: str) -> Findings:
    from idennet_core.faces import detection
    from orchestrator.cli.data import model_place

    model = model_place(place)
    get = f"idenctl data detector get --store {address}"
    if not model.is_file():
        found = "none in the store; only pictures that are not cropped yet and have no landmarks need it"
        yield Finding("face detector", "note", found, get)
        return
    try:
        detection.Detector(model)
    except (ValueError, OSError) as error:
        yield Finding("face detector", "wrong", str(error).partition(": run")[0], f"rm {model}; {get}")
        return
    known = "the published YuNet" if detection.sha256(model) == detection.MODEL_SHA256 else "a YuNet of your own"
    yield Finding("face detector", "fine", f"{known} in {model}, which OpenCV runs")


def _torch() -> Findings:
    from orchestrator.machine import this_machine

    try:
        import torch
    except Exception as error:  # a library that it needs is missing or of another system
        found = f"cannot be imported: {type(error).__name__}: {error}".splitlines()[0]
        yield Finding("torch", "wrong", found, "pip install --force-reinstall 'torch>=2.9'")
        return
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs"
    yield Finding("torch", "fine", f"{torch.__version__}, built {built}, {torch.get_num_threads()} threads")
    yield _gpu(torch, this_machine().devices if this_machine().kind == "gpu" else 0)
    if torch.backends.mps.is_available():
        yield Finding("MPS", "note", "there, but studies use CUDA or the CPU; they run on the CPU here")


def _gpu(torch: Any, seen: int) -> Finding:
    """What becomes of the GPUs that the driver shows, `seen` of which studies would use."""
    driver = _driver()
    if not torch.cuda.is_available():
        if not seen:
            hidden = f"; a driver {driver} is there, but no GPU is visible" if driver else ""
            return Finding("CUDA", "fine", f"no GPU, studies run on the CPU{hidden}")
        if not torch.version.cuda:
            return Finding(
                "CUDA", "wrong", f"{seen} GPU, driver {driver}, but this torch is built for CPUs",
                "pip install --force-reinstall torch, one that is built for CUDA",
            )  # fmt: skip
        found = f"{seen} GPU, driver {driver}, which torch for CUDA {torch.version.cuda} cannot use"
        return Finding(
            "CUDA", "wrong", found, "update the driver, or install a torch for an earlier CUDA; see nvidia-smi"
        )
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    try:
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as error:
        found = f"{names}, driver {driver}, but nothing runs on it: {error}".splitlines()[0]
        return Finding("CUDA", "wrong", found, "end what else runs there (nvidia-smi), or install a torch for this GPU")
    free = torch.cuda.mem_get_info()[0]
    return Finding("CUDA", "fine", f"{names}, driver {driver}, {_gigabytes(free)} free")


def _driver() -> str:
    """The version of NVIDIA's driver; empty where there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    return found[0] if found else "of unknown version"


def _ray() -> Findings:
    try:
        version = importlib.metadata.version("ray")
        from orchestrator import tune_engine
        from orchestrator.machine import this_machine

        answered = tune_engine.starts(this_machine())
    except Exception as error:  # whatever Ray says that it lacks
        lines = str(error).strip().splitlines() or [type(error).__name__]
        remedy = "export TMPDIR=/tmp (short, with room), look again when less else runs; or study run --engine inline"
        yield Finding("Ray", "wrong", f"none starts: {lines[0]}", remedy)
        return
    mode = f"{answered}, {os.environ.get('RAY_AUTH_MODE', 'no')} mode"
    yield Finding("Ray", "fine", f"{version} starts and answers, on loopback alone; {mode}")
