"""The two convolutions that a style modulates, and the filter that doubles a picture's size.

`Fast` and `Literal` are equal up to rounding; `Literal` is the published recipe step by step, what `Fast` is tested and
measured against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
EPSILON = 1e-8


class Convolution(ABC):
    """How modulated convolutions are computed.

    Shapes: x (N, Ci, h, w); style (N, Ci), or (1, Ci) if all of the batch have the same.
    """

    @abstractmethod
    def modulated(self, x: Tensor, weight: Tensor, style: Tensor, fir: Tensor, *, up: bool) -> Tensor:
        """3x3 (Co, Ci, 3, 3), demodulated: every output channel has unit variance for an input that has.

        With `up` the size is doubled: a transposed convolution of stride 2, then the filter.
        """

    @abstractmethod
    def to_picture(self, x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
        """1x1 (Co, Ci, 1, 1), not demodulated."""

    @abstractmethod
    def doubled(self, picture: Tensor, fir: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, 2h, 2w): zeros between the pixels, then the filter; zeros outside."""


class Literal(Convolution):
    """A weight for each sample, transposed convolutions, 4x4 filters: the recipe word by word."""

    def modulated(self, x: Tensor, weight: Tensor, style: Tensor, fir: Tensor, *, up: bool) -> Tensor:
        weights = weight * style.expand(len(x), -1)[:, None, :, None, None]  # (N, Co, Ci, 3, 3)
        weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + EPSILON).rsqrt()
        one = x.reshape(1, -1, *x.shape[2:])  # the samples side by side as groups of channels
        if not up:
            return F.conv2d(one, weights.flatten(0, 1), padding=1, groups=len(x)).unflatten(1, (len(x), -1))[0]
        turned = weights.transpose(1, 2).flatten(0, 1)
        wide = F.conv_transpose2d(one, turned, stride=2, groups=len(x)).unflatten(1, (len(x), -1))[0]
        return _filtered(F.pad(wide, (1, 1, 1, 1)), 4 * fir)

    def to_picture(self, x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
        weights = weight * style.expand(len(x), -1)[:, None, :, None, None]
        one = x.reshape(1, -1, *x.shape[2:])
        return F.conv2d(one, weights.flatten(0, 1), groups=len(x)).unflatten(1, (len(x), -1))[0]

    def doubled(self, picture: Tensor, fir: Tensor) -> Tensor:
        n, c, h, w = picture.shape
        apart = picture.new_zeros(n, c, 2 * h, 2 * w)
        apart[..., ::2, ::2] = picture
        return _filtered(F.pad(apart, (2, 1, 2, 1)), 4 * fir)


def _filtered(x: Tensor, fir: Tensor) -> Tensor:
    """The filter on every channel, without padding."""
    channels = x.shape[1]
    return F.conv2d(x, fir.to(x).expand(channels, 1, *fir.shape), groups=channels)


class Fast(Convolution):
    """One weight for a batch of one style; else the style scales the channels before, demodulation after."""

    def modulated(self, x: Tensor, weight: Tensor, style: Tensor, fir: Tensor, *, up: bool) -> Tensor:
        convolve = _convolved_up if up else _convolved
        if len(style) == 1:
            own = weight * style[0][:, None, None]
            own = own * (own.square().sum((1, 2, 3), keepdim=True) + EPSILON).rsqrt()
            return convolve(x, own, fir)
        energy = style.square() @ weight.square().sum((2, 3)).T  # (N, Co)
        y = convolve(x * style[..., None, None].to(x), weight, fir)
        return y * (energy + EPSILON).rsqrt()[..., None, None].to(x)

    def to_picture(self, x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
        if len(style) == 1:
            return F.conv2d(x, (weight * style[0][:, None, None]).to(x))
        return F.conv2d(x * style[..., None, None].to(x), weight.to(x))

    def doubled(self, picture: Tensor, fir: Tensor) -> Tensor:
        # Zeros between the pixels and the filter 1 3 3 1 are what a bilinear enlargement is, but for its rim.
        framed = F.interpolate(F.pad(picture, (1, 1, 1, 1)), scale_factor=2, mode="bilinear", align_corners=False)
        return framed[..., 2:-2, 2:-2]


def _convolved(x: Tensor, weight: Tensor, fir: Tensor) -> Tensor:
    return F.conv2d(x, weight.to(x), padding=1)


def _convolved_up(x: Tensor, weight: Tensor, fir: Tensor) -> Tensor:
    wide = F.conv_transpose2d(x, weight.transpose(0, 1).to(x), stride=2)
    return _filtered(F.pad(wide, (1, 1, 1, 1)), 4 * fir)
