"""BN-ReLU-Conv1x1 of the same rows for several layers at once, and its gradients.

A dense block's layers all read the block's input: each of its rows is fetched once, and used for every layer.
"""

import numpy as np

from idennet_core.kernels.jit import Array, jit
from idennet_core.kernels.vectors import (
    FILTERS,
    LANES,
    add_totals,
    load,
    minus,
    nothing,
    plus,
    plus_products,
    plus_scaled,
    prefetch,
    relu,
    store,
    store_block,
    times,
    total,
    where_positive,
    zeros,
)

STRIPS = 256 // LANES
TILE = STRIPS * LANES  # pixels worked on at a time


@jit
def blocks_of(weight: Array) -> Array:
    """Weights [J, K, C] as rows of FILTERS for every channel: [J * blocks * C, FILTERS], zeros past K."""
    layers, filters, channels = weight.shape
    blocks = -(-filters // FILTERS)
    grouped = np.zeros((layers * blocks * channels, FILTERS), weight.dtype)
    for j in range(layers):
        for k in range(filters):
            for c in range(channels):
                grouped[(j * blocks + k // FILTERS) * channels + c, k % FILTERS] = weight[j, k, c]
    return grouped


@jit
def pointwise(maps: Array, scale: Array, shift: Array, weight: Array, out: Array) -> None:
    """BN-ReLU-Conv1x1 for J layers: adds to `out` [J * K', N], from `maps` [C, N]; `weight` [J, K, C].

    `scale` and `shift` are [J, C]; K' is K filled up to FILTERS.
    """
    pixels, (layers, filters, channels) = maps.shape[1], weight.shape
    blocks = -(-filters // FILTERS)
    grouped = blocks_of(weight)
    active = np.empty((STRIPS * channels, LANES), maps.dtype)
    sums = np.empty((FILTERS, LANES), maps.dtype)
    for low in range(0, pixels, TILE):
        strips = -(-min(TILE, pixels - low) // LANES)
        for j in range(layers):
            for c in range(channels):
                a, b = scale[j, c], shift[j, c]
                for s in range(strips):
                    at = low + s * LANES
                    store(relu(load(maps, c, at, pixels - at), a, b), active, s * channels + c, 0, LANES)
            for k in range(j * blocks, (j + 1) * blocks):
                for s in range(strips):
                    at = low + s * LANES
                    block = zeros(active)
                    for c in range(channels):
                        block = plus_scaled(block, load(active, s * channels + c, 0, LANES), grouped, k * channels + c)
                    store_block(block, sums, 0, 0, LANES)
                    for r in range(FILTERS):
                        row = k * FILTERS + r
                        found = plus(load(out, row, at, pixels - at), load(sums, r, 0, LANES))
                        store(found, out, row, at, pixels - at)


@jit
def pointwise_backward(
    maps: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    weight: Array,
    grad_out: Array,
    grad_before: Array,
    grad: Array,
) -> tuple[Array, Array, Array]:
    """Gradients of `pointwise`: `grad` [C, N], and gives those of `weight` [J, K, C], then two sums [J, C].

    With t the gradient after the ReLU, `grad` is `grad_before` + scale * t alone; what the batch statistics take
    away is left to the caller, who knows it from the two, the sums of t and of t * (x - mean) over the pixels.
    """
    pixels, (layers, filters, channels) = maps.shape[1], weight.shape
    blocks = -(-filters // FILTERS)
    grouped = blocks_of(np.ascontiguousarray(weight.transpose(0, 2, 1)))  # rows of FILTERS channels for every filter
    groups = -(-channels // FILTERS)
    given = np.empty((len(grad_out), TILE), maps.dtype)
    back, gained = np.empty((FILTERS, TILE), maps.dtype), np.empty((FILTERS, TILE), maps.dtype)
    active = np.empty((1, TILE), maps.dtype)
    found, grad_weight = np.zeros((layers * blocks * channels, FILTERS)), np.empty((layers, filters, channels))
    sums, products = np.zeros((layers, channels)), np.zeros((layers, channels))
    for low in range(0, pixels, TILE):
        strips = -(-min(TILE, pixels - low) // LANES)
        for k in range(len(grad_out)):
            for s in range(strips):
                at = low + s * LANES
                store(load(grad_out, k, at, pixels - at), given, k, s * LANES, LANES)
        for group in range(groups):
            first, last = group * FILTERS, min((group + 1) * FILTERS, channels)
            for c in range(first, last):
                for s in range(strips):
                    at = low + s * LANES
                    store(load(grad_before, c, at, pixels - at), gained, c - first, s * LANES, LANES)
            for j in range(layers):
                for s in range(strips):
                    block = zeros(given)
                    for k in range(filters):
                        vector = load(given, j * blocks * FILTERS + k, s * LANES, LANES)
                        block = plus_scaled(block, vector, grouped, (j * groups + group) * filters + k)
                    store_block(block, back, 0, s * LANES, LANES)
                for c in range(first, last):
                    a, b, m, r = scale[j, c], shift[j, c], mean[c], c - first
                    one, other = nothing(given), nothing(given)
                    for s in range(strips):
                        at = low + s * LANES
                        x = load(maps, c, at, pixels - at)
                        y = relu(x, a, b)
                        v = where_positive(y, load(back, r, s * LANES, LANES))
                        store(y, active, 0, s * LANES, LANES)
                        store(plus(load(gained, r, s * LANES, LANES), times(v, a)), gained, r, s * LANES, LANES)
                        one, other = plus(one, v), plus(other, times(v, minus(x, m)))
                    sums[j, c] += total(one)
                    products[j, c] += total(other)
                    for k in range(j * blocks, (j + 1) * blocks):
                        block = zeros(given)
                        for s in range(strips):
                            if j == 0:
                                prefetch(maps, c + FILTERS, low + s * LANES)
                                prefetch(grad_before, c + FILTERS, low + s * LANES)
                            vector = load(active, 0, s * LANES, LANES)
                            block = plus_products(block, vector, given, k * FILTERS, s * LANES)
                        add_totals(block, found, k * channels + c)
            for c in range(first, last):
                for s in range(strips):
                    at = low + s * LANES
                    store(load(gained, c - first, s * LANES, LANES), grad, c, at, pixels - at)
    for j in range(layers):
        for k in range(filters):
            for c in range(channels):
                row = (j * blocks + k // FILTERS) * channels + c
                grad_weight[j, k, c] = found[row, k % FILTERS]
    return grad_weight, sums, products
