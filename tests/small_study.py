"""A small study on sets of noise, through the command line as a user runs it: its store, its runs, its rows."""

import os
import subprocess
import sys
import time

import holding
import numpy as np
from chaos import forked
from conftest import idenctl

from idennet_core.datasets import ferplus, oulu_casia, prepared
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from orchestrator.store import Store

STUDY = """
name: small
question: Does it run?
dataset: oulu-casia
folds: [0, 3, 9]
base: {depth: 10, epochs: 3, batch_size: 16, lr: 0.1, augment: false}
design:
  cells: [{variant: original}, {variant: f}]
  grid: {id_rate: [0.5, 1.0]}
trunks:
  emotion: {epochs: 2, batch_size: 16}
  identity: {epochs: 2, batch_size: 16}
report: {by: id_rate, baselines: [{variant: original}]}
"""
TRIALS = 12
ELSEWHERE = {"pack_id", "seconds", "started_at", "finished_at", "host"}  # may differ between two equal runs
FINISH = 600  # seconds after which a run hangs
SEARCH = """
name: small
question: Does it search?
dataset: oulu-casia
folds: [0, 3]
base: {variant: if, depth: 10, epochs: 3, batch_size: 16, lr: 0.1, augment: false}
search:
  space: {alpha: {low: 0.01, high: 1, log: true}, gamma: {low: 0, high: 20}}
  configurations: 5
  batch: 3
  enqueue: [{alpha: 0.1, gamma: 15}]
  pruning: {first: 1}
trunks:
  emotion: {epochs: 2, batch_size: 16}
  identity: {epochs: 2, batch_size: 16}
report: {by: [alpha, gamma]}
"""


def save_noise(store, name, classes, rows):
    pixels = generator("small", name).integers(0, 256, (len(rows), 80, 80), dtype=np.uint8)
    prepared.save(store / "data" / name, name, classes, True, pixels, rows, [], {})


def fill(store):
    """Prepare sets of noise and train the two trunks of STUDY into a store, and nothing else; gives the store."""
    people = [(f"P{i:02}", label) for i in range(20) for label in oulu_casia.CLASSES]
    rows = [Face(p, label, f"{p}/{label}", "1", "", f"{p}/{label}") for p, label in people]
    save_noise(store, "oulu-casia", oulu_casia.CLASSES, rows)
    rows = [Face("", ferplus.CLASSES[i % 8], f"{i:02}", "", "train" if i % 4 else "valid", f"{i}") for i in range(64)]
    save_noise(store, "ferplus", ferplus.CLASSES, rows)
    rows = [Face(f"{i % 4:07}", "", f"{i // 4:03}", "", "", f"{i}") for i in range(64)]
    save_noise(store, "casia-webface", (), rows)
    study = store / "study.yaml"
    study.write_text(STUDY)
    assert idenctl("trunk", "train", study, "--store", store).returncode == 0
    return store


def run(store, *options):
    """The study run in this process, without Ray."""
    return idenctl("study", "run", store / "study.yaml", "--engine", "inline", *options, "--store", store)


class Forked:
    """The study running without Ray in a process of its own, forked from one that has imported everything.

    It is told what `subprocess.Popen` is told. With `place` it has been held there, see `holding`.
    """

    def __init__(self, store, place=None):
        self.folder = store.with_name("forked")
        self.folder.mkdir(exist_ok=True)
        arguments = ("study", "run", store / "study.yaml", "--engine", "inline", "--store", store)
        forked.start_parent()
        mark = self.folder / "held"
        mark.unlink(missing_ok=True)
        self.process = forked.start(arguments, self.folder, {}, held=place and (place, mark))
        self.pid, self.kill = self.process.pid, self.process.kill
        if place:
            wait_until(mark.exists, self)

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout=FINISH):
        self.process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("idenctl", timeout)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=FINISH):
        self.wait(timeout)
        return tuple((self.folder / name).read_text() for name in ("stdout", "stderr"))


def start_on_ray(store, place=None):
    """The study running on Ray, in a process of its own; with `place` it, or a worker, has been held there."""
    command = [sys.executable, "-m", "orchestrator.cli.app", "study", "run", store / "study.yaml", "--store", store]
    mark = store.with_name("held")
    environment = holding.environment(store.with_name("holding"), place, mark) if place else None
    process = subprocess.Popen(
        [*map(str, command)], stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    if place:
        wait_until(mark.exists, process)
    return process


def run_on_ray(store):
    process = start_on_ray(store)
    _, said = process.communicate(timeout=FINISH)
    return process.returncode, said


def wait_until(happened, process):
    deadline = time.monotonic() + FINISH
    while not happened():
        assert process.poll() is None, f"ended before it could be stopped: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def epoch(number):
    """The place where a pack has kept what it is after so many epochs, and nothing after that."""
    return rf"/pack-\w+\.{number}\.safetensors$"


def tables(store):
    """The rows of the three tables without what may differ between equal runs, in a fixed order."""
    found = Store(store)
    trials = found.trials().drop(ELSEWHERE).sort("trial_id")
    curves = found.curves().drop("pack_id").sort("trial_id", "epoch")
    predictions = found.predictions().drop("pack_id").sort("trial_id", "sequence", "frame")
    return trials, curves, predictions


def assert_equal_runs(one, other):
    for left, right in zip(tables(one), tables(other), strict=True):
        assert left.shape[0] > 0
        assert left.equals(right), "to the bit"
