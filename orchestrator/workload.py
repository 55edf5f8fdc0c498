"""The seam to training: the three verbs that the orchestrator asks of a workload, and one pack from start to store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol

from orchestrator.planning import Estimate
from orchestrator.progress import Event, PackDone, PackStarted
from orchestrator.store import Run, Store, this_host
from orchestrator.trial import Pack, Setting, Trial, TrialResult


@dataclass(frozen=True)
class Context:
    """What a worker has for a pack: the store, a device, threads, and somebody to tell."""

    store: Store
    device: str  # cpu or gpu
    threads: int
    listen: Callable[[Event], None]


class Workload(Protocol):
    """What can be studied: anything that says which trials go together, what a pack costs, and runs one."""

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The settings of a trial that become columns, with their defaults."""

    def pack_key(self, trial: Trial) -> str:
        """Trials with the same key can share a pack."""

    def estimate(self, pack: Pack, device: str, threads: int) -> Estimate:
        """What the pack will take on such a device."""

    def run(self, pack: Pack, context: Context) -> list[TrialResult]:
        """Train the pack's trials, a result for each."""


def run_pack(workload: Workload, pack: Pack, context: Context) -> None:
    """Run a pack and store its results, telling `context.listen` what happens."""
    started = datetime.now(UTC)
    context.listen(PackStarted(pack.pack_id, tuple(trial.trial_id for trial in pack.trials)))
    results = workload.run(pack, context)
    run = Run(context.device, this_host(), started, datetime.now(UTC), version("idenctl"))
    context.store.write_pack(results, workload.settings, run)
    accuracies = {r.trial.trial_id: r.accuracy for r in results if r.accuracy is not None}
    failed, pruned = (
        {r.trial.trial_id: r.reason or "" for r in results if r.state == state} for state in ("failed", "pruned")
    )
    context.listen(PackDone(pack.pack_id, accuracies, failed, pruned))
