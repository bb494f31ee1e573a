"""Light, marble and pencil: from the colour of a point to the colour in the picture.

The light is fixed to the world and symmetric in x, so that a symmetric head looks the same from mirrored cameras.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill3d.tiny.world.anatomy import Colour, Values, lerp, smoothstep
from distill3d.tiny.world.colour import luminance, mix
from distill3d.tiny.world.shape import azimuth


def shade(
    p: Values,
    colour: Colour,
    point: Colour,
    normal: Colour,
    facing: Tensor,
    open_sky: Tensor,
    weights: Sequence[Tensor],
) -> Tensor:
    """(3, N) RGB in [0, 1].

    Args:
        colour: albedo, three of (N,).
        point, normal: three of (N,), head units and unit length.
        facing: (N,) cosine between the ray and the normal, 0 at the contour.
        open_sky: (N,) in [0, 1], 0 in a crevice (ambient occlusion).
        weights: of each part, as `colour.materials` gives them.
    """
    colour = mix(colour, _marble(p, colour, point), p["stone"])
    lit = _light(p, colour, normal, point, open_sky, weights)
    grey = luminance(lit)
    lit = mix(grey, lit, p["saturation"])
    lit = mix(lit, _pencil(p, grey, luminance(colour), point, facing, weights), p["pencil"])
    return torch.stack(lit).clamp(0, 1)


def _light(p: Values, colour: Colour, normal: Colour, point: Colour, open_sky: Tensor, weights) -> Colour:
    x, y, z = normal
    side = x.abs()
    key = (0.60 * y + 0.80 * z).clamp(min=0)
    fill = (0.85 * side + 0.15 * y + 0.10 * z).clamp(min=0)
    back = (-0.80 * z + 0.50 * y + 0.30 * side).clamp(min=0)
    ambient = (0.34 + 0.12 * y) * (0.35 + 0.65 * open_sky)
    contrast = 1 + 0.5 * p["stone"]
    light = ambient + 0.66 * key**contrast * (0.5 + 0.5 * open_sky) + 0.16 * fill + 0.30 * back
    skin, _, lips, _, hair, _ = weights
    spot = (0.55 * y + 0.835 * z).clamp(min=0) ** 24 * (skin + 0.5 * lips)
    strand = 0.6 + 0.4 * torch.sin(42 * azimuth(point[0].abs(), point[2]))
    ring = torch.exp(-(((y - 0.72) / 0.16) ** 2)) * strand * hair  # hair shines in a band, not in a spot
    red, green, blue = (c * light + 0.55 * p["gloss"] * (spot + 0.9 * ring) for c in colour)
    return red, green, blue


def _marble(p: Values, colour: Colour, point: Colour) -> Colour:
    """Pale stone: a little of the colour's own brightness, and soft clouds."""
    x, y, z = point
    clouds = torch.sin(3.1 * x.abs() + 2.3 * y + 1.5 * torch.sin(2.7 * z + 3 * y)) * torch.sin(2.2 * y - 3.4 * z)
    stone = lerp(0.80, luminance(colour), 0.22) * (1 + 0.07 * clouds)
    return stone, 0.985 * stone, 0.95 * stone


def _pencil(p: Values, grey: Tensor, ink: Tensor, point: Colour, facing: Tensor, weights) -> Colour:
    """Paper, contours, and lines whose width follows the shadow; wide apart, so that 64 pixels can hold them."""
    x, y, z = point
    s = x.abs()
    hair, cloth = weights[4], weights[5]
    slanted = torch.sin(25 * (0.8 * s - 0.6 * y + 0.2 * z))
    fallen = torch.sin(17 * azimuth(s, z) + 1.5 * torch.sin(3 * y)) + 0.5 * torch.sin(29 * azimuth(s, z))
    lines = lerp(slanted, fallen, hair)
    light = grey / ink.clamp(min=0.05)
    dark = (0.95 - 1.1 * light + 0.30 * hair * (1 - ink)).clamp(0, 1)
    stroke = smoothstep(-0.5, 0.7, lines - 1.5 + 2.2 * dark)
    tone = 1 - lerp(0.20, 0.42, hair) * stroke - 0.30 * dark - lerp(0.30, 0.45, hair) * (0.75 - ink).clamp(min=0)
    outline = smoothstep(0.18, 0.48, facing)
    features = (weights[3] + 0.6 * weights[2] + weights[1] * smoothstep(0.55, 0.25, ink)).clamp(max=1)
    tone = tone * (0.15 + 0.85 * outline) * (1 - 0.75 * features) + 0.04 * cloth
    return 0.96 * tone, 0.95 * tone, 0.93 * tone
