"""Perceptual distance: how far apart the features of two pictures lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.errors import ShapeError


def perceptual_distance(features: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Squared differences of feature vectors of length 1, averaged over each map and summed over the maps.

    Zhang et al., CVPR 2018, arXiv:1801.03924, equation 1 with all channel weights 1: the features are whatever network
    the caller trusts, so numbers of different networks cannot be compared.

    Args:
        features, truth: maps (B, C, h, w) of the two sets of pictures, in the same order.
    Returns:
        (B,) in [0, 4 * number of maps]; 0 for equal features, 2 per map where they are orthogonal.
    Raises:
        ShapeError: if the maps disagree in number or shape.
    """
    shapes, others = [tuple(f.shape) for f in features], [tuple(f.shape) for f in truth]
    if shapes != others or not shapes or any(len(shape) != 4 for shape in shapes):
        raise ShapeError(f"Two equal lists of (B, C, h, w) feature maps are compared, got {shapes} and {others}.")
    maps = [_differences(ours, theirs) for ours, theirs in zip(features, truth)]
    return torch.stack(maps).sum(0)


def _differences(ours: Tensor, theirs: Tensor) -> Tensor:
    difference = F.normalize(ours.float(), dim=1) - F.normalize(theirs.float(), dim=1)
    return difference.square().sum(1).flatten(1).mean(1)
