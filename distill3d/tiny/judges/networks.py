"""The judges' networks: small residual nets of convolutions and group norms, every picture on its own."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PICTURE = 64  # every picture is brought to this size first: the judges were trained on it
FACE_INPUT = 112  # as face recognisers take it


def fit(image: Tensor, size: int) -> Tensor:
    """(B, C, H, W) to (B, C, size, size): smooth in both directions, no aliasing."""
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class Block(nn.Module):
    """Two 3 x 3 convolutions, added to what came in; `stride` 2 halves the picture."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.norm, self.second_norm = _norm(inputs), _norm(outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if stride > 1 or inputs != outputs else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.skip is not None:
            shortcut = self.skip(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
        x = self.first(F.silu(self.norm(x)))
        return shortcut + self.second(F.silu(self.second_norm(x)))


def _stages(widths: tuple[int, ...], depths: tuple[int, ...]) -> nn.ModuleList:
    """One stage for each width, each half the size of the one before."""
    stages = [nn.Sequential(*(Block(widths[0], widths[0]) for _ in range(depths[0])))]
    for before, width, depth in zip(widths, widths[1:], depths[1:]):
        stages.append(nn.Sequential(Block(before, width, 2), *(Block(width, width) for _ in range(depth - 1))))
    return nn.ModuleList(stages)


@dataclass(frozen=True)
class Layout:
    """Sizes of a network."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    outputs: int

    @classmethod
    def read(cls, stored: dict) -> Layout:
        """From JSON."""
        return cls(tuple(stored["widths"]), tuple(stored["depths"]), int(stored["outputs"]))

    def stored(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class FaceNet(nn.Module):
    """(B, 3, 112, 112) in [-1, 1] to an embedding (B, E) that tells identities apart, not of unit length yet.

    The last layer sees where on the 7 x 7 grid something is, as ArcFace's networks do: an average would forget it.
    """

    SQUEEZED = 16

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout
        self.stem = nn.Conv2d(3, layout.widths[0], 8, 4, 2)
        self.stages = _stages(layout.widths, layout.depths)
        self.norm = _norm(layout.widths[-1])
        self.squeeze = nn.Conv2d(layout.widths[-1], self.SQUEEZED, 1)
        side = FACE_INPUT // 4 >> (len(layout.widths) - 1)
        self.head = nn.Linear(self.SQUEEZED * side * side, layout.outputs)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for stage in self.stages:
            x = stage(x)
        return self.head(F.silu(self.squeeze(F.silu(self.norm(x)))).flatten(1))


class StyleNet(nn.Module):
    """(B, 3, 64, 64) in [-1, 1] to logits (B, 8)."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout
        self.stem = nn.Conv2d(3, layout.widths[0], 4, 2, 1)
        self.stages = _stages(layout.widths, layout.depths)
        self.norm = _norm(layout.widths[-1])
        self.head = nn.Linear(layout.widths[-1], layout.outputs)

    def features(self, image: Tensor) -> list[Tensor]:
        """What each stage gives: (B, C, 32, 32) and half of that from stage to stage."""
        found = [self.stem(image)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.silu(self.norm(self.features(image)[-1])).mean((-1, -2)))


class DepthNet(nn.Module):
    """(B, 3, 64, 64) in [-1, 1] to logits of the depth picture (B, 1, 64, 64): down, and up again with skips."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout
        widths = layout.widths
        self.stem = nn.Conv2d(3, widths[0], 4, 2, 1)
        self.stages = _stages(widths, layout.depths)
        pairs = list(itertools.pairwise(widths))[::-1]
        self.joins = nn.ModuleList(nn.Conv2d(low + high, low, 1, bias=False) for low, high in pairs)
        self.ups = nn.ModuleList(Block(low, low) for low, _ in pairs)
        self.norm = _norm(widths[0])
        self.head = nn.Conv2d(widths[0], 4 * layout.outputs, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        for join, up, skip in zip(self.joins, self.ups, skips[-2::-1]):
            x = up(join(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1)))
        return F.pixel_shuffle(self.head(F.silu(self.norm(x))), 2)
