"""BN-ReLU-Conv3x3 over pictures, and its gradients."""

from typing import Any

import numpy as np

from idennet_core.kernels.jit import Array, jit


@jit
def _activate(squeezed: Array, scale: Array, shift: Array, padded: Array, first: int, side: int) -> None:
    # BN-ReLU of the picture that begins at pixel `first`, into the middle of `padded` [K, (side + 2)^2]
    step, zero = side + 2, squeezed.dtype.type(0)
    for k in range(len(squeezed)):
        a, b = scale[k], shift[k]
        for r in range(side):
            x = squeezed[k][first + r * side : first + (r + 1) * side]
            y = padded[k][(r + 1) * step + 1 : (r + 1) * step + 1 + side]
            for p in range(side):
                u = a * x[p] + b
                y[p] = zero if u <= 0 else u


@jit
def _convolve(padded: Array, weight: Array, out: Array, side: int) -> None:
    # `padded` [K, (side + 2)^2], `weight` [M, K, 9], `out` [M, side * (side + 2)]: rows keep the padding's two columns
    step = side + 2
    length = side * step - 2
    for m in range(len(weight)):
        z = out[m][:length]
        for q in range(length):
            z[q] = 0
        for k in range(len(padded)):
            row, w = padded[k], weight[m, k]
            x0, x1, x2 = row[:length], row[1 : 1 + length], row[2 : 2 + length]
            x3, x4, x5 = row[step : step + length], row[step + 1 : step + 1 + length], row[step + 2 : step + 2 + length]
            x6, x7 = row[2 * step : 2 * step + length], row[2 * step + 1 : 2 * step + 1 + length]
            x8 = row[2 * step + 2 : 2 * step + 2 + length]
            w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
            for q in range(length):
                z[q] += (
                    w0 * x0[q] + w1 * x1[q] + w2 * x2[q] + w3 * x3[q] + w4 * x4[q] + w5 * x5[q]
                    + w6 * x6[q] + w7 * x7[q] + w8 * x8[q]
                )  # fmt: skip


@jit
def _convolve_weight(padded: Array, grad: Array, grad_weight: Array, side: int) -> None:
    # `grad` [M, (side + 2)^2] is padded with zeros, so that the padding's columns add nothing
    step = side + 2
    length = side * step - 2
    zero = padded.dtype.type(0)
    for m in range(len(grad)):
        d = grad[m][step + 1 : step + 1 + length]
        for k in range(len(padded)):
            row, w = padded[k], grad_weight[m, k]
            x0, x1, x2 = row[:length], row[1 : 1 + length], row[2 : 2 + length]
            x3, x4, x5 = row[step : step + length], row[step + 1 : step + 1 + length], row[step + 2 : step + 2 + length]
            x6, x7 = row[2 * step : 2 * step + length], row[2 * step + 1 : 2 * step + 1 + length]
            x8 = row[2 * step + 2 : 2 * step + 2 + length]
            s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
            for q in range(length):
                e = d[q]
                s0 += e * x0[q]
                s1 += e * x1[q]
                s2 += e * x2[q]
                s3 += e * x3[q]
                s4 += e * x4[q]
                s5 += e * x5[q]
                s6 += e * x6[q]
                s7 += e * x7[q]
                s8 += e * x8[q]
            w[0] += s0
            w[1] += s1
            w[2] += s2
            w[3] += s3
            w[4] += s4
            w[5] += s5
            w[6] += s6
            w[7] += s7
            w[8] += s8


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
    """BN-ReLU-Conv3x3 and dropout: `out` [M, N] from `squeezed` [K, N]; `weight` [M, K, 9].

    `keep` [M, N] uint8 says what dropout leaves, scaled by `gain`; one without rows is no dropout.
    """
    area, step = side * side, side + 2
    padded = np.zeros((len(squeezed), step * step), squeezed.dtype)
    wide = np.empty((len(weight), side * step), squeezed.dtype)
    for picture in range(batch):
        first = picture * area
        _activate(squeezed, scale, shift, padded, first, side)
        _convolve(padded, weight, wide, side)
        for m in range(len(weight)):
            for r in range(side):
                z = out[m][first + r * side : first + (r + 1) * side]
                y = wide[m][r * step : r * step + side]
                if len(keep):
                    kept = keep[m][first + r * side : first + (r + 1) * side]
                    for p in range(side):
                        z[p] = y[p] * (gain * kept[p])
                else:
                    for p in range(side):
                        z[p] = y[p]


@jit
def spatial_backward(
    squeezed: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    weight: Array,
    grad_out: Array,
    grad: Array,
    grad_weight: Array,
    sums: Array,
    products: Array,
    batch: int,
    side: int,
) -> None:
    """Gradients of `spatial` but for its dropout: `grad` [K, N] after the ReLU, before the batch norm.

    `weight` is the convolution's, turned round: [K, M, 9]. Adds to `grad_weight` [M, K, 9], `sums` [K] and
    `products` [K], which are as in `pointwise_backward`.
    """
    area, step, zero = side * side, side + 2, squeezed.dtype.type(0)
    padded = np.zeros((len(squeezed), step * step), squeezed.dtype)
    framed = np.zeros((len(grad_out), step * step), squeezed.dtype)
    wide = np.empty((len(squeezed), side * step), squeezed.dtype)
    for picture in range(batch):
        first = picture * area
        _activate(squeezed, scale, shift, padded, first, side)
        for m in range(len(grad_out)):
            for r in range(side):
                d = grad_out[m][first + r * side : first + (r + 1) * side]
                f = framed[m][(r + 1) * step + 1 : (r + 1) * step + 1 + side]
                for p in range(side):
                    f[p] = d[p]
        _convolve_weight(padded, framed, grad_weight, side)
        _convolve(framed, weight, wide, side)
        for k in range(len(squeezed)):
            m_k, total, product = mean[k], zero, zero
            for r in range(side):
                x = squeezed[k][first + r * side : first + (r + 1) * side]
                y = padded[k][(r + 1) * step + 1 : (r + 1) * step + 1 + side]
                t = wide[k][r * step : r * step + side]
                g = grad[k][first + r * side : first + (r + 1) * side]
                for p in range(side):
                    v = t[p] if y[p] > 0 else zero
                    g[p] = v
                    total += v
                    product += v * (x[p] - m_k)
            sums[k] += total
            products[k] += product
