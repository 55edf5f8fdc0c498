"""A small workload in a folder of its own, as a user has one: a trial tosses, and may take long, raise or die.

It takes no longer than until there is a file `enough` in the store.
"""

STUDY = """\
name: coin
question: Is it fair?
workload: coin:Coin
dataset: tosses
folds: [0, 1]
base: {{takes: {takes}}}
design: {{grid: {{side: [{sides}]}}}}
report: {{by: side}}
"""
MODULE = """\
import os
import signal
import time
from pathlib import Path

import orchestrator
from helper import ACCURACY
from orchestrator.planning import Estimate
from orchestrator.study_rules import Rules, complete
from orchestrator.trial import Configuration, TrialResult
from orchestrator.workload import Configured


class Coin:
    rules = Rules({"side": "heads", "takes": 0.0}, datasets=("tosses",))

    def __init__(self, store):
        self.store = store

    def configure(self, study, cells):
        found = [complete(cell.settings, self.rules.settings) for cell in cells]
        return Configured([Configuration(settings, {"recipe": "1"}) for settings in found], synthetic=True)

    def pack_key(self, trial):
        return trial.trial_id

    def estimate(self, pack, device, threads):
        return Estimate(1.0, 0, measured=True)

    def run(self, pack, context):
        found = []
        for trial in pack.trials:
            side = trial.configuration.settings["side"]
            if side == "edge":
                raise RuntimeError("it stands on its edge")
            if side == "lost":
                os.kill(os.getpid(), signal.SIGKILL)
            (Path(self.store.root) / "where.txt").write_text(orchestrator.__file__)
            ends = time.monotonic() + trial.configuration.settings["takes"]
            while time.monotonic() < ends and not (Path(self.store.root) / "enough").exists():
                time.sleep(0.05)
            facts = {"state": "complete", "synthetic": True, "n_train": 9, "n_test": 1, "seconds": 0.0}
            found.append(TrialResult(trial, accuracy=ACCURACY[side], **facts))
        return found
"""
HELPER = 'ACCURACY = {"heads": 0.75, "tails": 0.25}\n'


def written(folder, sides="heads, tails", takes=0.0):
    """The folder with the workload, what it imports, the study file, and what is nobody else's business."""
    folder.mkdir(exist_ok=True)
    (folder / "coin.py").write_text(MODULE)
    (folder / "helper.py").write_text(HELPER)
    (folder / "coin.yaml").write_text(STUDY.format(sides=sides, takes=takes))
    (folder / "secret.py").write_text("PASSWORD = 'hunter2'\n")
    (folder / "holiday.jpg").write_bytes(bytes(1000))
    return folder
