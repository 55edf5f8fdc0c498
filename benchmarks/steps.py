"""Member-steps a second: one optimiser step of one trial at batch 128, everything it needs counted."""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.peers import Work
from benchmarks.turns import Worker
from idennet_core import packed
from idennet_core.config import STORED_SIZE, canonical
from idennet_core.datasets.prepared import FaceSet
from idennet_core.network import Trunk
from idennet_core.training import Member, keep_freed_memory, single_threads

RAY, OURS = "Ray Tune, a trial a fold", "idenctl"
STACKED = 4  # members of the ensembles that are stacked into one module
PART = (
    3  # steps an epoch of ours in a round, with a bank as much smaller: pictures, steps and test fold keep their shares
)

Measure = Callable[[], float]  # member-steps a second, measured once


def contenders(work: Work, steps: int, members: int, sizes: Sequence[int]) -> dict[str, Worker]:
    """Every way of training the same trials, by name; `members` are a pack of ours, `steps` what the others take.

    `sizes` are further packs, to see how the speed grows with the members.
    """
    measures: dict[str, tuple[Callable[..., Measure], tuple[Any, ...]]] = {
        RAY: (on_ray, (work, steps, False)),
        f"{RAY}, reuse_actors": (on_ray, (work, steps, True)),
        "PyTorch, one process": (in_turn, (peers.plain_steps, (work,), steps, 1)),
        "PyTorch, channels-last": (in_turn, (peers.plain_steps, (work, "channels-last"), steps, 1)),
        "PyTorch, channels-last, bf16": (in_turn, (peers.plain_steps, (work, "channels-last", "bf16"), steps, 1)),
        f"vmap over {STACKED} heads": (in_turn, (peers.vmap_steps, (work, STACKED), 1, STACKED)),
        f"{STACKED} heads fused in the channels": (in_turn, (peers.fused_steps, (work, STACKED), 1, STACKED)),
        f"a bank and plain modules, {members} members": (in_packs, (work, members, True)),
        **{ours(size): (in_packs, (work, size)) for size in sorted({*sizes, members})},
    }
    return {name: (_serve, measure) for name, measure in measures.items()}


def ours(members: int) -> str:
    """Our name in the table, in packs of so many members."""
    return f"{OURS}, {members} member{'s' if members > 1 else ''}"


def on_ray(work: Work, steps: int, reuse: bool) -> Measure:
    """Ray Tune as its documentation has it: as many trials at once as there are cores, one core each."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray
    from ray import tune

    cores = len(os.sched_getaffinity(0))
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    scratch = tempfile.mkdtemp(prefix="bench-ray-")

    def trial(config: dict[str, Any], work: Work) -> None:
        step = peers.plain_steps(work)
        step()  # warms up
        tune.report({"seconds": peers.seconds_a_step(step, steps)})

    def measure() -> float:
        tuner = tune.Tuner(
            tune.with_parameters(trial, work=work),
            param_space={"fold": tune.grid_search(list(range(cores)))},
            tune_config=tune.TuneConfig(reuse_actors=reuse),
            run_config=tune.RunConfig(verbose=0, storage_path=scratch),
        )
        found = tuner.fit()
        return float(sum(1 / found[place].metrics["seconds"] for place in range(len(found))))  # type: ignore[index]

    return measure


def in_turn(make: Callable[..., Callable[[], None]], arguments: tuple[Any, ...], steps: int, members: int) -> Measure:
    """One process on all cores; a step is one of each of its `members`."""
    step = make(*arguments)
    step()  # warms up
    return lambda: members / peers.seconds_a_step(step, steps)


def in_packs(work: Work, members: int, plain: bool = False) -> Measure:
    """A short epoch of a pack of so many members, its bank counted; `plain`, with PyTorch's modules in our threads."""
    keep_freed_memory()
    short, threads = part_of(work), len(os.sched_getaffinity(0))

    def measure(members: int = members) -> float:
        pack, frozen, faces = pack_of(short, members, 1)
        if plain:
            with single_threads(threads) as pool:
                return peers.banked_steps(frozen, pack, faces, pool)
        _, seconds = packed.train(
            pack, frozen, faces, first_epoch=0, device=peers.CPU, threads=threads,
            on_progress=lambda _: None, on_epoch=lambda epoch, records: None,
        )  # fmt: skip
        # two banks were filled, one of them, of the centre crops, for the test folds of all epochs
        return float(sum(member.steps_per_epoch for member in pack)) / (seconds.trunks / 2 + seconds.heads)

    measure(1)  # warms up
    return measure


def part_of(work: Work) -> Work:
    """So many of its pictures that an epoch of a trial has PART steps."""
    return Work.drawn(work.depth, work.batch, PART * peers.PICTURES // peers.steps_an_epoch(work.batch))


def pack_of(
    work: Work, members: int, epochs: int, augment: bool = False, device: torch.device = peers.CPU
) -> tuple[list[Member], list[Trunk], FaceSet]:
    """So many trials of variant `if`, a fold each and the seeds they take, with the trunks and the faces they read."""
    faces, (trunks, _) = faces_of(work), peers.trunks_and_head(work.depth)
    chosen = {"depth": work.depth, "batch_size": work.batch, "epochs": epochs, "augment": augment}
    settings, start = canonical(chosen), peers.emotion_network(work.depth).state_dict()
    frozen: list[Trunk] = list(trunks)  # type: ignore[arg-type]
    examples, width, folds = packed.examples(faces, augment), frozen[0].out_width, peers.FOLDS
    pack = [Member(settings, i % folds, i // folds, examples, width, start, device) for i in range(members)]
    return pack, frozen, faces


def faces_of(work: Work) -> FaceSet:
    """The benchmark's pictures as a prepared set."""
    margin = (STORED_SIZE - work.faces.shape[1]) // 2
    people, labels = (np.array([f"{value:02}" for value in values]) for values in (work.people, work.labels))
    index = np.array([f"{place:05}" for place in range(len(work.faces))])
    faces = np.pad(work.faces, ((0, 0), (margin, margin), (margin, margin)))
    classes = tuple(f"{value:02}" for value in range(peers.CLASSES))
    nothing = np.full(len(faces), "")
    return FaceSet("noise", "benchmark", True, classes, faces, people, labels, index, index, nothing, index, {})


def _serve(pipe: Connection, make: Callable[..., Measure], arguments: tuple[Any, ...]) -> None:
    measure = make(*arguments)
    pipe.send(0.0)
    while pipe.recv():
        pipe.send(measure())
