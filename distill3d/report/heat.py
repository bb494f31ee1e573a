"""Numbers over a picture, as colours."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from distill3d.report.pictures import SMALLEST, to_picture

OUTLIERS = 0.005  # share of the values that may lie beyond the end of a scale: a single pixel decides no scale


def top_of(*values: Tensor) -> float:
    """The end of a scale that shows these together: their largest absolute value but for a few."""
    flat = torch.cat([v.detach().abs().flatten().float() for v in values])
    flat = flat[flat.isfinite()]
    if not len(flat):
        return 0.0
    rank = max(1, round(len(flat) * (1 - OUTLIERS)))
    return float(flat.kthvalue(rank).values)


def heat(values: Tensor, top: float) -> Image.Image:
    """(H, W), not negative: black is 0, bright is `top`."""
    return _coloured(values / top if top > 0 else values * 0, "magma")


def signed(values: Tensor, top: float) -> Image.Image:
    """(H, W): white is 0, blue is -`top`, red is `top`."""
    scaled = values / top if top > 0 else values * 0
    return _coloured((scaled + 1) / 2, "RdBu_r")


def tint(change: Tensor, top: float) -> Image.Image:
    """(3, H, W): grey is 0; what a channel gains is brighter, and saturates at `top`."""
    return blocks(to_picture(change / top if top > 0 else change * 0))


def _coloured(scaled: Tensor, colours: str) -> Image.Image:
    from matplotlib import colormaps  # heavy: only when something is drawn

    numbers = torch.nan_to_num(scaled.detach().float().cpu()).clamp(0, 1).numpy()
    return blocks(Image.fromarray(colormaps[colours](numbers, bytes=True)[..., :3]))


def blocks(picture: Image.Image) -> Image.Image:
    """Enlarged by a whole factor, every pixel a square: what is shown are numbers."""
    factor = max(1, -(-SMALLEST // picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
