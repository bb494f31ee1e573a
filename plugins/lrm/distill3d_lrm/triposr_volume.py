"""TripoSR's volume rendering: equal parts of a ray's way through the box, each as thick as any other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill3d.volume import along, composite_samples, stratified
from distill3d.volume.compositing import HIDDEN
from distill3d_lrm.model import Traced

Decoded = Callable[[Tensor], tuple[Tensor, Tensor]]  # points (S, N, 3) to density and colour before activations

INSIDE = 0.999  # rays are cut at this share of the box
SHORTEST = 0.01  # a shorter way through the box counts as none
PARALLEL = 1e-6
BLOCKS = 8  # of samples, after each of which rays that see nothing more are dropped
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
    """Rays (1, N, 3) through the box; those that miss it gather nothing.

    Args:
        field: what the decoder says at points (1, M, 3).
        radius: half the side of the box.
        bias: added to a density before its exponential.
        reference: as published: every sample of every ray is asked for, what gets through them is a running product.
    """
    near, far, crosses = box_limits(origins, directions, radius)
    near, far = torch.where(crosses, near, 0 * near), torch.where(crosses, far, 0 * near)  # a miss has no length
    t = stratified(near, far, samples)  # (1, N, n)
    if reference:
        points = along(origins, directions, t)
        raw, colours = (x.unflatten(1, t.shape[1:]) for x in field(points.flatten(1, 2)))
        return _product(t, _optical(raw, bias, samples) * crosses[..., None], colours.sigmoid())
    return _marched(field, origins[0], directions[0], t[0], crosses[0], bias)


def _optical(raw: Tensor, bias: float, samples: int) -> Tensor:
    """How much light a sample takes, for n samples of a crossing."""
    return torch.exp((raw + bias).clamp(max=OPAQUE)) / samples


def _marched(field: Decoded, origins: Tensor, directions: Tensor, t: Tensor, crosses: Tensor, bias: float) -> Traced:
    """From the front to the back, some samples at a time; rays that see nothing more are followed no further.

    What lies behind `HIDDEN` has no weight and no gradient.
    """
    gathered = t.new_zeros(len(t), 5)  # colour, depth, opacity
    rays = crosses.nonzero()[:, 0]
    before = t.new_zeros(len(rays), 1)  # optical depth
    for part in t.tensor_split(BLOCKS, 1):
        if not len(rays):
            break
        some = part[rays]  # (R, n')
        raw, colours = field(along(origins[rays], directions[rays], some).flatten(0, 1)[None])
        optical = _optical(raw, bias, t.shape[1]).view_as(some)
        seen = composite_samples(some, 1.0, optical, colours.sigmoid().view(*some.shape, 3))
        found = torch.cat([seen.values, seen.depth, seen.opacity], 1) * torch.exp(-before)
        gathered = gathered.index_add(0, rays, found)
        before = before + optical.sum(1, keepdim=True)
        sees = before[:, 0] < HIDDEN
        rays, before = rays[sees], before[sees]
    return Traced(*(x[None] for x in gathered.split([3, 1, 1], 1)))


def _product(t: Tensor, optical: Tensor, colours: Tensor) -> Traced:
    alpha = 1 - torch.exp(-optical)
    passed = torch.cat([torch.ones_like(alpha[..., :1]), (1 - alpha + 1e-10).cumprod(-1)[..., :-1]], -1)
    weights = alpha * passed
    return Traced(
        (weights[..., None] * colours).sum(-2),
        (weights * t).sum(-1, keepdim=True),
        weights.sum(-1, keepdim=True),
    )
