"""The metrics that the core offers for every backbone: they need no judge and no truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from distill3d.errors import ShapeError
from distill3d.evaluation.diversity import diversity_ratio
from distill3d.evaluation.pairwise import pairwise_distances
from distill3d.evaluation.rsa import rsa
from distill3d.styles import Style


def diversity(before: Tensor, after: Tensor, style: Style) -> Mapping[str, float]:
    """Diversity ratio of the pixels, averaged over cameras; see `distill3d.evaluation.diversity_ratio`."""
    return {"diversity": _over_views(diversity_ratio, before, after)}


def similarity(before: Tensor, after: Tensor, style: Style) -> Mapping[str, float]:
    """Correlation of the pixels' pairwise distances before and after; see `distill3d.evaluation.rsa`."""
    return {"rsa_base": _over_views(rsa, before, after)}


def _over_views(metric: Callable[[Tensor, Tensor], float], before: Tensor, after: Tensor) -> float:
    """The mean over cameras: only pictures (S, V, 3, H, W) from one camera are compared."""
    if before.shape != after.shape or before.ndim != 5:
        raise ShapeError(
            f"Metrics compare two (S, V, 3, H, W) tensors, got {tuple(before.shape)} and {tuple(after.shape)}."
        )
    both = zip(before.unbind(1), after.unbind(1))
    values = [metric(pairwise_distances(new), pairwise_distances(old)) for old, new in both]
    return sum(values) / len(values)
