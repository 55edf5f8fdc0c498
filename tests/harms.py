"""A small workload in a folder of its own, one trial of which kills its worker or takes more memory than there is."""

import plain

STUDY = """\
name: harm
question: Who does it?
workload: harm:Harm
dataset: tosses
folds: [0, 1]
design: {{cells: [{cells}]}}
report: {{by: size}}
"""
MODULE = """\
import os
import signal
from pathlib import Path

from orchestrator.study_rules import Rules
from orchestrator.trial import TrialResult
from plain import Plain


class Harm(Plain):
    rules = Rules({"size": 0, "how": "fine", "kind": ""}, datasets=("tosses",))

    def pack_key(self, trial):
        return trial.configuration.settings["kind"]

    def run(self, pack, context):
        with (Path(self.store.root) / "ran.txt").open("a") as file:
            print(*sorted(trial.trial_id for trial in pack.trials), file=file)
        if pack.trials[0].configuration.settings["kind"] == "crowd" and len(pack.trials) > 2:
            os._exit(1)
        found = []
        for trial in pack.trials:
            how = trial.configuration.settings["how"] if trial.fold else "fine"
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "memory" and not (Path(self.store.root) / "room").exists():
                raise MemoryError("no room")
            accuracy = int(trial.trial_id[:8], 16) / 2**32
            found.append(TrialResult(trial, "complete", True, 9, 1, 0.0, accuracy=accuracy))
        return found
"""


def written(folder, *groups):
    """The folder with workload and study: of each group (kind, configurations, how) the last does harm on fold 1."""
    folder.mkdir(exist_ok=True)
    plain.copied(folder)
    cells = [
        f"{{kind: {kind}, size: {size}, how: {how if size == count - 1 else 'fine'}}}"
        for kind, count, how in groups
        for size in range(count)
    ]
    (folder / "harm.py").write_text(MODULE)
    (folder / "harm.yaml").write_text(STUDY.format(cells=", ".join(cells)))
    return folder
