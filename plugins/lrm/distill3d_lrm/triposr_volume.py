"""TripoSR's volume rendering: equal parts of a ray's way through the box, each as thick as any other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill3d.volume import along, composite_samples, stratified
from distill3d_lrm.model import Traced

Decoded = Callable[[Tensor], tuple[Tensor, Tensor]]  # points (S, N, 3) to density and colour before activations

INSIDE = 0.999  # rays are cut at this share of the box
SHORTEST = 0.01  # a shorter way through the box counts as none
PARALLEL = 1e-6
OPAQUE = 15.0  # exp(15) hides everything behind it, and its slope is finite


def density_of(raw: Tensor, bias: float) -> Tensor:
    """For a whole crossing of the box."""
    return torch.exp((raw + bias).clamp(max=80.0))


def box_limits(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """near and far (S, N), and whether the ray crosses the box at all."""
    half = INSIDE * radius
    safe = torch.where(directions.abs() < PARALLEL, torch.full_like(directions, PARALLEL), directions)
    first, second = (-half - origins) / safe, (half - origins) / safe
    near = torch.minimum(first, second).amax(-1).clamp(min=0)
    far = torch.maximum(first, second).amin(-1)
    return near, far, far - near > SHORTEST


def trace(
    field: Decoded,
    origins: Tensor,
    directions: Tensor,
    radius: float,
    samples: int,
    bias: float,
    *,
    reference: bool = False,
) -> Traced:
    """Rays (S, N, 3) through the box; those that miss it gather nothing.

    Args:
        field: what the decoder says at points.
        radius: half the side of the box.
        bias: added to a density before its exponential.
        reference: every ray is followed, and what is behind a sample is a product of what it lets through.
    """
    near, far, crosses = box_limits(origins, directions, radius)
    near, far = near * crosses, torch.where(crosses, far, near * crosses)  # a miss has no length
    if reference:
        return _traced(field, origins, directions, near, far, crosses, samples, bias, literal=True)
    count = int(crosses.sum(1).max()) if len(crosses) else 0
    if count == crosses.shape[1]:
        return _traced(field, origins, directions, near, far, crosses, samples, bias)
    # The rays that cross come first, as many for each subject as the subject with most of them needs.
    order = crosses.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : max(count, 1)]
    near, far, kept = (x.gather(1, order) for x in (near, far, crosses))
    pick = order[..., None].expand(-1, -1, 3)
    some = _traced(field, origins.gather(1, pick), directions.gather(1, pick), near, far, kept, samples, bias)

    def everywhere(found: Tensor) -> Tensor:
        empty = found.new_zeros(*origins.shape[:2], found.shape[-1])
        return empty.scatter(1, order[..., None].expand_as(found), found)

    return Traced(everywhere(some.colour), everywhere(some.depth), everywhere(some.opacity))


def _traced(
    field: Decoded,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    crosses: Tensor,
    samples: int,
    bias: float,
    *,
    literal: bool = False,
) -> Traced:
    t = stratified(near, far, samples)  # (S, N, n)
    raw, colour = field(along(origins, directions, t).flatten(1, 2))
    density = torch.exp((raw + bias).clamp(max=OPAQUE)).unflatten(1, t.shape[1:]) * crosses[..., None]
    colours = colour.sigmoid().unflatten(1, t.shape[1:])
    if literal:
        return _product(t, density, colours)
    ray = composite_samples(t, 1 / samples, density, colours)
    return Traced(ray.values, ray.depth, ray.opacity)


def _product(t: Tensor, density: Tensor, colours: Tensor) -> Traced:
    """As published: transmittance as a running product."""
    alpha = 1 - torch.exp(-density / t.shape[-1])
    passed = torch.cat([torch.ones_like(alpha[..., :1]), (1 - alpha + 1e-10).cumprod(-1)[..., :-1]], -1)
    weights = alpha * passed
    return Traced(
        (weights[..., None] * colours).sum(-2),
        (weights * t).sum(-1, keepdim=True),
        weights.sum(-1, keepdim=True),
    )
