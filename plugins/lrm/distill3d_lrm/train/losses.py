"""What the embedded reconstruction model is trained on, phase by phase.

1. `decoder`: read the embedded generator's planes as its own decoder does.
2. `planes`: a picture of a head to the generator's planes of that head.
3. `render`: patches of the rendered head against the procedural world's pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.tiny.generator import BACKGROUND, TinyTriplane
from distill3d.tiny.train.generator_losses import Photos, crop, patches, picture_loss, psnr
from distill3d.volume import pixel_rays
from distill3d_lrm.train.data import inputs, teacher_planes
from distill3d_lrm.triposr import TripoSR

Logged = Mapping[str, float]


@dataclass(frozen=True)
class World:
    """What losses read."""

    photos: Photos
    teacher: TinyTriplane
    spread: Tensor  # (3, C, 1, 1): root mean square of the teacher's planes, by channel


def target_planes(world: World, z: Tensor) -> Tensor:
    """(B, 3, C, h, w): the teacher's planes, each channel about 1 in size."""
    return teacher_planes(world.teacher, z) / world.spread


def decoder_loss(model: TripoSR, world: World, g: torch.Generator) -> tuple[Tensor, Logged]:
    """Density and colour at points, half of them near the surface."""
    count, points = 8, 6000
    z = world.photos.z[torch.randint(len(world.photos), (count,), generator=g)]
    half = model.config.radius
    canonical = (2 * torch.rand(count, points, 3, generator=g) - 1) * half
    with torch.no_grad():
        density, colour = world.teacher.query(world.teacher.scene(z), canonical)
    raw, ours = model.decode(target_planes(world, z), canonical @ torch.tensor(model.to_own).T)
    truth = density * model.box_side  # of a crossing
    optical = torch.exp((raw + model.config.density_bias).clamp(max=12))
    thickness = torch.tensor([1 / 256, 1 / 32, 1 / 4])
    shadow = (torch.exp(-optical[..., None] * thickness) - torch.exp(-truth[..., None] * thickness)).abs().mean()
    near = (truth > 3).float()
    picture = ((2 * ours.sigmoid() - 1 - colour).abs().mean(-1) * near).sum() / near.sum()
    return shadow + 0.5 * picture, {"shadow": shadow.item(), "colour": picture.item()}


def planes_loss(model: TripoSR, world: World, g: torch.Generator) -> tuple[Tensor, Logged]:
    """Mean squared error of the planes."""
    subjects = torch.randint(len(world.photos), (32,), generator=g)
    target = target_planes(world, world.photos.z[subjects])
    ours = model.planes(model.tokens(inputs(world.photos, subjects, g)))
    loss = F.mse_loss(ours, target)
    return loss, {"planes": loss.item()}


def render_loss(model: TripoSR, world: World, g: torch.Generator) -> tuple[Tensor, Logged]:
    """Pictures, opacity and depth of patches."""
    count, views, side = 8, 2, 24
    photos = world.photos
    subjects, chosen, corner = patches(photos, views, count, side, g)
    planes = model.planes(model.tokens(inputs(photos, subjects, g)))
    size = photos.rgb.shape[-1]
    rays = [
        x.transpose(2, 3).unflatten(3, (size, size)) for x in pixel_rays(photos.cameras(subjects, chosen), size, size)
    ]
    turn = torch.tensor(model.to_own).T
    origins, directions = (crop(x, corner, side).flatten(3).transpose(2, 3).flatten(1, 2) @ turn for x in rays)
    found = model.trace(planes, origins, directions, ())

    def pictures(x: Tensor) -> Tensor:  # (B, V * side * side, C) to (B, V, C, side, side)
        return x.unflatten(1, (views, side, side)).movedim(-1, 2)

    opacity, depth = pictures(found.opacity), pictures(found.depth)
    ours = 2 * pictures(found.colour) - 1 + (1 - opacity) * (BACKGROUND + 1)
    truth = {name: crop(x, corner, side) for name, x in photos.pixels(subjects, chosen).items()}
    picture, square = picture_loss(ours, truth["rgb"], truth["detail"], edge_weight=0.5)
    mask_loss = (opacity - truth["mask"]).abs().mean()
    solid = (truth["mask"] > 0.9).float()
    depth_loss = ((depth - truth["depth"] * opacity).abs() * solid).mean()
    logged = {"psnr": psnr(square), "mask": mask_loss.item(), "depth": depth_loss.item()}
    return picture + 0.3 * mask_loss + depth_loss, logged
