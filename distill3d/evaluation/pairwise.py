"""How far apart the subjects of one set of pictures are: what RSA and the diversity ratio read."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.errors import ShapeError


def pairwise_distances(items: Tensor) -> Tensor:
    """Root mean square difference of every two items.

    Args:
        items: (S, ...): pictures of S subjects from one camera, or features of them.
    Returns:
        (S, S), symmetric, zero on the diagonal, in the units of the items.
    Raises:
        ShapeError: for fewer than two items.
    """
    if items.ndim < 2 or len(items) < 2:
        raise ShapeError(f"Distances need at least two items (S, ...), got {tuple(items.shape)}.")
    flat = items.float().flatten(1)
    # Differences one by one: the fast form, from inner products, leaves a rounding error where they should be 0.
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / flat.shape[1] ** 0.5


def upper(distances: Tensor) -> Tensor:
    """The S (S - 1) / 2 distances above the diagonal of (S, S), each pair once."""
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ShapeError(f"A table of distances is square, got {tuple(distances.shape)}.")
    row, column = torch.triu_indices(len(distances), len(distances), offset=1)
    return distances[row, column]
