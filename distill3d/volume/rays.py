"""Rays through the pixels of a camera."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.errors import ConfigError


def pixel_rays(cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """One ray through the centre of every pixel, row by row.

    Directions are unit vectors, so a distance along the ray is a distance in the world (not the camera's z). A skew
    in the intrinsics is honoured.

    Args:
        cameras: (S, V).
        height, width: pixels of the picture.
    Returns:
        origins and directions, both (S, V, height * width, 3), world units; differentiable in the cameras.
    """
    if height < 1 or width < 1:
        raise ConfigError(f"A picture has at least one pixel, got height {height} and width {width}.")
    pose, lens = cameras.cam2world, cameras.intrinsics
    v, u = torch.meshgrid(_centres(height, pose), _centres(width, pose), indexing="ij")
    u, v = u.flatten(), v.flatten()  # (h*w,)
    y = (v - lens[..., 1, 2, None]) / lens[..., 1, 1, None]  # (S, V, h*w)
    x = (u - lens[..., 0, 2, None] - lens[..., 0, 1, None] * y) / lens[..., 0, 0, None]
    in_camera = torch.stack([x, y, torch.ones_like(x)], -1)  # (S, V, h*w, 3)
    directions = F.normalize(in_camera @ pose[..., :3, :3].transpose(-1, -2), dim=-1)
    return pose[..., None, :3, 3].expand_as(directions), directions


def _centres(count: int, like: Tensor) -> Tensor:
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count


def along(origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:
    """Points at distances `t` (..., n) of rays (..., 3): (..., n, 3)."""
    return origins[..., None, :] + directions[..., None, :] * t[..., None]
