"""How fast a device is at a pack's networks: a few chunks of pictures and a few steps, from which nobody learns."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import torch

from idennet_core import bank, cost, packed, pretraining, stacked, streams
from idennet_core.config import ARCHITECTURE, CROP_SIZE, FACE_SIZE, tasks
from idennet_core.network import PretrainedNetwork, initialise
from idennet_core.training import Examples, Member, single_threads

AT_LEAST = 1.0  # seconds that each part is measured for
CLASSES, SUBJECTS = 7, 20
STEPS = 2  # at least, of each head in an epoch


@dataclass(frozen=True)
class Pace:
    """Seconds for a picture: through all trunks of a pack, and in the training steps of heads side by side."""

    trunk: float
    head: float


def measure(
    settings: Mapping[str, Any], together: int, device: torch.device, threads: int, stack: int | None = None
) -> Pace:
    """The pace of a pack with these settings whose heads train `together` at a time, on pictures of noise.

    `threads` and `stack` are as in `packed.train`.
    """
    network = PretrainedNetwork(CLASSES, **{name: settings[name] for name in ARCHITECTURE})
    initialise(network, "pace")
    trunks = [network.trunk.eval().requires_grad_(False).to(device)] * len(tasks(settings["variant"]))
    size, width = settings["batch_size"], network.trunk.out_width
    count = SUBJECTS * -(-STEPS * size // (SUBJECTS - 2))  # fold 0 tests two subjects
    shape = (count, FACE_SIZE, FACE_SIZE)
    faces = streams.generator("pace", "faces").integers(0, 256, shape, dtype=np.uint8)
    examples = Examples(
        labels=np.arange(count) % CLASSES,
        subjects=np.array([str(picture % SUBJECTS) for picture in range(count)]),
        classes=CLASSES,
        views=1,
        splits=np.full(count, ""),
    )
    members = [Member(settings, 0, seed, examples, width, network.state_dict(), device) for seed in range(together)]
    epoch = cost.head_pictures(members[0].train_size, len(members[0].test_rows), size)
    with single_threads(threads) as pool:
        heads = packed.ways(pool, stack, device, settings)
        fill = partial(heads.bank(faces, trunks), bank.centre_offsets(count))
        features = fill()
        trunk = _seconds(fill, device)
        head = _seconds(lambda: list(heads.train_epoch(members, features, features, 0, Event())), device)
    return Pace(trunk / count, head / epoch)


def measure_pretraining(recipe: Mapping[str, Any], together: int, device: torch.device) -> float:
    """Seconds for a picture in the training steps of a trunk of this recipe, `together` of which train side by side."""
    size = recipe["batch_size"]
    images = torch.rand(size, 1, CROP_SIZE, CROP_SIZE, device=device)
    targets = (torch.arange(size) % CLASSES).to(device)
    begun = [pretraining.start(recipe, CLASSES, device) for _ in range(together)]

    def step(trunk: tuple[PretrainedNetwork, torch.optim.SGD]) -> torch.Tensor:
        return pretraining.train_step(*trunk, images, targets, recipe["precision"])

    with single_threads(together) as pool:
        spent = _seconds(lambda: list(pool.map(step, begun)), device)
    return spent / int(size)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The mean time of some work after it was done once."""
    began, times = 0.0, -1
    while times < 1 or time.monotonic() - began < AT_LEAST:
        work()
        stacked.finish(device)
        times += 1
        if times == 0:
            began = time.monotonic()
    return (time.monotonic() - began) / times
