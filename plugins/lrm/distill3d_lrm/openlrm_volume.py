"""OpenLRM's volume rendering: an even pass through the box, one where the first found something, and their picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d import volume
from distill3d.volume import along, box_interval, gathered, gathered_in_order, importance, merge, stratified

Field = Callable[[Tensor], tuple[Tensor, Tensor]]  # points (S, M, 3) to raw density (S, M) and colours (S, M, 3)
HALF = 1.0  # the box is [-HALF, HALF] in x, y and z


@dataclass(frozen=True)
class Marched:
    """What N rays of each of S subjects gathered, and where it was looked for."""

    colour: Tensor  # (S, N, 3)
    depth: Tensor  # (S, N, 1): sum of weight * t
    opacity: Tensor  # (S, N, 1)
    even: Tensor  # (S, N, n) distances of the even pass
    weights: Tensor  # (S, N, n - 1) of its intervals
    second: Tensor  # (S, N, n) distances of the second pass


def density_of(raw: Tensor) -> Tensor:
    """Raw density to density per own unit."""
    return F.softplus(raw - 1)


def inside(points: Tensor) -> Tensor:
    """(..., 3) to (...): whether a point is in the box, its sides included."""
    return (points.abs() <= HALF).all(-1)


def box_limits(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where the lines of rays (S, N, 3) enter and leave the box, both (S, N); near > far for a miss."""
    corner = origins.new_full((3,), HALF)
    return box_interval(origins, directions, -corner, corner)


def ray_limits(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where sampling starts and ends, both (S, N), of every ray by itself.

    A ray that misses the box gets no length, so nothing of it weighs anything; published code gives it limits of the
    other rays. Nothing behind the camera is seen; published code does not look.
    """
    near, far = box_limits(origins, directions)
    near = near.clamp_min(0)
    hit = near <= far
    return torch.where(hit, near, torch.zeros_like(near)), torch.where(hit, far, torch.zeros_like(far))


def march(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    limits: tuple[Tensor, Tensor],
    jitter: Tensor,
    u: Tensor,
    *,
    reference: bool = False,
) -> Marched:
    """Render rays.

    Args:
        field: what there is at a point.
        origins, directions: (S, N, 3).
        limits: of `ray_limits`.
        jitter: (S, N, n) in [0, 1): how far each sample of the even pass is moved, in steps. The first sample lies at
            the entry, so the last one passes the exit.
        u: (S, N, n) in [0, 1): quantiles of the second pass.
        reference: sort the colours as published, instead of their weights.
    """
    t = stratified(*limits, jitter.shape[-1], jitter, spacing="edges")
    density, colours = _asked(field, origins, directions, t)
    with torch.no_grad():
        weights = interval_weights(t, density)
        second = importance(t, weights, u)
    more_density, more_colours = _asked(field, origins, directions, second)
    every, order = merge(t, second)
    density = torch.cat([density, more_density], -1).gather(-1, order)
    gather = _gathered_in_order if reference else _gathered
    colour, depth, opacity = gather(every, density, [colours, more_colours], order)
    return Marched(colour, depth, opacity, t, weights, second)


def _asked(field: Field, origins: Tensor, directions: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The field along rays: raw density (S, N, n), hopelessly low outside of the box, and colours (S, N, n, 3)."""
    points = along(origins, directions, t)
    density, colours = field(points.flatten(1, 2))
    nothing = torch.finfo(density.dtype).min / 8  # the mean with a neighbour is still nothing
    density = density.unflatten(1, t.shape[1:]).masked_fill(~inside(points), nothing)
    return density, colours.unflatten(1, t.shape[1:])


def interval_weights(t: Tensor, density: Tensor) -> Tensor:
    """How much of the pixel each interval between two samples makes up, (S, N, n - 1)."""
    return volume.interval_weights(t, density, density_of)


def _gathered(t: Tensor, density: Tensor, colours: list[Tensor], order: Tensor) -> tuple[Tensor, ...]:
    return gathered(t, interval_weights(t, density), colours, order)


def _gathered_in_order(t: Tensor, density: Tensor, colours: list[Tensor], order: Tensor) -> tuple[Tensor, ...]:
    return gathered_in_order(t, density, colours, order, density_of)
