"""The colour of a point before light falls on it."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d.tiny.world.anatomy import Colour, Values, colour_of, lerp, smoothstep
from distill3d.tiny.world.shape import EYE_Y, Parts, azimuth, mouth_line, union

EDGE = 0.008  # materials blend over this width, head units


def mix(start, end, weight) -> Colour:
    """Channel by channel `lerp`; colours or single numbers (greys)."""
    starts = start if isinstance(start, tuple) else (start,) * 3
    ends = end if isinstance(end, tuple) else (end,) * 3
    a, b, c = (lerp(one, other, weight) for one, other in zip(starts, ends))
    return a, b, c


def scale(colour: Colour, factor) -> Colour:
    red, green, blue = colour
    return red * factor, green * factor, blue * factor


def luminance(colour: Colour) -> Tensor:
    red, green, blue = colour
    return 0.30 * red + 0.59 * green + 0.11 * blue


def noise(x: Tensor, y: Tensor, z: Tensor, phase) -> Tensor:
    """Smooth, about [-1.3, 1.3]; x with its sign, so the two sides differ."""
    across = torch.sin(5.1 * x + phase + 2 * torch.sin(3.7 * y + phase))
    up = torch.sin(4.3 * y + 1.7 * phase + torch.sin(4 * z))
    return 0.5 * (across * up + torch.sin(5.7 * z + 0.6 * phase + 2 * torch.sin(3.9 * x)))


def materials(d: Parts) -> tuple[Tensor, ...]:
    """Weight of each part in the colour, in the order of `Parts`, summing to 1."""
    skin = union(d.skin, d.lips + 1.0, 0.01)
    distances = torch.stack([skin, *d[1:]])
    return torch.softmax(-distances / EDGE, 0).unbind(0)


def albedo(p: Values, x: Tensor, y: Tensor, z: Tensor, weights: tuple[Tensor, ...]) -> Colour:
    """Colour in [0, 1], each channel (N,), of surface points in head units."""
    s = x.abs()
    skin = _skin(p, x, y, z)
    inside, mouth_colour = _inner_mouth(p, s, y, z)
    skin = mix(skin, mouth_colour, inside)
    lips = mix(colour_of(p, "own_lips"), colour_of(p, "lip"), p["lip_mix"])
    lips = mix(mix(lips, skin, 0.2 * (1 - p["lip_mix"])), mouth_colour, inside)
    hair = mix(colour_of(p, "own_hair"), colour_of(p, "hair"), p["hair_mix"])
    cloth = mix(colour_of(p, "own_cloth"), colour_of(p, "cloth"), p["cloth_mix"])
    every = (skin, _eyes(p, s, y, skin), lips, scale(hair, 0.45), scale(hair, _strands(p, s, y, z)), cloth)
    red, green, blue = (torch.stack([w * part[c] for w, part in zip(weights, every)]).sum(0) for c in range(3))
    return red, green, blue


def _skin(p: Values, x, y, z) -> Colour:
    s, front = x.abs(), smoothstep(0.0, 0.2, z)
    own = colour_of(p, "own_skin")
    keep = lerp(1, luminance(own) / 0.6, p["skin_own_tone"])
    skin = mix(own, scale(colour_of(p, "skin"), keep), p["skin_mix"])
    skin = _fur(p, skin, s, y, z)
    blush = torch.exp(-((s - 0.30) ** 2 + (y + 0.12) ** 2) / 0.014) * front * p["blush"]
    skin = mix(skin, (0.90, 0.35, 0.32), blush)
    skin = _beard(p, skin, s, y, z)
    skin = _nostrils(p, skin, s, y, z)
    return _makeup(p, _damage(p, skin, x, y, z), s, y, front)


def _fur(p: Values, skin: Colour, s, y, z) -> Colour:
    """Coat: dark tufts, a pale muzzle and a black nose."""
    reach = torch.sqrt(s * s + (y + 0.12) ** 2 + 1e-6)
    around = torch.atan2(s, y + 0.12 + 0 * z)  # strokes run outwards from the muzzle, and down at the back
    around = lerp(2 * azimuth(s, z), around, smoothstep(-0.1, 0.25, z))
    strokes = torch.sin(19 * around + 2.5 * torch.sin(8 * reach)) + 0.6 * torch.sin(
        31 * around - 3 * torch.sin(11 * reach)
    )
    outer = smoothstep(0.22, 0.5, reach)
    skin = scale(
        skin, 1 + p["fur"] * (0.17 * strokes * (0.35 + 0.65 * outer) - 0.16 * outer * smoothstep(-0.2, 0.3, y))
    )
    muzzle = smoothstep(0.60, 0.72, z) * smoothstep(0.0, -0.12, y) + 0.6 * smoothstep(0.30, 0.22, s) * (y < -0.35)
    skin = mix(skin, scale(skin, 1.35), p["snout"] * muzzle.clamp(max=1) * smoothstep(0.2, 0.3, z))
    tip_z = 0.61 + p["nose_out"] + 0.13 * p["snout"]
    tip = (y - p["nose_y"] + 0.03) ** 2 + (z - tip_z) ** 2 + s * s
    return mix(skin, 0.06, p["snout"] * smoothstep(0.026, 0.014, tip))


def _beard(p: Values, skin: Colour, s, y, z) -> Colour:
    hair = mix(colour_of(p, "own_hair"), colour_of(p, "hair"), p["hair_mix"])
    jaw = smoothstep(-0.20, -0.30, y - 0.55 * s * s) * smoothstep(-0.80, -0.72, y) * smoothstep(-0.05, 0.1, z)
    return mix(skin, scale(hair, 0.75), 0.85 * p["beard_cover"] * jaw * (1 - 0.6 * p["fur"]))


def _nostrils(p: Values, skin: Colour, s, y, z) -> Colour:
    """Darkness under the nose, without which it vanishes from the front."""
    hole = ((s - 0.75 * p["nose_x"]) / (0.5 * p["nose_x"])) ** 2 + ((y - p["nose_y"] + 0.85 * p["nose_x"]) / 0.035) ** 2
    wing = torch.exp(-(((s - 1.55 * p["nose_x"]) / 0.028) ** 2))
    wing = wing * smoothstep(0.10, -0.02, y) * smoothstep(-0.22, -0.16, y)
    here = smoothstep(0.4, 0.5, z) * (1 - p["snout"])
    return scale(scale(skin, 1 - 0.75 * torch.exp(-hole) * here), 1 - 0.22 * wing * here)


def _damage(p: Values, skin: Colour, x, y, z) -> Colour:
    rough = noise(x, y, z, p["phase"])
    skin = mix(skin, scale(skin, 0.62), p["blotches"] * smoothstep(0.0, 0.7, -rough))
    wound = smoothstep(0.50, 0.62, rough) * p["wounds"] * smoothstep(0.5, 0.4, y) * smoothstep(-0.8, -0.7, y)
    return mix(skin, (0.50, 0.06, 0.06), wound)


def _makeup(p: Values, skin: Colour, s, y, front) -> Colour:
    across, up = s - p["eye_x"], y - EYE_Y
    shadow = torch.exp(-(across**2 / 0.026 + (up + 0.02) ** 2 / 0.020)) * front * p["dark_sockets"]
    skin = mix(skin, (0.20, 0.15, 0.17), shadow)
    diamond = smoothstep(0.85, 0.5, across**2 / 0.020 + up**2 / 0.048)
    skin = mix(skin, (0.06, 0.09, 0.20), diamond * front * p["eye_paint"])
    reach = 0.36
    line = (y - mouth_line(p, s)).abs() / (0.02 + 0.075 * (1 - s / reach).clamp(min=0))
    smile = smoothstep(1.15, 0.85, line) * smoothstep(reach + 0.02, reach - 0.02, s) * front * p["smile_paint"]
    return mix(skin, (0.84, 0.03, 0.06), smile)


def _inner_mouth(p: Values, s, y, z) -> tuple[Tensor, Colour]:
    """Where the mouth is open, and its colour: dark, with teeth if the style shows them."""
    gap, up = 0.055 * p["mouth_opening"], (y - mouth_line(p, s)).abs()
    where = smoothstep(0.016, 0.006, up - gap) * smoothstep(1.0, 0.85, s / p["mouth_x"]) * smoothstep(0.15, 0.25, z)
    gaps = smoothstep(0.15, 0.35, torch.sin(40 * s + 1.57).abs())
    teeth = where * p["teeth"] * smoothstep(0.0, 0.015, gap - 0.006) * gaps
    return where, mix((0.20, 0.06, 0.06), 0.88, teeth)


def _eyes(p: Values, s, y, skin: Colour) -> Colour:
    across, up = s - p["eye_x"], y - EYE_Y
    radius = torch.sqrt(across**2 + up**2 + 1e-9)
    iris_r = 0.60 * p["eye_r"] * p["iris"]
    seen = smoothstep(0.0, 0.3, p["iris"])  # a statue has none
    iris = seen * smoothstep(0.006, -0.006, radius - iris_r)
    pupil = seen * smoothstep(0.006, -0.006, radius - 0.40 * iris_r)
    white = mix(0.97, mix(colour_of(p, "eye"), 0.95, 0.6), p["eye_mix"])
    colour = mix(white, mix(colour_of(p, "own_iris"), colour_of(p, "eye"), p["eye_mix"]), iris)
    glint = seen * smoothstep(0.030, 0.018, torch.sqrt(across**2 + (up - 0.3 * p["eye_r"]) ** 2))
    colour = mix(mix(colour, 0.03, pupil), 1.0, glint)
    rim = p["eye_open"] * (1 - (across / (1.02 * p["eye_r"])) ** 2).clamp(min=0)
    colour = mix(colour, scale(skin, 0.9), smoothstep(-0.008, 0.008, up.abs() - rim))
    lash = torch.exp(-(((up - rim) / 0.020) ** 2)) * (up > 0) * (0.85 - 0.45 * p["stone"])
    return mix(colour, 0.08, lash)


def _strands(p: Values, s, y, z) -> Tensor:
    """Brightness along strands: fine lines that fall from the crown."""
    around = azimuth(s, z)
    fine = torch.sin(37 * around + 2.2 * torch.sin(3.3 * y)) * torch.sin(9 * around - 1.4 * torch.sin(4.1 * y) + 1)
    broad = torch.sin(14 * around + 1.3 * torch.sin(2.7 * y + 1))
    return 1 + (0.13 * fine + 0.08 * broad) * (1 - 0.6 * p["curls"])
