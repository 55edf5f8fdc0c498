"""Member-steps a second: one optimiser step of one trial at batch 128, everything it needs counted.

Each way of training is a process of its own that waits while the others measure; they take turns, so that whatever
else the machine does slows all of them. Figures are medians over the rounds, ratios are taken within a round.
"""

import logging
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.peers import Work
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
Contender = tuple[Callable[..., Measure], tuple[Any, ...]]  # what makes a measure, in a process of its own


def contenders(work: Work, steps: int, members: int, sizes: Sequence[int]) -> dict[str, Contender]:
    """Every way of training the same trials, by name; `members` are a pack of ours, `steps` what the others take.

    `sizes` are further packs, to see how the speed grows with the members.
    """
    return {
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
    short = Work.drawn(
        work.depth,
        work.batch,
        PART * peers.PICTURES // (peers.PICTURES * (peers.FOLDS - 1) // peers.FOLDS // work.batch),
    )
    cpu, faces, (trunks, _) = torch.device("cpu"), faces_of(short), peers.trunks_and_head(work.depth)
    chosen = {"depth": work.depth, "batch_size": work.batch, "epochs": 1, "augment": False}
    settings, start = canonical(chosen), peers.emotion_network(work.depth).state_dict()
    examples, threads = packed.examples(faces, False), len(os.sched_getaffinity(0))
    frozen: list[Trunk] = list(trunks)  # type: ignore[arg-type]

    def measure(members: int = members) -> float:
        pack = [Member(settings, i % 10, i // 10, examples, frozen[0].out_width, start, cpu) for i in range(members)]
        if plain:
            with single_threads(threads) as pool:
                return peers.banked_steps(frozen, pack, faces, pool)
        _, seconds = packed.train(
            pack, frozen, faces, first_epoch=0, device=cpu, threads=threads,
            on_progress=lambda _: None, on_epoch=lambda epoch, records: None,
        )  # fmt: skip
        # two banks were filled, one of them, of the centre crops, for the test folds of all epochs
        return float(sum(member.steps_per_epoch for member in pack)) / (seconds.trunks / 2 + seconds.heads)

    measure(1)  # warms up
    return measure


def part_of(work: Work) -> Work:
    """So many of its pictures that an epoch of a trial has PART steps."""
    return Work.drawn(work.depth, work.batch, PART * peers.PICTURES // peers.steps_an_epoch(work.batch))


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


def take_turns(contenders: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Each contender's measurements, a value a round."""
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for name, (make, arguments) in contenders.items():
        pipes[name], end = context.Pipe()
        processes.append(context.Process(target=_serve, args=(end, make, arguments), daemon=True))
        processes[-1].start()
        pipes[name].recv()
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            values[name].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return values


def ratios(values: dict[str, list[float]], to: str) -> dict[str, float]:
    """The median over rounds of each way's speed against that of `to` in the same round."""
    return {
        name: statistics.median(one / other for one, other in zip(found, values[to], strict=True))
        for name, found in values.items()
    }
