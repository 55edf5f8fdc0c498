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

from idennet_core.kernels.norm import centre_gradient, gather, moments, pool, pool_backward
from idennet_core.kernels.pointwise import pointwise, pointwise_backward
from idennet_core.kernels.spatial import spatial, spatial_backward
from idennet_core.network import DenseBlock, Dropout, Head, PretrainedNetwork, Trunk

Array = NDArray[Any]
MOMENTUM = 0.1  # of running statistics, as of nn.BatchNorm2d
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
        gather(_array(bank).reshape(pictures, channels, -1), _array(rows), _array(gathered))
        ctx.save_for_backward(gathered)
        maps = torch.addmm(bias[:, None], weight[:, :, 0, 0], gathered)
        return maps.view(-1, len(rows), side, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor, Tensor]:
        grad = gradients[0].flatten(1)
        (gathered,) = ctx.saved_tensors
        return None, None, (grad @ gathered.T)[:, :, None, None], grad.sum(1)


class _Norm:
    """A batch norm as the kernels take it: scale and shift in the maps' type, statistics of this batch or running."""

    def __init__(self, norm: nn.BatchNorm2d, mean: Array, variance: Array, dtype: Any) -> None:
        weight, bias = _array(norm.weight).astype(np.float64), _array(norm.bias).astype(np.float64)
        self.weight = weight
        with np.errstate(all="ignore"):  # what is not a number shows in the loss
            self.inverse = 1 / np.sqrt(variance + norm.eps)
            self.scale = (weight * self.inverse).astype(dtype)
            self.shift = (bias - mean * weight * self.inverse).astype(dtype)
            self.mean = mean.astype(dtype)

    def gradients(self, sums: Array, products: Array, pixels: int) -> tuple[Array, Array, Array, Array]:
        """Of weight and bias, then the constant and the slope that the batch statistics take from a map's gradient."""
        factor = self.weight * self.inverse
        return products * self.inverse, sums, factor * sums / pixels, factor * self.inverse**2 * products / pixels


class _DenseBlock(torch.autograd.Function):
    """A dense block whose layers write below each other into one buffer."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, dropout: Dropout | None, norms: Sequence[nn.BatchNorm2d], *parameters: Tensor
    ) -> Tensor:
        arrays = [_array(parameter) for parameter in parameters]  # norm, 1x1, norm, 3x3 of each layer
        count, growth = len(arrays) // 6, len(arrays[5])
        width, (batch, side) = len(maps), maps.shape[1:3]
        out = maps.new_empty(width + count * growth, *maps.shape[1:])
        out[:width] = maps
        rows, dtype = _array(out).reshape(len(out), -1), _array(out).dtype
        training = norms[0].training
        mean, variance = np.zeros(len(rows)), np.zeros(len(rows))
        if training:
            moments(rows[:width], mean[:width], variance[:width])
        saved = []
        for index in range(count):
            last = width + index * growth
            _, _, squeeze, _, _, convolve = arrays[6 * index : 6 * index + 6]
            first_norm, second_norm = norms[2 * index], norms[2 * index + 1]
            first = _norm(first_norm, mean[:last], variance[:last], dtype)
            squeezed = np.empty((len(squeeze), rows.shape[1]), dtype)
            pointwise(rows, first.scale, first.shift, squeeze[:, :, 0, 0], squeezed)
            inner_mean, inner_variance = np.empty(len(squeeze)), np.empty(len(squeeze))
            if training:
                moments(squeezed, inner_mean, inner_variance)
                _track(first_norm, mean[:last], variance[:last], rows.shape[1])
                _track(second_norm, inner_mean, inner_variance, rows.shape[1])
            second = _norm(second_norm, inner_mean, inner_variance, dtype)
            keep = NOTHING_DROPPED
            if dropout is not None and dropout.rate > 0:
                keep = dropout.keep((batch, growth, side, side), index).transpose(1, 0, 2, 3).reshape(growth, -1)
                keep = np.ascontiguousarray(keep)
            gain = dtype.type(1.0 if dropout is None else 1 / (1 - dropout.rate))
            new = rows[last : last + growth]
            taps = convolve.reshape(growth, -1, 9)
            spatial(squeezed, second.scale, second.shift, taps, keep, gain, new, batch, side)
            if training and index + 1 < count:
                moments(new, mean[last : last + growth], variance[last : last + growth])
            saved.append((first, squeezed, second, keep, gain))
        if training:
            ctx.rows, ctx.mean, ctx.saved, ctx.arrays, ctx.size = rows, mean, saved, arrays, (batch, side, width)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, arrays, (batch, side, width) = ctx.rows, ctx.arrays, ctx.size
        pixels, dtype, growth = rows.shape[1], rows.dtype, len(arrays[5])
        grad = np.ascontiguousarray(_array(gradients[0])).reshape(len(rows), -1).copy()
        constant, slope = np.zeros(len(rows)), np.zeros(len(rows))
        found: list[Array] = [np.empty(0)] * len(arrays)
        mean, one = ctx.mean.astype(dtype), np.ones(len(rows), dtype)
        for index in reversed(range(len(ctx.saved))):
            first, squeezed, second, keep, gain = ctx.saved[index]
            _, _, squeeze, _, _, convolve = arrays[6 * index : 6 * index + 6]
            last = width + index * growth
            new = slice(last, last + growth)
            below = (mean[new], constant[new].astype(dtype), slope[new].astype(dtype), one[new])
            centre_gradient(rows[new], grad[new], *below, keep, gain, grad[new])

            inner = np.empty_like(squeezed)
            sums, products = np.zeros(len(squeezed)), np.zeros(len(squeezed))
            taps = convolve.reshape(growth, -1, 9)
            grad_taps = np.zeros(taps.shape)
            turned = np.ascontiguousarray(taps[:, :, ::-1].transpose(1, 0, 2))
            spatial_backward(
                squeezed, second.scale, second.shift, second.mean, turned, grad[new], inner, grad_taps, sums, products,
                batch, side,
            )  # fmt: skip
            of_weight, of_bias, inner_constant, inner_slope = second.gradients(sums, products, pixels)
            centre_gradient(
                squeezed, inner, second.mean, inner_constant.astype(dtype), inner_slope.astype(dtype), second.scale,
                NOTHING_DROPPED, gain, inner,
            )  # fmt: skip
            found[6 * index + 3 : 6 * index + 6] = of_weight, of_bias, grad_taps.reshape(convolve.shape)

            sums, products, grad_squeeze = np.zeros(last), np.zeros(last), np.zeros((len(squeeze), last))
            pointwise_backward(
                rows, first.scale, first.shift, first.mean, squeeze[:, :, 0, 0], inner, grad, grad_squeeze, sums,
                products,
            )  # fmt: skip
            of_weight, of_bias, taken, tilted = first.gradients(sums, products, pixels)
            constant[:last] += taken
            slope[:last] += tilted
            found[6 * index : 6 * index + 3] = of_weight, of_bias, grad_squeeze[:, :, None, None]
        below = (mean[:width], constant[:width].astype(dtype), slope[:width].astype(dtype), one[:width])
        centre_gradient(rows[:width], grad[:width], *below, NOTHING_DROPPED, dtype.type(1), grad[:width])
        of_maps = torch.from_numpy(grad[:width]).view(width, batch, side, side)
        return of_maps, None, None, *(torch.from_numpy(np.asarray(g, dtype)) for g in found)


class _Pool(torch.autograd.Function):
    """BN, ReLU and average pooling over window x window pixels."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, norm: nn.BatchNorm2d, window: int, *_: Tensor) -> Tensor:
        rows = _array(maps).reshape(len(maps), -1)
        mean, variance = np.empty(len(rows)), np.empty(len(rows))
        if norm.training:
            moments(rows, mean, variance)
            _track(norm, mean, variance, rows.shape[1])
        found = _norm(norm, mean, variance, rows.dtype)
        side = maps.shape[2]
        out = maps.new_empty(*maps.shape[:2], side // window, side // window)
        pool(rows, found.scale, found.shift, _array(out).reshape(len(rows), -1), side, window)
        ctx.rows, ctx.norm, ctx.shape, ctx.window = rows, found, maps.shape, window
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, norm, side = ctx.rows, ctx.norm, ctx.shape[2]
        given = np.ascontiguousarray(_array(gradients[0])).reshape(len(rows), -1)
        grad, sums, products = np.empty_like(rows), np.zeros(len(rows)), np.zeros(len(rows))
        pool_backward(rows, norm.scale, norm.shift, norm.mean, given, grad, sums, products, side, ctx.window)
        of_weight, of_bias, constant, slope = norm.gradients(sums, products, rows.shape[1])
        centre_gradient(
            rows, grad, norm.mean, constant.astype(rows.dtype), slope.astype(rows.dtype), norm.scale, NOTHING_DROPPED,
            rows.dtype.type(1), grad,
        )  # fmt: skip
        of_parameters = (torch.from_numpy(g.astype(rows.dtype)) for g in (of_weight, of_bias))
        return torch.from_numpy(grad).view(ctx.shape), None, None, *of_parameters


def _array(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def _norm(norm: nn.BatchNorm2d, mean: Array, variance: Array, dtype: Any) -> _Norm:
    """By the batch's statistics in training, by the running ones otherwise."""
    if norm.training:
        return _Norm(norm, mean, variance, dtype)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return _Norm(norm, _array(norm.running_mean).astype(float), _array(norm.running_var).astype(float), dtype)


def _track(norm: nn.BatchNorm2d, mean: Array, variance: Array, pixels: int) -> None:
    """Move the running statistics towards this batch's; their variance is the unbiased one."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    unbiased = variance * (pixels / max(pixels - 1, 1))
    for running, value in ((_array(norm.running_mean), mean), (_array(norm.running_var), unbiased)):
        running += MOMENTUM * (value - running)
    norm.num_batches_tracked += 1
