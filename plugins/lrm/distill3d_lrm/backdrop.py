"""A subject before a backdrop of one colour, cut out: what the border reaches in that colour is backdrop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from distill3d_lrm.preparation import Pixels

Mask = NDArray[np.bool_]
TOLERANCE = 20  # largest difference of a channel, of 255; JPEG's rings and a little shading stay below it
SMALLEST_TOLERANCE = 8
LEAST_SHARE = 0.5  # of the border, in the backdrop's colour; a portrait leaves about 0.6
MOST_SPECKS = 0.02  # of the border, in runs too short to be the subject
MOST_TOUCHES = 4  # runs of the border that the subject may take
LEAST_SHARP = 0.7  # of the subject's outline, where the colour steps and does not shade off


@dataclass(frozen=True)
class Backdrop:
    """What the border of a picture says about what is behind the subject."""

    distance: NDArray[np.uint8]  # (H, W): of each pixel from the backdrop's colour, the largest of the channels
    tolerance: int
    even: bool  # whether the border is of this colour, but for where a subject touches it


def backdrop(rgba: Pixels) -> Backdrop:
    """The colour that most of the border has."""
    ring = _border(rgba[..., :3]).astype(np.int16)
    colour = _commonest(ring)
    distance = np.abs(rgba[..., :3].astype(np.int16) - colour).max(-1).astype(np.uint8)
    around = _border(distance)
    near = around <= TOLERANCE
    # As strict as the backdrop is even, so that a light face before white does not leak out.
    spread = int(np.percentile(around[near], 99)) if near.any() else 0
    return Backdrop(distance, max(SMALLEST_TOLERANCE, min(TOLERANCE, 2 * spread + 4)), _is_even(near))


def subject(behind: Backdrop) -> Mask:
    """What the backdrop does not reach from the border, (H, W), without specks."""
    open_ = behind.distance <= behind.tolerance
    seeds = np.zeros_like(open_)
    for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        seeds[side] = open_[side]
    mask = ~reachable(open_, seeds)
    return reachable(mask, _filtered(mask, ImageFilter.MinFilter(3)) > 0)


def stands_out(behind: Backdrop, mask: Mask) -> bool:
    """Whether the outline of a subject is an edge: a photograph that shades off from its commonest colour has none."""
    outline = mask & (_filtered(~mask, ImageFilter.MaxFilter(3)) > 0)
    step = np.asarray(Image.fromarray(behind.distance).filter(ImageFilter.MaxFilter(7)))
    return float((step[outline] > 2 * TOLERANCE).mean()) >= LEAST_SHARP


def soft(mask: Mask) -> NDArray[np.uint8]:
    """Alpha of a mask: a pixel at the edge counts with the subject's share of its 3 x 3 neighbourhood, none outside.

    At the border of the picture the subject goes on.
    """
    height, width = mask.shape
    wide = np.pad(mask, 1, mode="edge").astype(np.uint16)
    total = sum(wide[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return np.where(mask, total * 255 // 9, 0).astype(np.uint8)


def reachable(open_: Mask, seeds: Mask) -> Mask:
    """The pixels of `open_` that steps to the four neighbours reach from `seeds`, both (H, W)."""
    runs = _runs(open_)
    above, below = runs[:-1], runs[1:]
    touching = (above > 0) & (below > 0)
    part = _parts(int(runs.max()) + 1, above[touching], below[touching])[runs]
    hit = np.zeros(int(part.max()) + 1, bool)
    hit[part[seeds & open_]] = True
    return hit[part]


def _runs(open_: Mask) -> NDArray[np.int64]:
    """The number of the run of open pixels in its row, from 1 on; 0 where none is."""
    before = np.zeros_like(open_)
    before[:, 1:] = open_[:, :-1]
    return np.where(open_, np.cumsum(open_ & ~before).reshape(open_.shape), 0)


def _parts(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest member of each one's connected part, where pairs of `one` and `other` are connected.

    Few rounds for any shape, a labyrinth too: in each, every part joins its smallest neighbour.
    """
    smallest = np.arange(count)
    while True:
        first, second = smallest[one], smallest[other]
        if (first == second).all():
            return smallest
        np.minimum.at(smallest, np.maximum(first, second), np.minimum(first, second))
        while (smallest[smallest] != smallest).any():
            smallest = smallest[smallest]


def _border(pixels: NDArray[Any]) -> NDArray[Any]:
    """Once around: top, right, bottom, left."""
    return np.concatenate([pixels[0], pixels[1:, -1], pixels[-1, -2::-1], pixels[-2:0:-1, 0]])


def _commonest(ring: NDArray[np.int16]) -> NDArray[np.int16]:
    """The middle of the fullest neighbourhood of colours in (N, 3)."""
    bins = ring // 16
    kinds, counts = np.unique(bins, axis=0, return_counts=True)
    near = np.abs(ring - (kinds[counts.argmax()] * 16 + 8)).max(-1) <= 8 + TOLERANCE // 2
    return np.median(ring[near], axis=0).astype(np.int16)


def _is_even(near: Mask) -> bool:
    if near.all():
        return True
    if near.mean() < LEAST_SHARE:
        return False
    around = np.roll(near, -int(np.flatnonzero(near)[0]))  # begins in the backdrop, so no run is cut
    edges = np.flatnonzero(np.diff(np.concatenate([around, [True]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    short = lengths < max(2, len(near) // 100)
    return lengths[short].sum() <= MOST_SPECKS * len(near) and (~short).sum() <= MOST_TOUCHES


def _filtered(mask: Mask, kind: ImageFilter.Filter) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(kind))
