"""What a pack costs, from the network's shape: multiplications and bytes, before anything has run."""

from collections.abc import Mapping
from typing import Any

from idennet_core.config import FACE_SIZE, GROWTH, STEM, STORED_SIZE, layers_per_block

LIBRARIES = 450 * 2**20  # bytes of a process that has loaded what a pack needs
VIEWS = 14  # of a training picture where it is augmented
NEARLY = 0.95  # of the best speed
CONTEXT = 2**30  # bytes of a GPU that its driver and libraries take


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


def head_flops(architecture: Mapping[str, Any], streams: int) -> tuple[int, int]:
    """Floating-point operations of one picture in one training step of a head: forward, and twice that backward.

    Those of the fusion convolution, which needs no gradient of its input, the bank being data, and those of the block:
    one large product and many small ones, which devices do at another pace.
    """
    fusion, block = _head(architecture, streams)
    return 2 * 2 * fusion, 2 * 3 * block


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


def head_values(architecture: Mapping[str, Any], streams: int, outputs: int) -> tuple[int, int]:
    """How many parameters a head has, with so many classes and identities together, and how many statistics."""
    width, bottleneck = trunk_width(architecture), architecture["bottleneck"]
    fused = int(width * architecture["compression"])
    parameters, channels = (streams * width + 1) * fused, 0
    for _ in range(layers_per_block(architecture["depth"])):
        parameters += fused * bottleneck + 9 * bottleneck * GROWTH
        channels += fused + bottleneck
        fused += GROWTH
    channels += fused
    return parameters + 2 * channels + (fused + 1) * outputs, 2 * channels


def host_bytes(
    settings: Mapping[str, Any], streams: int, outputs: int, pictures: int, members: int, threads: int
) -> dict[str, int]:
    """Bytes that a pack takes of a machine at its peak when it trains on `threads` of its cores, by what takes them."""
    views = VIEWS if settings["augment"] else 1
    values, statistics = head_values(settings, streams, outputs)
    state = 4 * (2 * values + statistics)
    columns = streams * trunk_width(settings) + 3 * _out_width(settings) + 15 * layers_per_block(settings["depth"])
    return {
        "libraries": LIBRARIES,
        "banks": bank_bytes(settings, streams, pictures * (views + 1)),
        "pictures": pictures * (views * FACE_SIZE**2 + STORED_SIZE**2),
        "members": members * (2 * state + 3 * 8 * pictures * views),  # a checkpoint copies their state; rows and labels
        "activations": min(threads, members) * columns * settings["batch_size"] * 144 * 4,
    }


def device_bytes(
    settings: Mapping[str, Any], streams: int, outputs: int, pictures: int, members: int, stack: int
) -> dict[str, int]:
    """Bytes that a pack takes of a GPU at its peak when it trains in stacks of `stack` members, by what takes them."""
    views = VIEWS if settings["augment"] else 1
    values, statistics = head_values(settings, streams, outputs)
    size = 2 if settings.get("precision") == "bf16" else 4
    count, out = layers_per_block(settings["depth"]), _out_width(settings)
    fused = out - count * GROWTH
    kept = streams * trunk_width(settings) + fused + 2 * out + count * (fused + out - GROWTH) // 2
    passing = 4 * out + count * (2 * settings["bottleneck"] + GROWTH) + 2 * 9 * settings["bottleneck"]
    drawn = 10 * 2 * GROWTH * count  # words, and what their products need
    steps = 2 * min(stack, members)  # a captured step keeps its memory beside that of one that is not
    return {
        "libraries": CONTEXT,
        "banks": bank_bytes(settings, streams, pictures * (views + 1)) * size // 4,
        "pictures": pictures * (views + 1) * FACE_SIZE**2,
        "members": members * (4 * (2 * values + statistics) + 3 * 8 * pictures * views),
        "activations": steps * settings["batch_size"] * 144 * ((kept + passing) * size + drawn),
    }


def knee(speeds: Mapping[int, float]) -> int:
    """The fewest members a stack that train nearly as fast as the best size does: more would only take memory."""
    return min(size for size, speed in speeds.items() if speed >= NEARLY * max(speeds.values()))


def _out_width(architecture: Mapping[str, Any]) -> int:
    """The output width of a head's dense block."""
    return _block(architecture, int(trunk_width(architecture) * architecture["compression"]), 12)[0]


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
