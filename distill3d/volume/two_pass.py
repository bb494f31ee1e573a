"""What EG3D and OpenLRM do with two passes of samples along a ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.volume.compositing import composite_midpoints
from distill3d.volume.sampling import blurred, sample_histogram


def importance(t: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Distances for the second pass.

    As released, the histogram without its two ends is laid over the *first* middles, one interval too near, and the
    last interval is never sampled. Weights were trained with it.

    Args:
        t: (..., n), the even pass.
        weights: (..., n - 1) of its intervals.
        u: (..., m) in [0, 1).
    Returns:
        (..., m).
    """
    middles = (t[..., 1:] + t[..., :-1]) / 2  # n - 1
    return sample_histogram(middles[..., :-1], blurred(weights)[..., 1:-1], u)


def gathered_in_order(
    t: Tensor, density: Tensor, values: Sequence[Tensor], order: Tensor, activation: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The published form: sort the values along the ray, then take the means of neighbours.

    Args:
        t, density: (..., n) of both passes in order.
        values: of each pass, (..., n', C).
        order: (..., n), of `merge`.
        activation: raw density to density.
    Returns:
        values (..., C), depth and opacity (..., 1).
    """
    joined = torch.cat(list(values), -2)
    ray = composite_midpoints(t, density, joined.gather(-2, order[..., None].expand_as(joined)), activation)
    return ray.values, ray.depth, ray.opacity


def gathered(t: Tensor, weights: Tensor, values: Sequence[Tensor], order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same without moving a value: an interval's weight (..., n - 1) goes to its two ends, half to each."""
    shares = (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) / 2
    shares = torch.zeros_like(shares).scatter(-1, order, shares).split([v.shape[-2] for v in values], -1)
    found = torch.stack([(s[..., None, :] @ v).squeeze(-2) for s, v in zip(shares, values)]).sum(0)
    depth = (weights * (t[..., 1:] + t[..., :-1])).sum(-1, keepdim=True) / 2
    return found, depth, weights.sum(-1, keepdim=True)
