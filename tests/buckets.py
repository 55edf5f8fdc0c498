"""A study of a pack for each x, which takes its time, in a store at an address: how it is run, and its rows."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import idenctl
from s3 import BUCKET

from orchestrator.store import TABLES, at

ROOT = Path(__file__).parent.parent
SHARES = """\
name: shares
question: Are all there?
workload: shares:Shares
dataset: drawn
folds: all
design: {grid: {x: [1, 2, 3, 4], y: [1, 2, 3]}}
report: {by: x}
"""
# a pack for each x, which takes its time, and is held as long as there is a file `hold-x` in the current folder
SHARES_MODULE = """
import os, time
import numpy as np
from orchestrator.planning import Estimate
from orchestrator.study_rules import Rules, complete
from orchestrator.trial import Configuration, Predictions, TrialResult
from orchestrator.workload import Configured


class Shares:
    rules = Rules({"x": 1, "y": 1}, datasets=("drawn",))

    def __init__(self, store):
        pass

    def configure(self, study, cells):
        found = [complete(cell.settings, self.rules.settings) for cell in cells]
        return Configured([Configuration(settings, {"recipe": "1"}) for settings in found], synthetic=True)

    def pack_key(self, trial):
        return str(trial.configuration.settings["x"])

    def estimate(self, pack, device, threads):
        return Estimate(0.0, 0, measured=True)

    def run(self, pack, context):
        time.sleep(float(os.environ.get("TAKES", "0")))
        while os.path.exists(f"hold-{pack.trials[0].configuration.settings['x']}"):
            time.sleep(0.02)
        return [self.result(trial) for trial in pack.trials]

    def result(self, trial):
        share = int(trial.trial_id[:4], 16) / 0xFFFF
        names = [f"P{trial.fold}"] * 2
        said = np.array([[share, 1 - share]] * 2, np.float32)
        predictions = Predictions(names, names, names, ["a", "b"], said, ["a", "b"])
        facts = {"state": "complete", "synthetic": True, "n_train": 9, "n_test": 2, "seconds": 0.0}
        curve = [{"epoch": 0, "loss": share}]
        return TrialResult(trial, accuracy=share, epochs=1, curve=curve, predictions=predictions, **facts)
"""
PASSING = ("pack_id", "host", "started_at", "finished_at", "seconds")  # what two runs may differ in


def node(monkeypatch, folder, name):
    """From now on this process, and those that it starts, are on the node of this name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / f"node-{name}"))


def address(prefix="p"):
    return f"s3://{BUCKET}/{prefix}"


def command(store, *more):
    return [sys.executable, "-m", "orchestrator.cli.app", "study", "run", "shares.yaml", "--store", str(store), *more]


def started(store, takes=0.0, **environment):
    """A run of the study in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TAKES": str(takes)} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(store, "--engine", "inline"), env=environment, **pipes)


def hold(*packs):
    """Let these packs, by their x, wait; gives a function that lets them go on."""
    files = [Path(f"hold-{x}") for x in packs]
    for file in files:
        file.touch()
    return lambda: [file.unlink() for file in files]


def ran(store):
    return idenctl("study", "run", "shares.yaml", "--engine", "inline", "--store", store)


def kept(store):
    """The rows of a store in order, without what two runs may differ in."""
    place = at(store).check()
    order = {
        "trials": ["trial_id"],
        "curves": ["trial_id", "epoch"],
        "predictions": ["trial_id", "sequence", "frame", "label"],
    }
    frames = {name: getattr(place, name)() for name in TABLES}
    return {name: frames[name].drop(PASSING, strict=False).sort(order[name]) for name in TABLES}


def assert_equal(one, other):
    for name in TABLES:
        assert one[name].equals(other[name]), name
