"""The heads of `network.py` for K members at once, as torch operations on any device.

Maps are member- and channel-major, [K, C, P] with P = pictures x 144 pixels, so that a 1x1 convolution of all members
is one batched product and a batch norm's statistics are over the last axis. Products are batched, never block-diagonal:
0 times NaN is NaN, so a zero block would carry one member's NaN to the others. The dense block writes into one buffer
of centred maps; the statistics of a slice are computed once, for every later batch norm. Parameters and statistics keep
their type where maps are bf16.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from idennet_core.config import GROWTH
from idennet_core.network import EPSILON

SIDE = 12  # pixels, of a bank's maps
PIXELS = SIDE * SIDE

Parameters = Mapping[str, Tensor]  # [K, ...] by their names in `network.Head`


def fuse(pixels: Tensor, parameters: Parameters) -> Tensor:
    """The fusion convolution: a bank's pixels [K, P, streams * D] to maps [K, C, P]."""
    weight = parameters["fusion.weight"][:, :, :, 0, 0].to(pixels.dtype)
    return torch.baddbmm(parameters["fusion.bias"][:, :, None].to(pixels.dtype), weight, pixels.transpose(1, 2))


def train_features(maps: Tensor, parameters: Parameters, masks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Fused maps [K, C, P] to features [K, B, out_width], with the means and unbiased variances of the batch.

    `masks`: what a layer's new maps are multiplied with, [K, 12, P], a layer each; none: no dropout. Statistics are
    [K, S], one batch norm after the other as in `norm_names`.
    """
    count = layers(parameters)
    ordered = [parameters[name] for name in parameter_names(count)]
    features: tuple[Tensor, Tensor, Tensor] = _Block.apply(maps, masks, count, *ordered)  # type: ignore[no-untyped-call]
    return features


def test_features(maps: Tensor, parameters: Parameters, means: Parameters, variances: Parameters) -> Tensor:
    """Fused maps [K, C, P] to features [K, B, out_width], by running statistics; without gradients."""

    def normed(name: str, maps: Tensor) -> Tensor:
        scale = parameters[f"{name}.weight"] * (variances[name] + EPSILON).rsqrt()
        return _normed(maps, scale, parameters[f"{name}.bias"] - means[name] * scale)

    for index in range(layers(parameters)):
        layer = f"block.layers.{index}"
        squeezed = torch.bmm(_flat(parameters[f"{layer}.conv1.weight"], maps), normed(f"{layer}.norm1", maps))
        patches = _patches(normed(f"{layer}.norm2", squeezed))
        maps = torch.cat([maps, torch.bmm(_flat(parameters[f"{layer}.conv2.weight"], maps), patches)], 1)
    return _pooled(normed("norm", maps), parameters["norm.weight"].dtype)


def layers(parameters: Parameters) -> int:
    """How many layers the dense block has."""
    return sum(name.endswith("conv1.weight") for name in parameters)


def norm_names(count: int) -> list[str]:
    """The batch norms of a head with this many layers, in the order of their statistics."""
    return [f"block.layers.{index}.norm{which}" for index in range(count) for which in (1, 2)] + ["norm"]


def parameter_names(count: int) -> list[str]:
    """The parameters between fusion and classifiers, in the order in which `_Block` takes them."""
    parts = ("norm1.weight", "norm1.bias", "conv1.weight", "norm2.weight", "norm2.bias", "conv2.weight")
    return [f"block.layers.{index}.{part}" for index in range(count) for part in parts] + ["norm.weight", "norm.bias"]


class _Norm:
    """A batch norm of centred maps: scale, and what its backward needs."""

    def __init__(self, weight: Tensor, bias: Tensor, variance: Tensor, pixels: int) -> None:
        self.inverse, self.bias, self.pixels = (variance + EPSILON).rsqrt(), bias, pixels
        self.scale = weight * self.inverse

    def gradients(self, grad: Tensor, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of weight and bias, then the constant and the slope that the statistics take from the maps' gradient."""
        sums = grad.sum(2, dtype=self.scale.dtype)
        products = (grad * maps).sum(2, dtype=self.scale.dtype)
        tilt = self.scale * self.inverse.square() * products / self.pixels
        return products * self.inverse, sums, self.scale * sums / self.pixels, tilt


class _Block(torch.autograd.Function):
    """Dense block, batch norm, ReLU and the mean over a picture's pixels."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, masks: Sequence[Tensor], count: int, *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        members, width, pixels = maps.shape
        kept = torch.float64 if maps.dtype == torch.float64 else torch.float32
        rows = maps.new_empty(members, width + count * GROWTH, pixels)
        mean, variance = (rows.new_empty(members, rows.shape[1], dtype=kept) for _ in range(2))
        _centre(maps, rows[:, :width], mean[:, :width], variance[:, :width])
        saved, means, variances = [], [], []
        for index in range(count):
            first_weight, first_bias, squeeze, second_weight, second_bias, convolve = parameters[6 * index :][:6]
            last = width + index * GROWTH
            first = _Norm(first_weight, first_bias, variance[:, :last], pixels)
            entered = _normed(rows[:, :last], first.scale, first.bias)
            squeezed = torch.bmm(_flat(squeeze, maps), entered)
            inner_mean, inner_variance = (rows.new_empty(members, squeezed.shape[1], dtype=kept) for _ in range(2))
            _centre(squeezed, squeezed, inner_mean, inner_variance)
            second = _Norm(second_weight, second_bias, inner_variance, pixels)
            inner = _normed(squeezed, second.scale, second.bias)
            new = torch.bmm(_flat(convolve, maps), _patches(inner))
            if masks:
                new *= masks[index]
            part = slice(last, last + GROWTH)
            means += [mean[:, :last], inner_mean]
            variances += [variance[:, :last], inner_variance]
            _centre(new, rows[:, part], mean[:, part], variance[:, part])
            saved.append((first, entered, squeezed, second, inner))
        final = _Norm(parameters[-2], parameters[-1], variance, pixels)
        out = _normed(rows, final.scale, final.bias)
        ctx.rows, ctx.saved, ctx.final, ctx.out, ctx.masks, ctx.parameters = rows, saved, final, out, masks, parameters
        unbiased = torch.cat([*variances, variance], 1) * (pixels / max(pixels - 1, 1))
        statistics = torch.cat([*means, mean], 1), unbiased
        ctx.mark_non_differentiable(*statistics)
        return _pooled(out, kept), *statistics

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, parameters, final = ctx.rows, ctx.parameters, ctx.final
        spread = (gradients[0].transpose(1, 2) / PIXELS).to(rows.dtype)[..., None].expand(-1, -1, -1, PIXELS)
        grad = _passed(spread.flatten(2), ctx.out)
        of_weight, of_bias, constant, slope = final.gradients(grad, rows)
        grad *= final.scale[..., None]
        found: list[Tensor] = [of_weight, of_bias]
        for index in reversed(range(len(ctx.saved))):
            first, entered, squeezed, second, inner = ctx.saved[index]
            squeeze, convolve = parameters[6 * index + 2], parameters[6 * index + 5]
            last = entered.shape[1]
            part = slice(last, last + GROWTH)
            new = _less(grad[:, part], rows[:, part], constant[:, part], slope[:, part])
            if ctx.masks:
                new *= ctx.masks[index]
            of_convolve = torch.bmm(new, _patches(inner).transpose(1, 2))
            turned = convolve.flip(3, 4).transpose(1, 2)
            inner_grad = _passed(torch.bmm(_flat(turned, rows), _patches(new)), inner)
            second_weight, second_bias, taken, tilted = second.gradients(inner_grad, squeezed)
            inner_grad *= second.scale[..., None]
            inner_grad = _less(inner_grad, squeezed, taken, tilted)
            of_squeeze = torch.bmm(inner_grad, entered.transpose(1, 2))
            outer = _passed(torch.bmm(_flat(squeeze, rows).transpose(1, 2), inner_grad), entered)
            first_weight, first_bias, taken, tilted = first.gradients(outer, rows[:, :last])
            constant[:, :last] += taken
            slope[:, :last] += tilted
            grad[:, :last].addcmul_(outer, first.scale[..., None].to(outer.dtype))
            found = [
                first_weight, first_bias, of_squeeze.view(squeeze.shape),
                second_weight, second_bias, of_convolve.view(convolve.shape), *found,
            ]  # fmt: skip
        width = rows.shape[1] - len(ctx.saved) * GROWTH
        of_maps = _less(grad[:, :width], rows[:, :width], constant[:, :width], slope[:, :width])
        of_parameters = (value.to(parameter.dtype) for value, parameter in zip(found, parameters, strict=True))
        return of_maps, None, None, *of_parameters


def _flat(weight: Tensor, maps: Tensor) -> Tensor:
    """A convolution's weight [K, out, in, k, k] as a matrix a member, in the maps' type."""
    return weight.flatten(2).to(maps.dtype)


def _centre(maps: Tensor, out: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Write `maps` [K, C, P] less their mean to `out`, and the statistics to `mean` and `variance` [K, C]."""
    found = torch.var_mean(maps.to(mean.dtype), 2, correction=0)
    variance.copy_(found[0])
    mean.copy_(found[1])
    torch.sub(maps, mean[..., None], out=out)


def _normed(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """ReLU of scaled and shifted maps, in the maps' type."""
    out = torch.empty(maps.shape, dtype=maps.dtype, device=maps.device)
    return torch.addcmul(shift[..., None], maps, scale[..., None], out=out).relu_()


def _passed(grad: Tensor, maps: Tensor) -> Tensor:
    """The gradient where a ReLU let the maps through; where they are not numbers it shows in the loss."""
    return torch.ops.aten.threshold_backward(grad, maps, 0)  # type: ignore[no-any-return]


def _less(grad: Tensor, maps: Tensor, constant: Tensor, slope: Tensor) -> Tensor:
    """What a batch norm's statistics leave of a gradient: `grad` - `constant` - `slope` x centred maps."""
    out = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    torch.addcmul(constant[..., None].neg(), maps, slope[..., None], value=-1, out=out)
    return out.add_(grad)


def _patches(maps: Tensor) -> Tensor:
    """The 3 x 3 neighbours of each pixel, [K, C * 9, P]: a 3x3 convolution is then one batched product."""
    members, channels, pixels = maps.shape
    padded = F.pad(maps.view(members, channels, -1, SIDE, SIDE), (1, 1, 1, 1))
    windows = padded.unfold(3, 3, 1).unfold(4, 3, 1).permute(0, 1, 5, 6, 2, 3, 4)
    return windows.reshape(members, channels * 9, pixels)


def _pooled(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """[K, C, P] to the mean over each picture's pixels, [K, B, C]."""
    return maps.view(*maps.shape[:2], -1, PIXELS).mean(3, dtype=dtype).transpose(1, 2)
