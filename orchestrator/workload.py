"""The seam to training: what the orchestrator asks of a workload, and one pack from start to store."""

import filecmp
import gc
import importlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from idennet_core.naming import suggest
from orchestrator.design import Cell
from orchestrator.planning import Estimate, resumed
from orchestrator.progress import Event, PackDone, PackFailed, PackSetBack, PackStarted, PackStopped, TrialFailed
from orchestrator.rows import CURVE, RESERVED, Run
from orchestrator.source import Stopped, harmed
from orchestrator.store import Store, this_host
from orchestrator.study import Study
from orchestrator.study_rules import Rules
from orchestrator.trial import IDENNET, Configuration, Pack, Setting, Trial, TrialResult

P = ParamSpec("P")
T = TypeVar("T")
VERBS = ("rules", "configure", "pack_key", "estimate", "run")


@dataclass(frozen=True)
class Context:
    """What a worker has for a pack: the store, a device, threads, and somebody to tell."""

    store: Store
    device: str  # cpu or gpu
    threads: int
    listen: Callable[[Event], None]


@dataclass(frozen=True)
class Configured:
    """What a workload makes of a study's cells."""

    configurations: Sequence[Configuration]  # of the cells, in order
    synthetic: bool  # the data is drawn
    trunks: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)  # recipes to train first, by trunk_id


class SetBack(Exception):
    """The checkpoint that a pack is to go on from is damaged or gone: it goes on from what the store has instead."""


class Workload(Protocol):
    """What can be studied: anything that says what a study of it holds and which trials go together, and runs them."""

    @property
    def rules(self) -> Rules:
        """What a study file may say; its settings become columns of the results."""

    def configure(self, study: Study, cells: Sequence[Cell]) -> Configured:
        """The configuration of each cell. Raises ValueError or FileNotFoundError for what cannot be run."""

    def pack_key(self, trial: Trial) -> str:
        """Trials with the same key can share a pack."""

    def estimate(self, pack: Pack, device: str, threads: int) -> Estimate:
        """What the pack will take on such a device."""

    def run(self, pack: Pack, context: Context) -> list[TrialResult]:
        """Train the pack's trials, a result for each."""


@runtime_checkable
class Calibrated(Protocol):
    """A workload that can measure what its estimates are made of, before anything has run."""

    def calibrate(self, packs: Sequence[Pack], device: str, threads: int) -> None:
        """Measure how fast such packs are on this machine, in seconds, and keep it in the store."""


def load(name: str, store: Store) -> Workload:
    """The workload that `package.module:object` gives when it is called with the store.

    The current folder is importable, after what is installed: no file in it passes for an installed module. Raises
    ValueError where there is no such object, where what it gives is no workload, or where Python has another module of
    that name than the one here.
    """
    module_name, _, attribute = name.partition(":")
    module = _module(module_name)
    if not hasattr(module, attribute):
        public = [word for word in vars(module) if not word.startswith("_")]
        raise ValueError(f"the module {module_name} has no '{attribute}'; {suggest(attribute, public)}")
    try:
        found: Workload = getattr(module, attribute)(store)
    except Exception as error:
        raise ValueError(
            f"{name} must give a workload when it is called with the store, but raises {_shown(error)}"
        ) from error
    lacking = [verb for verb in VERBS if not hasattr(found, verb)]
    if lacking:
        raise ValueError(f"a workload has {', '.join(VERBS)}, but {name} lacks {', '.join(lacking)}; add them")
    settings = found.rules.settings
    odd = [setting for setting, default in settings.items() if type(default) not in (bool, int, float, str)]
    if odd:
        raise ValueError(f"a setting's default is true or false, a number or text, not so in {name}: {', '.join(odd)}")
    taken = [setting for setting in settings if setting in RESERVED]
    if taken:
        raise ValueError(f"a setting must not be called as a column of the results, {name} has {', '.join(taken)}")
    return found


def answered(name: str, verb: Callable[P, T]) -> Callable[P, T]:
    """A verb of the workload `name`: what it raises is told as that workload's, where it is not a refusal in its words.

    Of IDEnNet's it stays a defect of this program.
    """

    def asked(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            found = verb(*arguments, **named)
        except (ValueError, OSError):
            raise
        except Exception as error:
            reason = f"{name}: {verb.__name__} raises {_shown(error)}"
            raise ValueError(f"{reason}; mend it, --debug shows where") from error
        if found is None:
            raise ValueError(f"{name}: {verb.__name__} gives None; let it return what it found")
        return found

    return verb if name == IDENNET else asked


def run_pack(workload: Workload, pack: Pack, context: Context) -> None:
    """Run a pack and store its results, telling `context.listen` what happens; one that raises is told as failed.

    It goes on from its trials' last checkpoints, whichever pack made them, in parts where these differ in epoch: a
    worker that died has made some since the pack was planned. Where one is damaged, its trials go on from the one
    before it. Of one that runs out of memory is told that it was cut, and in which halves; or, of a single trial, that
    it failed.
    """
    reached = {name: epoch for name, (epoch, _) in context.store.checkpointed(pack.rungs).items()}
    for part in resumed(pack, reached):
        _run_part(workload, part, context)


def _run_part(workload: Workload, pack: Pack, context: Context) -> None:
    set_back = False
    try:
        _run_whole(workload, pack, context)
        return
    except Stopped:
        context.listen(PackStopped(pack.pack_id))
    except SetBack as damage:
        context.listen(PackSetBack(pack.pack_id, str(damage)))
        set_back = True
    except Exception as error:
        reason, said = _shown(error), traceback.format_exc()
        if _out_of_memory(error):
            context.listen(harmed(pack, f"took more memory than there is: {reason}", said))
        else:
            context.listen(PackFailed(pack.pack_id, pack.trial_ids, reason, said))
    gc.collect()  # what the failed half-way state still holds: this process has other packs to run
    if set_back:
        run_pack(workload, pack, context)


def _run_whole(workload: Workload, pack: Pack, context: Context) -> None:
    started = datetime.now(UTC)
    context.store.refresh()
    context.listen(PackStarted(pack.pack_id, pack.trial_ids))
    results = workload.run(pack, context)
    if reason := _wrong(results, pack):
        raise ValueError(reason)
    run = Run(context.device, this_host(), started, datetime.now(UTC), version("idenctl"))
    context.store.write_pack(results, workload.rules.settings, run)
    accuracies = {r.trial.trial_id: r.accuracy for r in results if r.accuracy is not None}
    failed, pruned = (
        {r.trial.trial_id: r.reason or "" for r in results if r.state == state} for state in ("failed", "pruned")
    )
    context.listen(PackDone(pack.pack_id, accuracies, failed, pruned))


def write_failed(failed: TrialFailed, workload: Workload, store: Store, device: str, synthetic: bool) -> None:
    """Store the row of a trial that failed without a result: it is known when, not how long it took."""
    now = datetime.now(UTC)
    result = TrialResult(failed.trial, "failed", synthetic, n_train=0, n_test=0, seconds=0.0, reason=failed.reason)
    run = Run(device, this_host(), now, now, version("idenctl"))
    store.write_pack([result], workload.rules.settings, run)


def _wrong(results: Sequence[TrialResult], pack: Pack) -> str | None:
    """Why these cannot be the results of the pack."""
    found = sorted(result.trial.trial_id for result in results)
    if found != sorted(pack.trial_ids):
        return f"run must give a result for each of the pack's {len(pack.trials)} trials, gave {len(found)}"
    for result in results:
        for name, share in (("accuracy", result.accuracy), ("sequence_accuracy", result.sequence_accuracy)):
            if share is not None and not 0 <= share <= 1:
                return f"{name} must be a share from 0 to 1, got {share}"
        if strange := sorted({name for point in result.curve for name in point} - CURVE):
            return f"a curve has the columns {', '.join(sorted(CURVE))}, got {', '.join(strange)}; leave them out"
        if any("epoch" not in point for point in result.curve):
            return "each point of a curve must say its epoch, one does not"
    return None


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or torch found no memory; torch's errors are known by name and words, to not load it."""
    named = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"no module {error.name}; install it, or go to the folder that holds it") from error
        raise ValueError(f"the module {name} cannot be imported: {error}; install it") from error
    except Exception as error:
        raise ValueError(f"the module {name} cannot be imported: {_shown(error)}") from error
    found, place = getattr(module, "__file__", None), Path(here, *name.split("."))
    for own in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if found and own.is_file() and not filecmp.cmp(found, own, shallow=False):
            raise ValueError(f"{own} is hidden by another {name}, {found}; rename it, or start Python anew here")
    return module


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
