"""What a CLIP says: how well pictures fit a text, and whether they moved the way the texts do."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from distill3d.errors import ShapeError


def clip_score(images: Tensor, text: Tensor) -> float:
    """Mean cosine of image embeddings and one text's. Hessel et al., EMNLP 2021, arXiv:2104.08718, without their 2.5.

    Args:
        images: (B, E).
        text: (E,).
    Returns:
        In [-1, 1]. Comparable only between pictures that the same CLIP looked at.
    """
    _check(images, text)
    return float(F.cosine_similarity(images.float(), text.float()[None], dim=1).mean())


def clip_direction(images: Tensor, sources: Tensor, text: Tensor, source_text: Tensor) -> float:
    """Mean cosine of the way each picture went and the way from the source's text to the style's.

    Gal et al., SIGGRAPH 2022, arXiv:2108.00946 (StyleGAN-NADA's directional loss is 1 minus this).

    Args:
        images, sources: (B, E) of the same subjects and cameras, after and before.
        text, source_text: (E,).
    Returns:
        In [-1, 1]; pictures that did not move have no direction and are left out, NaN if none moved.
    """
    _check(images, text)
    _check(sources, source_text)
    way, wanted = (images - sources).float(), (text - source_text).float()
    moved = way.norm(dim=1) > 1e-6
    if not bool(moved.any()):
        return math.nan
    return float(F.cosine_similarity(way[moved], wanted[None], dim=1).mean())


def _check(images: Tensor, text: Tensor) -> None:
    if images.ndim != 2 or text.shape != images.shape[1:]:
        raise ShapeError(
            f"Embeddings of pictures (B, E) and of a text (E,) fit together, got {tuple(images.shape)} and "
            f"{tuple(text.shape)}."
        )
