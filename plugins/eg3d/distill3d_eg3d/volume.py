"""EG3D's volume rendering along rays: an even pass, one where the first found something, and their picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.volume import (
    along,
    box_interval,
    gathered,
    gathered_in_order,
    importance,
    interval_weights,
    merge,
    stratified,
)
from distill3d_eg3d.architecture import Architecture

Field = Callable[[Tensor], tuple[Tensor, Tensor]]  # points (N, M, 3) to raw density (N, M) and features (N, M, C)
EMPTY = -1000.0  # a raw density that no activation lets through


@dataclass(frozen=True)
class Traced:
    """What R rays of each of N gathered."""

    features: Tensor  # (N, R, C)
    depth: Tensor  # (N, R, 1): sum of weight * t
    opacity: Tensor  # (N, R, 1)
    nearest: Tensor  # (N, R): the smallest distance that was sampled, and the largest
    farthest: Tensor
    passes: tuple[Tensor, Tensor, Tensor]  # the even pass' distances and weights, and the second's distances


def density_of(raw: Tensor) -> Tensor:
    """Raw density to density per world unit."""
    return F.softplus(raw - 1)


def ray_limits(origins: Tensor, directions: Tensor, a: Architecture) -> tuple[Tensor, Tensor]:
    """Where sampling starts and ends, both (N, R)."""
    if a.near is not None and a.far is not None:
        return origins.new_full(origins.shape[:-1], a.near), origins.new_full(origins.shape[:-1], a.far)
    corner = origins.new_full((3,), a.box_side / 2)
    near, far = box_interval(origins, directions, -corner, corner)
    hit = near <= far
    if not hit.any():
        return near, far
    # As released: a ray that misses ends at the latest *start* of those that hit.
    return torch.where(hit, near, near[hit].min()), torch.where(hit, far, near[hit].max())


def trace(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor,
    u: Tensor,
    a: Architecture,
    *,
    reference: bool = False,
) -> Traced:
    """Render rays.

    Args:
        field: what there is at a point.
        origins, directions: (N, R, 3).
        near, far: (N, R), of `ray_limits`: of all rays together, as a ray that misses the box has the limits of others.
        jitter: (N, R, samples) in [0, 1): where in its interval each sample of the even pass lies.
        u: (N, R, samples_importance) in [0, 1): quantiles of the second pass.
        reference: sort the features as published, instead of their weights.
    """
    t = stratified(near, far, a.samples, jitter, spacing="edges", disparity=a.disparity)
    density, values = _asked(field, origins, directions, t)
    with torch.no_grad():
        weights = interval_weights(t, density, density_of)
        more = importance(t, weights, u)
    more_density, more_values = _asked(field, origins, directions, more)
    every, order = merge(t, more)
    density = torch.cat([density, more_density], -1).gather(-1, order)
    gather = _gathered_in_order if reference else _gathered
    features, depth, opacity = gather(every, density, [values, more_values], order)
    if a.white_back:
        features = features + (1 - opacity)
    return Traced(features, depth, opacity, every[..., 0].detach(), every[..., -1].detach(), (t, weights, more))


def _gathered(t: Tensor, density: Tensor, values: list[Tensor], order: Tensor) -> tuple[Tensor, ...]:
    return gathered(t, interval_weights(t, density, density_of), values, order)


def _gathered_in_order(t: Tensor, density: Tensor, values: list[Tensor], order: Tensor) -> tuple[Tensor, ...]:
    return gathered_in_order(t, density, values, order, density_of)


def cropped(field: Field, a: Architecture) -> Field:
    """The field without density near the box's sides in x and z, where PanoHead's training put walls."""
    if a.crop is None:
        return field
    limit = a.box_side / 2 - a.crop

    def inner(points: Tensor) -> tuple[Tensor, Tensor]:
        density, values = field(points)
        outside = (points[..., 0].abs() > limit) | (points[..., 2].abs() > limit)
        return density.masked_fill(outside, EMPTY), values

    return inner


def _asked(field: Field, origins: Tensor, directions: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    density, values = field(along(origins, directions, t).flatten(1, 2))
    return density.unflatten(1, t.shape[1:]), values.unflatten(1, t.shape[1:])
