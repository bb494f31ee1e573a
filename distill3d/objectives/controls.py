"""Control pictures: what ties the score to the structure of the reference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill3d.errors import MissingExtraError, UnknownNameError
from distill3d.objectives.term import Needs, Side
from distill3d.renderer import Stage
from distill3d.views import ViewLayout, fit

Control = Callable[[Side, ViewLayout, Stage, int], Tensor]  # reference, layout, stage, size to (S, 3, H, W) in [0, 1]


def depth_picture(depth: Tensor, opacity: Tensor) -> Tensor:
    """Distance along the ray to what a depth ControlNet was taught: near is bright, background 0.

    `opacity * normalise(1/depth)`, the range taken over opacity > 0.5, view by view.

    Args:
        depth, opacity: (..., 1, h, w), world units and [0, 1].
    Returns:
        (..., 1, h, w) in [0, 1]; 0 where nothing is in sight.
    """
    near = 1 / depth.clamp_min(1e-6)
    solid = opacity > 0.5
    low = near.masked_fill(~solid, torch.inf).amin((-1, -2), keepdim=True)
    high = near.masked_fill(~solid, -torch.inf).amax((-1, -2), keepdim=True)
    span = high - low
    visible = span.isfinite() & (span > 0)
    scaled = torch.where(visible, (near - low) / span.where(visible, torch.ones_like(span)), torch.zeros_like(near))
    return opacity * scaled.clamp(0, 1)


def depth_control(reference: Side, layout: ViewLayout, stage: Stage, size: int) -> Tensor:
    """The reference's own depth: exact and free. `stage` does not matter."""
    tile = layout.tile(size)
    depth = fit(torch.cat([reference.views[view].depth for view in layout.shown], 1), tile)
    picture = depth_picture(depth, reference.opacity(layout.shown, tile))
    return layout.join(picture).expand(-1, 3, -1, -1)


def canny_edges(images: Tensor) -> Tensor:
    """OpenCV's Canny edges, thresholds 50 and 250 on the red channel, as the released script finds them.

    Args:
        images: (B, 3, H, W) in [-1, 1].
    Returns:
        (B, H, W) of 0 and 1.
    Raises:
        MissingExtraError: without the `control` extra.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("The canny control", "control") from error
    red = ((images[:, 0].detach().clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
    edges = torch.stack([torch.from_numpy(cv2.Canny(picture.numpy(), 50, 250)) for picture in red])
    return edges.to(images) / 255


def canny_control(reference: Side, layout: ViewLayout, stage: Stage, size: int) -> Tensor:
    """The edges of the reference's pictures; see `canny_edges`."""
    tiles = reference.tiles(layout.shown, stage, layout.tile(size))
    edges = canny_edges(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
    return layout.join(edges[:, :, None]).expand(-1, 3, -1, -1)


CONTROLS: dict[str, Control] = {"depth": depth_control, "canny": canny_control}


def control_needs(names: tuple[str, ...], layout: ViewLayout, stage: Stage) -> Needs:
    """What of the reference these controls read.

    Raises:
        UnknownNameError: for a control that nobody makes.
    """
    for name in names:
        if name not in CONTROLS:
            raise UnknownNameError("control", name, CONTROLS)
    if not names:
        return Needs()
    return Needs(reference=dict.fromkeys(layout.shown, stage if "canny" in names else "raw"))
