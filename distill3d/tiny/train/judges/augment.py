"""Pictures as a judge may meet them: before any background, shifted, tinted a little, blurred, noisy.

All of it in [0, 1], each picture of a batch in its own way, drawn from the step's generator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.tiny.judges.networks import fit
from distill3d.tiny.world import BACKGROUND

PLAIN = 0.3  # share of pictures that keep the background of the data


def uniform(count: int, low: float, high: float, generator: torch.Generator, channels: int = 1) -> Tensor:
    """(count, channels, 1, 1) in [low, high)."""
    return low + (high - low) * torch.rand(count, channels, 1, 1, generator=generator)


def backgrounds(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, 3, size, size): the data's grey, one colour, or one colour that turns into another."""
    first, second = (uniform(count, 0, 1, generator, 3) for _ in range(2))
    angle = uniform(count, 0, 2 * torch.pi, generator)
    line = torch.linspace(-0.7, 0.7, size)
    place = (angle.cos() * line[None, :] + angle.sin() * line[:, None] + 0.5).clamp(0, 1)
    kind = torch.rand(count, 1, 1, 1, generator=generator)
    colour = torch.where(kind < (1 + PLAIN) / 2, first, first + (second - first) * place)
    return torch.where(kind < PLAIN, torch.full_like(colour, BACKGROUND), colour)


def moved(image: Tensor, size: int, generator: torch.Generator, scale: float = 0.1, shift: float = 0.08) -> Tensor:
    """Scaled, shifted, half of them mirrored, and brought to `size`: one resampling for all."""
    count = len(image)
    factor = uniform(count, 1 - scale, 1 + scale, generator).flatten()
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    by = uniform(count, -shift, shift, generator, 2).flatten(1)
    zero = torch.zeros_like(factor)
    rows = torch.stack([torch.stack([factor * mirror, zero, by[:, 0]], 1), torch.stack([zero, factor, by[:, 1]], 1)], 1)
    where = F.affine_grid(rows, [count, 3, size, size], align_corners=False)
    return F.grid_sample(image, where, padding_mode="border", align_corners=False)


def blurred(image: Tensor, generator: torch.Generator, most: float = 1.2) -> Tensor:
    """Gaussian blur of up to `most` pixels; half of the pictures stay sharp."""
    count, channels = image.shape[:2]
    sigma = uniform(count, -most, most, generator).clamp(min=0.05)
    steps = torch.arange(-3, 4).view(1, 1, 1, 7)
    kernel = torch.softmax(-(steps**2) / (2 * sigma**2), -1).repeat_interleave(channels, 0)  # (B*C, 1, 1, 7)
    rows = F.conv2d(
        F.pad(image.reshape(1, -1, *image.shape[-2:]), (3, 3, 3, 3), mode="replicate"), kernel, groups=len(kernel)
    )
    return F.conv2d(rows, kernel.transpose(-1, -2), groups=len(kernel)).reshape(image.shape)


def coarse(image: Tensor, generator: torch.Generator, share: float = 0.2) -> Tensor:
    """Some of the pictures at half or two thirds of their size, and back."""
    size = image.shape[-1]
    small = size // 2 if torch.rand((), generator=generator) < 0.5 else 2 * size // 3
    which = (torch.rand(len(image), generator=generator) < share).nonzero()[:, 0]
    return image.index_copy(0, which, F.interpolate(fit(image[which], small), (size, size), mode="bilinear"))


def tinted(image: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Brightness, contrast, saturation and the balance of the channels, a little changed."""
    count, s = len(image), strength
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * uniform(count, 1 - 0.4 * s, 1 + 0.4 * s, generator)
    image = image * uniform(count, 1 - 0.1 * s, 1 + 0.1 * s, generator, 3)
    middle = image.mean((1, 2, 3), keepdim=True)
    image = middle + (image - middle) * uniform(count, 1 - 0.25 * s, 1 + 0.25 * s, generator)
    return image + uniform(count, -0.1 * s, 0.1 * s, generator)


def noisy(image: Tensor, generator: torch.Generator, most: float = 0.05) -> Tensor:
    """Noise of up to `most`; half of the pictures have none."""
    sigma = uniform(len(image), -most, most, generator).clamp(min=0)
    return image + sigma * torch.randn(image.shape, generator=generator)
