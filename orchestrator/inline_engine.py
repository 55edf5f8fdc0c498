"""Packs one after the other in this process: for debugging, and for machines without Ray."""

import traceback
from collections.abc import Callable, Sequence

from orchestrator.planning import Capacity
from orchestrator.progress import Event, PackFailed
from orchestrator.store import Store
from orchestrator.trial import Pack
from orchestrator.workload import Context, Workload, run_pack


def run(
    packs: Sequence[Pack],
    workload: Workload,
    store: Store,
    capacity: Capacity,
    listen: Callable[[Event], None],
) -> None:
    """Run the packs, telling `listen` what happens. A pack that raises is told as failed; the others go on."""
    context = Context(store, capacity.kind, capacity.cpus, listen)
    for pack in packs:
        try:
            run_pack(workload, pack, context)
        except Exception as error:
            listen(PackFailed(pack.pack_id, f"{type(error).__name__}: {error}", traceback.format_exc()))
