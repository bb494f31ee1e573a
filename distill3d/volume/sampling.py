"""Where along a ray a field is asked: evenly, or where an earlier pass found something."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.errors import ConfigError

Spacing = Literal["cells", "edges"]


def stratified(
    near: Tensor | float,
    far: Tensor | float,
    count: int,
    jitter: Tensor | None = None,
    *,
    spacing: Spacing = "cells",
    disparity: bool = False,
) -> Tensor:
    """`count` ordered distances along each ray.

    Args:
        near, far: (...) or numbers, world units.
        jitter: (..., count), or (..., 1) for one shift of a whole ray, in [0, 1). None: 0.5 for "cells" (their
            middles), 0 for "edges" (the ends themselves).
        spacing: "cells" divides [near, far] into `count` cells and takes one distance in each. "edges" starts at
            `near` in steps of (far - near) / (count - 1), so that jitter may carry the last one past `far`; this is
            EG3D's and OpenLRM's rule.
        disparity: evenly in 1 / t instead of t (unbounded scenes).
    Returns:
        (..., count).
    """
    if count < (2 if spacing == "edges" else 1):
        raise ConfigError(f"Spacing {spacing!r} needs more samples than {count}.")
    like = next((x for x in (near, far, jitter) if isinstance(x, Tensor)), torch.zeros(()))
    low, high = torch.as_tensor(near).to(like)[..., None], torch.as_tensor(far).to(like)[..., None]
    place = torch.arange(count, device=like.device, dtype=like.dtype)
    shift = (0.5 if spacing == "cells" else 0.0) if jitter is None else jitter
    fraction = (place + shift) / (count if spacing == "cells" else count - 1)
    if disparity:
        return 1 / (fraction / high + (1 - fraction) / low)
    return low + fraction * (high - low)


def even_quantiles(count: int, like: Tensor) -> Tensor:
    """(count,) middles of `count` equal parts of [0, 1]: the deterministic stand-in for uniform numbers."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count


def sample_histogram(edges: Tensor, weights: Tensor, u: Tensor | int, *, floor: float = 1e-5) -> Tensor:
    """Inverse-CDF sampling of a piecewise constant density.

    Weights are not differentiated through where a sample falls into a bin, only the place within the bin is; callers
    that want samples without gradient (all published ones) detach the inputs.

    Args:
        edges: (..., n + 1), ascending.
        weights: (..., n), not negative.
        u: (..., m) in [0, 1), or m for the same m even quantiles on every ray (deterministic).
        floor: added to each weight, so that an empty ray is sampled evenly; and a bin with less than this probability
            is not divided by it.
    Returns:
        (..., m), ascending if `u` is.
    """
    if edges.shape[-1] != weights.shape[-1] + 1:
        raise ConfigError(f"n weights need n + 1 edges, got {weights.shape[-1]} and {edges.shape[-1]}.")
    if isinstance(u, int):
        u = even_quantiles(u, weights).expand(*weights.shape[:-1], u)
    weights = weights + floor
    cdf = (weights / weights.sum(-1, keepdim=True)).cumsum(-1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], -1)  # (..., n + 1)
    above = torch.searchsorted(cdf.detach().contiguous(), u.contiguous(), right=True)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=weights.shape[-1])
    mass = cdf.gather(-1, above) - cdf.gather(-1, below)
    mass = torch.where(mass <= floor, torch.ones_like(mass), mass)
    start, end = edges.gather(-1, below), edges.gather(-1, above)
    return start + (u - cdf.gather(-1, below)) / mass * (end - start)


def blurred(weights: Tensor, padding: float = 0.01) -> Tensor:
    """Mip-NeRF's smoothing of a coarse histogram (..., n) before it is sampled: the larger neighbour, then the mean.

    Barron et al., ICCV 2021, arXiv:2103.13415. `padding` is added to every bin.
    """
    flat = weights.reshape(-1, 1, weights.shape[-1])
    flat = F.avg_pool1d(F.max_pool1d(flat, 2, 1, padding=1), 2, 1)
    return flat.reshape(weights.shape) + padding


def merge(t: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of distances (..., n) and (..., m) as one ascending (..., n + m), and the order that sorts values.

    `torch.cat([values, more_values], dim).gather(dim, order)` puts what was found there into the same order.
    """
    return torch.cat([t, more], -1).sort(dim=-1, stable=True)
