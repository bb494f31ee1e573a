"""Retrieval: is a subject still found among others?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.errors import ShapeError


@dataclass(frozen=True)
class Retrieval:
    """How well queries found their own subject in a gallery."""

    top1: float  # share of queries whose own subject is the nearest, in [0, 1]; chance is 1 / gallery
    mean_rank: float  # place of the own subject, 1 = nearest; chance is (gallery + 1) / 2


def retrieve(queries: Tensor, gallery: Tensor, subjects: Tensor | None = None) -> Retrieval:
    """Nearest neighbours by cosine.

    Ties count as if their order were drawn: embeddings that all coincide are found at chance, not always.

    Args:
        queries: (Q, E) embeddings of any length but 0.
        gallery: (G, E).
        subjects: (Q,) int64, each query's own place in the gallery; by default query i belongs to entry i.
    Raises:
        ShapeError: if the sizes do not fit, or a subject is not in the gallery.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ShapeError(f"Embeddings are (Q, E) and (G, E), got {tuple(queries.shape)} and {tuple(gallery.shape)}.")
    own = torch.arange(len(queries)) if subjects is None else subjects.cpu()
    if own.shape != (len(queries),) or int(own.min()) < 0 or int(own.max()) >= len(gallery):
        raise ShapeError(f"{len(queries)} queries need as many places in a gallery of {len(gallery)}.")
    cosine = F.normalize(queries.double(), dim=1).cpu() @ F.normalize(gallery.double(), dim=1).cpu().T
    cosine = cosine.nan_to_num(nan=-2.0)  # a picture that is not finite is like none: chance
    right = cosine.gather(1, own[:, None])
    nearer = (cosine > right + 1e-9).sum(1)
    tied = ((cosine - right).abs() <= 1e-9).sum(1)  # the own subject among them
    top1 = torch.where(nearer == 0, 1 / tied, 0.0).mean()
    return Retrieval(float(top1), float((1 + nearer + (tied - 1) / 2).double().mean()))
