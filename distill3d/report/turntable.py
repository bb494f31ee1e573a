"""Heads that go round, as an animated WebP or GIF."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from distill3d.errors import ShapeError
from distill3d.files import written_aside
from distill3d.report.pictures import PAPER, enlarged, to_picture


def save_turntable(after: Tensor, path: Path, *, before: Tensor | None = None, fps: float = 12) -> None:
    """Write frames (T, S, 3, H, W) in [-1, 1] that loop for ever, the subjects side by side.

    Args:
        path: its ending decides the format, .webp or .gif.
        before: the originals, shown above.
    Raises:
        RunError: if the place cannot be written.
    """
    strips = [after] if before is None else [before, after]
    if any(strip.ndim != 5 or strip.shape != after.shape for strip in strips):
        raise ShapeError(f"Turntables are (T, S, 3, H, W), got {[tuple(strip.shape) for strip in strips]}.")
    frames = [_frame([strip[i] for strip in strips]) for i in range(len(after))]
    duration = round(1000 / fps)
    with written_aside(path) as aside:
        frames[0].save(aside, save_all=True, append_images=frames[1:], duration=duration, loop=0, quality=82)


def _frame(rows: list[Tensor]) -> Image.Image:
    """Rows of subjects, each (S, 3, H, W)."""
    pictures = [[enlarged(to_picture(image)) for image in row] for row in rows]
    width, height = pictures[0][0].size
    frame = Image.new("RGB", (width * len(pictures[0]), height * len(pictures)), PAPER)
    for y, row in enumerate(pictures):
        for x, picture in enumerate(row):
            frame.paste(picture, (x * width, y * height))
    return frame
