"""BN-ReLU-Conv3x3 over pictures, and its gradients.

Some pictures at a time lie in a row in a frame: a zero after each of their lines and a line of zeros between them, so
that a tap is the same distance away everywhere, and a strip of neighbouring pixels may run over the end of a line.
"""

from typing import Any

import numpy as np

from idennet_core.kernels.jit import Array, jit
from idennet_core.kernels.pointwise import blocks_of
from idennet_core.kernels.vectors import (
    FILTERS,
    LANES,
    add_totals,
    first,
    load,
    plus_products,
    plus_scaled,
    relu,
    store,
    store_block,
    where_positive,
    zeros,
)

FRAME = 640  # pixels of a frame, at least: what is set up for one is done seldom enough


@jit
def _frame(rows: int, side: int, maps: Array) -> Array:
    # zeros for as many pictures as make FRAME pixels, and for the strips and taps that reach over its ends
    pictures = max(1, FRAME // (side * side))
    return np.zeros((rows, pictures * (side + 1) * (side + 1) + 2 * (side + 1) + 2 * LANES), maps.dtype)


@jit
def _put_in(frame: Array, maps: Array, start: int, pictures: int, side: int, scale: Array, shift: Array) -> None:
    # BN-ReLU of the pictures that begin at pixel `start`, or the pictures as they are where there is no scale
    step = side + 1
    for k in range(len(maps)):
        for line in range(pictures * side):
            at = (line // side * step + line % side + 1) * step + 1
            for low in range(0, side, LANES):
                x = load(maps, k, start + line * side + low, side - low)
                if len(scale):
                    x = first(relu(x, scale[k], shift[k]), side - low)
                store(x, frame, k, at + low, LANES)  # what is too much are zeros, and the next line goes over them


@jit
def _take_out(frame: Array, maps: Array, start: int, pictures: int, side: int, condition: Array) -> None:
    # the pictures' own pixels from a frame, and zeros where `condition`, a frame or nothing, is not above zero
    step = side + 1
    for k in range(len(maps)):
        for line in range(pictures * side):
            at = (line // side * step + line % side + 1) * step + 1
            for low in range(0, side, LANES):
                x = load(frame, k, at + low, LANES)
                if len(condition):
                    x = where_positive(load(condition, k, at + low, LANES), x)
                store(x, maps, k, start + line * side + low, side - low)


@jit
def _convolve(frame: Array, weight: Array, out: Array, pictures: int, side: int) -> None:
    # `weight` [blocks, K, 9, FILTERS] as rows, `out` a frame of blocks * FILTERS rows
    step, rows = side + 1, len(frame)
    blocks = len(weight) // (rows * 9)
    for at in range(step + 1, pictures * step * step, LANES):
        for k in range(blocks):
            block = zeros(frame)
            for c in range(rows):
                row = (k * rows + c) * 9
                for tap in range(9):
                    place = at + (tap // 3 - 1) * step + tap % 3 - 1
                    block = plus_scaled(block, load(frame, c, place, LANES), weight, row + tap)
            store_block(block, out, k * FILTERS, at, LANES)


@jit
def _convolve_weight(frame: Array, given: Array, found: Array, pictures: int, side: int) -> None:
    # adds to `found` [K, 9, FILTERS] as rows; `given` is a frame of FILTERS rows, zero between the pictures
    step, end = side + 1, pictures * (side + 1) * (side + 1)
    for begin in range(step + 1, end, FRAME):
        for c in range(len(frame)):
            for tap in range(9):
                shift = (tap // 3 - 1) * step + tap % 3 - 1
                block = zeros(frame)
                for at in range(begin, min(begin + FRAME, end), LANES):
                    block = plus_products(block, load(frame, c, at + shift, LANES), given, 0, at)
                add_totals(block, found, c * 9 + tap)


@jit
def _taps(weight: Array) -> Array:
    # [M, K, 9] as the rows that `_convolve` takes
    return blocks_of(weight.reshape(1, len(weight), -1))


@jit
def spatial(
    squeezed: Array,
    scale: Array,
    shift: Array,
    weight: Array,
    keep: Array,
    gain: Any,
    out: Array,
    batch: int,
    side: int,
) -> None:
    """BN-ReLU-Conv3x3 and dropout: `out` [FILTERS, N] from `squeezed` [K, N]; `weight` [FILTERS, K, 9].

    `keep` [FILTERS, N] uint8 says what dropout leaves, scaled by `gain`; one without rows is no dropout.
    """
    area, taps = side * side, _taps(weight)
    frame, wide = _frame(len(squeezed), side, squeezed), _frame(FILTERS, side, squeezed)
    whole = max(1, FRAME // area)
    for picture in range(0, batch, whole):
        pictures, start = min(whole, batch - picture), picture * area
        _put_in(frame, squeezed, start, pictures, side, scale, shift)
        _convolve(frame, taps, wide, pictures, side)
        _take_out(wide, out, start, pictures, side, wide[:0])
        for m in range(len(keep)):
            z, kept = out[m][start : start + pictures * area], keep[m][start : start + pictures * area]
            for p in range(len(z)):
                z[p] *= gain * kept[p]


@jit
def spatial_backward(
    squeezed: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    weight: Array,
    grad_out: Array,
    grad: Array,
    batch: int,
    side: int,
) -> tuple[Array, Array, Array]:
    """Gradients of `spatial` but for its dropout: `grad` [K, N] after the ReLU, before the batch norm.

    `weight` is the convolution's, turned round: [K, FILTERS, 9]. Gives the gradient of the convolution's own
    [FILTERS, K, 9] and two sums [K], which are as in `pointwise_backward`.
    """
    area, rows, taps, zero = side * side, len(squeezed), _taps(weight), squeezed.dtype.type(0)
    frame, given = _frame(rows, side, squeezed), _frame(FILTERS, side, squeezed)
    wide = _frame(-(-rows // FILTERS) * FILTERS, side, squeezed)
    found, sums, products = np.zeros((rows * 9, FILTERS)), np.zeros(rows), np.zeros(rows)
    whole = max(1, FRAME // area)
    for picture in range(0, batch, whole):
        pictures, start = min(whole, batch - picture), picture * area
        if pictures < whole:
            given[:] = zero  # no gradient where the last frame is not full
        _put_in(frame, squeezed, start, pictures, side, scale, shift)
        _put_in(given, grad_out, start, pictures, side, scale[:0], shift)
        _convolve_weight(frame, given, found, pictures, side)
        _convolve(given, taps, wide, pictures, side)
        _take_out(wide, grad[:rows], start, pictures, side, frame)
        for k in range(rows):
            x, g = squeezed[k][start : start + pictures * area], grad[k][start : start + pictures * area]
            total, product, m = zero, zero, mean[k]
            for p in range(len(x)):
                total += g[p]
                product += g[p] * (x[p] - m)
            sums[k] += total
            products[k] += product
    return found.reshape(rows, 9, FILTERS).transpose(2, 0, 1), sums, products
