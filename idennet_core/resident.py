"""The feature bank of a pack on a GPU: pictures, crops and features stay on the device, in one place for all epochs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from idennet_core import batches
from idennet_core.batched import PIXELS
from idennet_core.faces.augmentation import Pictures
from idennet_core.network import Trunk

CHUNK = 512  # pictures a forward pass
MAPS = {"fp32": torch.float32, "bf16": torch.bfloat16}  # the type of banks and maps by precision


class Bank:
    """Room for a bank of these pictures [N, 60, 60], as pixels [N, 144, streams * D]: a picture's pixels side by side.

    So a batch is gathered in whole pictures, and a fusion convolution is one matrix product over pixels. The trunks are
    in eval mode and stay as they are; `maps` is the type of the features, bf16 for the trunks too.
    """

    def __init__(self, pictures: Pictures, trunks: Sequence[Trunk], device: torch.device, maps: torch.dtype) -> None:
        self.pictures = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
        self.trunks = [trunk.to(memory_format=torch.channels_last) for trunk in trunks]  # type: ignore[call-overload]
        width = sum(trunk.out_width for trunk in trunks)
        self.pixels = torch.empty(len(pictures), PIXELS, width, dtype=maps, device=device)

    @torch.inference_mode()
    def fill(self, offsets: np.ndarray) -> Tensor:
        """The features of all pictures cropped at `offsets` [N, 2], where those of the last epoch were."""
        device = self.pixels.device
        places, upright = torch.from_numpy(offsets).to(device), torch.zeros(CHUNK, dtype=torch.bool, device=device)
        for start in range(0, len(self.pictures), CHUNK):
            rows = slice(start, start + CHUNK)
            cut = self.pictures[rows]
            images = batches.crops(cut, places[rows], upright[: len(cut)]).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.pixels.dtype == torch.bfloat16):
                pooled = torch.cat([F.avg_pool2d(trunk(images), 2) for trunk in self.trunks], 1)
            self.pixels[rows] = pooled.flatten(2).transpose(1, 2)
        return self.pixels
