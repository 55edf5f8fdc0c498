"""What running a study adds to the work itself.

    python -m benchmarks.orchestration --startup          from the command to the first training step, in parts
    python -m benchmarks.orchestration --packs 100        what Tune and the store take of a study of packs of a minute
    python -m benchmarks.orchestration --nodes 1 2 4 8    weak scaling over the nodes of a Ray cluster on this machine

The work is simulated but for the start: a pack sleeps. Everything is measured here and now.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.simulated import SETTINGS, Simulated
from benchmarks.studies import prepare
from orchestrator import machine, runner
from orchestrator.cluster import token
from orchestrator.planning import Capacity
from orchestrator.progress import Event, PackDone, PackFailed, PackStarted, Progress
from orchestrator.source import Listed
from orchestrator.store import Store
from orchestrator.trial import Configuration, Pack, Trial

MINUTE = 60.0  # seconds, a pack's length in the share that orchestration takes
DEPTH, BATCH, EPOCHS = 16, 32, 2  # of the study whose start is measured


def startup(rounds: int) -> None:
    """Seconds from the command to each step of the start, medians over rounds."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        study = prepare(Path(folder), DEPTH, BATCH, EPOCHS)
        for _ in range(rounds):
            began = time.time()
            command = [sys.executable, "-m", "benchmarks.orchestration", "--marks", str(study)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for line in told.splitlines():
                at, _, name = line.partition(" ")
                found.setdefault(name, []).append(float(at) - began)
    print(f"seconds from `idenctl study run` to each step, and from the one before; median of {rounds} (least to most)")
    before = 0.0
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"  {name:42} {middle:6.2f} {middle - before:+6.2f}   ({min(values):.2f} to {max(values):.2f})")
        before = middle


def mark_start(file: Path) -> None:
    """Run the study as the command does, print when each step was reached, and stop at the first training step."""
    seen: set[str] = set()

    def mark(name: str) -> None:
        if name not in seen:
            seen.add(name)
            print(f"{time.time()} {name}", flush=True)

    store = Store(file.parent / "store").open()
    planned = runner.plan(runner.load(file, None, {}, store), store, machine.this_machine())
    mark("modules loaded and study planned")
    ray: Any = importlib.import_module("ray")
    importlib.import_module("orchestrator.tune_engine")
    mark("Ray and Tune loaded")
    start = ray.init

    def started(*arguments: object, **options: object) -> object:
        context = start(*arguments, **options)
        mark("Ray started")
        return context

    ray.init = started

    def listen(event: Event) -> None:
        if isinstance(event, PackStarted):
            mark("a worker has the pack")
        elif isinstance(event, Progress):
            mark("torch loaded, members built: first batch of the bank")
            if event.stage == "heads":
                mark("bank filled: first step of a head")
                raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        runner.run_packs(planned, store, listen)


def simulated_packs(count: int, seconds: float, trials: int = 10) -> list[Pack]:
    """Packs of the simulated workload, each one configuration on `trials` folds that takes so long in all."""
    found = []
    for number in range(count):
        settings = {**SETTINGS, "x": number / 1e6, "takes": seconds / trials, "dataset": "simulated"}
        configuration = Configuration(settings, {"data": "simulated 0"})
        found.append(Pack(tuple(Trial(configuration, fold, 0) for fold in range(trials))))
    return found


def run_simulated(packs: Sequence[Pack], capacity: Capacity, address: str | None = None) -> tuple[float, float, float]:
    """Wall seconds from the first pack's start to the last one's end, from the call, and the driver's own."""
    from orchestrator import tune_engine
    from orchestrator.cluster.placement import Cluster

    began, spent, first, last = time.perf_counter(), time.process_time(), 0.0, 0.0

    def listen(event: Event) -> None:
        nonlocal first, last
        assert not isinstance(event, PackFailed), event
        if isinstance(event, PackStarted):
            first = first or time.perf_counter()
        elif isinstance(event, PackDone):
            last = time.perf_counter()

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        store = Store(Path(folder)).open()
        cluster = Cluster(address) if address else None
        tune_engine.run(Listed(packs), Simulated(store), store, capacity, listen, cluster=cluster)
        stored = store.trials(["trial_id"]).height
    assert stored == sum(len(pack.trials) for pack in packs), "a trial is missing"
    return last - first, last - began, time.process_time() - spent


def overhead(count: int, seconds: float) -> None:
    """What is added to each of so many packs that sleep for `seconds`, as a share of packs of a minute."""
    span, whole, own = run_simulated(simulated_packs(count, seconds), Capacity("cpu", 1, 1))
    added = (span - count * seconds) / count
    print(f"{count} packs of 10 trials and {seconds} s, one device: {added * 1000:.0f} ms added to each pack")
    print(f"  {added / MINUTE:.2%} of packs of a minute; with {whole - span:.1f} s of start,", end=" ")
    print(f"{(added * count + whole - span) / (count * MINUTE):.2%} of a study of {count} of them")
    print(
        f"  {own / count * 1000:.0f} ms of the driver's processor time a pack: {count / own:.0f} packs a second at most"
    )


def weak_scaling(sizes: Sequence[int], each: int, seconds: float) -> None:
    """As many packs a node on each cluster: the time should not grow."""
    from ray.cluster_utils import Cluster

    one: list[float] = []
    print(f"{each} packs of {seconds} s a node, one pack a node at a time")
    for nodes in sizes:
        cluster = Cluster()
        try:
            for _ in range(nodes):
                cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=2**27)
            packs = simulated_packs(each * nodes, seconds)
            span, whole, own = run_simulated(packs, Capacity("cpu", nodes, 1), cluster.address)
        finally:
            cluster.shutdown()
        one = one or [span, whole]
        ideal = each * seconds
        print(
            f"  {nodes} nodes: {span:6.1f} s from first start to last end ({ideal / span:.1%} of the ideal "
            f"{ideal:.0f} s, {one[0] / span:.1%} of one node), {whole:6.1f} s from the call ({one[1] / whole:.1%}); "
            f"driver {own:.1f} s of processor",
            flush=True,
        )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--startup", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packs", type=int, nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--nodes", type=int, nargs="*", default=[])
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--marks", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    token.for_own_ray()  # before Ray is imported
    if given.marks:
        mark_start(given.marks)
    if given.startup:
        startup(given.rounds)
    for count in given.packs:
        overhead(count, given.seconds)
    if given.nodes:
        weak_scaling(given.nodes, given.each, given.seconds)


if __name__ == "__main__":
    main()
