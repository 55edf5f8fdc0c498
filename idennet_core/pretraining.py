"""Pre-training: the whole network on faces with expressions or with names, for the trunk in it (paper Sec. 4.3)."""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from idennet_core import bank, checkpoint, fused, streams
from idennet_core.config import Setting, content_id
from idennet_core.datasets.prepared import FaceSet
from idennet_core.faces.augmentation import MAX_OFFSET, crops, faces_only
from idennet_core.network import PretrainedNetwork, Trunk, initialise, trunk_state
from idennet_core.training import learning_rate

HELD_OUT = 10  # every 10th picture of an identity is held out, where a set has no split of its own


@dataclass(frozen=True)
class Progress:
    """How far a trunk is: `done` of `total` steps; the last epoch's loss and held-out accuracy, None before."""

    task: str
    done: int
    total: int
    loss: float | None
    accuracy: float | None


def train_trunk(
    recipe: Mapping[str, Setting],
    faces: FaceSet,
    trunks: Path,
    checkpoints: Path,
    device: torch.device,
    on_progress: Callable[[Progress], None],
) -> str:
    """Train the network of this recipe, store it under `trunks/<trunk_id>` and give the id.

    Goes on from a checkpoint of the same recipe, to the same bits. A folder under `trunks` is always a whole
    trunk: it is written beside and moved in place. Raises ValueError where the set is too small.
    """
    trunk_id, settings = content_id(dict(recipe)), dict[str, Any](recipe)
    target, resume_at = trunks / trunk_id, checkpoints / f"trunk-{trunk_id}.safetensors"
    labels, classes, train, held_out = _examples(str(recipe["task"]), faces)
    size, epochs = settings["batch_size"], settings["epochs"]
    judged = held_out if len(held_out) else train[:128]
    steps = len(train) // size
    if steps == 0:
        raise ValueError(
            f"batch_size of a trunk must not exceed the training pictures, got {size} for {len(train)}; "
            f"prepare more pictures of {faces.name} or set a smaller batch_size"
        )
    network = PretrainedNetwork(len(classes), settings["depth"], settings["bottleneck"], settings["compression"])
    stream = ("trunk", settings["task"], settings["seed"])
    initialise(network, *stream, "weights")
    network.to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=settings["lr"], momentum=0.9, weight_decay=1e-4)
    first_epoch, spent = _resume(resume_at, network, optimiser)
    pictures, targets = faces_only(faces.faces), torch.from_numpy(labels).to(device)
    started, loss, accuracy = time.monotonic() - spent, None, None
    for epoch in range(first_epoch, epochs):
        network.train()
        generator = streams.generator(*stream, "epoch", epoch)
        order, losses = generator.permutation(train), []
        for index in range(steps):
            on_progress(Progress(settings["task"], epoch * steps + index, epochs * steps, loss, accuracy))
            optimiser.param_groups[0]["lr"] = learning_rate(epoch * steps + index, epochs * steps, settings["lr"])
            rows = order[index * size : (index + 1) * size]
            batch = _random_crops(pictures[rows], generator).to(device)
            optimiser.zero_grad(set_to_none=True)
            value = F.cross_entropy(_logits(network, batch), targets[torch.from_numpy(rows).to(device)])
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(value.item())
        loss = float(np.mean(losses))
        if not np.isfinite(loss):
            raise ValueError(
                f"the {settings['task']} trunk's loss must stay finite, got {loss} in epoch {epoch}; "
                "set a smaller lr under trunks"
            )
        accuracy = _accuracy(network, pictures[judged], labels[judged], device)
        spent = time.monotonic() - started
        checkpoint.save(resume_at, _state(network, optimiser), {"epoch": str(epoch + 1), "seconds": str(spent)})
    accuracy = _accuracy(network, pictures[judged], labels[judged], device)
    on_progress(Progress(settings["task"], epochs * steps, epochs * steps, loss, accuracy))
    facts = {
        "trunk_id": trunk_id,
        "recipe": settings,
        "classes": classes,
        "synthetic": faces.synthetic,
        "training_pictures": len(train),
        "held_out_pictures": len(held_out),
        "held_out_accuracy": accuracy if len(held_out) else None,
        "seconds": time.monotonic() - started,
        "device": device.type,
    }
    _store(network, facts, target)
    resume_at.unlink(missing_ok=True)
    return trunk_id


def is_stored(trunks: Path, trunk_id: str) -> bool:
    """Whether a whole trunk of this id is there."""
    return (trunks / trunk_id / "trunk.json").is_file()


def facts(trunks: Path, trunk_id: str) -> dict[str, Any]:
    """What `trunk.json` says of a stored trunk: recipe, classes, held-out accuracy, checksum."""
    return json.loads((trunks / trunk_id / "trunk.json").read_text())  # type: ignore[no-any-return]


def load_network(trunks: Path, trunk_id: str) -> dict[str, Tensor]:
    """The state dict of a stored network. Raises ValueError where its bytes are not those that were stored."""
    path = trunks / trunk_id / "network.safetensors"
    if hashlib.sha256(path.read_bytes()).hexdigest() != facts(trunks, trunk_id)["sha256"]:
        raise ValueError(
            f"a trunk's weights must have the checksum in its trunk.json, {path} has another; "
            f"move {path.parent} away to train it again"
        )
    return load_file(path)


def load_trunk(network: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> Trunk:
    """The trunk out of a network's state dict, ready to compute features."""
    trunk = Trunk(architecture["depth"], architecture["bottleneck"], architecture["compression"])
    trunk.load_state_dict(trunk_state(network))
    return trunk.eval()


def _examples(task: str, faces: FaceSet) -> tuple[NDArray[np.int64], list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Labels [N], class names, and the rows to train on and to hold out."""
    names = faces.label if task == "emotion" else faces.subject
    classes = list(faces.classes) if task == "emotion" else sorted(set(names.tolist()))
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[name] for name in names.tolist()], dtype=np.int64)
    if "train" in set(faces.split.tolist()):
        return labels, classes, np.flatnonzero(faces.split == "train"), np.flatnonzero(faces.split == "valid")
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(len(classes)):
        held_out[np.flatnonzero(labels == label)[HELD_OUT - 1 :: HELD_OUT]] = True
    return labels, classes, np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _random_crops(faces: NDArray[np.uint8], generator: np.random.Generator) -> Tensor:
    """Network input [B, 1, 48, 48]: each face cropped at random and flipped with probability 1/2."""
    flip = generator.random(len(faces)) < 0.5
    turned = np.where(flip[:, None, None], faces[:, :, ::-1], faces)
    offsets = generator.integers(0, MAX_OFFSET + 1, (len(faces), 2))
    return torch.from_numpy(crops(turned, offsets))


@torch.inference_mode()
def _accuracy(
    network: PretrainedNetwork, faces: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device
) -> float:
    """The share of faces recognised from their centre crops. Raises ValueError where the logits are no numbers."""
    network.eval()
    hits = 0
    size = bank.CHUNK[device.type]
    for start in range(0, len(faces), size):
        chunk = faces[start : start + size]
        images = torch.from_numpy(crops(chunk, bank.centre_offsets(len(chunk)))).to(device)
        logits = _logits(network, images)
        if not torch.isfinite(logits).all():
            raise ValueError("a trunk's outputs must stay finite, and these do not; set a smaller lr under trunks")
        hits += int((logits.argmax(1).cpu().numpy() == labels[start : start + size]).sum())
    return hits / len(faces)


def _logits(network: PretrainedNetwork, images: Tensor) -> Tensor:
    if images.is_cpu:
        return fused.pretrained(network, images)
    return network(images.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


def _state(network: PretrainedNetwork, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    momenta = {
        f"momentum.{name}": optimiser.state[parameter]["momentum_buffer"]
        for name, parameter in network.named_parameters()
    }
    return {f"network.{name}": value for name, value in network.state_dict().items()} | momenta


def _resume(path: Path, network: PretrainedNetwork, optimiser: torch.optim.SGD) -> tuple[int, float]:
    """Go on from a checkpoint where there is a whole one; the epoch to train next, and the seconds spent before."""
    found = checkpoint.load(path)
    if found is None:
        return 0, 0.0
    state, metadata = found
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    for name, parameter in network.named_parameters():
        momentum = torch.empty_like(parameter).copy_(state[f"momentum.{name}"])
        optimiser.state[parameter]["momentum_buffer"] = momentum
    return int(metadata["epoch"]), float(metadata["seconds"])


def _store(network: PretrainedNetwork, facts: dict[str, Any], target: Path) -> None:
    """Write the trunk's folder beside its place and move it there; one that is there already stays."""
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    beside.mkdir(parents=True)
    weights = beside / "network.safetensors"
    save_file({name: value.contiguous().cpu() for name, value in network.state_dict().items()}, weights)
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    (beside / "trunk.json").write_text(json.dumps(facts | {"sha256": checksum}, indent=1) + "\n")
    try:
        beside.replace(target)
    except OSError:
        shutil.rmtree(beside)
        if not (target / "trunk.json").is_file():
            raise  # else somebody else has stored the same trunk meanwhile
