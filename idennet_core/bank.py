"""The feature bank: one epoch's pooled trunk features of every picture, computed once for all trials."""

from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from idennet_core import streams
from idennet_core.faces.augmentation import CENTRE, MAX_OFFSET, Pictures, crops
from idennet_core.network import Trunk

# pictures a forward pass, as many as fit the caches; fixed, so that the bank is the same on any number of threads
CHUNK = {"cpu": 16, "cuda": 512}


def random_offsets(count: int, data_id: str, bank_seed: int, epoch: int) -> np.ndarray:
    """The crop of each of `count` pictures in this epoch, [count, 2]: (row, column) in 0..12."""
    generator = streams.generator("crops", data_id, bank_seed, epoch)
    return generator.integers(0, MAX_OFFSET + 1, (count, 2))


def centre_offsets(count: int) -> np.ndarray:
    """The centre crop for each of `count` pictures, [count, 2] (paper Sec. 4.3, testing)."""
    return np.full((count, 2), CENTRE)


def fill(
    faces: Pictures,
    offsets: np.ndarray,
    trunks: Sequence[Trunk],
    device: torch.device,
    pool: Executor,
    into: Tensor | None = None,
) -> Tensor:
    """Pooled features [N, streams * D, 12, 12] of faces [N, 60, 60] cropped at `offsets`, in the place of `into`.

    Chunks run side by side in `pool`, each on one thread. The trunks are in eval mode and stay as they are.
    """
    width = sum(trunk.out_width for trunk in trunks)
    features = torch.empty(len(faces), width, 12, 12, device=device) if into is None else into
    chunk = CHUNK[device.type]

    @torch.inference_mode()
    def one(start: int) -> None:
        rows = slice(start, start + chunk)
        images = torch.from_numpy(crops(faces[rows], offsets[rows])).to(device)
        features[rows] = torch.cat([F.avg_pool2d(_maps(trunk, images), 2) for trunk in trunks], 1)

    list(pool.map(one, range(0, len(faces), chunk)))
    return features


def _maps(trunk: Trunk, images: Tensor) -> Tensor:
    """[B, 1, 48, 48] to [B, D, 24, 24]; a stand-in for a trunk runs as it is."""
    if images.is_cpu and isinstance(trunk, Trunk):
        from idennet_core import fused  # compiled kernels, which a GPU does without

        return fused.trunk(trunk, images).transpose(0, 1)
    return trunk(images.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]
