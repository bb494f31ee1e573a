"""From a cut-out picture to what an image tokenizer reads, as the published programs do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from distill3d.errors import ConfigError, ShapeError

Pixels = NDArray[np.uint8]  # (H, W, 4): red, green, blue, not multiplied by alpha, and alpha
Resize = Literal["antialiased", "bicubic"]
SMALLEST_RATIO = 0.1  # below it a padded photo would fill the memory


@dataclass(frozen=True)
class Preparation:
    """How one published model reads a picture.

    TripoSR: `Preparation(512, 0.5, "antialiased", 0.85, quantised=True)`.
    OpenLRM: `Preparation(224, 1.0, "bicubic", None, quantised=False)`; what its optional helper for photos does is
    `foreground_ratio=0.8, shrink_to=512` (there with one resampling more).
    """

    image_size: int  # side of the result
    composite: float  # grey level behind the cut-out: 0.5 or 1.0
    resize: Resize  # bilinear with antialiasing; or bicubic through the corners, clamped, which does alias
    foreground_ratio: float | None  # longer side of what is seen, divided by the picture's; None: framed as it is
    quantised: bool  # whether the composite is cut off to whole levels of 1/255 before it is resized
    shrink_to: int | None = None  # larger squares are averaged down to this side first

    def __post_init__(self) -> None:
        if self.image_size < 1 or (self.shrink_to is not None and self.shrink_to < 1):
            raise ConfigError(f"Sizes of pictures must be at least 1, got {self.image_size} and {self.shrink_to}.")
        if not 0 <= self.composite <= 1:
            raise ConfigError(f"composite must be a grey level in [0, 1], got {self.composite}.")
        if self.resize not in ("antialiased", "bicubic"):
            raise ConfigError(f"resize must be 'antialiased' or 'bicubic', got {self.resize!r}.")
        if self.foreground_ratio is not None:
            _check_ratio(self.foreground_ratio)

    def __call__(self, rgba: Pixels) -> Tensor:
        """Frame, composite and resize.

        Args:
            rgba: (H, W, 4) uint8. One without any transparency has no foreground to be framed: it is only padded.
        Returns:
            (3, image_size, image_size) float32 in [0, 1].
        Raises:
            ShapeError: if it is no such picture.
            ConfigError: if every pixel is transparent and the foreground is to be framed.
        """
        _check_pixels(rgba)
        if self.foreground_ratio is None or rgba[..., 3].min() == 255:
            square = padded(rgba)
        else:
            square = foreground_square(rgba, self.foreground_ratio)
        if self.shrink_to is not None and len(square) > self.shrink_to:
            square = averaged(square, self.shrink_to)
        return resized(composited(square, self.composite, self.quantised), self.image_size, self.resize)


def foreground_square(rgba: Pixels, ratio: float) -> Pixels:
    """The foreground in the middle of a transparent square, its longer side `ratio` of the square's.

    The published program cuts to the box of alpha > 0 without its last row and column; so does this, except where
    nothing would be left.

    Args:
        rgba: (H, W, 4) uint8.
        ratio: in [0.1, 1].
    Raises:
        ConfigError: if every pixel is transparent.
    """
    _check_pixels(rgba)
    _check_ratio(ratio)
    rows, columns = (np.flatnonzero((rgba[..., 3] > 0).any(axis)) for axis in (1, 0))
    if not rows.size:
        raise ConfigError("Every pixel of the picture is transparent: there is no foreground to reconstruct.")
    cut = rgba[_span(rows), _span(columns)]
    return padded(cut, int(max(cut.shape[:2]) / ratio))


def padded(rgba: Pixels, side: int | None = None) -> Pixels:
    """In the middle of a transparent square of that side, or of the longer side's."""
    longer = max(rgba.shape[:2])
    around = longer if side is None else side
    # Two paddings: the published halves are rounded one after the other.
    return _centred(_centred(rgba, longer), around)


def averaged(rgba: Pixels, side: int) -> Pixels:
    """A square averaged over areas to a smaller side; what is transparent does not bleed its colour."""
    return np.asarray(Image.fromarray(rgba).resize((side, side), Image.Resampling.BOX))


def composited(rgba: Pixels, grey: float, quantised: bool) -> Tensor:
    """Before a grey level: (H, W, 3) float32 in [0, 1], cut off to whole levels of 1/255 if quantised."""
    levels = rgba.astype(np.float32) / np.float32(255)
    colour, alpha = levels[..., :3], levels[..., 3:]
    mixed = colour * alpha + (1 - alpha) * np.float32(grey)
    if quantised:
        mixed = (mixed * np.float32(255)).astype(np.uint8).astype(np.float32) / np.float32(255)
    return torch.from_numpy(mixed)


def resized(colours: Tensor, side: int, resize: Resize) -> Tensor:
    """(H, W, 3) to (3, side, side), both in [0, 1]; what is not square is stretched."""
    batch = colours.permute(2, 0, 1)[None]
    if resize == "antialiased":
        return F.interpolate(batch, (side, side), mode="bilinear", align_corners=False, antialias=True)[0]
    return F.interpolate(batch, (side, side), mode="bicubic", align_corners=True)[0].clamp(0, 1)


def _span(places: NDArray[np.intp]) -> slice:
    first, last = int(places[0]), int(places[-1])
    return slice(first, max(last, first + 1))


def _centred(rgba: Pixels, side: int) -> Pixels:
    height, width = rgba.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(rgba, ((top, side - height - top), (left, side - width - left), (0, 0)))


def _check_pixels(rgba: Pixels) -> None:
    if rgba.ndim != 3 or rgba.shape[2] != 4 or rgba.dtype != np.uint8 or not rgba.size:
        raise ShapeError(f"A picture must be (H, W, 4) uint8, got {tuple(rgba.shape)} {rgba.dtype}.")


def _check_ratio(ratio: float) -> None:
    if not SMALLEST_RATIO <= ratio <= 1:
        raise ConfigError(
            f"foreground_ratio must lie in [{SMALLEST_RATIO}, 1], got {ratio}. It is the share of the picture's side "
            "that the foreground fills: 0.85 is usual."
        )
