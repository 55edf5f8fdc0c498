"""`idenctl study status --watch`: a study that another process runs, until it ends."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator import machine, record, watching
from orchestrator.cli.closing import closing
from orchestrator.cli.screen import Display, failures, summary
from orchestrator.cli.wording import several

if TYPE_CHECKING:
    from orchestrator.store import Store

EVERY = 2.0  # seconds between two looks at a folder
EVERY_REMOTE = 10.0  # at a bucket, or a cluster's job
REST = 20.0  # how many times as long as a look took there is none


def follow(store: "Store", name: str, job_over: Callable[[], bool] | None = None) -> int:
    """Show on stderr what the store shows of a study until it ends; gives its exit status, 1 where it is not complete.

    It has ended when all its trials are stored, when the process that held its lock has gone, or where `job_over` is
    given when that says so.
    """

    def running() -> bool:
        if job_over:
            return not job_over()
        return record.running(store, name) is not False

    alive = running()
    seen = watching.look(store, name)
    here = record.running(store, name)
    display = Display(seen.state, machine.Load() if here and not job_over else str, None, time.time)
    every = EVERY_REMOTE if store.bucket or job_over else EVERY
    missing = len(seen.state.cells) - len(seen.state.stored)
    display.say(f"{seen.state.title}: {several(len(seen.state.cells), 'trial')}, {missing} to train in this run")
    with display:
        while alive and not seen.over:
            began = time.time()
            time.sleep(every)
            alive = running()  # before the look: what was stored last is seen
            before, seen = seen.state, watching.look(store, name)
            step = seen.state.packs_done > before.packs_done
            display.show(seen.state, failures(before, seen.state.failed), step)
            every = max(every, REST * (time.time() - began - every))
    verb = "finished" if seen.over else "is not running"
    display.say(f"{seen.state.title} {verb}: {summary(seen.state.ended, time.time())}")
    closing(store, name)
    return 0 if seen.over and not seen.state.failed else 1
