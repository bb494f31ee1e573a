"""StyleGAN2's layers: Karras et al., CVPR 2020, arXiv:1912.04958. Parameter names are those of official checkpoints."""

from __future__ import annotations

import math
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d_eg3d.convolution import FIR, Convolution, Kernel, clamped, leaky


def normalised(x: Tensor) -> Tensor:
    """(N, C) with a second moment of 1 in every row."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """A linear layer with equalised learning rate: the stored weight is scaled as it is used."""

    def __init__(
        self, inputs: int, outputs: int, *, lr_multiplier: float = 1.0, bias: float = 0.0, activated: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.weight_gain, self.bias_gain = lr_multiplier / math.sqrt(inputs), lr_multiplier
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return leaky(x) if self.activated else x


class LowRank(nn.Module):
    """A change of a weight that has few numbers, nothing at first. Hu et al., ICLR 2022, arXiv:2106.09685.

    Args:
        shape: of the weight.
        rank: of the change, as a matrix of outputs by everything else.
        name: decides the first numbers of `down`.
    """

    def __init__(self, shape: torch.Size, rank: int, name: str, like: Tensor):
        super().__init__()
        self.shape = shape
        draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        width = shape[1:].numel()
        self.down = nn.Parameter((torch.randn(rank, width, generator=draw) / math.sqrt(width)).to(like))
        self.up = nn.Parameter(torch.zeros(shape[0], rank).to(like))

    def forward(self) -> Tensor:
        return (self.up @ self.down).view(self.shape)


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution with noise, bias and activation.

    Args:
        size: pixels on a side of its result.
        up: whether it doubles the size.
        clamp: largest absolute value that it lets through; None for none.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        size: int,
        convolution: Convolution,
        *,
        up: bool,
        clamp: float | None,
    ):
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.register_buffer("resample_filter", FIR.clone())
        self.convolution, self.up, self.clamp = convolution, up, clamp
        self.low_rank: LowRank | None = None

    def forward(self, x: Tensor, w: Tensor, noise: str = "const") -> Tensor:
        """(N, inputs, h, w) and w (N or 1, w_dim) to (N, outputs, size, size); `noise` is "const" or "none"."""
        weight = self.weight if self.low_rank is None else self.weight + self.low_rank()
        kernel = Kernel(weight, self.bias, self.resample_filter, self.up, self.clamp)
        added = self.noise_const * self.noise_strength if noise == "const" else None
        return self.convolution.layer(x, self.affine(w), kernel, added)


class ToPicture(nn.Module):
    """A modulated 1x1 convolution without demodulation: features to colours, or to planes."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, convolution: Convolution, *, clamp: float | None = None):
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_gain = 1 / math.sqrt(inputs)
        self.convolution, self.clamp = convolution, clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, inputs, h, w) and w (N or 1, w_dim) to (N, outputs, h, w)."""
        x = self.convolution.to_picture(x, self.affine(w) * self.weight_gain, self.weight, self.bias)
        return clamped(x, self.clamp)
