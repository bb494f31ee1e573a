"""How often the nearest neighbour is the right one: the measure of kept identity."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.errors import ShapeError


def retrieval_top1(queries: Tensor, gallery: Tensor) -> Tensor:
    """Which queries find their own row of the gallery first, by cosine.

    Args:
        queries: (N, E) embeddings of any length, row i of subject i.
        gallery: (N, E), the same subjects in the same order.
    Returns:
        (N,) of 0 and 1; its mean is the top-1 accuracy, chance is 1/N. A tie with another subject counts as a miss, so
        that embeddings which are all alike score 0.
    Raises:
        ShapeError: if the two differ in shape.
    """
    if queries.shape != gallery.shape or queries.ndim != 2:
        raise ShapeError(f"Queries and gallery are both (N, E), got {tuple(queries.shape)} and {tuple(gallery.shape)}.")
    cosine = torch.nn.functional.normalize(queries.double(), dim=1) @ torch.nn.functional.normalize(gallery.double()).T
    own = cosine.diagonal()
    others = cosine.masked_fill(torch.eye(len(cosine), dtype=torch.bool), -torch.inf).amax(1)
    return (own > others).float()
