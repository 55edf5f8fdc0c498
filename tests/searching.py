"""Searches on simulated accuracies, as study files, and how the tests run them and read what they left."""

import json
import subprocess
import sys
import time

import holding

from orchestrator import runner
from orchestrator.planning import Capacity
from orchestrator.store import Store

NUMBERS = "{x: {low: -3, high: 3}, y: {low: 0.1, high: 3, log: true}}"
MIXED = "{arm: {choices: [a, b]}, x: {low: -3, high: 3, when: {arm: a}}, y: {low: -2, high: 2, step: 0.5}}"
SAMPLERS = {
    "tpe": MIXED,
    "random": MIXED,
    "qmc": NUMBERS,
    "cma-es": NUMBERS,
    "gp": NUMBERS,
    "nsga-ii": MIXED,
}
STUDY = """
name: top
question: Where is the top?
workload: benchmarks.simulated:Simulated
dataset: simulated
folds: all
base: {{epochs: 9, lag: 10, draw: 3, takes: {takes}}}
search: {{sampler: {sampler}, space: {space}, configurations: {configurations}, batch: {batch}{more}}}
report: {{by: y}}
"""
CPU = Capacity("cpu", 1, 1)


def text(sampler="tpe", space=None, configurations=16, batch=4, more="", takes=0.0):
    """A study file. `more` goes into its section `search`; `takes` is seconds a trial."""
    space = space or SAMPLERS[sampler]
    return STUDY.format(
        sampler=sampler, space=space, configurations=configurations, batch=batch, more=more, takes=takes
    )


def mirrored(storage, takes=0.0):
    """A study file of a search that is shown in an Optuna database."""
    return text(more=", pruning: {first: 3}", takes=takes) + f'optuna: {{storage: "{storage}"}}\n'


def written(root, content):
    """The study file, in the folder that becomes the store."""
    root.mkdir(exist_ok=True)
    file = root / "study.yaml"
    file.write_text(content)
    return file


def planned_in(root, capacity=CPU):
    """The plan of the study file in a store, on what the store has."""
    store = Store(root)
    return runner.plan(runner.load(root / "study.yaml", None, {}, store), store, capacity)


def plan(root, content, capacity=CPU):
    Store(root).open()
    written(root, content)
    return planned_in(root, capacity)


def run(root, content, listen=lambda event: None):
    """The plan after the run, whose `search` has gone as far as it can."""
    planned = plan(root, content)
    runner.run_packs(planned, planned.search.store, listen, "inline")
    return planned_in(root)


def started(root, content, batches):
    """The study in a process of its own, which has been held once it had asked so many batches, with packs to run."""
    arguments = ["study", "run", written(root, content), "--engine", "inline", "--store", root]
    command = [sys.executable, "-m", "orchestrator.cli.app", *map(str, arguments)]
    mark = root.with_name("held")
    mark.unlink(missing_ok=True)
    place = rf"/asked/\w+/search/{batches - 1:05}\.json$"
    environment = holding.environment(root.with_name("holding"), place, mark)
    process = subprocess.Popen(command, cwd=holding.ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(mark.exists, process)
    return process


def wait_for(happened, process=None):
    """Until it has happened, which is before the process ends."""
    deadline = time.monotonic() + 300
    while not happened():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def asked(root):
    """The batches as they are kept: folder and content."""
    batches = sorted(root.glob("studies/*/asked/*/*/*.json"))
    return [(path.parent.name, json.loads(path.read_text())) for path in batches]


def rows(root):
    """What the store has of every trial, but for when and where it was trained."""
    varying = ["pack_id", "seconds", "started_at", "finished_at", "host"]
    return Store(root).every_trial().drop(varying).sort("trial_id")


def kept(root):
    """The search's record beside its plan."""
    return json.loads((root / "studies/top/search.json").read_text())
