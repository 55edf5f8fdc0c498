"""The networks of `network.py` on a CPU: the same functions of the same parameters, through hand-written kernels.

Everything runs on the calling thread, so that a result does not depend on the number of threads. Maps are
channel-major, [C, B, H, W]; the plain modules are the reference that tests hold this against.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from idennet_core.kernels.mixing import mix
from idennet_core.kernels.norm import centre_gradient, moments, pool, pool_backward
from idennet_core.kernels.pointwise import pointwise, pointwise_backward
from idennet_core.kernels.spatial import spatial, spatial_backward
from idennet_core.kernels.vectors import FILTERS
from idennet_core.network import MOMENTUM, DenseBlock, Dropout, Head, PretrainedNetwork, Trunk

Array = NDArray[Any]
NOTHING_DROPPED = np.empty((0, 0), np.uint8)


def head(network: Head, bank: Tensor, rows: Tensor, dropout: Dropout | None) -> tuple[Tensor, Tensor | None]:
    """`network(bank[rows])`: pooled features [N, C, 12, 12] of a bank to expression and identity logits."""
    maps = _apply(_Fusion, bank, rows, network.fusion.weight, network.fusion.bias)
    features = _pooled(network.norm, dense_block(network.block, maps, dropout), 12)[:, :, 0, 0].T
    return network.emotion(features), None if network.identity is None else network.identity(features)


def trunk(network: Trunk, images: Tensor) -> Tensor:
    """`network(images)`, channel-major: [B, 1, 48, 48] to [D, B, 24, 24]."""
    maps = network.stem(images).transpose(0, 1).contiguous()
    maps = _pooled(network.norm, dense_block(network.block1, maps), 2)
    return dense_block(network.block2, _mixed(network.transition, maps))


def pretrained(network: PretrainedNetwork, images: Tensor) -> Tensor:
    """`network(images)`: [B, 1, 48, 48] to logits [B, classes]."""
    maps = trunk(network.trunk, images)
    halved = F.avg_pool2d(maps, 2)  # before the 1x1 convolution: the two commute
    maps = dense_block(network.block, _mixed(network.transition, halved))
    logits: Tensor = network.classifier(_pooled(network.norm, maps, 12)[:, :, 0, 0].T)
    return logits


def dense_block(block: DenseBlock, maps: Tensor, dropout: Dropout | None = None) -> Tensor:
    """`block(maps, dropout)`, channel-major: [C, B, H, W] to [out_width, B, H, W]."""
    norms: list[Any] = [norm for layer in block.layers for norm in (layer.norm1, layer.norm2)]
    return _apply(_DenseBlock, maps, dropout, norms, *block.parameters())


def _mixed(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """A 1x1 convolution as one matrix product."""
    mixed = convolution.weight[:, :, 0, 0] @ maps.flatten(1)
    if convolution.bias is not None:
        mixed = mixed + convolution.bias[:, None]
    return mixed.view(-1, *maps.shape[1:])


def _pooled(norm: nn.BatchNorm2d, maps: Tensor, window: int) -> Tensor:
    """BN, ReLU and average pooling, [C, B, H, W] to [C, B, H / window, W / window]."""
    return _apply(_Pool, maps, norm, window, norm.weight, norm.bias)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _Fusion(torch.autograd.Function):
    """The fusion convolution on rows of a bank, as one matrix product; the bank has no gradient."""

    @staticmethod
    def forward(ctx: Any, bank: Tensor, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pictures, channels, side, _ = bank.shape
        gathered = bank.new_empty(channels, len(rows) * side * side)
        maps = bank.new_empty(len(weight), len(rows), side, side)
        arrays = (_array(tensor) for tensor in (rows, weight[:, :, 0, 0], bias, gathered, maps.flatten(1)))
        mix(np.ascontiguousarray(_array(bank)).reshape(pictures, channels, -1), *arrays)
        ctx.save_for_backward(gathered)
        return maps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor, Tensor]:
        grad = gradients[0].flatten(1)
        (gathered,) = ctx.saved_tensors
        return None, None, (grad @ gathered.T)[:, :, None, None], grad.sum(1)


class _Norms:
    """Batch norms of the same rows as the kernels take them, each array [norms, rows].

    Scale, shift and mean are of the maps' type; statistics are this batch's in training, the running ones otherwise.
    """

    def __init__(self, norms: Sequence[nn.BatchNorm2d], rows: slice, mean: Array, variance: Array, dtype: Any) -> None:
        def stack(name: str) -> Array:
            return np.array([_array(getattr(norm, name))[rows] for norm in norms], np.float64)

        weight, bias, mean, variance = stack("weight"), stack("bias"), mean[None, rows], variance[None, rows]
        if not norms[0].training:
            mean, variance = stack("running_mean"), stack("running_var")
        with np.errstate(all="ignore"):  # what is not a number shows in the loss
            self.inverse = 1 / np.sqrt(variance + norms[0].eps)
            self.factor = weight * self.inverse
            self.scale = self.factor.astype(dtype)
            self.shift = (bias - mean * self.factor).astype(dtype)
            self.mean = mean.astype(dtype)

    def gradients(self, sums: Array, products: Array, pixels: int) -> tuple[Array, Array, Array, Array]:
        """Of weight and bias, then the constant and the slope that the batch statistics take from a map's gradient."""
        constant, slope = self.factor * sums / pixels, self.factor * self.inverse**2 * products / pixels
        return products * self.inverse, sums, constant.sum(0), slope.sum(0)


class _DenseBlock(torch.autograd.Function):
    """A dense block whose layers write below each other into one buffer.

    What is in a row is used for all the layers that read it, in one go: the block's input goes through every layer's
    1x1 convolution at the start, and a row's gradient is summed up when all the layers above it have theirs.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, dropout: Dropout | None, norms: Sequence[nn.BatchNorm2d], *parameters: Tensor
    ) -> Tensor:
        arrays = [_array(parameter) for parameter in parameters]  # norm, 1x1, norm, 3x3 of each layer
        count, bottleneck, growth = len(arrays) // 6, len(arrays[2]), len(arrays[5])
        width, (batch, side) = len(maps), maps.shape[1:3]
        out = maps.new_empty(width + count * growth, *maps.shape[1:])
        out[:width] = maps
        rows, dtype = _array(out).reshape(len(out), -1), _array(out).dtype
        training = norms[0].training
        mean, variance = np.zeros(len(rows)), np.zeros(len(rows))  # no layer reads the last rows
        if training:
            moments(rows[:width], mean[:width], variance[:width])
        squeezed = np.zeros((count, -(-bottleneck // FILTERS) * FILTERS, rows.shape[1]), dtype)

        def squeeze(layers: slice, read: slice) -> None:
            found = _Norms(norms[::2][layers], read, mean, variance, dtype)
            weight = _weights(arrays[2::6][layers], read)
            pointwise(rows[read], found.scale, found.shift, weight, squeezed[layers].reshape(-1, rows.shape[1]))

        squeeze(slice(0, count), slice(0, width))
        saved = []
        for index in range(count):
            last, inner = width + index * growth, squeezed[index, :bottleneck]
            if index:
                squeeze(slice(index, index + 1), slice(width, last))
            inner_mean, inner_variance = np.empty(bottleneck), np.empty(bottleneck)
            if training:
                moments(inner, inner_mean, inner_variance)
                _track(norms[2 * index], mean[:last], variance[:last], rows.shape[1])
                _track(norms[2 * index + 1], inner_mean, inner_variance, rows.shape[1])
            second = _Norms([norms[2 * index + 1]], slice(None), inner_mean, inner_variance, dtype)
            keep = NOTHING_DROPPED
            if dropout is not None and dropout.rate > 0:
                keep = dropout.keep((batch, growth, side, side), index).transpose(1, 0, 2, 3).reshape(growth, -1)
                keep = np.ascontiguousarray(keep)
            gain = dtype.type(1.0 if dropout is None else 1 / (1 - dropout.rate))
            new, taps = rows[last : last + growth], arrays[6 * index + 5].reshape(growth, -1, 9)
            spatial(inner, second.scale[0], second.shift[0], taps, keep, gain, new, batch, side)
            if training and index + 1 < count:
                moments(new, mean[last : last + growth], variance[last : last + growth])
            saved.append((second, keep, gain))
        if training:
            ctx.rows, ctx.squeezed, ctx.statistics, ctx.saved = rows, squeezed, (mean, variance), saved
            ctx.norms, ctx.arrays, ctx.size = norms, arrays, (batch, side, width)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, arrays, (mean, variance), (batch, side, width) = ctx.rows, ctx.arrays, ctx.statistics, ctx.size
        pixels, dtype, growth, bottleneck = rows.shape[1], rows.dtype, len(arrays[5]), len(arrays[2])
        given = np.ascontiguousarray(_array(gradients[0])).reshape(len(rows), -1)
        grad = np.empty_like(given)
        of_squeezed = np.zeros_like(ctx.squeezed)
        found: list[Array] = [np.empty_like(array) for array in arrays]
        with np.errstate(over="ignore"):
            centre, one = mean.astype(dtype), np.ones(len(rows), dtype)

        def through(layers: range, read: slice, keep: Array, gain: Any) -> None:
            """The gradient of the rows `read`, all of it: what comes through `layers`, their statistics, dropout."""
            constant = slope = np.zeros(read.stop - read.start)
            so_far = given[read]
            if layers:
                norms = _Norms(ctx.norms[::2][layers.start :], read, mean, variance, dtype)
                weight, above = _weights(arrays[2::6][layers.start :], read), of_squeezed[layers.start :]
                so_far, above = grad[read], above.reshape(-1, pixels)
                of_weight, sums, products = pointwise_backward(
                    rows[read], norms.scale, norms.shift, centre[read], weight, above, given[read], so_far
                )
                of_scale, of_shift, constant, slope = norms.gradients(sums, products, pixels)
                for index, *parts in zip(layers, of_scale, of_shift, of_weight[:, :, :, None, None], strict=True):
                    found[6 * index][read], found[6 * index + 1][read], found[6 * index + 2][:, read] = parts
            taken = constant.astype(dtype), slope.astype(dtype)
            centre_gradient(rows[read], so_far, centre[read], *taken, one[read], keep, gain, grad[read])

        count = len(ctx.saved)
        for index in reversed(range(count)):
            second, keep, gain = ctx.saved[index]
            new = slice(width + index * growth, width + (index + 1) * growth)
            through(range(index + 1, count), new, keep, gain)
            squeezed, inner = ctx.squeezed[index, :bottleneck], of_squeezed[index, :bottleneck]
            turned = np.ascontiguousarray(arrays[6 * index + 5].reshape(growth, -1, 9)[:, :, ::-1].transpose(1, 0, 2))
            scale, shift, mean_ = second.scale[0], second.shift[0], second.mean[0]
            of_taps, sums, products = spatial_backward(
                squeezed, scale, shift, mean_, turned, grad[new], inner, batch, side
            )
            of_scale, of_shift, constant, slope = second.gradients(sums, products, pixels)
            taken = constant.astype(dtype), slope.astype(dtype)
            centre_gradient(squeezed, inner, mean_, *taken, scale, NOTHING_DROPPED, gain, inner)
            found[6 * index + 3][:], found[6 * index + 4][:] = of_scale[0], of_shift
            found[6 * index + 5][:] = of_taps.reshape(found[6 * index + 5].shape)
        through(range(count), slice(0, width), NOTHING_DROPPED, dtype.type(1))
        of_maps = torch.from_numpy(grad[:width]).view(width, batch, side, side)
        return of_maps, None, None, *(torch.from_numpy(g) for g in found)


class _Pool(torch.autograd.Function):
    """BN, ReLU and average pooling over window x window pixels."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, norm: nn.BatchNorm2d, window: int, *_: Tensor) -> Tensor:
        rows = _array(maps).reshape(len(maps), -1)
        mean, variance = np.empty(len(rows)), np.empty(len(rows))
        if norm.training:
            moments(rows, mean, variance)
            _track(norm, mean, variance, rows.shape[1])
        norms = _Norms([norm], slice(None), mean, variance, rows.dtype)
        scale, shift = norms.scale[0], norms.shift[0]
        side = maps.shape[2]
        out = maps.new_empty(*maps.shape[:2], side // window, side // window)
        pool(rows, scale, shift, _array(out).reshape(len(rows), -1), side, window)
        ctx.rows, ctx.shape, ctx.window = rows, maps.shape, window
        ctx.norm = scale, shift, norms.mean[0], norms.inverse[0]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, norm, side = ctx.rows, ctx.norm, ctx.shape[2]
        given = np.ascontiguousarray(_array(gradients[0])).reshape(len(rows), -1)
        grad, (scale, shift, mean, inverse) = np.empty_like(rows), norm
        found = pool_backward(rows, scale, shift, mean, inverse, given, grad, side, ctx.window)
        return (
            torch.from_numpy(grad).view(ctx.shape),
            None,
            None,
            *(torch.from_numpy(g.astype(grad.dtype)) for g in found),
        )


def _array(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def _weights(convolutions: Sequence[Array], read: slice) -> Array:
    """What several 1x1 convolutions [K, C, 1, 1] weigh the rows `read` with, [layers, K, rows]."""
    return np.stack([weight[:, read, 0, 0] for weight in convolutions])


def _track(norm: nn.BatchNorm2d, mean: Array, variance: Array, pixels: int) -> None:
    """Move the running statistics towards this batch's; their variance is the unbiased one."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    unbiased = variance * (pixels / max(pixels - 1, 1))
    for running, value in ((_array(norm.running_mean), mean), (_array(norm.running_var), unbiased)):
        running += MOMENTUM * (value - running)
    norm.num_batches_tracked += 1
