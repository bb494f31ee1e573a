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
    points = along(origins, directions, t)
    if reference:
        raw, colours = (x.unflatten(1, t.shape[1:]) for x in field(points.flatten(1, 2)))
        return _product(t, _optical(raw, bias, samples) * crosses[..., None], colours.sigmoid())
    optical, colours = _marched(field, points, crosses, bias)
    ray = composite_samples(t, 1.0, optical, colours)
    return Traced(ray.values, ray.depth, ray.opacity)


def _optical(raw: Tensor, bias: float, samples: int) -> Tensor:
    """How much light a sample takes, for n samples of a crossing."""
    return torch.exp((raw + bias).clamp(max=OPAQUE)) / samples


def _marched(field: Decoded, points: Tensor, crosses: Tensor, bias: float) -> tuple[Tensor, Tensor]:
    """Optical depth (1, N, n) and colours (1, N, n, 3) of the samples that a pixel can see, 0 for all others.

    From the front to the back: what lies behind `HIDDEN` has no weight and no gradient, so it is not asked for.
    """
    samples = points.shape[2]
    rays = crosses[0].nonzero()[:, 0]  # those that still see something
    before = points.new_zeros(len(rays))
    places, found = [], []
    for block in torch.arange(samples, device=points.device).chunk(BLOCKS):
        if not len(rays):
            break
        raw, colour = field(points[:, rays][:, :, block].flatten(1, 2))
        optical = _optical(raw[0], bias, samples)
        places.append((rays[:, None] * samples + block).flatten())
        found.append(torch.cat([optical[:, None], colour[0].sigmoid()], 1))
        before = before + optical.detach().view(len(rays), -1).sum(1)
        sees = before < HIDDEN
        rays, before = rays[sees], before[sees]
    everywhere = points.new_zeros(points.shape[1] * samples, 4)
    if found:
        everywhere = everywhere.index_copy(0, torch.cat(places), torch.cat(found))
    everywhere = everywhere.view(1, *points.shape[1:3], 4)
    return everywhere[..., 0], everywhere[..., 1:]


def _product(t: Tensor, optical: Tensor, colours: Tensor) -> Traced:
    alpha = 1 - torch.exp(-optical)
    passed = torch.cat([torch.ones_like(alpha[..., :1]), (1 - alpha + 1e-10).cumprod(-1)[..., :-1]], -1)
    weights = alpha * passed
    return Traced(
        (weights[..., None] * colours).sum(-2),
        (weights * t).sum(-1, keepdim=True),
        weights.sum(-1, keepdim=True),
    )
