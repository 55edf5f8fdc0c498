"""The peer of a study: a script on Ray Tune as its documentation has it, a trial a fold.

python -m benchmarks.ray_script DEPTH BATCH STEPS TRIALS FOLDER
"""

import os
import sys
from typing import Any

import ray
import torch
from ray import tune

from benchmarks import peers
from benchmarks.peers import FOLDS, Work


def run(depth: int, batch: int, steps: int, trials: int, folder: str) -> None:
    """The peer: a study as a script on Ray Tune, one trial a fold, each training and testing its own network."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_AIR_NEW_OUTPUT": "0"}
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


if __name__ == "__main__":
    depth, batch, steps, trials = map(int, sys.argv[1:5])
    run(depth, batch, steps, trials, sys.argv[5])
