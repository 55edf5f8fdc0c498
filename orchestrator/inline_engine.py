"""Packs one after the other in this process: for debugging, and for machines without Ray."""

from collections.abc import Callable
from functools import partial

from orchestrator.planning import Capacity
from orchestrator.progress import Event, PackCut
from orchestrator.source import Divided, Source, spent, until
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

    Each has all cores of the machine, as it is alone there. One that fails is told; the others go on. One that runs
    out of memory is cut in halves, which follow.
    """
    divided = Divided(packs)

    def tell(pack_id: str, event: Event) -> None:
        listen(event)
        if isinstance(event, PackCut):
            divided.again(pack_id, event.halves)

    while not spent(deadline) and (pack := divided.next()) is not None:
        told = until(deadline, partial(tell, pack.pack_id))
        run_pack(workload, pack, Context(store, capacity.kind, capacity.cpus, told))
        divided.done(pack.pack_id)
