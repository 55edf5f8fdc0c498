"""The training of one network: schedule, threads, and the head of one trial."""

import ctypes
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.sgd import sgd

from idennet_core import streams
from idennet_core.config import Setting, tasks
from idennet_core.datasets.folds import fold_of
from idennet_core.losses import emotion_loss, identity_loss
from idennet_core.network import Dropout, Head, initialise, start_from

Probabilities = NDArray[np.float32]  # [n_test, classes]


def learning_rate(step: int, total: int, initial: float) -> float:
    """`initial`, divided by 10 from 50% and again from 75% of all steps (paper Sec. 4.3)."""
    return initial * (1.0 if step < total * 0.5 else 0.1 if step < total * 0.75 else 0.01)


def supervised_identities(subjects: list[str], rate: float, seed: int, fold: int | str) -> list[bool]:
    """Which training subjects' identities are supervised: a share `rate`, rounded half up, at least two.

    Nested: each subject has a rank from (seed, fold, subject), so a larger share holds the smaller one.
    """
    ranks = sorted(subjects, key=lambda subject: streams.key("identity rank", seed, fold, subject))
    chosen = set(ranks[: max(2, math.floor(Fraction(str(rate)) * len(subjects) + Fraction(1, 2)))])
    return [subject in chosen for subject in subjects]


def single_threads(count: int) -> ThreadPoolExecutor:
    """`count` threads, each of which runs torch on itself alone: results do not depend on `count`."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: pages that are returned and faulted in again halve a trunk's speed."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:  # another C library: only speed is lost
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # malloc.h
    for parameter, value in [(mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28), (arena_max, 1)]:
        mallopt(parameter, value)


@dataclass(frozen=True)
class Examples:
    """What trials learn from: N pictures' labels, subjects and splits [N], and how many views each picture has.

    Row `view * N + picture` of a bank holds that view of that picture.
    """

    labels: NDArray[np.int64]
    subjects: NDArray[np.str_]
    classes: int
    views: int
    splits: NDArray[np.str_]

    def rows(self, fold: int | None, without: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pictures to train on [n_train] and to test on [n_test]: all but the fold's subjects, and those.

        The subjects of the fold `without` are in neither. Fold None: the publisher's train split and test split; the
        valid split is neither.
        """
        if fold is None:
            return np.flatnonzero(self.splits == "train"), np.flatnonzero(self.splits == "test")
        folds = fold_of(self.subjects.tolist())
        tested = np.array([folds[subject] == fold for subject in self.subjects])
        left_out = np.array([folds[subject] == without for subject in self.subjects])
        return np.flatnonzero(~tested & ~left_out), np.flatnonzero(tested)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one trial, a row of its curve. Losses and train accuracy are means over the epoch's samples."""

    epoch: int
    lr: float
    loss: float
    emotion_loss: float
    identity_loss: float
    train_accuracy: float
    test_accuracy: float


class Member:
    """One trial in a pack: its head, its optimiser, its own streams. It knows nothing of its pack mates."""

    def __init__(
        self,
        settings: Mapping[str, Setting],
        fold: int | None,
        seed: int,
        examples: Examples,
        width: int,
        emotion_network: Mapping[str, Tensor],
        device: torch.device,
        without: int | None = None,
    ) -> None:
        self.settings: dict[str, Any] = dict(settings)
        self.device = device
        self.stream = (seed, "none" if fold is None else fold)  # what each of the trial's streams is named after
        self.failure: str | None = None
        self.left = False
        train, self.test_rows = examples.rows(fold, without)
        self.train_size = len(train)
        self.train_rows = (train + len(examples.labels) * np.arange(examples.views)[:, None]).ravel()
        self.steps_per_epoch = len(self.train_rows) // self.settings["batch_size"]
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"batch_size must not exceed the training pictures, got {self.settings['batch_size']} "
                f"for {len(self.train_rows)}; set a smaller batch_size"
            )
        identities = sorted(set(examples.subjects[train].tolist()))
        number = {subject: index for index, subject in enumerate(identities)}
        identity_of = np.array([number.get(subject, 0) for subject in examples.subjects.tolist()])
        self.labels = torch.from_numpy(np.tile(examples.labels, examples.views)).to(device)
        self.identities = torch.from_numpy(np.tile(identity_of, examples.views)).to(device)
        rate = self.settings.get("id_rate", 0.0)
        self.supervised = torch.tensor(supervised_identities(identities, rate, *self.stream), device=device)
        self.head = Head(
            width,
            len(tasks(self.settings["variant"])),
            examples.classes,
            len(identities) if rate else 0,
            self.settings["depth"],
            self.settings["bottleneck"],
            self.settings["compression"],
        )
        initialise(self.head, "weights", *self.stream)
        start_from(self.head, emotion_network)
        self.head.to(device)
        self.dropout = Dropout(self.settings["dropout"], "dropout", *self.stream)
        self.parameters: list[Tensor] = list(self.head.parameters())
        self.momenta: list[Tensor] = []  # none before training begins

    def begin(self) -> None:
        """Momenta of zero where there are none yet. A pack's members begin before the first step of any of them.

        Small tensors that came between the large ones of a step would keep their memory apart once those are freed.
        """
        self.momenta = self.momenta or [torch.zeros_like(parameter) for parameter in self.parameters]

    @property
    def active(self) -> bool:
        """Whether there is an epoch to train: it has neither failed nor left its pack."""
        return self.failure is None and not self.left

    def leave(self) -> None:
        """Train no more, and give the head's memory back."""
        if self.active:
            self.release()
        self.left = True

    def release(self) -> None:
        """Give the head's memory back; from now on the member knows how it ended, and no more."""
        del self.head
        self.parameters, self.momenta = [], []

    def train_epoch(self, bank: Tensor, centre_bank: Tensor, epoch: int, stop: Event) -> EpochRecord:
        """One pass over the training rows of `bank` [views * N, C, 12, 12], then a look at the test fold.

        A loss that is not finite ends the trial: `failure` says so. `stop` ends the pass early; the record is
        then of no use.
        """
        self.begin()
        order, size = self.order(epoch), self.settings["batch_size"]
        measured = np.zeros((self.steps_per_epoch, 4))
        self.head.train()
        for index in range(self.steps_per_epoch):
            step = epoch * self.steps_per_epoch + index
            rows = torch.from_numpy(order[index * size : (index + 1) * size]).to(self.device)
            measured[index] = self._step(bank, rows, step, self.rate(step))
            if stop.is_set() or not np.isfinite(measured[index, 0]):
                break
        return self.record(epoch, measured, self.probabilities(centre_bank))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The rows of a bank in the order in which this epoch reads them."""
        return streams.generator("order", *self.stream, epoch).permutation(self.train_rows)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from the first epoch's first."""
        return learning_rate(step, self.settings["epochs"] * self.steps_per_epoch, self.settings["lr"])

    def record(self, epoch: int, measured: NDArray[np.float64], probabilities: Probabilities) -> EpochRecord:
        """The row of an epoch from its steps' loss, emotion loss, identity loss and hits [steps, 4].

        The first loss that is not finite ends the trial, as test probabilities do that are not: `failure` says so.
        """
        broken = np.flatnonzero(~np.isfinite(measured[:, 0]))
        if len(broken):
            self.failure = f"the loss was {measured[broken[0], 0]} in epoch {epoch}, step {broken[0]}"
        elif not np.isfinite(probabilities).all():  # running statistics can overflow alone
            self.failure = f"the test probabilities were not finite in epoch {epoch}"
        loss, emotion, identity, hits = (measured.sum(0) / self.steps_per_epoch).tolist()
        tested = probabilities.argmax(1) == self.labels.cpu().numpy()[self.test_rows]
        rate = self.rate((epoch + 1) * self.steps_per_epoch - 1)
        accuracy = hits / self.settings["batch_size"]
        return EpochRecord(epoch, rate, loss, emotion, identity, accuracy, float(tested.mean()))

    @torch.inference_mode()
    def probabilities(self, centre_bank: Tensor) -> Probabilities:
        """Class probabilities [n_test, classes] of the test fold from the bank of centre crops [N, C, 12, 12]."""
        self.head.eval()
        rows = torch.split(torch.from_numpy(self.test_rows).to(self.device), self.settings["batch_size"])
        logits = torch.cat([self._logits(centre_bank, part)[0] for part in rows])
        return torch.softmax(logits, 1).cpu().numpy()

    def state(self) -> dict[str, Tensor]:
        """All that a later epoch depends on: weights, running statistics, momenta."""
        named = zip(self.head.named_parameters(), self.momenta, strict=False)
        momenta = {f"momentum.{name}": momentum for (name, _), momentum in named}
        return {f"head.{name}": value for name, value in self.head.state_dict().items()} | momenta

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        head = {key.removeprefix("head."): value for key, value in state.items() if key.startswith("head.")}
        self.head.load_state_dict(head)
        self.momenta = []
        for name, parameter in self.head.named_parameters():
            if f"momentum.{name}" in state:
                self.momenta.append(torch.empty_like(parameter).copy_(state[f"momentum.{name}"]))

    def _logits(self, bank: Tensor, rows: Tensor, dropout: Dropout | None = None) -> tuple[Tensor, Tensor | None]:
        if bank.is_cpu:
            from idennet_core import fused  # compiled kernels, which a GPU does without

            return fused.head(self.head, bank, rows, dropout)
        return self.head(bank[rows].contiguous(memory_format=torch.channels_last), dropout)  # type: ignore[no-any-return]

    def _step(self, bank: Tensor, rows: Tensor, step: int, rate: float) -> NDArray[np.float64]:
        self.dropout.step = step
        emotion_logits, identity_logits = self._logits(bank, rows, self.dropout)
        labels = self.labels[rows]
        emotion = emotion_loss(emotion_logits, labels)
        loss, identity = emotion, None
        if identity_logits is not None:
            alpha, gamma = self.settings["alpha"], self.settings["gamma"]
            identity = identity_loss(identity_logits, self.identities[rows], self.supervised, alpha, gamma)
            loss = emotion + identity
        gradients = torch.autograd.grad(loss, self.parameters)
        # what torch.optim.SGD computes; constructing one loads torch's compiler, a second of every worker's start
        sgd(
            self.parameters,
            list(gradients),
            list[Tensor | None](self.momenta),
            fused=True,
            lr=rate,
            momentum=self.settings["momentum"],
            weight_decay=self.settings["weight_decay"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        hits = (emotion_logits.argmax(1) == labels).sum()
        identity_value = 0.0 if identity is None else identity.item()
        return np.array([loss.item(), emotion.item(), identity_value, hits.item()])
