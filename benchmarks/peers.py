"""How else the trials of a study could be trained: each peer as its own documentation would write it.

All do the same work: a step draws a batch of faces, crops them at random, runs the frozen trunks without gradients
and the head with them, and takes one step of SGD. Only `idenctl` computes features once for all trials.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idennet_core import bank
from idennet_core import batches as on_device
from idennet_core.config import CROP_SIZE, GROWTH, layers_per_block
from idennet_core.datasets.prepared import FaceSet
from idennet_core.faces.augmentation import crops, faces_only
from idennet_core.network import Head, PretrainedNetwork, Trunk, initialise
from idennet_core.training import Member

CLASSES, PEOPLE, PICTURES, FOLDS = 6, 80, 1440, 10  # as Oulu-CASIA has them
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Work:
    """What a trial is made of, the same for everyone."""

    depth: int
    batch: int
    faces: np.ndarray  # uint8 [N, 60, 60]
    labels: np.ndarray  # [N] of CLASSES
    people: np.ndarray  # [N] of PEOPLE

    @staticmethod
    def drawn(depth: int, batch: int, count: int = PICTURES) -> "Work":
        """Noise in the place of faces: a step's cost does not depend on what is in the pictures."""
        random = np.random.default_rng(0)
        labels, people = np.arange(count) % CLASSES, np.arange(count) // CLASSES % PEOPLE
        return Work(depth, batch, random.integers(0, 256, (count, 60, 60), dtype=np.uint8), labels, people)


def steps_an_epoch(batch: int) -> int:
    """Steps of a trial that trains on all folds but one."""
    return PICTURES * (FOLDS - 1) // FOLDS // batch


def emotion_network(depth: int, number: int = 0) -> PretrainedNetwork:
    """A network as pre-training leaves it, but for its weights."""
    network = PretrainedNetwork(CLASSES, depth)
    initialise(network, "benchmark", number)
    return network


def trunks_and_head(depth: int, seed: int = 0) -> tuple[nn.ModuleList, Head]:
    """Two frozen trunks and a head of variant `if`."""
    networks = [emotion_network(depth, number) for number in range(2)]
    width = networks[0].trunk.out_width
    head = Head(width, 2, CLASSES, PEOPLE, depth)
    initialise(head, "benchmark", "head", seed)
    trunks = nn.ModuleList(network.trunk for network in networks).eval().requires_grad_(False)
    return trunks, head


def batches(work: Work, device: torch.device = CPU) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random crops [B, 1, 48, 48], labels and people, for ever; on a GPU, from pictures that lie there."""
    faces = torch.from_numpy(work.faces).to(device)
    labels, people = torch.from_numpy(work.labels).to(device), torch.from_numpy(work.people).to(device)
    while True:
        for rows in torch.randperm(len(faces), device=device).split(work.batch):
            if len(rows) < work.batch:
                continue
            if device.type == "cuda":
                places = torch.randint(0, 60 - CROP_SIZE + 1, (len(rows), 2), device=device)
                upright = torch.zeros(len(rows), dtype=torch.bool, device=device)
                yield on_device.crops(faces[rows], places, upright), labels[rows], people[rows]
                continue
            offsets = torch.randint(0, 60 - CROP_SIZE + 1, (len(rows), 2)).tolist()
            cut = torch.stack(
                [faces[i, r : r + CROP_SIZE, c : c + CROP_SIZE] for i, (r, c) in zip(rows, offsets, strict=True)]
            ).float()
            cut = (cut - cut.mean((1, 2), keepdim=True)) / cut.std((1, 2), keepdim=True)
            yield cut[:, None], labels[rows], people[rows]


def sgd(parameters: Any) -> torch.optim.SGD:
    """The optimiser of a trial (paper Sec. 4.3)."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)


def joint_loss(emotion: Tensor, identity: Tensor, labels: Tensor, people: Tensor) -> Tensor:
    """Cross-entropy and the focal identity loss with alpha 0.1, gamma 15 (paper Eq. 3 to 5), a mean over the batch."""
    log_p = F.log_softmax(identity, 1).gather(1, people[:, None])[:, 0]
    focal = 0.1 * (1 - log_p.exp()) ** 15 * -log_p
    return F.cross_entropy(emotion, labels) + focal.mean()


def dropout(maps: Tensor, layer: int) -> Tensor:
    """Dropout as PyTorch has it."""
    return F.dropout(maps, 0.5)


def plain_steps(
    work: Work, layout: str = "", precision: str = "", device: torch.device = CPU, fixed: bool = False
) -> Callable[[], None]:
    """The training steps of one trial as `plain_trial` has them."""
    return plain_trial(work, layout, precision, device, fixed)[0]


def plain_trial(
    work: Work, layout: str = "", precision: str = "", device: torch.device = CPU, fixed: bool = False
) -> tuple[Callable[[], None], Callable[[Tensor, Tensor], float]]:
    """One trial, the whole network in each step; `layout` may be channels-last, `precision` bf16.

    `fixed`: each step takes the same batch, as a captured one must. Gives a function that takes a training step, and
    one that measures the accuracy on pictures [N, 1, 48, 48].
    """
    trunks, head = trunks_and_head(work.depth)
    if layout == "channels-last":
        trunks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trunks.to(device)
    head.to(device)
    optimiser, stream = sgd(head.parameters()), batches(work, device)
    first = next(stream)

    def step() -> None:
        images, labels, people = first if fixed else next(stream)
        if layout == "channels-last":
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
            with torch.no_grad():
                features = torch.cat([F.avg_pool2d(trunk(images), 2) for trunk in trunks], 1)
            emotion, identity = head(features, dropout)
        loss = joint_loss(emotion.float(), identity.float(), labels, people)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    @torch.no_grad()
    def accuracy(images: Tensor, labels: Tensor) -> float:
        head.eval()
        hits = 0
        for chunk, wanted in zip(images.split(work.batch), labels.split(work.batch), strict=True):
            features = torch.cat([F.avg_pool2d(trunk(chunk), 2) for trunk in trunks], 1)
            hits += int((head(features)[0].argmax(1) == wanted).sum())
        head.train()
        return hits / len(labels)

    return step, accuracy


def vmap_steps(work: Work, members: int, device: torch.device = CPU) -> Callable[[], None]:
    """Heads stacked by `torch.func` and mapped over, as PyTorch's tutorial on ensembles does."""
    trunks = trunks_and_head(work.depth)[0].to(device)
    heads = [trunks_and_head(work.depth, seed)[1].to(device) for seed in range(members)]
    for head in heads:
        for module in head.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean, module.running_var, module.num_batches_tracked = None, None, None
                module.track_running_stats = False  # vmap allows no update in place
    parameters, buffers = torch.func.stack_module_state(heads)
    skeleton = copy.deepcopy(heads[0]).to("meta")
    optimiser = sgd(list(parameters.values()))
    streams = [batches(work, device) for _ in range(members)]

    def loss_of(parameters: Any, buffers: Any, features: Tensor, labels: Tensor, people: Tensor) -> Tensor:
        emotion, identity = torch.func.functional_call(skeleton, (parameters, buffers), (features, dropout))
        return joint_loss(emotion, identity, labels, people)

    mapped = torch.func.vmap(loss_of, randomness="different")

    def step() -> None:
        images, labels, people = (torch.stack(parts) for parts in zip(*map(next, streams), strict=True))
        with torch.no_grad():
            whole = images.flatten(0, 1)
            features = torch.cat([F.avg_pool2d(trunk(whole), 2) for trunk in trunks], 1).unflatten(0, (members, -1))
        optimiser.zero_grad()
        mapped(parameters, buffers, features, labels, people).sum().backward()
        optimiser.step()

    return step


class FusedHeads(nn.Module):
    """Heads of several trials side by side in the channels: grouped convolutions, one batch norm for all."""

    def __init__(self, members: int, width: int, depth: int) -> None:
        super().__init__()
        self.members, fused = members, width
        self.fusion = nn.Conv2d(members * 2 * width, members * fused, 1, groups=members)
        layers = []
        for index in range(layers_per_block(depth)):
            wide = fused + index * GROWTH
            layers.append(
                nn.Sequential(
                    nn.BatchNorm2d(members * wide),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(members * wide, members * 12, 1, groups=members, bias=False),
                    nn.BatchNorm2d(members * 12),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(members * 12, members * GROWTH, 3, padding=1, groups=members, bias=False),
                )
            )
        self.layers = nn.ModuleList(layers)
        last = fused + layers_per_block(depth) * GROWTH
        self.norm = nn.BatchNorm2d(members * last)
        self.emotion = nn.Parameter(torch.randn(members, last, CLASSES) / math.sqrt(last))
        self.identity = nn.Parameter(torch.randn(members, last, PEOPLE) / math.sqrt(last))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, K * 2D, 12, 12] to logits [K, B, classes] and [K, B, people]."""
        maps = self.fusion(features).unflatten(1, (self.members, -1))
        for layer in self.layers:
            new = F.dropout(layer(maps.flatten(1, 2)), 0.5).unflatten(1, (self.members, -1))
            maps = torch.cat([maps, new], 2)
        pooled = F.relu_(self.norm(maps.flatten(1, 2))).mean((2, 3)).unflatten(1, (self.members, -1))
        pooled = pooled.transpose(0, 1)
        return pooled @ self.emotion, pooled @ self.identity


def fused_steps(work: Work, members: int, device: torch.device = CPU) -> Callable[[], None]:
    """Horizontal fusion without a bank: members folded into channels, one optimiser for all."""
    trunks, head = trunks_and_head(work.depth)
    trunks.to(device)
    heads = FusedHeads(members, head.fusion.out_channels, work.depth).to(device)
    optimiser, streams = sgd(heads.parameters()), [batches(work, device) for _ in range(members)]

    def step() -> None:
        images, labels, people = (torch.stack(parts) for parts in zip(*map(next, streams), strict=True))
        with torch.no_grad():
            whole = images.flatten(0, 1)
            features = torch.cat([F.avg_pool2d(trunk(whole), 2) for trunk in trunks], 1).unflatten(0, (members, -1))
        emotion, identity = heads(features.transpose(0, 1).flatten(1, 2))
        losses = [joint_loss(emotion[k], identity[k], labels[k], people[k]) for k in range(members)]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()

    return step


def banked_steps(trunks: Sequence[Trunk], pack: Sequence[Member], faces: FaceSet, pool: Executor) -> float:
    """Member-steps a second of an epoch with a bank and PyTorch's own modules, channels-last, a member a thread."""
    began = time.perf_counter()
    upright = np.ascontiguousarray(faces_only(faces.faces))
    features = torch.empty(len(upright), 2 * trunks[0].out_width, 12, 12, memory_format=torch.channels_last)
    offsets = bank.random_offsets(len(upright), faces.data_id, 0, 0)

    @torch.inference_mode()
    def fill(start: int) -> None:
        rows = slice(start, start + 128)
        images = torch.from_numpy(crops(upright[rows], offsets[rows])).contiguous(memory_format=torch.channels_last)
        features[rows] = torch.cat([F.avg_pool2d(trunk(images), 2) for trunk in trunks], 1)

    def train(member: Member) -> int:
        head = copy.deepcopy(member.head).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser, size = sgd(head.parameters()), member.settings["batch_size"]
        for index in range(member.steps_per_epoch):
            rows = torch.from_numpy(member.train_rows[index * size : (index + 1) * size])
            emotion, identity = head(features[rows], dropout)
            loss = joint_loss(emotion, identity, member.labels[rows], member.identities[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return int(member.steps_per_epoch)

    list(pool.map(fill, range(0, len(upright), 128)))
    steps = sum(pool.map(train, pack))
    return steps / (time.perf_counter() - began)


def seconds_a_step(step: Callable[[], None], steps: int) -> float:
    """Wall seconds of a step, a mean over `steps`."""
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps
