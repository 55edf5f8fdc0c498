"""Pictures of a prepared set as network input, cropped, flipped and standardised on the device they train on."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idennet_core import streams
from idennet_core.config import CROP_SIZE, FACE_SIZE
from idennet_core.faces.augmentation import CENTRE, MAX_OFFSET

RESIDENT = 0.5  # the share of a GPU's free memory up to which a set lies on it
CHUNK = 4096  # pictures (26 MB) that travel to a GPU at once

Rows = NDArray[np.int64]
Source = Callable[[Rows], Tensor]  # rows [B] to stored pictures, uint8 [B, 80, 80], on the device


def source(faces: NDArray[np.uint8], device: torch.device) -> Source:
    """Where a set's pictures [N, 80, 80] are read from: the device, where they fit on it, else the mapped file.

    On a CPU, and for a set above `RESIDENT` of a GPU's free memory, a batch's rows alone are copied.
    """
    if device.type == "cuda" and faces.nbytes <= RESIDENT * torch.cuda.mem_get_info(device)[0]:
        held = resident(faces, device)
        return lambda rows: held[torch.from_numpy(rows).to(device)]
    return lambda rows: torch.from_numpy(faces[rows]).to(device)


def resident(faces: NDArray[np.uint8], device: torch.device) -> Tensor:
    """All pictures on the device, copied in chunks: the host never holds them twice."""
    held = torch.empty(faces.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(faces), CHUNK):
        held[start : start + CHUNK] = torch.from_numpy(np.array(faces[start : start + CHUNK]))
    return held


def crops(pictures: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """Network input [B, 1, 48, 48] from stored pictures, uint8 [B, 80, 80], or faces [B, 60, 60], all on one device.

    The face [60, 60] in the middle is mirrored where `flips` [B] says so, cut at the (row, column) of `offsets`
    [B, 2], and the crop brought to mean 0 and standard deviation 1, as in `augmentation.crops`.
    """
    steps = torch.arange(CROP_SIZE, device=pictures.device)
    rows, columns = (offsets[:, axis, None] + steps for axis in (0, 1))
    columns = torch.where(flips[:, None], FACE_SIZE - 1 - columns, columns)
    place = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    margin = (pictures.shape[1] - FACE_SIZE) // 2
    cut = pictures[place, margin + rows[:, :, None], margin + columns[:, None, :]].float()
    centred = cut - cut.mean((1, 2), keepdim=True)
    deviation = centred.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1.0)  # an even picture stays even
    return (centred / deviation).unsqueeze(1)


def random_crops(pictures: Tensor, *stream: str | int) -> Tensor:
    """`crops` of a training step: offsets and flips from the step's own stream, whatever was drawn before."""
    generator = streams.generator(*stream)
    flips = torch.from_numpy(generator.random(len(pictures)) < 0.5)
    offsets = torch.from_numpy(generator.integers(0, MAX_OFFSET + 1, (len(pictures), 2)))
    return crops(pictures, offsets.to(pictures.device), flips.to(pictures.device))


def centre_crops(pictures: Tensor) -> Tensor:
    """`crops` as in testing: the centre, as it is (paper Sec. 4.3)."""
    offsets = torch.full((len(pictures), 2), CENTRE, device=pictures.device)
    return crops(pictures, offsets, torch.zeros(len(pictures), dtype=torch.bool, device=pictures.device))
