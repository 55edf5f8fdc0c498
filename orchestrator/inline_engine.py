"""Packs one after the other in this process: for debugging, and for machines without Ray."""

import traceback
from collections.abc import Callable

from orchestrator.planning import Capacity
from orchestrator.progress import Event, PackFailed, PackStopped
from orchestrator.source import Source, Stopped, spent, until
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

    A pack that raises is told as failed; the others go on.
    """
    while not spent(deadline) and (pack := packs.next()) is not None:
        try:
            run_pack(workload, pack, Context(store, capacity.kind, capacity.cpus, until(deadline, listen)))
        except Stopped:
            listen(PackStopped(pack.pack_id))
        except Exception as error:
            listen(PackFailed(pack.pack_id, f"{type(error).__name__}: {error}", traceback.format_exc()))
        packs.done(pack.pack_id)
