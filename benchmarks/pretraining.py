"""Images a second of pre-training on this machine's cores, and their ratio to a plain PyTorch loop.

    python -m benchmarks.pretraining [--depth 40] [--batch 128] [--rounds 7] [--steps 2] [--json FILE]

The ways of training take turns of a few steps, as `benchmarks/turns.py` says. Pictures are drawn noise.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks import turns
from idennet_core import config, pretraining
from idennet_core.config import CROP_SIZE, FACE_SIZE, GROWTH, STEM, layers_per_block
from idennet_core.datasets import prepared
from idennet_core.datasets.prepared import Face
from idennet_core.streams import generator
from idennet_core.training import keep_freed_memory, single_threads

IDENTITIES = 100
PLAIN = "plain PyTorch loop"


class Layer(nn.Sequential):
    """A dense layer as it is usually written."""

    def __init__(self, width: int) -> None:
        first = nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, 12, 1, bias=False)
        second = nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.Conv2d(12, GROWTH, 3, padding=1, bias=False)
        super().__init__(*first, *second)

    def forward(self, maps: Tensor) -> Tensor:
        """All maps so far, and the new ones."""
        return torch.cat([maps, super().forward(maps)], 1)


def plain_network(classes: int, depth: int) -> nn.Sequential:
    """The network of pre-training as a chain of standard modules (paper Sec. 3)."""
    count = layers_per_block(depth)
    widths = [STEM + block * count * GROWTH for block in range(4)]
    blocks = [[Layer(width + i * GROWTH) for i in range(count)] for width in widths[:3]]
    one = nn.BatchNorm2d(widths[1]), nn.ReLU(inplace=True), nn.Conv2d(widths[1], widths[1], 1, bias=False)
    two = nn.Conv2d(widths[2], widths[2], 1), nn.AvgPool2d(2)
    last = nn.BatchNorm2d(widths[3]), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    stem = nn.Conv2d(1, STEM, 3, padding=1, bias=False)
    body = stem, *blocks[0], *one, nn.AvgPool2d(2), *blocks[1], *two, *blocks[2], *last
    return nn.Sequential(*body, nn.Linear(widths[3], classes))


class Pictures(Dataset[tuple[Tensor, int]]):
    """Stored faces, each cropped and flipped at random when it is asked for."""

    def __init__(self, faces: np.ndarray, labels: list[int]) -> None:
        self.faces, self.labels = faces, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A crop [1, 48, 48] of mean 0 and standard deviation 1, and its label."""
        row, column = (10 + torch.randint(0, FACE_SIZE - CROP_SIZE + 1, (2,))).tolist()
        crop = torch.from_numpy(self.faces[index, row : row + CROP_SIZE, column : column + CROP_SIZE].copy()).float()
        if torch.rand(()) < 0.5:
            crop = crop.flip(1)
        return ((crop - crop.mean()) / crop.std())[None], self.labels[index]


def train_plain(folder: Path, turn: Callable[[], None], depth: int, batch: int) -> None:
    """Train for ever on all threads, asking `turn` before each step."""
    faces = prepared.load(folder)
    loader = DataLoader(Pictures(faces.faces, [int(name) for name in faces.subject]), batch, True, drop_last=True)
    network = plain_network(IDENTITIES, depth)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    while True:
        for images, labels in loader:
            turn()
            optimiser.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimiser.step()
            loss.item()


def train_trunks(folder: Path, turn: Callable[[], None], depth: int, batch: int, count: int, precision: str) -> None:
    """Train `count` trunks as `idenctl` does, side by side, each on one thread, asking `turn` before each step."""
    keep_freed_memory()
    faces, architecture = prepared.load(folder), {"depth": depth, "bottleneck": 12, "compression": 1.0}
    settings = [{"batch_size": batch, "precision": precision, "seed": seed} for seed in range(count)]
    recipes = [config.trunk_recipe("identity", architecture, s, faces.data_id) for s in settings]
    places, cpu = (folder / "trunks", folder / "checkpoints"), torch.device("cpu")
    with single_threads(count) as pool:
        for future in [pool.submit(pretraining.train_trunk, r, faces, *places, cpu, lambda _: turn()) for r in recipes]:
            future.result()


def work(pipe: Connection, steps: int, count: int, train: Callable[..., None], *arguments: object) -> None:
    """Train in turns of `steps` steps; told to go on through `pipe`, tells the seconds of each turn there."""
    done, began = 0, time.perf_counter()

    def take_turns() -> None:
        nonlocal done, began
        if done % steps == 0:
            pipe.send(time.perf_counter() - began)
            if not pipe.recv():
                os._exit(0)
            began = time.perf_counter()
        done += 1

    train(arguments[0], Barrier(count, take_turns).wait, *arguments[1:])


def measure(depth: int, batch: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Images a second of each way of training, a value a round."""
    cores = len(os.sched_getaffinity(0))
    ways: dict[str, tuple[int, Callable[..., None], tuple[Any, ...]]] = {  # trunks, what trains them, how
        PLAIN: (1, train_plain, ()),
        "idenctl, one trunk on one core": (1, train_trunks, (1, "fp32")),
        f"idenctl, {cores} trunks on {cores} cores": (cores, train_trunks, (cores, "fp32")),
        f"idenctl, {cores} trunks on {cores} cores, bf16": (cores, train_trunks, (cores, "bf16")),
    }
    with tempfile.TemporaryDirectory(prefix="pretraining-") as scratch:
        folder, count = Path(scratch) / "noise", batch * ((rounds + 2) * steps + 1) * 10 // 9  # no epoch ends
        pixels = generator("benchmark").integers(0, 256, (count, 80, 80), dtype=np.uint8)
        rows = [Face(f"{i * IDENTITIES // count:04}", "", f"{i:06}", "0", "", f"{i}") for i in range(count)]
        prepared.save(folder, "noise", (), True, pixels, rows, [], {})
        workers: dict[str, turns.Worker] = {
            name: (work, (steps, trunks, train, folder, depth, batch, *more))
            for name, (trunks, train, more) in ways.items()
        }
        spent = turns.take_turns(workers, rounds + 1)
    # the first turn warms up
    return {name: [ways[name][0] * steps * batch / one for one in values[1:]] for name, values in spent.items()}


def table(depth: int, batch: int, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Images a second of every way and the ratio to the plain loop, printed and returned."""
    speeds = measure(depth, batch, rounds, steps)
    print(f"pre-training, images a second, depth {depth}, batch {batch}, median of {rounds} rounds (least to most)")
    return turns.table(speeds, PLAIN, "images_per_second", digits=1)


def main() -> None:
    """Measure, and print a table; `--json` writes every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 40), ("batch", 128), ("rounds", 7), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = table(given.depth, given.batch, given.rounds, given.steps)
    if given.json:
        given.json.write_text(json.dumps({"settings": vars(given) | {"json": None}, "ways": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
