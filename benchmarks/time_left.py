"""How far off the time left is while a study runs: `python -m benchmarks.time_left [FOLDER]`.

The profile `quick` of two studies is trained on sets of noise, and what a run tells is recorded into FOLDER, once; then
it is replayed beside two plans, one of a pace that was measured here before and one of a store without measurements,
and the table of `docs/how-to/watch.md` is printed. Time is the processor's divided by the number of threads, so that
others on the machine move the figures little.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from idennet_core import pace, packed
from idennet_core.datasets import oulu_casia, prepared
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from orchestrator import forecast, runner, trunks
from orchestrator.planning import Capacity
from orchestrator.progress import Event, Foreseen, PackDone, PackStarted, Progress, RunState
from orchestrator.runner import Plan
from orchestrator.store import Store

THREADS = 2
STUDIES = ("oulu_idrate", "oulu_variants")
PLANS = [  # which it is, by how much its banks and its head steps are foreseen longer, what that is called
    ("measured", 1, 1, "its pace measured here before"),
    ("guess", 1, 1, "its plan a guess"),
    ("guess", 3, 1, "a guess of 3 times as much for its banks"),
    ("guess", 1, 3, "a guess of 3 times as much for its head steps"),
]
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
KINDS = {kind.__name__: kind for kind in (PackStarted, Progress, PackDone)}
PEOPLE, FRAMES = 80, 3  # of Oulu-CASIA: as many pictures as its packs read
FOR_TRUNKS = 64  # pictures: what a trunk knows takes no time


def main() -> None:
    """Record what is missing, and print the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/time_left")
    folder.mkdir(parents=True, exist_ok=True)
    for name in STUDIES:
        path = folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(recorded(name)))
    print(f"| of the work done | {' | '.join(f'{share:.0%}' for share in SHARES)} |")
    print(f"| --- |{' ---: |' * len(SHARES)}")
    for plan, banks, heads, said in PLANS:
        for name in STUDIES:
            run = json.loads((folder / f"{name}.json").read_text())
            off = " | ".join(f"{each:+.0%}" for each in errors(run, plan, {"trunk": banks, "head": heads}))
            print(f"| `{name}`, {said} | {off} |")


def errors(run: dict[str, Any], plan: str, times: dict[str, float]) -> Iterator[float]:
    """By how much the time left was said too long, as a share of it, at each of `SHARES` of the run's time.

    Beside a plan that foresees each part so many `times` as long.
    """
    foreseen = {}
    for pack, each in run[plan].items():
        parts = {part: times[part] * seconds for part, seconds in each["parts"].items()}
        foreseen[pack] = Foreseen(tuple(each["trial_ids"]), sum(parts.values()), parts)
    cells = {trial_id: "cell" for each in foreseen.values() for trial_id in each.trial_ids}
    state, end = RunState("", cells, {}, len(foreseen), foreseen=foreseen), run["events"][-1][0]
    events = [(at, KINDS[kind](**facts)) for at, kind, facts in run["events"]]
    for share in SHARES:
        now = share * end
        while events[0][0] <= now:
            at, event = events.pop(0)
            state = state.apply(event, at)
        yield (forecast.seconds_left(state, now) or 0.0) / (end - now) - 1


def recorded(name: str) -> dict[str, Any]:
    """What a run of the study tells, and when, beside what it was to take by a guess and by what was measured."""
    began, clock = time.process_time(), SimpleNamespace(monotonic=lambda: time.process_time() / THREADS)
    events: list[Any] = []

    def listen(event: Event) -> None:
        at = (time.process_time() - began) / THREADS
        facts = asdict(event)
        events.append((at, type(event).__name__, facts | {"points": {}} if "points" in facts else facts))

    with (
        tempfile.TemporaryDirectory() as root,
        patch.object(pace, "time", clock),
        patch.object(packed, "time", clock),
    ):
        store, capacity = Store(Path(root)).open(), Capacity("cpu", 1, THREADS)
        _save(store)
        wanted = runner.load(Path("studies") / f"{name}.yaml", "quick", {}, store)
        trunks.train(list(runner.plan(wanted, store, capacity).trunks.values()), store, capacity, lambda progress: None)
        guess = _foreseen(runner.plan(wanted, store, capacity))
        runner.calibrate(runner.plan(wanted, store, capacity), store)
        planned = runner.plan(wanted, store, capacity)
        began = time.process_time()
        runner.run_packs(planned, store, listen, "inline")
    return {"guess": guess, "measured": _foreseen(planned), "events": events}


def _foreseen(planned: Plan) -> dict[str, Any]:
    return {
        pack.pack_id: asdict(Foreseen.of(pack, estimate))
        for pack, estimate in zip(planned.packs, planned.estimates, strict=True)
    }


def _save(store: Store) -> None:
    """Prepared sets of noise: one of the size and the people of Oulu-CASIA, and two small ones for the trunks."""
    frames = [
        (f"P{person:02}", label, str(frame))
        for person in range(PEOPLE)
        for label in oulu_casia.CLASSES
        for frame in range(FRAMES)
    ]
    splits = ["train" if i % 4 else "valid" for i in range(FOR_TRUNKS)]
    nobody = [Face("", oulu_casia.CLASSES[i % 6], f"{i}", "", split, f"{i}") for i, split in enumerate(splits)]
    sets = {
        "oulu-casia": (oulu_casia.CLASSES, [Face(p, c, f"{p}/{c}", f, "", f"{p}/{c}/{f}") for p, c, f in frames]),
        "ferplus": (oulu_casia.CLASSES, nobody),
        "casia-webface": ((), [Face(f"{i % 4}", "", f"{i // 4}", "", "", f"{i}") for i in range(FOR_TRUNKS)]),
    }
    for name, (classes, rows) in sets.items():
        pixels = generator("time left", name).integers(0, 256, (len(rows), 80, 80), dtype=np.uint8)
        prepared.save(store.data / name, name, classes, True, pixels, rows, [], {})


if __name__ == "__main__":
    main()
