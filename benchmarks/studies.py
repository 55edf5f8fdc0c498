"""A whole study end to end: start-up, data, features, training, evaluation, writing.

Ours is `idenctl study run`, the peer a Ray Tune script that trains a trial a fold. The peer takes too long to run
whole: it runs with one and with two waves of trials, and the further ones are taken to cost what the second did.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import Work
from idennet_core.datasets import oulu_casia, prepared
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator

FOLDS, CELLS = 10, 6  # Fig. 3's two-stream pack: F and five rates on ten folds
STUDY = """
name: bench
question: How long does it take?
dataset: oulu-casia
base: {{depth: {depth}, epochs: {epochs}, batch_size: {batch}, augment: false}}
design:
  cells: [{{variant: f}}]
  grid: {{id_rate: [0.2, 0.4, 0.6, 0.8, 1.0]}}
trunks:
  emotion: {{epochs: 1, batch_size: 16}}
  identity: {{epochs: 1, batch_size: 16}}
report: {{by: id_rate}}
"""


def prepare(folder: Path, depth: int, batch: int, epochs: int) -> Path:
    """A study file beside a store with prepared faces of noise and its trunks."""
    store = folder / "store"
    people = [(f"P{person:03}", label) for person in range(80) for label in oulu_casia.CLASSES]
    faces = [
        Face(p, label, f"{p}/{label}", frame, "", f"{p}/{label}/{frame}") for p, label in people for frame in "123"
    ]
    _save(store, "oulu-casia", oulu_casia.CLASSES, faces)
    rated = [Face("", oulu_casia.CLASSES[i % 6], f"{i}", "", "train", f"{i}") for i in range(32)]
    _save(store, "ferplus", oulu_casia.CLASSES, rated)
    _save(store, "casia-webface", (), [Face(f"{i % 4}", "", f"{i}", "", "", f"{i}") for i in range(40)])
    study = folder / "study.yaml"
    study.write_text(STUDY.format(depth=depth, batch=batch, epochs=epochs))
    command = [sys.executable, "-m", "orchestrator.cli.app"]
    where = ["--store", str(store)]
    subprocess.run([*command, "trunk", "train", str(study), *where], check=True, capture_output=True)
    return study


def our_seconds(folder: Path, depth: int, batch: int, epochs: int) -> float:
    """Wall seconds of `idenctl study run` on prepared faces of noise and trunks that are there already."""
    study = prepare(folder, depth, batch, epochs)
    command = [sys.executable, "-m", "orchestrator.cli.app", "study", "run", str(study)]
    began = time.perf_counter()
    subprocess.run([*command, "--store", str(study.parent / "store")], check=True, capture_output=True)
    return time.perf_counter() - began


def peer_seconds(depth: int, batch: int, steps: int, trials: int) -> tuple[float, dict[str, float]]:
    """Wall seconds of the peer's study of so many trials, and what was measured for it."""
    cores = len(os.sched_getaffinity(0))
    measured = {f"{waves * cores} trials": _peer(depth, batch, steps, waves * cores) for waves in (1, 2)}
    one, two = measured.values()
    return one + (trials / cores - 1) * (two - one), measured


def _peer(depth: int, batch: int, steps: int, trials: int) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-ray-") as folder:
        arguments = [str(value) for value in (depth, batch, steps, trials, folder)]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "benchmarks.studies", *arguments], check=True, capture_output=True)
        return time.perf_counter() - began


def run_peer(depth: int, batch: int, steps: int, trials: int, folder: str) -> None:
    """The peer: a study as a script on Ray Tune, one trial a fold, each training and testing its own network."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray
    import torch
    from ray import tune

    cores = len(os.sched_getaffinity(0))
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)

    def trial(config: dict[str, Any], work: Work) -> None:
        step, accuracy = peers.plain_trial(work)
        for _ in range(steps):
            step()
        tested = len(work.faces) // FOLDS
        images = torch.from_numpy(work.faces[:tested, 6:54, 6:54]).float()[:, None] / 255
        tune.report({"accuracy": accuracy(images, torch.from_numpy(work.labels[:tested]))})

    tuner = tune.Tuner(
        tune.with_parameters(trial, work=Work.drawn(depth, batch)),
        param_space={"trial": tune.grid_search(list(range(trials)))},
        run_config=tune.RunConfig(verbose=0, storage_path=folder),
    )
    tuner.fit().get_dataframe()


def _save(store: Path, name: str, classes: tuple[str, ...], rows: list[Face]) -> None:
    pixels = generator("benchmark", name).integers(0, 256, (len(rows), 80, 80), dtype=np.uint8)
    prepared.save(store / "data" / name, name, classes, True, pixels, rows, [], {})


def compare(folder: Path, depth: int, batch: int, epochs: int) -> dict[str, Any]:
    """Both studies: seconds, their ratio, and how they were measured."""
    steps = epochs * (1296 // batch)  # nine folds of 1,440 faces
    ours = our_seconds(folder, depth, batch, epochs)
    theirs, measured = peer_seconds(depth, batch, steps, CELLS * FOLDS)
    return {
        "trials": CELLS * FOLDS,
        "depth": depth,
        "steps_a_trial": steps,
        "idenctl_seconds": ours,
        "ray_tune_seconds": theirs,
        "ray_tune_measured": measured,
        "ratio": theirs / ours,
    }


if __name__ == "__main__":  # the peer's script; `python -m benchmarks` runs both sides
    depth, batch, steps, trials = map(int, sys.argv[1:5])
    run_peer(depth, batch, steps, trials, sys.argv[5])
