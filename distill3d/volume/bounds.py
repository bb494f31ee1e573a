"""Where a ray runs through a box or an ellipsoid."""

from __future__ import annotations

import torch
from torch import Tensor


def box_interval(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Entry and exit of an axis-aligned box (the slab test).

    Args:
        origins, directions: (..., 3).
        low, high: corners (3,), world units.
    Returns:
        near and far, both (...); near > far where the ray's line misses the box. A ray that starts inside has a
        negative `near`.
    """
    # a zero component would give 0/0 on the box's own face; a tiny one gives +-huge, which is what the test wants
    tiny = torch.finfo(directions.dtype).tiny ** 0.5
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    to_low, to_high = (low - origins) / safe, (high - origins) / safe
    return torch.minimum(to_low, to_high).amax(-1), torch.maximum(to_low, to_high).amin(-1)


def ellipsoid_interval(origins: Tensor, directions: Tensor, centre: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """Entry and exit of an axis-aligned ellipsoid.

    Args:
        origins, directions: (..., 3); directions of unit length.
        centre, radii: (3,), world units.
    Returns:
        near and far, both (...); near = +inf and far = -inf where the ray's line misses.
    """
    start, heading = (origins - centre) / radii, directions / radii
    a = (heading * heading).sum(-1)
    half_b = (start * heading).sum(-1)
    discriminant = half_b * half_b - a * ((start * start).sum(-1) - 1)
    hit = discriminant > 0
    root = torch.where(hit, discriminant, torch.ones_like(a)).sqrt()  # no square root of 0: its slope is infinite
    infinite = torch.full_like(a, torch.inf)
    return torch.where(hit, (-half_b - root) / a, infinite), torch.where(hit, (root - half_b) / a, -infinite)


def hull_interval(intervals: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The smallest interval that holds all of a ray's intervals; missed ones (near > far) count for nothing."""
    near = torch.stack([torch.where(n <= f, n, torch.full_like(n, torch.inf)) for n, f in intervals]).amin(0)
    far = torch.stack([torch.where(n <= f, f, torch.full_like(f, -torch.inf)) for n, f in intervals]).amax(0)
    return near, far
