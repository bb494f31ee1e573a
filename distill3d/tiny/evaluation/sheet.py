"""Source, stylised and true pictures one below the other: what the numbers are about."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from distill3d.report.pictures import GAP, PAIR_GAP, enlarged, paste_grid, to_picture

COLUMNS, BLOCKS = 8, 2
ROWS = ("source", "stylised", "truth")


def style_sheet(source: Tensor, stylised: Tensor, truth: Tensor) -> Image.Image:
    """A 6 x 8 sheet of 16 subjects: two blocks of three rows.

    Args:
        source, stylised, truth: (S, 3, H, W) in [-1, 1] of the same subjects and cameras; the first 16 are shown, or
            as many as each has.
    """
    count = min(COLUMNS * BLOCKS, len(source), len(stylised), len(truth))
    rows, labels, gaps = [], [], []
    for start in range(0, count, COLUMNS):
        part = slice(start, min(start + COLUMNS, count))
        for label, pictures in zip(ROWS, (source, stylised, truth)):
            tiles = [enlarged(to_picture(picture)) for picture in pictures[part]]
            rows.append(tiles + [Image.new("RGB", tiles[0].size, "white")] * (min(COLUMNS, count) - len(tiles)))
            labels.append(label)
            gaps.append(GAP if label == ROWS[-1] else PAIR_GAP)
    size = rows[0][0].size
    rows = [[tile.resize(size, Image.Resampling.LANCZOS) for tile in row] for row in rows]
    return paste_grid(rows, labels, [], gaps)
