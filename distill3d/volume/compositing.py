"""From densities along a ray to what its pixel sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.errors import ShapeError

HIDDEN = 24.0  # optical depth behind which nothing is seen: exp(-24) = 4e-11


@dataclass(frozen=True)
class Composite:
    """What a ray gathered; the background is the caller's: `values + (1 - opacity) * background`."""

    values: Tensor  # (..., C): sum of weight * value
    depth: Tensor  # (..., 1): sum of weight * t, not divided by the opacity
    opacity: Tensor  # (..., 1) in [0, 1]: sum of the weights
    weights: Tensor  # (..., n) samples, or (..., n - 1) intervals

    def mean_depth(self, lowest: Tensor | float, highest: Tensor | float) -> Tensor:
        """(..., 1): depth divided by opacity, within the given ends; `highest` where the ray met nothing.

        EG3D and OpenLRM take the ends from all sample distances of the batch.
        """
        return mean_depth(self.depth, self.opacity, lowest, highest)


def mean_depth(depth: Tensor, opacity: Tensor, lowest: Tensor | float, highest: Tensor | float) -> Tensor:
    """Depth divided by opacity, both (..., 1), within the ends; see `Composite.mean_depth`."""
    empty = opacity <= 0
    mean = depth / torch.where(empty, torch.ones_like(opacity), opacity)  # no 0 / 0: its slope would spoil every weight
    mean = torch.where(empty, torch.full_like(mean, torch.inf), mean)
    return mean.clamp(min=torch.as_tensor(lowest).to(mean), max=torch.as_tensor(highest).to(mean))


def ray_weights(density: Tensor, steps: Tensor | float) -> Tensor:
    r"""How much of the pixel each sample makes up.

        w_i = T_i (1 - exp(-sigma_i delta_i)),   T_i = exp(-sum_{j<i} sigma_j delta_j)

    Max, IEEE TVCG 1995. The sum of optical depths is exact where a product of (1 - alpha) needs an epsilon against
    zero slopes; published code adds 1e-10 there, which no float32 picture shows. T below exp(-HIDDEN) counts as 0.

    Args:
        density: (..., n), not negative, per world unit.
        steps: (..., n), (..., 1) or a number, world units.
    Returns:
        (..., n); their sum is 1 - exp(-sum sigma delta), at most 1.
    """
    optical = density * steps
    # Without the sample itself from the start: subtracted later, a dense one takes the digits of all before it along.
    before = F.pad(optical[..., :-1], (1, 0)).cumsum(-1)
    # Exactly 0 instead of denormal numbers, which make the backward on a CPU several times slower.
    free = torch.exp(-before) * (before < HIDDEN)
    return free * -torch.expm1(-optical)


def composite_samples(t: Tensor, steps: Tensor | float, density: Tensor, values: Tensor) -> Composite:
    """The plain form: each sample stands for a piece of the ray of length `steps`.

    Args:
        t: (..., n) distances, ascending.
        steps: (..., n), (..., 1) or a number; TripoSR's constant 1 / n is a number.
        density: (..., n), activated.
        values: (..., n, C), colours or features.
    """
    _check(t, density, values)
    return _sum(t, ray_weights(density, steps), values)


def composite_midpoints(
    t: Tensor, density: Tensor, values: Tensor, activation: Callable[[Tensor], Tensor] = torch.nn.functional.relu
) -> Composite:
    """The mid-point form: each interval between two samples has the mean of its ends.

    Mip-NeRF's and EG3D's rule; n samples make n - 1 intervals, and nothing closes the ray at its far end.

    Args:
        t: (..., n) distances, ascending.
        density: (..., n), as the decoder gave it: the activation acts on the mean of two neighbours, not before.
        values: (..., n, C).
        activation: raw density to density; EG3D's is `lambda x: softplus(x - 1)`.
    """
    _check(t, density, values)
    weights = interval_weights(t, density, activation)
    return _sum((t[..., 1:] + t[..., :-1]) / 2, weights, (values[..., 1:, :] + values[..., :-1, :]) / 2)


def interval_weights(t: Tensor, density: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """How much of the pixel each interval between two samples makes up, (..., n - 1); see `composite_midpoints`."""
    return ray_weights(activation((density[..., 1:] + density[..., :-1]) / 2), t.diff(dim=-1))


def _check(t: Tensor, density: Tensor, values: Tensor) -> None:
    if density.shape != values.shape[:-1] or t.shape[-1] != density.shape[-1]:
        raise ShapeError(
            "A ray of n samples takes t (..., n), density (..., n) and values (..., n, C), "
            f"got {tuple(t.shape)}, {tuple(density.shape)} and {tuple(values.shape)}."
        )


def _sum(t: Tensor, weights: Tensor, values: Tensor) -> Composite:
    gathered = (weights[..., None] * values).sum(-2)  # keeps the strides of `values`; a product of matrices would copy
    return Composite(gathered, (weights * t).sum(-1, keepdim=True), weights.sum(-1, keepdim=True), weights)
