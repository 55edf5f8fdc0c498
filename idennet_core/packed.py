"""A pack: many heads that train together on one feature bank.

A member reads the bank and its own streams and nothing else, and runs on one thread: its curve is the same to
the bit alone, in any pack, and after a stop.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray

from idennet_core import bank
from idennet_core.datasets.prepared import FaceSet
from idennet_core.faces.augmentation import faces_only, views
from idennet_core.network import Trunk
from idennet_core.training import EpochRecord, Examples, Member, single_threads

Probabilities = NDArray[np.float32]  # [n_test, classes]


@dataclass
class Seconds:
    """Where a pack's wall time went."""

    trunks: float = 0.0
    heads: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a pack is: `done` of `total` head steps, in `epoch` (from 0), doing `stage` (bank or heads)."""

    done: int
    total: int
    epoch: int
    stage: str


def examples(faces: FaceSet, augment: bool) -> Examples:
    """What the trials of a pack learn from this prepared set."""
    number = {name: index for index, name in enumerate(faces.classes)}
    labels = np.array([number[name] for name in faces.label.tolist()], dtype=np.int64)
    return Examples(
        labels, np.asarray(faces.subject), len(faces.classes), 14 if augment else 1, np.asarray(faces.split)
    )


def train(
    members: Sequence[Member],
    trunks: Sequence[Trunk],
    faces: FaceSet,
    *,
    first_epoch: int,
    device: torch.device,
    threads: int,
    on_progress: Callable[[Progress], None],
    on_epoch: Callable[[int, dict[int, EpochRecord]], None],
) -> tuple[list[Probabilities | None], Seconds]:
    """Train the members from `first_epoch` to their last; gives each one's test probabilities and where time went.

    The members share data, trunks, epochs, augmentation and bank seed. `on_epoch(epoch, records by member's
    place)` follows each epoch; a member whose loss is not finite has no record there, sits out the rest and
    has no probabilities. Nor has one that `on_epoch` lets leave: it takes no more time, and without members the
    pack ends.
    """
    shared = members[0].settings
    epochs, seconds = shared["epochs"], Seconds()
    upright = np.ascontiguousarray(faces_only(faces.faces))
    pictures = views(np.asarray(faces.faces)) if shared["augment"] else upright
    for trunk in trunks:
        trunk.eval().requires_grad_(False).to(device)
    steps = [member.steps_per_epoch for member in members]
    total, done = epochs * sum(steps), first_epoch * sum(steps)
    stop, mark = Event(), time.monotonic()

    def lap() -> float:
        nonlocal mark
        previous, mark = mark, time.monotonic()
        return mark - previous

    with single_threads(threads) as pool:
        try:
            on_progress(Progress(done, total, first_epoch, "bank"))
            centre_bank = bank.fill(upright, bank.centre_offsets(len(upright)), trunks, device, pool)
            seconds.trunks += lap()
            for epoch in range(first_epoch, epochs):
                healthy = [place for place, member in enumerate(members) if member.active]
                if not healthy:
                    break
                total = done + (epochs - epoch) * sum(steps[place] for place in healthy)
                on_progress(Progress(done, total, epoch, "bank"))
                offsets = bank.random_offsets(len(pictures), faces.data_id, shared["bank_seed"], epoch)
                features = bank.fill(pictures, offsets, trunks, device, pool)
                seconds.trunks += lap()
                on_progress(Progress(done, total, epoch, "heads"))
                running = {
                    pool.submit(members[place].train_epoch, features, centre_bank, epoch, stop): place
                    for place in healthy
                }
                records = {}
                for future in as_completed(running):
                    place = running[future]
                    record = future.result()
                    if members[place].failure is None:
                        records[place] = record
                    done += steps[place]
                    on_progress(Progress(done, total, epoch, "heads"))
                on_epoch(epoch, dict(sorted(records.items())))
                seconds.heads += lap()
            tested = list(pool.map(lambda m: m.probabilities(centre_bank) if m.active else None, members))
        finally:
            stop.set()  # an error or Ctrl-C must not wait for the other members' epochs
            pool.shutdown(cancel_futures=True)
    return tested, seconds
