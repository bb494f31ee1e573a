"""Pictures of no style: what a failed distillation may show, and what is no head at all.

Each takes pictures (B, 3, H, W) and others of other styles, both in [0, 1], the pictures' masks (B, 1, H, W), and the
step's generator. All are far from the small changes of `augment`, so that the two cannot be mistaken for each other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.tiny.judges.networks import fit
from distill3d.tiny.train.judges.augment import uniform

# The first two change nothing but colours; they are for photos, since a zombie dyed green is a zombie.
OF_PHOTOS = 2
GREEN = 2 / 3  # of `dyed`'s wheel
Corruption = Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]


def dyed(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """The head in one hue, weak or strong, two times in three a zombie's green: a green photo is no zombie."""
    hue = uniform(len(image), 0, 1, generator)
    green = torch.arange(len(hue)) % 3 > 0
    hue[green] = GREEN + (hue[green] - 0.5) / 5
    wheel = (hue + torch.tensor([0.0, 1 / 3, 2 / 3]).view(1, 3, 1, 1)) * 2 * torch.pi
    colour = 1 + uniform(len(image), 0.2, 0.8, generator) * wheel.cos()
    grey = image.mean(1, keepdim=True)
    strength = uniform(len(image), 0.6, 1, generator) * mask
    return image + strength * (grey * colour - image)


def recoloured(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """The shape and texture of one style, the colours of another: mean and spread of each channel amid the picture."""
    quarter = image.shape[-1] // 4
    (mean, spread), (other_mean, other_spread) = (
        (middle.mean((2, 3), keepdim=True), middle.std((2, 3), keepdim=True))
        for middle in (x[..., quarter:-quarter, quarter:-quarter] for x in (image, other))
    )
    changed = (image - mean) / (spread + 1e-3) * other_spread + other_mean
    return image + mask * (changed - image)


def halves(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """One half of the picture, left or upper, of each of two styles."""
    size = image.shape[-1]
    place = torch.linspace(-1, 1, size)
    angle = uniform(len(image), 0, 2 * torch.pi, generator)
    side = (angle.cos() * place[None, :] + angle.sin() * place[:, None]) > 0
    return torch.where(side, image, other)


def doubled(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Two styles seen through each other."""
    return image.lerp(other, uniform(len(image), 0.35, 0.65, generator))


def blob(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """So few pixels that no face is left."""
    size = image.shape[-1]
    few = int(torch.randint(5, 11, (), generator=generator))
    return F.interpolate(fit(image, few), (size, size), mode="bicubic").clamp(0, 1)


def flattened(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth and over-saturated, as too much guidance leaves pictures."""
    size = image.shape[-1]
    smooth = F.interpolate(fit(image, size // 3), (size, size), mode="bicubic")
    grey = smooth.mean(1, keepdim=True)
    vivid = grey + (smooth - grey) * uniform(len(image), 2.5, 5, generator)
    return (0.5 + (vivid - 0.5) * uniform(len(image), 1.3, 2, generator)).clamp(0, 1)


def shuffled(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """The same patches elsewhere."""
    size = image.shape[-1]
    side = size // (4 if torch.rand((), generator=generator) < 0.5 else 8)
    patches = F.unfold(image, side, stride=side)  # (B, 3 * side * side, patches)
    order = torch.rand(len(image), 1, patches.shape[-1], generator=generator).argsort(-1)
    return F.fold(patches.gather(2, order.expand_as(patches)), size, side, stride=side)


def grained(image: Tensor, other: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Under noise, coloured or grey, fine or coarse."""
    size = image.shape[-1]
    grain = torch.randn(len(image), 3, size, size, generator=generator)
    if torch.rand((), generator=generator) < 0.5:
        grain = 2 * F.interpolate(fit(grain, size // 2), (size, size))
    return image + uniform(len(image), 0.2, 0.6, generator) * grain


CORRUPTIONS: dict[str, Corruption] = {
    "dyed": dyed,
    "recoloured": recoloured,
    "halves": halves,
    "doubled": doubled,
    "blob": blob,
    "flattened": flattened,
    "shuffled": shuffled,
    "grained": grained,
}


def strangers(style: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,) places in a batch with styles (B,): for each of the first `count`, one of another style if there is."""
    scores = torch.rand(count, len(style), generator=generator)
    return (scores + (style[:count, None] != style)).argmax(1)


def spoilt(image: Tensor, mask: Tensor, style: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The pictures (B, 3, H, W) with the first `count` corrupted, an equal share in each way."""
    others = image[strangers(style, count, generator)]
    parts = []
    for kind, where in zip(CORRUPTIONS.values(), torch.arange(count).tensor_split(len(CORRUPTIONS))):
        if len(where):
            parts.append(kind(image[where], others[where], mask[where], generator).clamp(0, 1))
    return torch.cat([*parts, image[count:]])
