"""Identity and style to measures: the lengths and colours that the shape and the materials read.

Lengths are in head units: the picture of a canonical camera shows about +-1 of them around the origin.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from distill3d.tiny.world.identity import IDENTITY_NAMES
from distill3d.tiny.world.styles import STYLE_KEYS

Values = Mapping[str, Tensor]  # every value a scalar (or (N,) to mix subjects)
Colour = tuple[Tensor, Tensor, Tensor]


def lerp(start, end, weight):
    """From `start` at weight 0 to `end` at weight 1; tensors or numbers."""
    return start + (end - start) * weight


def smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between; `low > high` falls instead."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def measures(identity: Tensor, style: Tensor) -> Tensor:
    """(K,) and (len(STYLE_KEYS),) to one row of numbers, ordered as `MEASURE_NAMES`."""
    own = dict(zip(IDENTITY_NAMES, identity.unbind(-1)))
    style_values = dict(zip(STYLE_KEYS, style.unbind(-1)))
    values = {**style_values, **_lengths(own, style_values), **_colours(own)}
    return torch.stack([values[name] for name in MEASURE_NAMES], -1)


def _lengths(own: Values, style: Values) -> dict[str, Tensor]:
    off = {name: 2 * value - 1 for name, value in own.items()}  # [-1, 1]
    eye = 1 + 0.30 * off["eye_size"]
    long = smoothstep(0.35, 0.8, own["hair_length"])
    volume = own["hair_volume"]
    return {
        "skull_x": 0.55 * (1 + 0.14 * off["head_width"]) * style["skull"],
        "skull_y": 0.58 * (1 + 0.12 * off["head_height"]) * style["skull"],
        "jaw_x": 0.435 * (1 + 0.19 * off["jaw_width"] + 0.07 * off["head_width"]) * style["jaw"],
        "chin_y": -0.59 - 0.10 * off["chin_length"] - 0.12 * (style["chin"] - 1),
        "chin_x": (0.18 + 0.07 * off["jaw_width"]) * style["jaw"],
        "cheek_out": 0.07 * off["cheeks"] - 0.03 * style["hollow_cheeks"],
        "nose_out": (0.045 + 0.15 * own["nose_length"]) * style["nose"],
        "nose_y": -0.09 - 0.06 * off["nose_length"] + 0.06 * (1 - style["nose"]),
        "nose_x": (0.090 + 0.045 * off["nose_width"]) * style["nose"],
        "eye_x": 0.225 + 0.045 * off["eye_distance"] + style["eye_spread"],
        "eye_r": 0.128 * eye * style["eyes"],
        "eye_open": 0.078 * eye * style["eyes"] * style["eye_opening"],
        "mouth_x": (0.175 + 0.085 * off["mouth_width"]) * style["mouth"],
        "mouth_y": -0.365 - 0.04 * off["chin_length"] - 0.05 * style["snout"],
        "lip_y": 0.046 + 0.030 * off["lip_fullness"],
        "brow_y": (0.036 + 0.027 * off["brow_thickness"]) * (0.5 + 0.5 * style["brows"]),
        "brow_slope": 0.28 * style["brow_anger"] + 0.42 * off["brow_tilt"],
        "ear_scale": (1.1 + 0.55 * off["ear_size"]) * style["ears"],
        "hair_end": lerp(0.12, -0.92, smoothstep(0.05, 1.0, own["hair_length"])),
        "hair_long": long,
        "hair_out": lerp(-0.07, 0.025, smoothstep(0.0, 0.13, volume * (0.4 + 0.6 * style["hair"])))
        + 0.17 * (volume - 0.1).clamp(min=0) * style["hair"],
        "hairline": 0.64 - 0.34 * own["fringe"] + 0.06 * off["head_height"],
        "fringe": own["fringe"],
        "beard_cover": smoothstep(0.2, 1.0, own["beard"]) * style["beard"],
        "phase": 7 * own["head_width"] + 11 * own["chin_length"] + 5 * own["brow_thickness"],  # places the wounds
    }


def _colours(own: Values) -> dict[str, Tensor]:
    tone, warmth = own["skin_tone"] ** 1.4, 2 * own["skin_warmth"] - 1
    dark, red = own["hair_darkness"], own["hair_redness"]
    eye, lip, cloth = own["eye_colour"], own["lip_colour"], 2 * own["cloth_colour"] - 1
    blue, crimson = (-cloth).clamp(min=0), cloth.clamp(min=0)
    colours = {
        "own_skin": (
            lerp(0.98, 0.40, tone) - 0.01 * warmth,
            lerp(0.77, 0.22, tone) + 0.045 * warmth * (1.1 - 0.6 * tone),
            lerp(0.64, 0.15, tone) - 0.10 * warmth * (1.1 - 0.8 * tone),
        ),
        "own_hair": (
            lerp(lerp(0.90, 0.92, red), lerp(0.09, 0.30, red), dark),
            lerp(lerp(0.78, 0.42, red), lerp(0.07, 0.08, red), dark),
            lerp(lerp(0.52, 0.12, red), lerp(0.07, 0.05, red), dark),
        ),
        "own_iris": (lerp(0.12, 0.36, eye), lerp(0.48, 0.20, eye), lerp(0.92, 0.06, eye)),
        "own_lips": (lerp(0.90, 0.62, lip), lerp(0.64, 0.06, lip), lerp(0.58, 0.14, lip)),
        "own_cloth": (
            0.62 - 0.46 * blue + 0.14 * crimson,
            0.62 - 0.28 * blue - 0.46 * crimson,
            0.62 + 0.12 * blue - 0.46 * crimson,
        ),
    }
    return {f"{name}_{channel}": value for name, rgb in colours.items() for channel, value in zip(CHANNELS, rgb)}


CHANNELS = ("red", "green", "blue")


def colour_of(p: Values, name: str) -> Colour:
    """The three values called `name_red`, `name_green`, `name_blue`."""
    return p[f"{name}_red"], p[f"{name}_green"], p[f"{name}_blue"]


def _names() -> tuple[str, ...]:
    own = dict.fromkeys(IDENTITY_NAMES, torch.tensor(0.5))
    style = dict.fromkeys(STYLE_KEYS, torch.tensor(0.0))
    return (*STYLE_KEYS, *_lengths(own, style), *_colours(own))


MEASURE_NAMES = _names()


def named(row: Tensor) -> dict[str, Tensor]:
    """A row of `measures` by name."""
    return dict(zip(MEASURE_NAMES, row.unbind(-1)))
