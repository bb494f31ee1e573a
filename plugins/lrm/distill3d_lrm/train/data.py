"""Pictures of heads as the model reads them, and the planes of the embedded generator for the same heads."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.tiny.generator import BACKGROUND, TinyTriplane
from distill3d.tiny.train.generator_losses import Photos

GREY = 0.5
FRONTAL = 0.6  # radians of yaw: heads are shown to the model from this far at most


def inputs(photos: Photos, subjects: Tensor, g: torch.Generator) -> Tensor:
    """(B, 3, h, w) in [0, 1]: one view of each head over grey, drawn among those from the front."""
    yaw = photos.yaw[subjects].abs()
    # The most frontal view always counts; others if they are frontal enough.
    chance = torch.rand(yaw.shape, generator=g) * (yaw < FRONTAL) + 1e-3 * (yaw == yaw.amin(1, keepdim=True))
    view = chance.argmax(1)
    return over_grey(photos, subjects, view)


def most_frontal(photos: Photos, subjects: Tensor) -> Tensor:
    """(B, 3, h, w) in [0, 1]: the view of each head that is nearest to the front, over grey."""
    return over_grey(photos, subjects, photos.yaw[subjects].abs().argmin(1))


def over_grey(photos: Photos, subjects: Tensor, view: Tensor) -> Tensor:
    pixels = photos.pixels(subjects, view[:, None])
    picture, mask = (pixels["rgb"][:, 0] + 1) / 2, pixels["mask"][:, 0]
    return (picture + (1 - mask) * (GREY - (BACKGROUND + 1) / 2)).clamp(0, 1)


def own_order(planes: Tensor) -> Tensor:
    """The generator's planes xy, xz, zy as TripoSR's of the same space: its x is their z, its y their x, its z their y.

    Its xy is their xz with the axes exchanged, its xz their zy, its yz their xy.
    """
    xy, xz, zy = planes.unbind(1)
    return torch.stack([xz.transpose(-1, -2), zy, xy], 1)


@torch.no_grad()
def teacher_planes(teacher: TinyTriplane, z: Tensor) -> Tensor:
    """(B, 3, C, h, w) in TripoSR's order."""
    return own_order(teacher.scene(z)["planes"])
