"""Layers of the tiny generator: style-modulated convolutions whose biases are learnt pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
GAIN = math.sqrt(2)  # keeps the variance through the leaky ReLU


def double_size(x: Tensor) -> Tensor:
    """Bilinear upsampling by 2, (B, C, h, w) to (B, C, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Linear(nn.Module):
    """A linear layer whose weights are stored with unit variance and scaled when used (equalised learning rate).

    `rate` < 1 makes it learn that much slower under Adam, without changing what it computes at the start.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.rate = rate
        self.scale = rate / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by the style, demodulated, plus a learnt picture.

    Karras et al., CVPR 2020, arXiv:1912.04958, with the activations scaled instead of the weights: one convolution
    serves the whole batch, and demodulation is a division of the output by sqrt(sum (style * weight)^2).

    The `template` is a bias for each place, the same for all subjects. Heads share where eyes and mouth are, and
    upsampled 4 x 4 features cannot say it sharply: without templates the faces come out blank.
    """

    def __init__(
        self,
        style_size: int,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        doubles: bool = False,
        template_size: int | None = None,
        linear: bool = False,
    ):
        super().__init__()
        self.style = Linear(style_size, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        size = template_size or 1
        self.template = nn.Parameter(torch.zeros(1, outputs, size, size))  # a plain bias where the size is 1
        self.doubles, self.linear = doubles, linear

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x (B, inputs, h, w), w (B, style_size) to (B, outputs, h, w), or twice that size."""
        style = self.style(w)  # (B, inputs)
        weight = self.weight / math.sqrt(self.weight[0].numel())
        x = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[-1] // 2)
        if self.doubles:  # after the convolution: a quarter of the work, and the next one sharpens
            x = double_size(x)
        if self.linear:
            return x + self.template
        demodulation = GAIN * torch.rsqrt(style.square() @ weight.square().sum((2, 3)).T + 1e-8)
        return F.leaky_relu(torch.addcmul(self.template, x, demodulation[:, :, None, None]), LEAK)


class Mapping(nn.Module):
    """Codes z (B, code_size) to styles w (B, style_size): two layers, learning slowly."""

    def __init__(self, code_size: int, style_size: int):
        super().__init__()
        self.first = Linear(code_size, style_size, rate=0.1)
        self.second = Linear(style_size, style_size, rate=0.1)

    def forward(self, z: Tensor) -> Tensor:
        return GAIN * F.leaky_relu(self.second(GAIN * F.leaky_relu(self.first(z), LEAK)), LEAK)


class Synthesis(nn.Module):
    """Styles to tri-planes: a learnt 4 x 4 start, doubled once for each further entry of `channels`."""

    def __init__(self, style_size: int, channels: Sequence[int], plane_channels: int):
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        layers, size = [ModulatedConv(style_size, channels[0], channels[0], template_size=4)], 4
        for fewer, more in zip(channels[1:], channels[:-1]):
            size *= 2
            layers += [
                ModulatedConv(style_size, more, fewer, doubles=True),
                ModulatedConv(style_size, fewer, fewer, template_size=size),
            ]
        self.layers = nn.ModuleList(layers)
        self.to_planes = ModulatedConv(style_size, channels[-1], 3 * plane_channels, kernel=1, linear=True)

    def forward(self, w: Tensor) -> Tensor:
        """w (B, style_size) to planes (B, 3, plane_channels, size, size)."""
        x = self.start.expand(len(w), -1, -1, -1)
        for layer in self.layers:
            x = layer(x, w)
        return self.to_planes(x, w).unflatten(1, (3, -1))


# Empty space is empty at this logit (0.2 % of a ray's light is lost on its way through the box), and far below it still
# has a slope: where softplus is flat no ear could ever grow, and its gradients underflow to slow denormal numbers.
EMPTY, EMPTY_SLOPE = -8.0, 0.05


class Decoder(nn.Module):
    """Plane features to density, colour and features, channels first: small products on long rows are fast."""

    def __init__(self, inputs: int, hidden: int, features: int, density_scale: float):
        super().__init__()
        self.first = Linear(inputs, hidden)
        self.second = Linear(hidden, 1 + 3 + features)
        self.density_scale = density_scale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, inputs, N) to density (B, N), not negative, and values (B, 3 + features, N).

        The first three values are a colour, slightly beyond [-1, 1] so that pure black and white can be reached.
        """
        x = _channels_first(self.second, F.silu(_channels_first(self.first, x)))
        logit = EMPTY + F.leaky_relu(x[:, 0] - EMPTY, EMPTY_SLOPE)
        density = F.softplus(logit - 1) * self.density_scale
        colour = torch.sigmoid(x[:, 1:4]) * 2.004 - 1.002
        return density, torch.cat([colour, x[:, 4:]], 1)


def _channels_first(layer: Linear, x: Tensor) -> Tensor:
    # bmm with an expanded weight: baddbmm and linear both copy the long operand
    product = torch.bmm((layer.weight * layer.scale).expand(len(x), -1, -1), x)
    return product.add_((layer.bias * layer.rate)[:, None])


class SuperResolution(nn.Module):
    """Doubles the raw picture: bilinear, plus a residual that the rendered features decide.

    The convolutions run at the raw size and the last one gives the four sub-pixels of each pixel.
    """

    def __init__(self, style_size: int, features: int, hidden: int):
        super().__init__()
        self.first = ModulatedConv(style_size, 3 + features, hidden)
        self.second = ModulatedConv(style_size, hidden, hidden)
        self.to_residual = ModulatedConv(style_size, hidden, 3 * 4, linear=True)
        nn.init.zeros_(self.to_residual.weight)  # starts as bilinear upsampling

    def forward(self, raw: Tensor, features: Tensor, w: Tensor) -> Tensor:
        """raw (B, 3, h, w), features (B, F, h, w), w (B, style_size) to (B, 3, 2h, 2w)."""
        x = self.second(self.first(torch.cat([raw, features], 1), w), w)
        return double_size(raw) + F.pixel_shuffle(self.to_residual(x, w), 2)
