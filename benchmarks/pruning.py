"""What pruning saves and what it costs: whole searches on simulated learning curves, and a pack that heads leave.

    python -m benchmarks.pruning searches [--seeds 20]     searches with and without pruning, paired by sampler seed
    python -m benchmarks.pruning pack [--members 12]       CPU seconds of a pack's epochs before and after

The searches are real (TPE, batches, rungs, decisions) and so is the accounting of epochs; only training is simulated
(`benchmarks/simulated.py`): the accuracies are drawn, the truth about each point is known.
"""

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks import peers, steps
from benchmarks.peers import Work
from benchmarks.simulated import Simulated, accuracies, truth
from idennet_core import packed
from idennet_core.training import keep_freed_memory
from orchestrator.design import Cell
from orchestrator.search.procedure import Procedure, Result
from orchestrator.statistics.folds import estimates
from orchestrator.store import Store
from orchestrator.study import Study
from orchestrator.trial import Configuration, Pack, Rungs, Setting, Trial
from orchestrator.workload import Context

EPOCHS, CONFIGURATIONS, BATCH = 100, 30, 6  # as in studies/focal_search.yaml
RULES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "halving and test": {"first": 10},
    "halving alone": {"first": 10, "level": 1e-12},
    "test alone": {"rungs": [10, 30, 90], "reduction": CONFIGURATIONS + 1},
}
NOISES = (0.5, 1.0, 2.0, 4.0)  # percent, from epoch to epoch of a fold
SURFACES = ("alike", "best slowest")


@dataclass(frozen=True)
class Found:
    """What a search came to: trial epochs trained, true accuracies of the chosen point and of the best asked.

    Was that one dropped, and the one that would have won if all had been trained to the end?
    """

    epochs: int
    chosen: float  # percent
    best: float
    best_dropped: bool
    winner_dropped: bool


def searched(rule: str, surface: str, noise: float, seed: int) -> Found:
    """One search for the top of a hill in x (say, the logarithm of alpha) and y (gamma); each seed is a world."""
    axis = {"low": -2.0, "high": 2.0}
    base = {"slope": 1.5, "noise": noise, "lag": 30.0, "epochs": EPOCHS, "draw": seed}
    section = {"space": {"x": axis, "y": axis}, "seed": seed, "configurations": CONFIGURATIONS, "batch": BATCH}
    wanted = {"search": {**section, "enqueue": [{"x": 1.0, "y": 1.0}], "pruning": RULES[rule]}, "report": {"by": "x"}}
    about = {"name": "hill", "question": "Where is the top?", "dataset": "simulated", "base": base}
    study = Study.model_validate(about | wanted)
    assert study.search is not None
    nowhere = Store(Path("nowhere"))  # nothing is written to it
    workload, context = Simulated(nowhere), Context(nowhere, "cpu", 1, lambda event: None)

    def configure(point: Mapping[str, Setting]) -> Configuration:
        away = (float(point["x"]) ** 2 + float(point["y"]) ** 2) / 8  # 0 at the top, 1 in a corner
        tau = 20.0 if surface == "alike" else 30.0 - 10.0 * away
        return workload.configure(study, [Cell(point, {**base, **point, "tau": tau})]).configurations[0]

    space = study.search.typed(workload.rules.settings)
    procedure = Procedure(study, None, space, configure, {}, Path("nowhere"), keeps=False)
    results: dict[str, Result] = {}
    epochs = 0
    while not procedure.over:
        procedure.advance(results, hungry=True)
        packs: dict[Rungs | None, list[Trial]] = {}
        for trial, rungs in procedure.missing(results):
            packs.setdefault(rungs, []).append(trial)
        for rungs, trials in packs.items():
            for result in workload.run(Pack(tuple(trials), rungs=rungs), context):
                curve = [row["test_accuracy"] for row in result.curve]
                results[result.trial.trial_id] = Result(result.state, result.accuracy, curve)
                epochs += result.epochs
    truths = {number: truth(one.settings) for number, one in procedure.configurations.items()}
    trained = {number: accuracies(one, 0)[:, -1].mean() for number, one in procedure.configurations.items()}
    (chosen,), best = procedure.chosen(), max(truths, key=lambda number: truths[number])
    fates = (procedure.outcomes[n].state == "pruned" for n in (best, max(trained, key=lambda number: trained[number])))
    return Found(epochs, truths[chosen], truths[best], *fates)


def searches(seeds: int) -> None:
    """Print a row a surface, noise and rule, each held against no pruning with the same seed."""
    print(f"{seeds} sampler seeds; {CONFIGURATIONS} configurations x 10 folds x {EPOCHS} epochs, batches of {BATCH}")
    print("curves | noise | pruning | epochs saved | chosen minus unpruned's (95%) | truly best, winner dropped")
    for surface in SURFACES:
        for noise in NOISES:
            found: dict[str, list[Found]] = {}
            for rule in RULES:
                found[rule] = [searched(rule, surface, noise, seed) for seed in range(seeds)]
                pairs = list(zip(found[rule], found["none"], strict=True))
                saved = [1 - own.epochs / other.epochs for own, other in pairs]
                [change] = estimates(np.array([[own.chosen - other.chosen for own, other in pairs]]), 0.0)
                interval = f" ± {change.half_width:.2f}" if change.half_width is not None else ""
                best, winner = fmean(f.best_dropped for f in found[rule]), fmean(f.winner_dropped for f in found[rule])
                print(
                    f"{surface} | {noise} | {rule} | {fmean(saved):.0%} ({min(saved):.0%} to {max(saved):.0%}) | "
                    f"{change.mean:+.2f}{interval} | {best:.0%}, {winner:.0%}",
                    flush=True,
                )
            gap = fmean(own.best - own.chosen for own in found["none"])
            print(f"{surface} | {noise} | without pruning the chosen is {gap:.2f} below the best asked", flush=True)


def pack(members: int, depth: int, batch: int) -> None:
    """Print CPU seconds of each of six epochs of a pack that two thirds of its members leave after three."""
    keep_freed_memory()
    heads, frozen, faces = steps.pack_of(Work.drawn(depth, batch, 720), members, epochs=6)
    spent: dict[str, list[float]] = {"bank": [], "heads": [], "between": []}
    mark, doing = time.process_time(), ""

    def lap(stage: str) -> None:
        nonlocal mark, doing
        now = time.process_time()
        if doing and stage != doing:
            spent[doing].append(now - mark)
        if stage != doing:
            mark, doing = now, stage

    def on_progress(progress: packed.Progress) -> None:
        lap(progress.stage)

    def on_epoch(epoch: int, records: object) -> None:
        lap("between")
        if epoch == 2:
            for head in heads[members // 3 :]:
                head.leave()

    packed.train(
        heads, frozen, faces, first_epoch=0, device=peers.CPU, threads=len(os.sched_getaffinity(0)),
        on_progress=on_progress, on_epoch=on_epoch,
    )  # fmt: skip
    bank = spent["bank"]
    bank[0] /= 2  # two banks, that of the centre crops too
    print(f"CPU seconds an epoch, depth {depth}, batch {batch}: {members} members, then {members // 3}")
    for stage, values in (("bank", bank), ("heads", spent["heads"])):
        before, after = fmean(values[:3]), fmean(values[3:])
        print(f"  {stage:6} {before:8.2f} {after:8.2f}   {after / before:.2f}x   each: {[round(v, 2) for v in values]}")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("searches", "pack"))
    for name, default in (("seeds", 20), ("members", 12), ("depth", 16), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    if given.what == "searches":
        searches(given.seeds)
    else:
        pack(given.members, given.depth, given.batch)


if __name__ == "__main__":
    main()
