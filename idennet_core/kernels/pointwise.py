"""BN-ReLU-Conv1x1 over rows of maps, and its gradients."""

import numpy as np

from idennet_core.kernels.jit import TILE, Array, jit


@jit
def pointwise(maps: Array, scale: Array, shift: Array, weight: Array, out: Array) -> None:
    """BN-ReLU-Conv1x1: `out` [K, N] from the first C = len(scale) rows of `maps`; `weight` [K, C]."""
    pixels, channels, filters = maps.shape[1], len(scale), len(weight)
    zero = maps.dtype.type(0)
    active = np.empty((4, TILE), maps.dtype)
    for low in range(0, pixels, TILE):
        high = min(low + TILE, pixels)
        n = high - low
        y0, y1, y2, y3 = active[0][:n], active[1][:n], active[2][:n], active[3][:n]
        for k in range(filters):
            z = out[k][low:high]
            for p in range(n):
                z[p] = zero
        for c in range(0, channels, 4):
            for j in range(4):
                y = active[j][:n]
                if c + j < channels:
                    x, a, b = maps[c + j][low:high], scale[c + j], shift[c + j]
                    for p in range(n):
                        u = a * x[p] + b
                        y[p] = zero if u <= 0 else u
                else:
                    for p in range(n):
                        y[p] = zero
            # past the last channel a row is zero, and so is whatever weight it meets
            c1, c2, c3 = min(c + 1, channels - 1), min(c + 2, channels - 1), min(c + 3, channels - 1)
            for k in range(0, filters - filters % 4, 4):
                z0, z1, z2, z3 = out[k][low:high], out[k + 1][low:high], out[k + 2][low:high], out[k + 3][low:high]
                a0, a1, a2, a3 = weight[k, c], weight[k, c1], weight[k, c2], weight[k, c3]
                b0, b1, b2, b3 = weight[k + 1, c], weight[k + 1, c1], weight[k + 1, c2], weight[k + 1, c3]
                d0, d1, d2, d3 = weight[k + 2, c], weight[k + 2, c1], weight[k + 2, c2], weight[k + 2, c3]
                e0, e1, e2, e3 = weight[k + 3, c], weight[k + 3, c1], weight[k + 3, c2], weight[k + 3, c3]
                for p in range(n):
                    v0, v1, v2, v3 = y0[p], y1[p], y2[p], y3[p]
                    z0[p] += a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
                    z1[p] += b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
                    z2[p] += d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3
                    z3[p] += e0 * v0 + e1 * v1 + e2 * v2 + e3 * v3
            for k in range(filters - filters % 4, filters):
                z0 = out[k][low:high]
                a0, a1, a2, a3 = weight[k, c], weight[k, c1], weight[k, c2], weight[k, c3]
                for p in range(n):
                    z0[p] += a0 * y0[p] + a1 * y1[p] + a2 * y2[p] + a3 * y3[p]


@jit
def pointwise_backward(
    maps: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    weight: Array,
    grad_out: Array,
    grad: Array,
    grad_weight: Array,
    sums: Array,
    products: Array,
) -> None:
    """Gradients of `pointwise`: adds to `grad` [C, N], `grad_weight` [K, C], `sums` [C] and `products` [C].

    With t the gradient after the ReLU, `grad` receives scale * t alone; what the batch statistics take away is
    left to the caller, who knows it from sums = sum of t and products = sum of t * (x - mean) over the pixels.
    """
    pixels, channels, filters = maps.shape[1], len(scale), len(weight)
    zero = maps.dtype.type(0)
    active, gradient = np.empty((2, TILE), maps.dtype), np.empty((2, TILE), maps.dtype)
    for low in range(0, pixels, TILE):
        high = min(low + TILE, pixels)
        n = high - low
        y0, y1, t0, t1 = active[0][:n], active[1][:n], gradient[0][:n], gradient[1][:n]
        for c in range(0, channels, 2):
            c1 = min(c + 1, channels - 1)  # of an odd number the last row is done twice, and counted once
            for j in range(2):
                y, t = active[j][:n], gradient[j][:n]
                x, a, b = maps[min(c + j, c1)][low:high], scale[min(c + j, c1)], shift[min(c + j, c1)]
                for p in range(n):
                    u = a * x[p] + b
                    y[p] = zero if u <= 0 else u
                    t[p] = zero
            for k in range(0, filters - filters % 4, 4):
                d0, d1 = grad_out[k][low:high], grad_out[k + 1][low:high]
                d2, d3 = grad_out[k + 2][low:high], grad_out[k + 3][low:high]
                w0, w1, w2, w3 = weight[k, c], weight[k + 1, c], weight[k + 2, c], weight[k + 3, c]
                v0, v1, v2, v3 = weight[k, c1], weight[k + 1, c1], weight[k + 2, c1], weight[k + 3, c1]
                a0, a1, a2, a3 = zero, zero, zero, zero
                b0, b1, b2, b3 = zero, zero, zero, zero
                for p in range(n):
                    e0, e1, e2, e3, f, g = d0[p], d1[p], d2[p], d3[p], y0[p], y1[p]
                    t0[p] += w0 * e0 + w1 * e1 + w2 * e2 + w3 * e3
                    t1[p] += v0 * e0 + v1 * e1 + v2 * e2 + v3 * e3
                    a0 += f * e0
                    a1 += f * e1
                    a2 += f * e2
                    a3 += f * e3
                    b0 += g * e0
                    b1 += g * e1
                    b2 += g * e2
                    b3 += g * e3
                grad_weight[k, c] += a0
                grad_weight[k + 1, c] += a1
                grad_weight[k + 2, c] += a2
                grad_weight[k + 3, c] += a3
                if c1 != c:
                    grad_weight[k, c1] += b0
                    grad_weight[k + 1, c1] += b1
                    grad_weight[k + 2, c1] += b2
                    grad_weight[k + 3, c1] += b3
            for k in range(filters - filters % 4, filters):
                d0, w0, v0 = grad_out[k][low:high], weight[k, c], weight[k, c1]
                a0, b0 = zero, zero
                for p in range(n):
                    t0[p] += w0 * d0[p]
                    t1[p] += v0 * d0[p]
                    a0 += y0[p] * d0[p]
                    b0 += y1[p] * d0[p]
                grad_weight[k, c] += a0
                if c1 != c:
                    grad_weight[k, c1] += b0
            for j in range(c1 - c + 1):
                x, g, y, t = maps[c + j][low:high], grad[c + j][low:high], active[j][:n], gradient[j][:n]
                a, m = scale[c + j], mean[c + j]
                total, product = zero, zero
                for p in range(n):
                    v = t[p] if y[p] > 0 else zero
                    total += v
                    product += v * (x[p] - m)
                    g[p] += a * v
                sums[c + j] += total
                products[c + j] += product
