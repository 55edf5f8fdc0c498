"""Rows of a bank, batch statistics, what they take from a gradient, and BN-ReLU-average pooling."""

from typing import Any

import numpy as np

from idennet_core.kernels.jit import TILE, Array, jit


@jit
def gather(bank: Array, rows: Array, maps: Array) -> None:
    """`maps` [C, B * P], channel-major, of the rows [B] of a bank [N, C, P]."""
    _, channels, pixels = bank.shape
    for place in range(len(rows)):
        picture = bank[rows[place]]
        for c in range(channels):
            source, target = picture[c], maps[c][place * pixels : (place + 1) * pixels]
            for p in range(pixels):
                target[p] = source[p]


@jit
def moments(maps: Array, mean: Array, variance: Array) -> None:
    """Mean [C] and biased variance [C], float64, of the rows of `maps` [C, N]."""
    channels, pixels = maps.shape
    zero = maps.dtype.type(0)
    for c in range(channels):
        total = 0.0
        for low in range(0, pixels, TILE):
            x = maps[c][low : low + TILE]
            part = zero
            for p in range(len(x)):
                part += x[p]
            total += part
        mean[c] = total / pixels
        centre = maps.dtype.type(mean[c])
        total = 0.0
        for low in range(0, pixels, TILE):
            x = maps[c][low : low + TILE]
            part = zero
            for p in range(len(x)):
                part += (x[p] - centre) * (x[p] - centre)
            total += part
        variance[c] = total / pixels - (mean[c] - centre) ** 2


@jit
def centre_gradient(
    maps: Array,
    grad: Array,
    mean: Array,
    constant: Array,
    slope: Array,
    factor: Array,
    keep: Array,
    gain: Any,
    out: Array,
) -> None:
    """Each row of `out` [C, N]: factor * grad - constant - slope * (x - mean), times what dropout keeps.

    With constant and slope from `pointwise_backward`'s sums and products, this is the gradient through batch
    statistics. `out` may be `grad` itself.
    """
    for c in range(len(maps)):
        a, b, m, f = constant[c], slope[c], mean[c], factor[c]
        for low in range(0, maps.shape[1], TILE):
            x, g, z = maps[c][low : low + TILE], grad[c][low : low + TILE], out[c][low : low + TILE]
            if len(keep):
                kept = keep[c][low : low + TILE]
                for p in range(len(x)):
                    z[p] = (f * g[p] - a - b * (x[p] - m)) * (gain * kept[p])
            else:
                for p in range(len(x)):
                    z[p] = f * g[p] - a - b * (x[p] - m)


@jit
def pool(maps: Array, scale: Array, shift: Array, out: Array, side: int, window: int) -> None:
    """BN-ReLU-average pooling over window x window pixels: `out` [C, N / window^2] from `maps` [C, N]."""
    zero, share = maps.dtype.type(0), maps.dtype.type(1.0 / (window * window))
    small = side // window
    rows = np.empty(side, maps.dtype)
    for c in range(len(maps)):
        x, z, a, b = maps[c], out[c], scale[c], shift[c]
        for strip in range(len(z) // small):
            for p in range(side):
                rows[p] = zero
            for r in range(window):
                first = (strip * window + r) * side
                line = x[first : first + side]
                for p in range(side):
                    u = a * line[p] + b
                    rows[p] += zero if u <= 0 else u
            for q in range(small):
                total = zero
                for p in range(window):
                    total += rows[q * window + p]
                z[strip * small + q] = total * share


@jit
def pool_backward(
    maps: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    grad_out: Array,
    grad: Array,
    sums: Array,
    products: Array,
    side: int,
    window: int,
) -> None:
    """Gradient of `pool` after the ReLU, before the batch norm, in `grad` [C, N]; `sums`, `products` as above."""
    zero, share = maps.dtype.type(0), maps.dtype.type(1.0 / (window * window))
    small, length = side // window, side * window
    spread = np.empty(length, maps.dtype)
    for c in range(len(maps)):
        d, a, b, m = grad_out[c], scale[c], shift[c], mean[c]
        for strip in range(len(d) // small):
            for r in range(window):
                for q in range(small):
                    value = d[strip * small + q] * share
                    for p in range(window):
                        spread[r * side + q * window + p] = value
            x, g = maps[c][strip * length : (strip + 1) * length], grad[c][strip * length : (strip + 1) * length]
            total, product = zero, zero
            for p in range(length):
                v = spread[p] if a * x[p] + b > 0 else zero
                g[p] = v
                total += v
                product += v * (x[p] - m)
            sums[c] += total
            products[c] += product
