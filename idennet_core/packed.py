"""A pack: many heads that train together on one feature bank.

A member reads the bank and its own streams and nothing else, and runs on one thread: its curve is the same to
the bit alone, in any pack, and after a stop.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idennet_core import bank
from idennet_core.datasets.prepared import FaceSet
from idennet_core.faces.augmentation import Pictures, faces_only, views
from idennet_core.network import Trunk
from idennet_core.resident import MAPS
from idennet_core.stacked import Stacked
from idennet_core.training import EpochRecord, Examples, Member, Probabilities, single_threads


@dataclass
class Seconds:
    """Where a pack's wall time went; `bank` is what the last bank took."""

    trunks: float = 0.0
    heads: float = 0.0
    bank: float = 0.0

    def whole(self, now: float, steps: int, steps_left: int, banks_left: int, stage: str) -> tuple[float, float]:
        """What all banks and all head steps take, by what they took so far; nothing before both are known.

        `now` are the seconds of the stage that it is in, which begins with one of the banks that are left.
        """
        if not steps:
            return 0.0, 0.0
        in_bank = stage == "bank"
        heads = self.heads + (0.0 if in_bank else now)
        trunks = self.trunks + max(banks_left * self.bank, now if in_bank else 0.0)
        return trunks, heads * (steps + steps_left) / steps


@dataclass(frozen=True)
class Progress:
    """How far a pack is: `done` of `total` head steps, in `epoch` (from 0), doing `stage` (bank or heads).

    `spent` are the seconds since its first epoch here, `trunks` and `heads` those that its banks and its head steps
    take from there on in all, by its own clock; 0 before they are known.
    """

    done: int
    total: int
    epoch: int
    stage: str
    spent: float = 0.0
    trunks: float = 0.0
    heads: float = 0.0

    @property
    def share(self) -> float:
        """How much of the time that it takes from its first epoch here is over; 0 before it is known."""
        whole = self.trunks + self.heads
        return self.spent / whole if whole else 0.0


def examples(faces: FaceSet, augment: bool) -> Examples:
    """What the trials of a pack learn from this prepared set."""
    number = {name: index for index, name in enumerate(faces.classes)}
    labels = np.array([number[name] for name in faces.label.tolist()], dtype=np.int64)
    return Examples(
        labels, np.asarray(faces.subject), len(faces.classes), 14 if augment else 1, np.asarray(faces.split)
    )


class Threaded:
    """The members of a pack on a CPU, each on one thread of a pool, through the hand-written kernels."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool

    def bank(self, pictures: Pictures, trunks: Sequence[Trunk]) -> Callable[[np.ndarray], Tensor]:
        """What makes a bank of the pictures cropped at given offsets, where the last one was."""
        features: list[Tensor | None] = [None]

        def fill(offsets: np.ndarray) -> Tensor:
            filled = bank.fill(pictures, offsets, trunks, torch.device("cpu"), self.pool, features[0])
            features[0] = filled
            return filled

        return fill

    def train_epoch(
        self, members: Sequence[Member], features: Tensor, centre_bank: Tensor, epoch: int, stop: Event
    ) -> Iterator[tuple[Member, EpochRecord]]:
        """An epoch of these members, each as it ends."""
        running = {self.pool.submit(m.train_epoch, features, centre_bank, epoch, stop): m for m in members}
        for future in as_completed(running):
            yield running[future], future.result()

    def probabilities(self, members: Sequence[Member], centre_bank: Tensor) -> list[Probabilities]:
        """Class probabilities [n_test, classes] of each member's test fold."""
        return list(self.pool.map(lambda member: member.probabilities(centre_bank), members))


def ways(pool: Executor, stack: int | None, device: torch.device, settings: Mapping[str, Any]) -> Threaded | Stacked:
    """How members with these settings train: each on a thread of the pool, or `stack` of them as one."""
    return Threaded(pool) if stack is None else Stacked(stack, device, MAPS[settings.get("precision", "fp32")])


def train(
    members: Sequence[Member],
    trunks: Sequence[Trunk],
    faces: FaceSet,
    *,
    first_epoch: int,
    device: torch.device,
    threads: int,
    stack: int | None = None,
    on_progress: Callable[[Progress], None],
    on_epoch: Callable[[int, dict[int, EpochRecord]], None],
) -> tuple[list[Probabilities | None], Seconds]:
    """Train the members from `first_epoch` to their last; gives each one's test probabilities and where time went.

    The members share data, trunks, epochs, augmentation and bank seed. On a CPU each runs on a thread; with `stack`,
    that many train as one set of tensors, which is how a GPU is filled. `on_epoch(epoch, records by member's
    place)` follows each epoch; a member whose loss is not finite has no record there, gives its head's memory back,
    sits out the rest and has no probabilities. Nor has one that `on_epoch` lets leave: it takes no more time, and
    without members the pack ends.
    """
    shared = members[0].settings
    epochs, seconds = shared["epochs"], Seconds()
    upright = np.ascontiguousarray(faces_only(faces.faces))
    pictures = views(np.asarray(faces.faces)) if shared["augment"] else upright
    for trunk in trunks:
        trunk.eval().requires_grad_(False).to(device)
    for member in members:
        member.begin()
    steps = [member.steps_per_epoch for member in members]
    total, done = epochs * sum(steps), first_epoch * sum(steps)
    stop, mark = Event(), time.monotonic()
    place_of = {id(member): place for place, member in enumerate(members)}

    def lap() -> float:
        nonlocal mark
        previous, mark = mark, time.monotonic()
        return mark - previous

    def tell(epoch: int, stage: str) -> None:
        banks = epochs - epoch - (stage == "heads")
        trained = done - first_epoch * sum(steps)
        now = time.monotonic() - mark
        whole = seconds.whole(now, trained, total - done, banks, stage)
        on_progress(Progress(done, total, epoch, stage, seconds.trunks + seconds.heads + now, *whole))

    with single_threads(threads) as pool:
        heads = ways(pool, stack, device, shared)
        try:
            tell(first_epoch, "bank")
            centre_bank = heads.bank(upright, trunks)(bank.centre_offsets(len(upright)))
            fill = heads.bank(pictures, trunks)
            seconds.trunks += lap()
            for epoch in range(first_epoch, epochs):
                healthy = [place for place, member in enumerate(members) if member.active]
                if not healthy:
                    break
                total = done + (epochs - epoch) * sum(steps[place] for place in healthy)
                tell(epoch, "bank")
                offsets = bank.random_offsets(len(pictures), faces.data_id, shared["bank_seed"], epoch)
                features = fill(offsets)
                seconds.bank = lap()
                seconds.trunks += seconds.bank
                tell(epoch, "heads")
                records = {}
                training = [members[place] for place in healthy]
                for member, record in heads.train_epoch(training, features, centre_bank, epoch, stop):
                    place = place_of[id(member)]
                    if member.failure is None:
                        records[place] = record
                    else:
                        member.release()
                    done += steps[place]
                    tell(epoch, "heads")
                on_epoch(epoch, dict(sorted(records.items())))
                seconds.heads += lap()
            healthy = [place for place, member in enumerate(members) if member.active]
            found = heads.probabilities([members[place] for place in healthy], centre_bank)
            tested = dict(zip(healthy, found, strict=True))
        finally:
            stop.set()  # an error or Ctrl-C must not wait for the other members' epochs
            pool.shutdown(cancel_futures=True)
    return [tested.get(place) for place in range(len(members))], seconds
