"""What a pack costs, from the network's shape: multiplications and bytes, before anything has run."""

from collections.abc import Mapping
from typing import Any

from idennet_core.config import GROWTH, STEM, layers_per_block


def trunk_flops(architecture: Mapping[str, Any]) -> int:
    """Floating-point operations of one picture's way through one trunk, two a multiply-add."""
    width, total = STEM, 9 * STEM * 48 * 48
    width, flops = _block(architecture, width, 48)
    total += flops
    squeezed = int(width * architecture["compression"])
    total += width * squeezed * 24 * 24
    return 2 * (total + _block(architecture, squeezed, 24)[1])


def trunk_width(architecture: Mapping[str, Any]) -> int:
    """D, the feature maps that a trunk gives."""
    width = _block(architecture, STEM, 48)[0]
    return _block(architecture, int(width * architecture["compression"]), 24)[0]


def head_flops(architecture: Mapping[str, Any], streams: int) -> int:
    """Floating-point operations of one picture in one training step of a head: forward, and twice that backward.

    The fusion convolution needs no gradient of its input, the bank being data.
    """
    fusion, block = _head(architecture, streams)
    return 2 * (2 * fusion + 3 * block)


def inference_flops(architecture: Mapping[str, Any], streams: int) -> int:
    """Floating-point operations of one picture's way through the trunks and the head."""
    return streams * trunk_flops(architecture) + 2 * sum(_head(architecture, streams))


def _head(architecture: Mapping[str, Any], streams: int) -> tuple[int, int]:
    """Multiply-adds of one picture forward through the fusion convolution on pooled maps, and through the block."""
    width = trunk_width(architecture)
    fused = int(width * architecture["compression"])
    return streams * width * fused * 144, _block(architecture, fused, 12)[1]


def head_pictures(training: int, tested: int, batch_size: int) -> float:
    """The pictures of a head's epoch: those in whole batches, and a third of those tested, which go forward alone."""
    return training // batch_size * batch_size + tested / 3


def bank_bytes(architecture: Mapping[str, Any], streams: int, pictures: int) -> int:
    """Bytes of a bank of this many pictures: 12 x 12 maps in fp32."""
    return pictures * streams * trunk_width(architecture) * 144 * 4


def _block(architecture: Mapping[str, Any], width: int, side: int) -> tuple[int, int]:
    """The output width of a dense block and its multiply-adds on maps of side x side."""
    bottleneck, flops = architecture["bottleneck"], 0
    for _ in range(layers_per_block(architecture["depth"])):
        flops += (width * bottleneck + 9 * bottleneck * GROWTH) * side * side
        width += GROWTH
    return width, flops
