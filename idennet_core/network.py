"""IDEnNet: two frozen DenseNet trunks and the head that fuses them (paper Sec. 3).

Maps are [B, C, H, W], kept channels-last in memory: a 1x1 convolution is then one matrix product. A transition pools
before its 1x1 convolution, not after it: the two commute, and a quarter of the multiplications is left.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from idennet_core import streams
from idennet_core.config import GROWTH, STEM, layers_per_block

MOMENTUM, EPSILON = 0.1, 1e-5  # of running statistics and of variances, as nn.BatchNorm2d has them


class DenseLayer(nn.Module):
    """BN-ReLU-Conv1x1-BN-ReLU-Conv3x3: `GROWTH` new maps from all before it (paper Sec. 3.3)."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, bottleneck, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck)
        self.conv2 = nn.Conv2d(bottleneck, GROWTH, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Only the new maps, [B, GROWTH, H, W]."""
        squeezed = self.conv1(F.relu_(self.norm1(maps)))
        return self.conv2(F.relu_(self.norm2(squeezed)))  # type: ignore[no-any-return]


class DenseBlock(nn.Module):
    """Layers each of which reads the block's input and every earlier layer's maps."""

    def __init__(self, width: int, depth: int, bottleneck: int) -> None:
        super().__init__()
        count = layers_per_block(depth)
        self.layers = nn.ModuleList(DenseLayer(width + i * GROWTH, bottleneck) for i in range(count))
        self.out_width = width + count * GROWTH

    def forward(self, maps: Tensor, dropout: "Dropout | None" = None) -> Tensor:
        """[B, C, H, W] to [B, out_width, H, W]; `dropout` acts on each layer's new maps."""
        for index, layer in enumerate(self.layers):
            new = layer(maps)
            maps = torch.cat([maps, new if dropout is None else dropout(new, index)], 1)
        return maps


class Dropout:
    """Dropout whose masks depend on their names alone: stream, step and layer, never on who ran before."""

    def __init__(self, rate: float, *stream: str | int) -> None:
        self.rate, self.stream, self.step = rate, stream, 0

    def keep(self, shape: tuple[int, ...], layer: int) -> NDArray[np.uint8]:
        """1 for what is kept, 0 for a share `rate` (to the nearest 1/65536) of maps of this shape."""
        count = math.prod(shape)
        bits = streams.generator(*self.stream, self.step, layer).bit_generator.random_raw(-(-count // 4))
        draws = bits.astype("<u8", copy=False).view("<u2")[:count]
        return (draws >= round(self.rate * 65536)).view(np.uint8).reshape(shape)

    def __call__(self, maps: Tensor, layer: int) -> Tensor:
        """`maps` [B, C, H, W] with a share `rate` set to 0 and the rest scaled up to keep the mean."""
        if self.rate == 0:
            return maps
        keep = torch.from_numpy(self.keep(tuple(maps.shape), layer))
        return maps * (keep.to(maps.device, maps.dtype) / (1 - self.rate))


class Trunk(nn.Module):
    """A feature extraction group: stem, dense block 1, transition 1, dense block 2."""

    def __init__(self, depth: int, bottleneck: int = 12, compression: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM, 3, padding=1, bias=False)
        self.block1 = DenseBlock(STEM, depth, bottleneck)
        self.norm = nn.BatchNorm2d(self.block1.out_width)
        squeezed = int(self.block1.out_width * compression)
        self.transition = nn.Conv2d(self.block1.out_width, squeezed, 1, bias=False)
        self.block2 = DenseBlock(squeezed, depth, bottleneck)
        self.out_width = self.block2.out_width

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, 48, 48] to feature maps [B, D, 24, 24], x_e or x_i of the paper's Eq. 1."""
        maps = F.relu_(self.norm(self.block1(self.stem(images))))
        return self.block2(self.transition(F.avg_pool2d(maps, 2)))  # type: ignore[no-any-return]


class PretrainedNetwork(nn.Module):
    """A trunk with the rest of the network it is pre-trained in: transition 2, dense block 3, classifier."""

    def __init__(self, classes: int, depth: int, bottleneck: int = 12, compression: float = 1.0) -> None:
        super().__init__()
        self.trunk = Trunk(depth, bottleneck, compression)
        width = int(self.trunk.out_width * compression)
        self.transition = nn.Conv2d(self.trunk.out_width, width, 1)
        self.block = DenseBlock(width, depth, bottleneck)
        self.norm = nn.BatchNorm2d(self.block.out_width)
        self.classifier = nn.Linear(self.block.out_width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 1, 48, 48] to logits [B, classes]."""
        maps = self.transition(F.avg_pool2d(self.trunk(images), 2))
        maps = F.relu_(self.norm(self.block(maps)))
        return self.classifier(maps.mean((2, 3)))  # type: ignore[no-any-return]


class Head(nn.Module):
    """What a trial trains: fusion convolution, fusion dense block, expression and identity classifiers.

    Reads features that are pooled already: a 1x1 convolution with bias and an average pooling commute
    (paper Eq. 2 has no non-linearity between them), so the pooling is done once, in the bank.
    """

    def __init__(
        self,
        width: int,
        streams: int,
        classes: int,
        identities: int,
        depth: int,
        bottleneck: int = 12,
        compression: float = 1.0,
    ) -> None:
        super().__init__()
        fused = int(width * compression)
        self.fusion = nn.Conv2d(streams * width, fused, 1)
        self.block = DenseBlock(fused, depth, bottleneck)
        self.norm = nn.BatchNorm2d(self.block.out_width)
        self.emotion = nn.Linear(self.block.out_width, classes)
        self.identity = nn.Linear(self.block.out_width, identities) if identities else None

    def maps(self, pooled: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Pooled features [B, streams * D, 12, 12] to what the classifiers average, [B, C, 12, 12]."""
        return F.relu_(self.norm(self.block(self.fusion(pooled), dropout)))

    def forward(self, pooled: Tensor, dropout: Dropout | None = None) -> tuple[Tensor, Tensor | None]:
        """Pooled features [B, streams * D, 12, 12] to expression logits [B, classes] and identity logits."""
        features = self.maps(pooled, dropout).mean((2, 3))
        return self.emotion(features), None if self.identity is None else self.identity(features)


@torch.no_grad()
def initialise(network: nn.Module, *stream: str | int) -> None:
    """Draw weights as DenseNet does, N(0, sqrt(2 / (k k out))), each parameter from a stream of its own name.

    So two networks share the values of every parameter they both have, whatever else differs.
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        fan = parameter[0].numel() if parameter.ndim == 2 else parameter.shape[0] * parameter[0, 0].numel()
        variance = (1.0 if parameter.ndim == 2 else 2.0) / fan
        draws = streams.generator(*stream, name).standard_normal(tuple(parameter.shape), dtype="float32")
        parameter.copy_(torch.from_numpy(draws) * variance**0.5)


@torch.no_grad()
def start_from(head: Head, emotion: Mapping[str, Tensor]) -> None:
    """Start the head from the pre-trained emotion network's state dict.

    Its transition 2 is the fusion convolution's emotion half, the identity half is zero, and dense block 3
    with the norm after it is the fusion dense block: `f` starts as `original` (paper Sec. 3, Fig. 2).
    """
    half = emotion["transition.weight"].shape[1]
    head.fusion.weight.zero_()
    head.fusion.weight[:, :half].copy_(emotion["transition.weight"])
    assert head.fusion.bias is not None
    head.fusion.bias.copy_(emotion["transition.bias"])
    head.block.load_state_dict(_part(emotion, "block."))
    head.norm.load_state_dict(_part(emotion, "norm."))


def trunk_state(network: Mapping[str, Tensor]) -> dict[str, Any]:
    """The trunk's own part of a pre-trained network's state dict."""
    return _part(network, "trunk.")


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
