"""Tensors to pictures, and pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distill3d.errors import ShapeError
from distill3d.files import written_aside

PAPER, INK = (255, 255, 255), (60, 60, 66)
GAP, PAIR_GAP = 14, 3  # pixels between subjects, and between a subject's two rows
SMALLEST = 112  # smaller tiles are enlarged to at least this
LABEL = 13  # text height


def to_uint8(images: Tensor) -> np.ndarray:
    """(..., 3, H, W) in [-1, 1] to (..., H, W, 3) bytes; what lies outside is clipped."""
    scaled = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return scaled.movedim(-3, -1).numpy()


def to_picture(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to a picture."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ShapeError(f"A picture has shape (3, H, W), got {tuple(image.shape)}.")
    return Image.fromarray(to_uint8(image))


def enlarged(picture: Image.Image) -> Image.Image:
    """By a whole factor, until it is no smaller than `SMALLEST`."""
    factor = -(-SMALLEST // picture.width)
    return (
        picture
        if factor <= 1
        else picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.LANCZOS)
    )


def save_picture(picture: Image.Image, path: Path, **options: object) -> None:
    """Write a picture, whole or not at all; the ending of the name decides the format.

    Raises:
        RunError: if the place cannot be written.
    """
    with written_aside(path) as aside:
        picture.save(aside, **options)  # type: ignore[arg-type]


def before_after_sheet(
    before: Tensor, after: Tensor, *, subject_labels: Sequence[str], view_labels: Sequence[str]
) -> Image.Image:
    """For each subject its original views, and right below them the stylised ones.

    Args:
        before, after: (S, V, 3, H, W) in [-1, 1].
        subject_labels, view_labels: S and V words.
    """
    if before.shape != after.shape or before.ndim != 5:
        raise ShapeError(
            f"A sheet compares two (S, V, 3, H, W) tensors, got {tuple(before.shape)} and {tuple(after.shape)}."
        )
    rows = [pair for subject in zip(before, after) for pair in subject]
    tiles = [[enlarged(to_picture(image)) for image in row] for row in rows]
    labels = [label for name in subject_labels for label in (name, "stylised")]
    gaps = [PAIR_GAP if i % 2 == 0 else GAP for i in range(len(rows))]
    return paste_grid(tiles, labels, view_labels, gaps)


def contact_sheet(tiles: Tensor, row_labels: Sequence[str], column_labels: Sequence[str]) -> Image.Image:
    """Tiles (R, C, 3, H, W) in [-1, 1] as a labelled table."""
    rows = [[enlarged(to_picture(image)) for image in row] for row in tiles]
    return paste_grid(rows, row_labels, column_labels, [PAIR_GAP] * len(rows))


def paste_grid(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    gaps: Sequence[int],  # below each row
) -> Image.Image:
    """Pictures of one size in rows, words at the left of each row and above each column."""
    font = ImageFont.load_default(LABEL)
    width, height = rows[0][0].size
    left = 12 + max((int(font.getlength(label)) for label in row_labels), default=0) + 8
    top = 2 * LABEL + 4
    size = (
        left + len(rows[0]) * (width + PAIR_GAP) + GAP - PAIR_GAP,
        top + len(rows) * height + sum(gaps),
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, label in enumerate(column_labels):
        middle = left + i * (width + PAIR_GAP) + width / 2
        draw.text((middle, top / 2), label, fill=INK, font=font, anchor="mm")
    y = top
    for row, label, gap in zip(rows, row_labels, gaps):
        draw.text((left - 8, y + height / 2), label, fill=INK, font=font, anchor="rm")
        for i, picture in enumerate(row):
            sheet.paste(picture, (left + i * (width + PAIR_GAP), y))
        y += height + gap
    return sheet
