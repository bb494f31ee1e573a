"""Who a head is: numbers in [0, 1], the same in every style."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.errors import ShapeError

CODE_SIZE = 32

# Every entry runs from one end to the other and none is circular, so that a small network can learn it.
IDENTITY_NAMES = (
    "head_width",
    "head_height",
    "jaw_width",
    "chin_length",
    "cheeks",
    "nose_length",
    "nose_width",
    "eye_distance",
    "eye_size",
    "eye_colour",  # blue to brown
    "brow_thickness",
    "brow_tilt",
    "mouth_width",
    "lip_fullness",
    "lip_colour",  # pale to dark red
    "ear_size",
    "skin_tone",  # light to dark
    "skin_warmth",  # pink to yellow
    "beard",
    "hair_length",
    "hair_volume",  # 0 is bald
    "fringe",  # high hairline to a fringe over the brows
    "hair_darkness",
    "hair_redness",
    "cloth_colour",  # blue, grey, red
)


def identity_from_codes(z: Tensor) -> Tensor:
    """The identity of each code: the normal CDF of its first K entries, so that z ~ N(0, 1) gives uniform numbers.

    Args:
        z: (..., 32).
    Returns:
        (..., K) in [0, 1], K = len(IDENTITY_NAMES).
    Raises:
        ShapeError: if the last dimension is not 32.
    """
    if z.shape[-1] != CODE_SIZE:
        raise ShapeError(f"A code has {CODE_SIZE} numbers in its last dimension, got shape {tuple(z.shape)}.")
    return torch.special.ndtr(z[..., : len(IDENTITY_NAMES)])


def sample_identity(count: int, generator: torch.Generator) -> Tensor:
    """(count, K) uniform in [0, 1): what `identity_from_codes` gives for normal codes."""
    return torch.rand(count, len(IDENTITY_NAMES), generator=generator)
