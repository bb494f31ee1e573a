"""The head as signed distances, in head units: x to its left, y up, z out of the face, about +-1 in all.

Everything reads |x| only, so a head is its own mirror image; wounds alone (see `colour`) are not. The distances of
ellipsoids and of smooth unions are bounds rather than exact, so the tracer takes steps a little shorter than they say.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distill3d.tiny.world.anatomy import Values, lerp, smoothstep

EYE_Y = 0.12
FLOOR = -1.1  # the bust ends here


class Parts(NamedTuple):
    """Distance to each material, each (N,)."""

    skin: Tensor
    eyes: Tensor
    lips: Tensor
    brows: Tensor
    hair: Tensor
    cloth: Tensor


def ellipsoid(x: Tensor, y: Tensor, z: Tensor, rx, ry, rz) -> Tensor:
    """Bound of the distance to an ellipsoid around the origin: exact in its sign and, near the surface, its slope."""
    a, b, c = x / rx, y / ry, z / rz
    radius = torch.sqrt(a * a + b * b + c * c + 1e-9)
    slope = torch.sqrt((a / rx) ** 2 + (b / ry) ** 2 + (c / rz) ** 2 + 1e-9)
    return radius * (radius - 1) / slope


def length(x, y, z) -> Tensor:
    return torch.sqrt(x * x + y * y + z * z + 1e-9)


def union(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """The nearer of two distances, rounded where they differ by less than `blend`."""
    h = (blend - (a - b).abs()).clamp(min=0) / blend
    return torch.minimum(a, b) - h * h * (blend * 0.25)


def cut(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """`a` without `b`, its edge rounded."""
    return -union(-a, b, blend)


def parts(p: Values, x: Tensor, y: Tensor, z: Tensor) -> Parts:
    """Distance of the points (x, y, z), each (N,), to each part of the head that the measures `p` describe."""
    s = x.abs()
    lips, mouth = _mouth(p, s, y, z)
    skin = union(_head(p, s, y, z), _nose(p, s, y, z), 0.07)
    skin = union(skin, _snout(p, s, y, z), 0.10)
    skin = union(union(skin, _ears(p, s, y, z), 0.04), _neck(p, s, y, z), 0.10)
    skin = cut(skin - p["fur"] * (0.004 * _tufts(s, y, z) + _whiskers(s, y, z)), mouth, 0.02)
    lips = cut(lips, mouth, 0.012)
    return Parts(skin, _eyes(p, s, y, z), lips, _brows(p, s, y, z), _hair(p, s, y, z), _cloth(s, y, z))


def nearest(d: Parts) -> Tensor:
    """(N,): distance to the head as a whole."""
    body = torch.minimum(union(d.skin, d.lips, 0.015), d.eyes)
    return torch.minimum(torch.minimum(body, d.brows), torch.minimum(d.cloth, d.hair))


def azimuth(s: Tensor, z: Tensor) -> Tensor:
    """Angle around the vertical through the crown: the lines of hair that fall from it."""
    return torch.atan2(s + 0.02, z + 0.12)


def mouth_line(p: Values, s: Tensor) -> Tensor:
    """Height at which the lips meet; a grin lifts the corners."""
    return p["mouth_y"] + p["grin"] * 1.3 * s * s


def _head(p: Values, s, y, z) -> Tensor:
    skull = ellipsoid(s, y - 0.17, z + 0.10, p["skull_x"], p["skull_y"], 0.66 * p["skull"])
    face = ellipsoid(s, y + 0.14, z - 0.08, p["jaw_x"], 0.55, 0.50)
    head = union(skull, face, 0.16)
    head = union(head, ellipsoid(s, y - p["chin_y"], z - 0.33, p["chin_x"], 0.13, 0.17), 0.2)
    head = union(head, ellipsoid(s - 0.29, y + 0.06, z - 0.37, 0.15, 0.12, 0.13) - p["cheek_out"], 0.12)
    hollow = ellipsoid(s - 0.37, y + 0.30, z - 0.40, 0.10, 0.17, 0.14) + 0.10 - 0.085 * p["hollow_cheeks"]
    head = cut(head, hollow, 0.12)
    ridge = ellipsoid(s - 0.20, y - 0.29, z - 0.44, 0.20, 0.06, 0.10) - 0.016 * p["socket_depth"]
    head = union(head, ridge, 0.12)
    socket = length(s - p["eye_x"], y - EYE_Y, z - 0.70) - (0.175 + 0.035 * p["socket_depth"])
    return cut(head, socket, 0.09)


def _nose(p: Values, s, y, z) -> Tensor:
    """A capsule that widens from the bridge to the tip, and two wings."""
    top, root, tip = 0.20, 0.50, 0.545 + p["nose_out"] + 0.13 * p["snout"]
    end_y = p["nose_y"] - 0.05 * p["snout"]
    dy, dz = end_y - top, tip - root
    along = (((y - top) * dy + (z - root) * dz) / (dy * dy + dz * dz)).clamp(0, 1)
    bridge = length(s, y - top - along * dy, z - root - along * dz) - lerp(0.034, p["nose_x"], along)
    wing = length(s - 0.95 * p["nose_x"], y - end_y + 0.02, z - tip + 0.07) - p["nose_x"] * 0.66
    return union(bridge, wing, 0.04)


def _snout(p: Values, s, y, z) -> Tensor:
    muzzle = ellipsoid(s, y + 0.27, z - 0.56, 0.21, 0.17, 0.32)
    return muzzle + (1 - p["snout"]) * 0.3


def _ears(p: Values, s, y, z) -> Tensor:
    """Human ears at the sides, joined by a wolf's, upright on the skull, as a style asks for them."""
    scale = p["ear_scale"]
    out = s - p["skull_x"] - 0.035 - 0.10 * (-z - 0.05).clamp(min=0)
    shell = ellipsoid(out, y - 0.02, z + 0.06, 0.05, 0.16 * scale, 0.10 * scale)
    bowl = ellipsoid(out - 0.05, y - 0.02, z + 0.03, 0.05, 0.11 * scale, 0.062 * scale)
    human = cut(0.8 * shell, 0.8 * bowl, 0.02)
    base_x, base_y, tip_x, tip_y = 0.74 * p["skull_x"], 0.56, 0.92 * p["skull_x"] + 0.08, 0.96
    dx, dy = tip_x - base_x, tip_y - base_y
    along = (((s - base_x) * dx + (y - base_y) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    width = lerp(0.22, 0.025, along)
    flat = length(s - base_x - along * dx, y - base_y - along * dy, (z - 0.06) * 1.6) - width
    scoop = length(s - base_x - along * dx, y - base_y - along * dy, (z - 0.23) * 1.1) - 0.72 * width
    wolf = cut(flat * 0.6, scoop * 0.6, 0.03) + (1 - p["wolf_ears"]) * 0.5
    return torch.minimum(human, wolf)


def _neck(p: Values, s, y, z) -> Tensor:
    lean = z + 0.12 - 0.15 * (y + 0.6).clamp(max=0)
    column = torch.sqrt((s / 1.05) ** 2 + lean**2 + 1e-9) - 0.25 * p["neck"]
    return -union(-column, -(y + 0.30), 0.1)


def _eyes(p: Values, s, y, z) -> Tensor:
    return length(s - p["eye_x"], y - EYE_Y, z - 0.56 + p["eye_r"] + 0.02 * p["socket_depth"]) - p["eye_r"]


def _mouth(p: Values, s, y, z) -> tuple[Tensor, Tensor]:
    """Lips bent round the face, and the opening between them."""
    up = y - mouth_line(p, s)
    depth = z + 1.0 * s * s - 0.24 * p["snout"] * (1 - 2 * s).clamp(min=0)
    gap = 0.055 * p["mouth_opening"]
    upper = ellipsoid(s, up - p["lip_y"] * 0.75 - gap, depth - 0.515, p["mouth_x"], p["lip_y"], 0.075)
    lower = ellipsoid(s, up + p["lip_y"] * 0.95 + gap, depth - 0.505, p["mouth_x"] * 0.88, p["lip_y"] * 1.25, 0.075)
    opening = ellipsoid(s, up, depth - 0.56, p["mouth_x"] * 0.85, gap + 0.012, 0.10)
    return union(upper, lower, 0.015), opening + (0.02 - gap).clamp(min=0)


def _brows(p: Values, s, y, z) -> Tensor:
    inward = p["eye_x"] - s
    arch = y - 0.285 + 0.9 * (0.02 - inward) ** 2 + p["brow_slope"] * inward - 0.10 * (p["eyes"] - 1)
    return ellipsoid(inward, arch, z + 0.9 * s * s - 0.545, 0.14, p["brow_y"], 0.055)


def _tufts(s, y, z) -> Tensor:
    return torch.sin(16 * s + 2 * torch.sin(6 * y)) * torch.sin(15 * y + 5 * z) + 0.5 * torch.sin(27 * z + 9 * s)


def _whiskers(s, y, z) -> Tensor:
    """How far a wolf's cheeks stand out: pointed tufts along the jaw."""
    where = torch.exp(-((s - 0.42) ** 2) / 0.03 - (y + 0.28) ** 2 / 0.06) * smoothstep(-0.3, 0.1, z)
    return where * (0.055 + 0.035 * torch.sin(26 * y - 14 * s))


def _locks(p: Values, around: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """How far strands stand out, about [-1, 1]: locks that fall from the crown, or a statue's round curls."""
    strands = torch.sin(11 * around + 1.5 * torch.sin(3.3 * y)) + 0.45 * torch.sin(19 * around - 2 * torch.sin(3.1 * y))
    curls = 2.2 * torch.sin(11 * around + torch.sin(9 * y)) * torch.sin(15 * y + 6 * z)
    return 0.7 * lerp(strands, curls, p["curls"])


def _hair(p: Values, s, y, z) -> Tensor:
    around, out = azimuth(s, z), p["hair_out"]
    locks = _locks(p, around, y, z)
    shag = 0.012 * locks + 0.014 * p["fur"] * _tufts(s, y, z)
    side = out * lerp(0.3 + 0.7 * smoothstep(0.05, 0.6, y), 1.0, p["hair_long"])  # short hair lies close at the ears
    cap = ellipsoid(s, y - 0.19, z + 0.13, p["skull_x"] + side, p["skull_y"] + 1.2 * out, 0.66 * p["skull"] + side)
    fall = ellipsoid(s, y + 0.15, z + 0.26, 0.95 * p["skull_x"] + out + 0.03, 0.98, 0.44 + out)
    fall = fall + (1 - p["hair_long"]) * 0.5
    hair = union(cap, fall, 0.1) + shag
    hair = cut(hair, _face_window(p, s, y, z, locks), 0.04)
    end = p["hair_end"] + 0.05 * locks * p["hair_long"] + 0.22 * z.clamp(min=0)
    hair = -union(-hair, y - end, 0.05)
    return hair + 2 * (-out - 0.005).clamp(min=0)  # a bald head's cap lies under the skin: keep it there


def _face_window(p: Values, s, y, z, locks) -> Tensor:
    """What the hair leaves free: the face below a hairline that is ragged where a fringe falls."""
    ragged = 0.025 * p["fringe"] * torch.sin(27 * s + 1.2 + 2 * p["fringe"]) + 0.014 * locks
    top = p["hairline"] + ragged + 0.05 * p["eyes"] - 0.05 - 0.5 * s * s * (1 - p["fringe"])
    width = 0.46 + 0.10 * (1 - p["hair_long"]) + 0.03 * p["hair_out"]
    return ellipsoid(s, y - (top - 0.66), z - 0.70, width, 0.66, 0.66)


def _cloth(s, y, z) -> Tensor:
    shoulders = ellipsoid(s, y + 1.30, z + 0.16, 0.92, 0.46, 0.40)
    collar = ellipsoid(s, y + 0.93, z + 0.14, 0.33, 0.09, 0.31)
    return torch.maximum(union(shoulders, collar, 0.05), FLOOR - y)
