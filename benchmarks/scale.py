"""What the driver costs against the number of trials: `python -m benchmarks.scale`.

    python -m benchmarks.scale [--most 1000000] [--pack 60] [--folder DIR] [--plot docs/images/scale.svg]
    python -m benchmarks.scale --report [--folder DIR]     `idenctl report` on 100,000 trials with 5,000,000 curve rows

For 10^3, 10^4, … trials of a simulated study it stores them, in packs, and takes the processor time of each thing that
a driver does, in a process of its own. Prints a table; the exponent in the last column is 1 for what is linear.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.simulated import Simulated
from orchestrator import frozen, record, runner
from orchestrator.cli.plan import _print_plan, facts_of
from orchestrator.cli.screen import screen
from orchestrator.design import describe
from orchestrator.planning import Capacity
from orchestrator.progress import Event, PackDone, PackStarted, Progress, RunState
from orchestrator.report import tables
from orchestrator.rows import Run
from orchestrator.store import Store
from orchestrator.trial import Pack, Trial

DEVICES = Capacity("cpu", 8, 1)
MEASURES = {
    "plan, nothing stored": "plan_new",
    "print that plan": "print_plan",
    "plan, all stored": "plan_stored",
    "read the states": "read_states",
    "read the trials": "read_trials",
    "read the trials without the index": "read_without_index",
    "report": "report",
    "progress events": "events",
}


def study_of(trials: int, folder: Path) -> Path:
    """The file of a study of the simulated workload with so many trials, a tenth as many cells."""
    ys = 1 if trials < 1000 else 10
    grid = {"x": [i / trials for i in range(trials // 10 // ys)], "y": [i / 10 for i in range(ys)]}
    path = folder / f"scale{trials}.yaml"
    head = "question: What does the driver cost?\nworkload: benchmarks.simulated:Simulated\ndataset: simulated\n"
    by = "report: {by: x}\n"
    path.write_text(f"name: scale{trials}\n{head}design: {{grid: {json.dumps(grid)}}}\n{by}")
    return path


REPORTED = """
name: reported
question: How long does a report of many trials take?
workload: benchmarks.simulated:Simulated
dataset: simulated
seeds: {seeds}
base: {{epochs: {epochs}}}
design: {{grid: {{level: {levels}}}}}
report: {{by: level, baselines: [{{level: 0.0}}]}}
"""


def report_command(folder: Path, size: int, cells: int = 100, seeds: int = 100, epochs: int = 50) -> None:
    """Seconds of `idenctl report` on a study of ten folds, the first time and the second, when there is an index."""
    store, file = Store(folder / "reported"), folder / "reported.yaml"
    levels = [level / 10 for level in range(cells)]
    file.write_text(REPORTED.format(seeds=list(range(seeds)), epochs=epochs, levels=levels))
    if not store.root.exists():
        fill(store.open(), file, size)
    for path in store.root.glob("index/*"):
        path.unlink()
    for time_ in ("first", "second"):
        command = [sys.executable, "-m", "orchestrator.cli.app", "report", "reported", "--store", str(store.root)]
        began, spent = time.perf_counter(), _children()
        subprocess.run(command, check=True, capture_output=True)
        wall, cpu = time.perf_counter() - began, _children() - spent
        what = f"{time_} report of {cells * seeds * 10:,} trials with {cells * seeds * 10 * epochs:,} curve rows"
        print(f"{what}: {wall:.2f} s, {cpu:.2f} s of processor")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fill(store: Store, file: Path, size: int) -> None:
    """Store all trials of the study, in packs of `size`, as workers would write them."""
    planned = runner.plan(runner.load(file, None, {}, store), store, DEVICES)
    trials = [trial for pack in planned.packs for trial in pack.trials]
    simulated, now = Simulated(store), datetime.now(UTC)
    record.freeze(planned, store, ["benchmarks.scale"])
    context: Any = None  # a simulated pack needs none
    for start in range(0, len(trials), size):
        results = simulated.run(Pack(tuple(trials[start : start + size])), context)
        store.write_pack(results, simulated.rules.settings, Run("cpu", "simulated", now, now, "0"))


class Measured:
    """The things measured, each in a fresh process; their names are the values of MEASURES."""

    def __init__(self, folder: Path, trials: int, size: int) -> None:
        self.file, self.size = folder / f"scale{trials}.yaml", size
        self.store, self.empty = Store(folder / f"store{trials}"), Store(folder / "empty")

    def _plan(self, store: Store) -> runner.Plan:
        return runner.plan(runner.load(self.file, None, {}, store), store, DEVICES)

    def plan_new(self) -> Callable[[], object]:
        """Plan with nothing stored."""
        return lambda: self._plan(self.empty)

    def print_plan(self) -> Callable[[], object]:
        """Print what `study plan` does."""
        planned = self._plan(self.empty)
        return lambda: _print_plan(planned, facts_of(planned, self.empty, None), self.empty)

    def plan_stored(self) -> Callable[[], object]:
        """Plan with everything stored."""
        return lambda: self._plan(self.store)

    def read_states(self) -> Callable[[], object]:
        """What planning asks of the store."""
        return self.store.states

    def read_trials(self) -> Callable[[], object]:
        """All columns of `trials`."""
        return self.store.trials

    def read_without_index(self) -> Callable[[], object]:
        """The same from the packs' files; writes the index."""
        for path in self.store.root.glob("index/*"):
            path.unlink()
        return self.store.trials

    def report(self) -> Callable[[], object]:
        """The numbers of a report of ten cells."""
        plan = frozen.read_plan(self.store.studies / self.file.stem / "plan.json")
        plan["cells"] = plan["cells"][:: max(len(plan["cells"]) // 10, 1)]
        return lambda: tables.build(plan, self.store.trials(), None)

    def events(self) -> Callable[[], object]:
        """What a driver does with the events of a study: four a pack, as plain lines."""
        planned = self._plan(self.empty)
        pairs = zip(planned.configurations, planned.cells, strict=True)
        names = {configuration.configuration_id: describe(cell.label) for configuration, cell in pairs}
        of_trials = {trial.trial_id: names[trial.configuration.configuration_id] for trial in planned.trials}
        told = list(_events(planned.trials, self.size))

        def listen() -> None:
            with screen(RunState("scale", of_trials, {}, len(told)), stream=StringIO()) as tell:
                for event in told:
                    tell(event)

        return listen


def _events(trials: Sequence[Trial], size: int) -> Iterator[Event]:
    for start in range(0, len(trials), size):
        ids = tuple(trial.trial_id for trial in trials[start : start + size])
        name, accuracies = f"{start:032}", dict.fromkeys(ids, 0.8)
        yield PackStarted(name, ids)
        for epoch in (1, 2):
            yield Progress(name, epoch * len(ids), 3 * len(ids), epoch, 3, "heads", accuracies)
        yield PackDone(name, accuracies, {})


def measure(folder: Path, trials: int, size: int, name: str) -> dict[str, float]:
    """Processor and wall seconds and MiB of one thing, measured in this process."""
    act = getattr(Measured(folder, trials, size), name)()
    began, spent = time.perf_counter(), time.process_time()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        act()
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    return {"wall": wall, "cpu": cpu, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _in_fresh_process(folder: Path, trials: int, size: int, name: str) -> dict[str, float]:
    arguments = ["--one", name, "--folder", str(folder), "--most", str(trials), "--pack", str(size)]
    command = [sys.executable, "-m", "benchmarks.scale", *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def exponent(found: dict[int, dict[str, float]]) -> float:
    """The slope of log processor time over log trials between the last two sizes."""
    (first, less), (last, more) = sorted(found.items())[-2:]
    return math.log(more["cpu"] / less["cpu"]) / math.log(last / first)


def main() -> None:
    """Fill the stores, measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--pack", type=int, default=60)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", choices=MEASURES.values())
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.folder, given.most, given.pack, given.one)))
        return
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        if given.report:
            report_command(folder, given.pack)
            return
        sizes = [10**power for power in range(3, round(math.log10(given.most)) + 1)]
        for trials in sizes:
            store = Store(folder / f"store{trials}")
            if not store.root.exists():
                fill(store.open(), study_of(trials, folder), given.pack)
        found = {
            label: {trials: _in_fresh_process(folder, trials, given.pack, name) for trials in sizes}
            for label, name in MEASURES.items()
        }
    print(f"processor seconds (wall seconds, MiB of memory) in packs of {given.pack}, by the number of trials")
    print(f"{'':34}" + "".join(f"{trials:>26,}" for trials in sizes) + "  exponent")
    for label, by_trials in found.items():
        cells_ = "".join(f"{m['cpu']:10.3f} ({m['wall']:7.2f}, {m['mib']:5.0f})" for m in by_trials.values())
        print(f"{label:34}{cells_}{exponent(by_trials) if len(sizes) > 1 else math.nan:10.2f}")
    if given.plot:
        draw(found, given.plot)


def draw(found: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Processor seconds over trials, both logarithmic."""
    import altair

    rows = [{"what": w, "trials": n, "seconds": m["cpu"]} for w, by in found.items() for n, m in by.items()]
    chart = altair.Chart(altair.Data(values=rows)).mark_line(point=True)
    scale = altair.Scale(type="log")
    chart.encode(
        x=altair.X("trials:Q", scale=scale, title="trials (simulated)"),
        y=altair.Y("seconds:Q", scale=scale, title="processor seconds"),
        color=altair.Color("what:N", title=None),
    ).properties(width=480, height=320).save(str(path))


if __name__ == "__main__":
    main()
