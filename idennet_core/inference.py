"""The whole network of a stored trial, trunks and head together, and single pictures for it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from idennet_core import bank, checkpoint, pretraining, sealing
from idennet_core.config import ARCHITECTURE, tasks
from idennet_core.datasets.prepared import Face
from idennet_core.datasets.scan import read_picture
from idennet_core.faces.alignment import align, pad_cropped
from idennet_core.faces.augmentation import Pictures, crops, faces_only
from idennet_core.network import Head, Trunk


class Network(nn.Module):
    """Trunks and head as a trial trains them: features are pooled first, then fused."""

    def __init__(self, trunks: Sequence[Trunk], head: Head) -> None:
        super().__init__()
        self.trunks, self.head = nn.ModuleList(trunks), head

    def maps(self, images: Tensor) -> Tensor:
        """Images [B, 1, 48, 48] to the maps after the fusion dense block, [B, C, 12, 12]."""
        return self.head.maps(torch.cat([F.avg_pool2d(trunk(images), 2) for trunk in self.trunks], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, 48, 48] to expression logits [B, classes]."""
        return self.head.emotion(self.maps(images).mean((2, 3)))  # type: ignore[no-any-return]


def load(path: Path, trunks: Path) -> Network:
    """The network whose head is the file `path`, with its trunks from the folder `trunks`, ready to compute.

    Raises FileNotFoundError for a missing head or trunk, ValueError for a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"a trial's network needs its head, {path} is missing; restore it from a copy")
    try:
        state, metadata = checkpoint.load(path, unsealed=True)  # heads are kept for ever
    except sealing.Damaged as damage:
        raise ValueError(f"a head must be whole, and {damage}; restore it from a copy") from None
    try:
        settings: dict[str, Any] = json.loads(metadata["settings"])
        inputs: dict[str, str] = json.loads(metadata["inputs"])
        ids = [inputs[f"trunk_{task}"] for task in tasks(settings["variant"])]
        parts = [pretraining.load_trunk(_pretrained(trunks, trunk_id), settings) for trunk_id in ids]
        classes, identities = len(state["emotion.weight"]), len(state.get("identity.weight", ()))
        architecture = [settings[name] for name in ARCHITECTURE]
        head = Head(parts[0].out_width, len(parts), classes, identities, *architecture)
        head.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:  # RuntimeError: other names or shapes
        raise ValueError(
            f"{path} must hold a head that fits its settings and trunks; restore it from a copy"
        ) from error
    network = Network(parts, head).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def images_of(stored: Pictures) -> Tensor:
    """Network input [N, 1, 48, 48] of stored faces [N, 80, 80]: their centre crops (paper Sec. 4.3, testing)."""
    images = torch.from_numpy(crops(faces_only(stored), bank.centre_offsets(len(stored))))
    return images.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def probabilities(network: Network, stored: Pictures) -> NDArray[np.float32]:
    """Class probabilities [N, classes] of stored faces [N, 80, 80]."""
    size = bank.CHUNK["cpu"]
    chunks = [stored[start : start + size] for start in range(0, len(stored), size)]
    return torch.cat([torch.softmax(network(images_of(chunk)), 1) for chunk in chunks]).numpy()


def face_of(picture: Path, locate: Callable[[Pictures], NDArray[np.float64] | str] | None) -> Pictures | str:
    """The face in a picture file as stored, grey uint8 [80, 80], or the reason why there is none.

    `locate` finds the five points [5, 2] of a decoded picture; None takes the picture as a cropped face.
    """
    try:
        image = read_picture(picture.parent, Face("", "", "", "", "", picture.name))
        if locate is None:
            return pad_cropped(image)
        points = locate(image)
        return points if isinstance(points, str) else align(image, points)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    except cv2.error as error:
        return f"OpenCV cannot process it: {error.err}"


def _pretrained(trunks: Path, trunk_id: str) -> dict[str, Tensor]:
    try:
        return pretraining.load_network(trunks, trunk_id)
    except FileNotFoundError:
        folder = trunks / trunk_id
        raise FileNotFoundError(
            f"a trial's network needs its trunk, {folder} is missing; run its study to train it"
        ) from None
