"""The convolutions that a style modulates, and the filter that doubles a picture's size.

`Fast` and `Literal` are equal up to rounding; `Literal` is the published recipe step by step, what `Fast` is tested and
measured against.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
EPSILON = 1e-8
SLOPE, GAIN = 0.2, math.sqrt(2)  # of the leaky ReLU; the gain keeps the variance


@dataclass(frozen=True)
class Kernel:
    """What a synthesis layer convolves with."""

    weight: Tensor  # (Co, Ci, 3, 3)
    bias: Tensor  # (Co,)
    fir: Tensor  # (4, 4), sums to 1
    up: bool  # doubles the size: a transposed convolution of stride 2, then the filter
    clamp: float | None  # largest absolute value of the result


class Convolution(ABC):
    """How modulated convolutions are computed.

    Shapes: x (N, Ci, h, w); style (N, Ci), or (1, Ci) if all of the batch have the same.
    """

    @abstractmethod
    def layer(self, x: Tensor, style: Tensor, kernel: Kernel, noise: Tensor | None) -> Tensor:
        """A synthesis layer: modulated, demodulated 3x3 convolution, noise (h, w), bias, leaky ReLU, clamp.

        Demodulation gives every output channel unit variance for an input that has.
        """

    @abstractmethod
    def to_picture(self, x: Tensor, style: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A modulated 1x1 convolution (Co, Ci, 1, 1), not demodulated, and a bias (Co,)."""

    @abstractmethod
    def doubled(self, picture: Tensor, fir: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, 2h, 2w): zeros between the pixels, then the filter; zeros outside."""


class Literal(Convolution):
    """A weight for each sample, 4x4 filters, one operation after the other: the recipe word by word."""

    def layer(self, x: Tensor, style: Tensor, kernel: Kernel, noise: Tensor | None) -> Tensor:
        weights = kernel.weight * style.expand(len(x), -1)[:, None, :, None, None]  # (N, Co, Ci, 3, 3)
        weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + EPSILON).rsqrt()
        if kernel.up:
            wide = _each(F.conv_transpose2d, x, weights.transpose(1, 2), stride=2)
            y = _filtered(F.pad(wide, (1, 1, 1, 1)), 4 * kernel.fir)
        else:
            y = _each(F.conv2d, x, weights, padding=1)
        if noise is not None:
            y = y + noise
        return clamped(leaky(y + kernel.bias[:, None, None]), kernel.clamp)

    def to_picture(self, x: Tensor, style: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weights = weight * style.expand(len(x), -1)[:, None, :, None, None]
        return _each(F.conv2d, x, weights) + bias[:, None, None]

    def doubled(self, picture: Tensor, fir: Tensor) -> Tensor:
        n, c, h, w = picture.shape
        apart = picture.new_zeros(n, c, 2 * h, 2 * w)
        apart[..., ::2, ::2] = picture
        return _filtered(F.pad(apart, (2, 1, 2, 1)), 4 * fir)


def _each(convolve: Callable[..., Tensor], x: Tensor, weights: Tensor, **options: int) -> Tensor:
    """Every sample of (N, C, h, w) with its own of N weights: the samples side by side, as groups of channels."""
    side_by_side = x.reshape(1, -1, *x.shape[2:])
    return convolve(side_by_side, weights.flatten(0, 1), groups=len(x), **options).unflatten(1, (len(x), -1))[0]


class Fast(Convolution):
    """One weight for a batch of one style; else the style scales the channels before, demodulation after.

    Channels last; the gain of the leaky ReLU, which scales with its input, is folded into weights, noise and bias.
    Styles and demodulation are computed in the weights' precision, so that features may be in half.
    """

    def layer(self, x: Tensor, style: Tensor, kernel: Kernel, noise: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        bias = GAIN * kernel.bias
        if len(style) == 1:
            weight = kernel.weight * style[0][:, None, None]
            scale = GAIN * (weight.square().sum((1, 2, 3), keepdim=True) + EPSILON).rsqrt()
            y = _convolved(x, weight * scale, kernel, bias)
        else:
            # The largest is 1, so that half precision cannot overflow; demodulation takes any factor out again.
            largest = style.abs().amax(1, keepdim=True).clamp_min(EPSILON)
            style = style / largest
            energy = style.square() @ kernel.weight.square().sum((2, 3)).T  # (N, Co)
            y = _convolved(x * style[..., None, None].to(x), kernel.weight, kernel, None)
            scale = GAIN * (energy + EPSILON / largest.square()).rsqrt()
            y = y * scale[..., None, None].to(x) + bias[:, None, None].to(x)
        if noise is not None:
            y = y + (GAIN * noise).to(x)
        return _Activation.apply(y, kernel.clamp)

    def to_picture(self, x: Tensor, style: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weight = weight[..., 0, 0]  # (Co, Ci)
        if len(style) == 1:
            weight = weight * style
        else:
            x = x * style[..., None, None].to(x)
        # Rows of pixels times a matrix: with few outputs faster than any convolution.
        return F.linear(x.movedim(1, -1), weight.to(x), bias.to(x)).movedim(-1, 1)

    def doubled(self, picture: Tensor, fir: Tensor) -> Tensor:
        # Zeros between the pixels and the filter 1 3 3 1 are what a bilinear enlargement is, but for its rim.
        framed = F.interpolate(F.pad(picture, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
        return framed[..., 2:-2, 2:-2]


class _Activation(torch.autograd.Function):
    """Leaky ReLU and clamp in place: what is clamped or negative can be seen in the result, so nothing else is kept."""

    @staticmethod
    def forward(context: Any, x: Tensor, limit: float | None) -> Tensor:
        F.leaky_relu_(x, SLOPE)
        if limit is not None:
            x.clamp_(-limit, limit)
        context.mark_dirty(x)
        context.save_for_backward(x)
        context.limit = limit
        return x

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None]:
        (result,) = context.saved_tensors
        grad = torch.ops.aten.leaky_relu_backward(grad, result, SLOPE, True)
        if context.limit is not None:
            grad = torch.ops.aten.hardtanh_backward(grad, result, -context.limit, context.limit)
        return grad, None


def _convolved(x: Tensor, weight: Tensor, kernel: Kernel, bias: Tensor | None) -> Tensor:
    weight, bias = weight.to(x), None if bias is None else bias.to(x)
    if not kernel.up:
        return F.conv2d(x, weight.contiguous(memory_format=torch.channels_last), bias, padding=1)
    turned = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    return _filtered(F.conv_transpose2d(x, turned, stride=2), 4 * kernel.fir, bias, padding=1)


def _filtered(x: Tensor, fir: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """The filter on every channel."""
    channels = x.shape[1]
    return F.conv2d(x, fir.to(x).expand(channels, 1, *fir.shape), bias, padding=padding, groups=channels)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU, times a gain that keeps the variance."""
    return F.leaky_relu(x, SLOPE) * GAIN


def clamped(x: Tensor, limit: float | None) -> Tensor:
    """Within +- `limit`; None for no limit."""
    return x if limit is None else x.clamp(-limit, limit)
