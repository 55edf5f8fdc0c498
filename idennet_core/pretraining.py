"""Pre-training: the whole network on faces with expressions or with names, for the trunk in it (paper Sec. 4.3)."""

import json
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as tensors_of
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from idennet_core import batches, checkpoint, fused, sealing, streams
from idennet_core.config import Setting
from idennet_core.datasets.prepared import FaceSet
from idennet_core.ids import content_id
from idennet_core.network import PretrainedNetwork, Trunk, initialise, trunk_state
from idennet_core.training import learning_rate

HELD_OUT = 10  # every 10th picture of a class is held out, where a set has no split of its own
CHECKPOINT_EVERY = 60.0  # seconds
CHUNK = 128  # pictures a forward pass that judges
log = logging.getLogger("idenctl")

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Progress:
    """How far a trunk is: `done` of `total` steps; the last epoch's loss and held-out accuracy, None before."""

    task: str
    done: int
    total: int
    loss: float | None
    accuracy: float | None


@dataclass
class _Course:
    """What a run knows beside weights and momenta: the step to do next and what was measured before it."""

    step: int = 0
    loss_sum: float = 0.0  # of the steps done in this epoch
    loss: float | None = None  # of the last whole epoch, like the accuracy
    accuracy: float | None = None
    seconds: float = 0.0


def train_trunk(
    recipe: Mapping[str, Setting],
    faces: FaceSet,
    trunks: Path,
    checkpoints: Path,
    device: torch.device,
    on_progress: Callable[[Progress], None],
    checkpoint_every: float = CHECKPOINT_EVERY,
    keep: Callable[[Path], None] = lambda path: None,
    drop: Callable[[Path], None] = lambda path: path.unlink(missing_ok=True),
) -> str:
    """Train the network of this recipe, store it under `trunks/<trunk_id>` and give the id.

    A checkpoint follows a run's first step, and then each that ends `checkpoint_every` seconds or more after the last
    checkpoint; a run goes on from the last whole one of the same recipe to the bits of a run without a stop, whichever
    step it follows. A trunk's folder is written beside and moved in place; a damaged or half-written trunk gives way to
    it. `keep` is told of each checkpoint that was written, `drop` removes one. Raises ValueError where the set is too
    small or has nothing to learn, or the loss or the outputs are no longer finite.
    """
    trunk_id, settings = content_id(dict(recipe)), dict[str, Any](recipe)
    name = f"trunk-{trunk_id}"
    task, size, precision = settings["task"], settings["batch_size"], settings["precision"]
    labels, classes = _labels(task, faces)
    train, held_out = _split(labels, faces)
    steps = len(train) // size
    total = steps * settings["epochs"]
    if steps == 0:
        raise ValueError(
            f"batch_size of a trunk must not exceed the training pictures, got {size} for {len(train)}; "
            f"prepare more pictures of {faces.name} or set a smaller batch_size"
        )
    stream = ("trunk", task, settings["seed"])
    network, optimiser = start(settings, len(classes), device)
    course = _resume(checkpoints, name, network, optimiser, drop)
    pictures, targets = batches.source(faces.faces, device), torch.from_numpy(labels).to(device)
    judged = held_out if len(held_out) else train[:CHUNK]
    loss_sum = torch.tensor(course.loss_sum, dtype=torch.float64, device=device)  # read seldom: a GPU need not wait
    first, began, saved = course.step, time.monotonic() - course.seconds, -math.inf
    for step in range(first, total):
        epoch, index = divmod(step, steps)
        if step == first or index == 0:
            order = streams.generator(*stream, "order", epoch).permutation(train)
        on_progress(Progress(task, step, total, course.loss, course.accuracy))
        rows = order[index * size : (index + 1) * size]
        images = batches.random_crops(pictures(rows), *stream, "crops", step)
        optimiser.param_groups[0]["lr"] = learning_rate(step, total, settings["lr"])
        loss_sum += train_step(network, optimiser, images, targets[torch.from_numpy(rows).to(device)], precision)
        course.step = step + 1
        due = time.monotonic() - saved >= checkpoint_every
        if due or index == steps - 1:
            course.loss_sum = loss_sum.item()
            _require_finite(course.loss_sum, task, epoch)
        if index == steps - 1:
            course.loss, course.loss_sum = course.loss_sum / steps, 0.0
            loss_sum.zero_()
            accuracy = _accuracy(network, pictures, labels, judged, precision)
            course.accuracy = accuracy if len(held_out) else None
        if due:
            course.seconds = time.monotonic() - began
            words = {"course": json.dumps(asdict(course))}
            path = checkpoints / f"{name}.{course.step}.safetensors"
            checkpoint.save(path, _state(network, optimiser), words)
            keep(path)
            for old in checkpoint.outdated(path):
                drop(old)
            saved = time.monotonic()
    on_progress(Progress(task, total, total, course.loss, course.accuracy))
    facts = {
        "trunk_id": trunk_id,
        "recipe": settings,
        "classes": classes,
        "synthetic": faces.synthetic,
        "training_pictures": len(train),
        "held_out_pictures": len(held_out),
        "hold_out": _rule(faces),
        "classes_without_held_out": len(classes) - len(np.unique(labels[held_out])),
        "held_out_accuracy": course.accuracy,
        "seconds": time.monotonic() - began,
        "device": device.type,
    }
    _store(network, facts, trunks / trunk_id)
    for path in checkpoint.kept(checkpoints, name):
        drop(path)
    return trunk_id


def start(recipe: Mapping[str, Any], classes: int, device: torch.device) -> tuple[PretrainedNetwork, torch.optim.SGD]:
    """The network of a recipe as it starts, and what trains it."""
    network = PretrainedNetwork(classes, recipe["depth"], recipe["bottleneck"], recipe["compression"])
    initialise(network, "trunk", recipe["task"], recipe["seed"], "weights")
    if not _fast(device, recipe["precision"]):
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, torch.optim.SGD(network.parameters(), lr=recipe["lr"], momentum=0.9, weight_decay=1e-4)


def load_network(trunks: Path, trunk_id: str) -> dict[str, Tensor]:
    """The state dict of a stored network. Raises ValueError where its bytes are not those that were stored."""
    try:
        _, weights = sealing.trunk(sealing.trunk_place(trunks, trunk_id))
    except sealing.Damaged as damage:
        raise ValueError(f"{damage}; run its study again to train it anew") from None
    return tensors_of(weights)


def load_trunk(network: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> Trunk:
    """The trunk out of a network's state dict, ready to compute features."""
    trunk = Trunk(architecture["depth"], architecture["bottleneck"], architecture["compression"])
    trunk.load_state_dict(trunk_state(network))
    return trunk.eval()


def _labels(task: str, faces: FaceSet) -> tuple[Rows, list[str]]:
    """The class of each picture [N], and the class names: the set's expressions in its order, or its subjects."""
    if task == "emotion" and not faces.classes:
        raise ValueError(f"an emotion trunk learns expressions, but {faces.name} has none: give another data set")
    names, places = np.unique(faces.label if task == "emotion" else faces.subject, return_inverse=True)
    classes = list(faces.classes) if task == "emotion" else names.tolist()
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[name] for name in names.tolist()], dtype=np.int64)[places], classes


def _split(labels: Rows, faces: FaceSet) -> tuple[Rows, Rows]:
    """The rows to train on and to hold out: the set's own split, or every 10th picture of a class, in its order.

    A class of fewer than `HELD_OUT` pictures is trained and never judged.
    """
    if _has_split(faces):
        return np.flatnonzero(faces.split == "train"), np.flatnonzero(faces.split == "valid")
    by_class = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[by_class], labels[by_class])  # where each picture's class begins in that order
    held_out = np.empty(len(labels), dtype=bool)
    held_out[by_class] = (np.arange(len(labels)) - first) % HELD_OUT == HELD_OUT - 1
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _has_split(faces: FaceSet) -> bool:
    return bool((faces.split == "train").any())


def _rule(faces: FaceSet) -> str:
    if _has_split(faces):
        return "the pictures that the data set itself keeps for validation"
    return f"every {HELD_OUT}th picture of a class; none of a class of fewer than {HELD_OUT}"


def train_step(
    network: PretrainedNetwork, optimiser: torch.optim.SGD, images: Tensor, targets: Tensor, precision: str
) -> Tensor:
    """One training step; gives its loss, on the device."""
    network.train()
    optimiser.zero_grad(set_to_none=True)
    with _autocast(images.device, precision):
        loss = F.cross_entropy(_logits(network, images, precision), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()


def _fast(device: torch.device, precision: str) -> bool:
    return device.type == "cpu" and precision == "fp32"


def _logits(network: PretrainedNetwork, images: Tensor, precision: str) -> Tensor:
    if _fast(images.device, precision):
        return fused.pretrained(network, images)
    return network(images.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _require_finite(loss: float, task: str, epoch: int) -> None:
    if not np.isfinite(loss):
        raise ValueError(
            f"the {task} trunk's loss must stay finite, got {loss} in epoch {epoch}; set a smaller lr under trunks"
        )


@torch.inference_mode()
def _accuracy(
    network: PretrainedNetwork, pictures: batches.Source, labels: Rows, judged: Rows, precision: str
) -> float:
    """The share of `judged` recognised from their centre crops. Raises ValueError where the logits are no numbers."""
    network.eval()
    hits = 0
    for start in range(0, len(judged), CHUNK):
        rows = judged[start : start + CHUNK]
        images = batches.centre_crops(pictures(rows))
        with _autocast(images.device, precision):
            logits = _logits(network, images, precision)
        if not torch.isfinite(logits).all():
            raise ValueError("a trunk's outputs must stay finite, and these do not; set a smaller lr under trunks")
        hits += int((logits.argmax(1).cpu().numpy() == labels[rows]).sum())
    return hits / len(judged)


def _state(network: PretrainedNetwork, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    momenta = {
        f"momentum.{name}": optimiser.state[parameter]["momentum_buffer"]
        for name, parameter in network.named_parameters()
    }
    return {f"network.{name}": value for name, value in network.state_dict().items()} | momenta


def _resume(
    folder: Path, name: str, network: PretrainedNetwork, optimiser: torch.optim.SGD, drop: Callable[[Path], None]
) -> _Course:
    """Go on from the last whole checkpoint, else from the start; a damaged one is removed, with a warning."""
    for path in checkpoint.kept(folder, name):
        try:
            state, metadata = checkpoint.load(path)
        except FileNotFoundError:  # another process trains the same trunk and has come further
            continue
        except sealing.Damaged as damage:
            log.warning(f"{damage}: removed, the trunk goes on from before it")
            drop(path)
            continue
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
        for parameter_name, parameter in network.named_parameters():
            momentum = torch.empty_like(parameter).copy_(state[f"momentum.{parameter_name}"])
            optimiser.state[parameter]["momentum_buffer"] = momentum
        return _Course(**json.loads(metadata["course"]))
    return _Course()


def _store(network: PretrainedNetwork, facts: dict[str, Any], target: Path) -> None:
    """Write the trunk's folder beside its place and move it there; a whole one that is there already stays.

    What could not be written whole, as on a full disk, is removed.
    """
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    weights = save({name: value.contiguous().cpu() for name, value in network.state_dict().items()})
    beside.mkdir(parents=True)
    try:
        _write(beside / "network.safetensors", weights)
        _write(beside / "trunk.json", (json.dumps(sealing.sealed_facts(facts, weights), indent=1) + "\n").encode())
        _put(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put(beside: Path, target: Path) -> None:
    """Move a trunk's folder to its place, unless a whole one is there."""
    try:
        beside.replace(target)
    except OSError:
        if not target.exists():
            raise
        if sealing.is_whole(target):  # somebody else has stored the same trunk meanwhile
            return
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        target.replace(aside)
        beside.replace(target)
        shutil.rmtree(aside)


def _write(path: Path, content: bytes) -> None:
    """Write a file to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
