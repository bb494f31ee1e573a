"""What a style is: a row of named numbers that change a head's shape, colour and texture, and leave who it is alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill3d.errors import UnknownNameError

# The plain photo. A style names only what it changes; rows can be mixed, since each number acts continuously.
PHOTO = {
    # shape: factors (1 = unchanged), and strengths (0 = absent)
    "skull": 1.0, "jaw": 1.0, "chin": 1.0, "neck": 1.0, "nose": 1.0, "ears": 1.0, "brows": 1.0,
    "hair": 1.0, "beard": 1.0,
    "eyes": 1.0, "eye_opening": 1.0, "eye_spread": 0.0, "socket_depth": 0.0, "hollow_cheeks": 0.0,
    "mouth": 1.0, "mouth_opening": 0.0, "grin": 0.0, "brow_anger": 0.0,
    "snout": 0.0, "wolf_ears": 0.0, "fur": 0.0, "curls": 0.0,
    # colour: a target and how far to go towards it
    "skin_mix": 0.0, "skin_red": 0.0, "skin_green": 0.0, "skin_blue": 0.0, "skin_own_tone": 0.0,
    "hair_mix": 0.0, "hair_red": 0.0, "hair_green": 0.0, "hair_blue": 0.0,
    "lip_mix": 0.0, "lip_red": 0.5, "lip_green": 0.1, "lip_blue": 0.1,
    "eye_mix": 0.0, "eye_red": 1.0, "eye_green": 1.0, "eye_blue": 1.0, "iris": 1.0,
    "cloth_mix": 0.0, "cloth_red": 0.3, "cloth_green": 0.3, "cloth_blue": 0.3,
    "saturation": 1.0, "gloss": 0.2, "blush": 0.15, "dark_sockets": 0.0, "eye_paint": 0.0, "smile_paint": 0.0,
    # texture
    "teeth": 0.0, "wounds": 0.0, "blotches": 0.0, "stone": 0.0, "pencil": 0.0,
}  # fmt: skip

STYLES: dict[str, dict[str, float]] = {
    "photo": {},
    "zombie": {
        "jaw": 0.94, "chin": 1.05, "hair": 0.9, "beard": 0.6, "brows": 0.7, "eye_opening": 1.15, "socket_depth": 0.9,
        "hollow_cheeks": 1.0, "mouth_opening": 0.75, "brow_anger": -0.6, "neck": 0.95,
        "skin_mix": 0.92, "skin_red": 0.70, "skin_green": 0.88, "skin_blue": 0.52, "skin_own_tone": 0.25,
        "hair_mix": 0.65, "hair_red": 0.27, "hair_green": 0.31, "hair_blue": 0.22,
        "lip_mix": 0.8, "lip_red": 0.40, "lip_green": 0.20, "lip_blue": 0.24,
        "eye_mix": 0.9, "eye_red": 0.95, "eye_green": 0.92, "eye_blue": 0.60, "iris": 0.5,
        "cloth_mix": 0.95, "cloth_red": 0.34, "cloth_green": 0.31, "cloth_blue": 0.24,
        "gloss": 0.1, "blush": 0.0, "dark_sockets": 0.65, "teeth": 1.0, "wounds": 1.0, "blotches": 0.6,
    },
    "pixar": {
        "skull": 1.03, "jaw": 0.93, "chin": 0.85, "neck": 0.85, "nose": 0.72, "ears": 1.2, "brows": 1.35, "hair": 1.1,
        "beard": 0.7, "eyes": 1.7, "eye_opening": 1.25, "eye_spread": 0.06, "socket_depth": -0.4,
        "mouth": 1.05, "grin": 0.9,
        "lip_mix": 0.35, "lip_red": 0.92, "lip_green": 0.36, "lip_blue": 0.40, "iris": 1.15,
        "skin_mix": 0.7, "skin_red": 1.0, "skin_green": 0.76, "skin_blue": 0.62, "skin_own_tone": 0.55,
        "hair_mix": 0.35, "hair_red": 0.95, "hair_green": 0.50, "hair_blue": 0.14,
        "cloth_mix": 0.9, "cloth_red": 0.98, "cloth_green": 0.78, "cloth_blue": 0.16,
        "saturation": 1.25, "gloss": 0.45, "blush": 0.45,
    },
    "joker": {
        "jaw": 0.97, "chin": 1.15, "nose": 1.12, "hair": 1.1, "beard": 0.2, "eye_opening": 1.1, "hollow_cheeks": 0.5,
        "socket_depth": 0.2, "mouth": 1.45, "mouth_opening": 0.45, "grin": 1.7, "brow_anger": 0.6, "brows": 0.9,
        "skin_mix": 0.95, "skin_red": 0.97, "skin_green": 0.96, "skin_blue": 0.95, "skin_own_tone": 0.12,
        "hair_mix": 0.93, "hair_red": 0.13, "hair_green": 0.62, "hair_blue": 0.20,
        "lip_mix": 1.0, "lip_red": 0.86, "lip_green": 0.03, "lip_blue": 0.06,
        "cloth_mix": 1.0, "cloth_red": 0.42, "cloth_green": 0.14, "cloth_blue": 0.56,
        "blush": 0.0, "eye_paint": 1.0, "smile_paint": 1.0, "teeth": 1.0,
    },
    "werewolf": {
        "jaw": 1.04, "nose": 1.1, "ears": 0.6, "brows": 1.9, "hair": 0.95, "brow_anger": 1.0, "socket_depth": 0.3,
        "mouth_opening": 0.45, "snout": 1.0, "wolf_ears": 1.0, "fur": 1.0, "neck": 1.08,
        "skin_mix": 0.92, "skin_red": 0.84, "skin_green": 0.66, "skin_blue": 0.46, "skin_own_tone": 0.25,
        "hair_mix": 0.75, "hair_red": 0.40, "hair_green": 0.27, "hair_blue": 0.17,
        "lip_mix": 0.9, "lip_red": 0.16, "lip_green": 0.10, "lip_blue": 0.09,
        "eye_mix": 0.92, "eye_red": 1.0, "eye_green": 0.66, "eye_blue": 0.05, "iris": 1.05,
        "cloth_mix": 0.95, "cloth_red": 0.30, "cloth_green": 0.22, "cloth_blue": 0.20,
        "gloss": 0.05, "blush": 0.0, "dark_sockets": 0.25, "teeth": 1.0,
    },
    "sketch": {
        "nose": 1.15, "brows": 1.3, "hair": 1.12, "eyes": 1.1, "chin": 1.2, "jaw": 0.95,
        "saturation": 0.0, "gloss": 0.0, "blush": 0.0, "pencil": 1.0,
    },
    "statue": {
        "nose": 1.15, "socket_depth": 0.5, "hair": 1.05, "brows": 0.9, "curls": 1.0, "neck": 1.15, "mouth": 0.95,
        "iris": 0.0, "gloss": 0.25, "blush": 0.0, "stone": 1.0,
    },
}  # fmt: skip

STYLE_NAMES = tuple(STYLES)
STYLE_KEYS = tuple(PHOTO)


def style_rows(names: Sequence[str] = STYLE_NAMES) -> Tensor:
    """(S, len(STYLE_KEYS)): one row of numbers for each style name.

    Raises:
        UnknownNameError: if the world has no style of that name.
    """
    for name in names:
        if name not in STYLES:
            raise UnknownNameError("style of the embedded world", name, STYLE_NAMES)
    return torch.tensor([[STYLES[name].get(key, PHOTO[key]) for key in STYLE_KEYS] for name in names])
