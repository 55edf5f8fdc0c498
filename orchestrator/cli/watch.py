"""`idenctl study status --watch`: a study that another process runs, until it ends."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator import frozen, machine, record, watching
from orchestrator.cli.closing import closing
from orchestrator.cli.console import View
from orchestrator.cli.screen import Display, failures, summary, written
from orchestrator.cli.wording import several

if TYPE_CHECKING:
    from orchestrator.cluster.jobs import Job
    from orchestrator.store import Store

EVERY = 2.0  # seconds between two looks at a folder
EVERY_REMOTE = 10.0  # at a bucket, or a cluster's job
REST = 20.0  # how many times as long as a look took there is none


def follow(store: "Store", name: str, job: "Callable[[], Job] | None" = None) -> int:
    """Show on stderr what the store shows of a study until it ends; gives its exit status, 1 where it is not complete.

    It begins when the run has planned, and has ended when all its trials are stored, when the process that held its
    lock has gone, or where it is a `job` when that is over.
    """

    def running() -> bool:
        if job:
            return not job().over
        return record.running(store, name) is not False

    if not _planned(store, name, running, job):
        print(f"{name} ended before it was planned: its run has said why", file=sys.stderr)
        return 1
    alive, every = running(), _every(store, job)
    seen = watching.look(store, name)
    here = record.running(store, name)
    display = Display(seen.state, machine.Load() if here and not job else str, None, time.time)
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
    display.say(f"{seen.state.title} {verb}: {summary(seen.state.ended, seen.last)}")
    closing(store, name)
    return 0 if seen.over and not seen.state.failed else 1


def _planned(store: "Store", name: str, alive: Callable[[], bool], job: "Callable[[], Job] | None") -> bool:
    """Wait for the plan of the run that is at work; False where it ended without one, or there never was any."""
    waited = False
    while True:
        working = alive()  # before the look, as above
        since = (job().started or 0.0) if job else record.locked_at(store, name)
        store.fetch_all("studies", name)
        there = (path := store.studies / name / "plan.json").is_file()
        if there and frozen.written_at(frozen.read_plan(path), path) >= since:
            return True
        if not working:  # then an earlier plan is what there is to show, unless it was another that was waited for
            return there and not waited
        if not waited:
            console = View(stderr=True)
            print(written(f"waiting for a plan of {name} …", console), file=sys.stderr, flush=True)
        waited = True
        time.sleep(_every(store, job))


def _every(store: "Store", job: "Callable[[], Job] | None") -> float:
    return EVERY_REMOTE if store.bucket or job else EVERY
