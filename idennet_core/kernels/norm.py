"""Batch statistics, what they take from a gradient, and BN-ReLU-average pooling."""

from typing import Any

import numpy as np

from idennet_core.kernels.jit import TILE, Array, jit


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
    small, length = side // window, side * window
    lines = np.empty(side, maps.dtype)
    for c in range(len(maps)):
        z, a, b = out[c], scale[c], shift[c]
        for strip in range(len(z) // small):
            x = maps[c][strip * length : (strip + 1) * length]
            if window == side:
                total = zero
                for p in range(length):
                    u = a * x[p] + b
                    total += zero if u <= 0 else u
                z[strip] = total * share
                continue
            lines[:] = zero
            for r in range(window):
                line = x[r * side : (r + 1) * side]
                for p in range(side):
                    u = a * line[p] + b
                    lines[p] += zero if u <= 0 else u
            for q in range(small):
                total = zero
                for p in range(window):
                    total += lines[q * window + p]
                z[strip * small + q] = total * share


@jit
def pool_backward(
    maps: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    inverse: Array,
    grad_out: Array,
    grad: Array,
    side: int,
    window: int,
) -> tuple[Array, Array]:
    """The gradient of `pool` and of its batch statistics in `grad` [C, N]; gives those of weight and bias [C].

    `inverse` is 1 / sqrt(variance + eps), float64.
    """
    zero, share, pixels = maps.dtype.type(0), maps.dtype.type(1.0 / (window * window)), maps.shape[1]
    small, length = side // window, side * window
    of_weight, of_bias = np.zeros(len(maps)), np.zeros(len(maps))
    spread = np.empty(length, maps.dtype)
    for c in range(len(maps)):
        d, a, b, m = grad_out[c], scale[c], shift[c], mean[c]
        sums, products = 0.0, 0.0
        for strip in range(len(d) // small):
            if window == side:
                spread[:] = d[strip] * share
            else:
                for r in range(window):
                    for q in range(small):
                        for p in range(window):
                            spread[r * side + q * window + p] = d[strip * small + q] * share
            x, g = maps[c][strip * length : (strip + 1) * length], grad[c][strip * length : (strip + 1) * length]
            total, product = zero, zero
            for p in range(length):
                v = spread[p] if a * x[p] + b > 0 else zero
                g[p] = v
                total += v
                product += v * (x[p] - m)
            sums += total
            products += product
        of_weight[c], of_bias[c] = products * inverse[c], sums
        constant = maps.dtype.type(a * sums / pixels)
        slope = maps.dtype.type(a * inverse[c] * inverse[c] * products / pixels)
        for low in range(0, pixels, TILE):
            x, g = maps[c][low : low + TILE], grad[c][low : low + TILE]
            for p in range(len(x)):
                g[p] = a * g[p] - constant - slope * (x[p] - m)
    return of_weight, of_bias
