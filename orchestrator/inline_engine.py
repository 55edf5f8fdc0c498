"""Packs one after the other in this process: for debugging, and for machines without Ray."""

from collections.abc import Callable

from orchestrator.planning import Capacity
from orchestrator.progress import Event
from orchestrator.source import Source, spent, until
from orchestrator.store import Store
from orchestrator.workload import Context, Workload, run_pack


def run(
    packs: Source,
    workload: Workload,
    store: Store,
    capacity: Capacity,
    listen: Callable[[Event], None],
    deadline: float | None = None,
) -> None:
    """Run the packs, telling `listen` what happens, until the deadline (seconds since 1970).

    Each has all cores of the machine, as it is alone there. One that fails is told; the others go on.
    """
    while not spent(deadline) and (pack := packs.next()) is not None:
        run_pack(workload, pack, Context(store, capacity.kind, capacity.cpus, until(deadline, listen)))
        packs.done(pack.pack_id)
