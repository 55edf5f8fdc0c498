"""The fusion convolution on pictures of a bank."""

import numpy as np

from idennet_core.kernels.jit import Array, jit
from idennet_core.kernels.pointwise import TILE, blocks_of
from idennet_core.kernels.vectors import FILTERS, LANES, load, minus, plus_scaled, store, store_block, zeros


@jit
def mix(bank: Array, rows: Array, weight: Array, bias: Array, gathered: Array, out: Array) -> None:
    """A 1x1 convolution of pictures `rows` [B] of a bank [N, C, P]: `out` [M, B * P], channel-major; `weight` [M, C].

    `gathered` [C, B * P] receives the pictures, channel-major, for the weight's gradient.
    """
    _, channels, pixels = bank.shape
    filters, lines = len(weight), bank.reshape(-1, pixels)
    grouped = blocks_of(weight.reshape(1, filters, channels))
    whole = max(1, 2 * TILE // pixels)
    tile, sums = np.zeros((channels, whole * pixels + LANES), bank.dtype), np.empty((FILTERS, LANES), bank.dtype)
    for place in range(0, len(rows), whole):
        some = min(whole, len(rows) - place)
        for c in range(channels):
            for i in range(some):
                for low in range(0, pixels, LANES):
                    x = load(lines, rows[place + i] * channels + c, low, pixels - low)
                    store(x, tile, c, i * pixels + low, LANES)  # zeros past the end, where the next picture comes
                    store(x, gathered, c, (place + i) * pixels + low, pixels - low)
        for at in range(0, some * pixels, LANES):
            for k in range(0, filters, FILTERS):
                block = zeros(tile)
                first = k // FILTERS * channels
                for c in range(channels):
                    block = plus_scaled(block, load(tile, c, at, LANES), grouped, first + c)
                store_block(block, sums, 0, 0, LANES)
                for r in range(min(FILTERS, filters - k)):
                    shifted = minus(load(sums, r, 0, LANES), -bias[k + r])
                    store(shifted, out, k + r, place * pixels + at, some * pixels - at)
