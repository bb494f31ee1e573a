"""Representational similarity: do the same subjects lie close together?"""

from __future__ import annotations

import math

from torch import Tensor

from distill3d.errors import ShapeError
from distill3d.evaluation.pairwise import upper


def rsa(distances: Tensor, others: Tensor) -> float:
    """Pearson correlation of two tables of pairwise distances, each pair once.

    Kriegeskorte et al., Frontiers in Systems Neuroscience 2008, with distances for dissimilarities. Scale and offset of
    either table do not matter: a style may shrink all differences alike and keep a correlation of 1.

    Args:
        distances, others: (S, S) of the same S subjects in the same order.
    Returns:
        In [-1, 1]; NaN where all distances of a table are equal, or there are fewer than two pairs.
    Raises:
        ShapeError: if the tables differ in size.
    """
    if distances.shape != others.shape:
        raise ShapeError(f"Two tables of one size are correlated, got {tuple(distances.shape)}, {tuple(others.shape)}.")
    a, b = upper(distances).double(), upper(others).double()
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return max(-1.0, min(1.0, float(a @ b) / norm)) if norm > 1e-12 else math.nan
