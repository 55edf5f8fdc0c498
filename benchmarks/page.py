"""What the HTML report of 1,000 trials takes: `python -m benchmarks.page [--cells 100] [--folder DIR]`.

Ten folds a cell, 50 epochs, 144 pictures of six expressions a fold, as Oulu-CASIA has them; accuracies are drawn by
`simulated`, predictions after them. Processor time of the whole command with its children, the best of three in a
fresh process each, beside the terminal's report, and the size of the file.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulated import Simulated
from idennet_core.streams import generator
from orchestrator import record, runner
from orchestrator.planning import Capacity
from orchestrator.rows import Run
from orchestrator.store import Store
from orchestrator.trial import Pack, Predictions, TrialResult

CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
PEOPLE, FRAMES = 8, 3  # of a fold, of a sequence
TIMES = 3
STUDY = """
name: page
question: How long does the page of many trials take?
workload: benchmarks.simulated:Simulated
dataset: simulated
base: {{epochs: 50, lag: 20}}
design: {{grid: {{level: {levels}}}}}
report: {{by: level, baselines: [{{level: 0.0}}]}}
"""


def main() -> None:
    """Store the study, make its page, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        store = Store(folder / "runs")
        if not store.root.exists():
            fill(store.open(), folder / "page.yaml", given.cells)
        print("| format | processor s | MB |\n| --- | ---: | ---: |")
        for format in ("terminal", "html"):
            out = folder / f"page.{format}"
            seconds = min(_seconds(format, out, store) for _ in range(TIMES))
            print(f"| {format} | {seconds:.2f} | {out.stat().st_size / 1e6:.2f} |")


def fill(store: Store, file: Path, cells: int) -> None:
    """Store ten trials a cell with their curves and predictions, a pack a fold."""
    file.write_text(STUDY.format(levels=[level / 20 for level in range(cells)]))
    planned = runner.plan(runner.load(file, None, {}, store), store, Capacity("cpu", 1, 1))
    record.freeze(planned, store, ["idenctl", "study", "run", str(file)])
    simulated, now = Simulated(store), datetime.now(UTC)
    context: Any = None  # a simulated pack needs none
    for fold in range(10):
        trials = tuple(trial for trial in planned.trials if trial.fold == fold)
        results = [_predicted(result) for result in simulated.run(Pack(trials), context)]
        store.write_pack(results, simulated.rules.settings, Run("cpu", "simulated", now, now, "0"))


def _predicted(result: TrialResult) -> TrialResult:
    """The result with predictions of about its accuracy."""
    rows = [(f"P{result.trial.fold}{person}", name, frame) for person in range(PEOPLE) for name in CLASSES
            for frame in range(FRAMES)]  # fmt: skip
    random = generator("benchmark", "page", result.trial.trial_id)
    sure = random.dirichlet(np.ones(len(CLASSES)), len(rows))
    right = random.random(len(rows)) < (result.accuracy or 0.0)
    sure[right, [CLASSES.index(name) for (_, name, _), yes in zip(rows, right, strict=True) if yes]] += 1
    predictions = Predictions(
        subject=[person for person, _, _ in rows],
        sequence=[f"{person}/{name}" for person, name, _ in rows],
        frame=[str(frame) for _, _, frame in rows],
        label=[name for _, name, _ in rows],
        probabilities=(sure / sure.sum(1, keepdims=True)).astype(np.float32),
        classes=CLASSES,
    )
    return replace(result, predictions=predictions)


def _seconds(format: str, out: Path, store: Store) -> float:
    command = [sys.executable, "-m", "orchestrator.cli.app", "report", "page", "--format", format, "--out", str(out)]
    before = _children()
    subprocess.run([*command, "--store", str(store.root)], check=True, capture_output=True)
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
