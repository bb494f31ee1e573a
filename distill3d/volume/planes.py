"""Features of a point from axis-aligned planes or grids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.errors import ShapeError

Axes = Sequence[tuple[int, ...]]  # for each plane: the world axis along its width, its height (and its depth)
Lookup = Literal["fast", "deterministic"]
Padding = Literal["zeros", "border"]

XY_XZ_ZY: Axes = ((0, 1), (0, 2), (2, 1))  # OpenLRM
XY_XZ_YZ: Axes = ((0, 1), (0, 2), (1, 2))  # TripoSR
EG3D_AXES: Axes = ((0, 1), (0, 2), (2, 0))  # as released: two of the three span x and z; the weights depend on it
PANOHEAD_AXES: Axes = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # tri-grid


def sample_planes(
    planes: Tensor,
    points: Tensor,
    axes: Axes,
    box_side: float,
    *,
    lookup: Lookup = "fast",
    padding: Padding = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """Linear interpolation in every plane (or grid) at the projections of points.

    Args:
        planes: (S, P, C, H, W), or (S, P, C, D, H, W) for tri-grids.
        points: (S, N, 3), world units.
        axes: P tuples; the first names the world axis along W, the second along H, the third (grids) along D.
        box_side: the planes span [-box_side / 2, box_side / 2].
        lookup: "fast" is `grid_sample`, whose backward on CUDA adds in no fixed order. "deterministic" gathers the
            corners with `embedding`, whose CUDA backward sorts before it adds, and repeats bit for bit; measured
            3 to 10 times slower on the CPU, where both repeat.
        padding: outside the box: "zeros" fades to 0 over half a cell, "border" repeats the rim.
        align_corners: whether the box ends at the centres of the outermost cells, as in `grid_sample`.
    Returns:
        (S, P, C, N). Mean, sum or concatenation over P is the caller's convention.
    Raises:
        ShapeError: if the shapes or axes do not belong together.
    """
    flat = planes.ndim - 3  # 2 for planes, 3 for grids
    fitting = flat in (2, 3) and points.ndim == 3 and len(points) == len(planes) and len(axes) == planes.shape[1]
    if not fitting or any(len(a) != flat for a in axes):
        raise ShapeError(
            "Planes (S, P, C, [D,] H, W) take points (S, N, 3) and one tuple of 2 (grids: 3) axes for each of P, "
            f"got {tuple(planes.shape)}, {tuple(points.shape)} and {tuple(axes)}."
        )
    places = torch.stack([points[..., list(a)] for a in axes], 1) * (2 / box_side)  # (S, P, N, 2 or 3) in [-1, 1]
    look_up = _grid_sample if lookup == "fast" else _gather_corners
    found = look_up(planes.flatten(0, 1), places.flatten(0, 1), padding, align_corners)  # (S*P, C, N)
    return found.unflatten(0, planes.shape[:2])


def _grid_sample(grids: Tensor, places: Tensor, padding: Padding, align_corners: bool) -> Tensor:
    flat = places.shape[-1]
    places = places.reshape(len(places), *[1] * (flat - 1), -1, flat)
    return F.grid_sample(grids, places, "bilinear", padding, align_corners).flatten(2)


def _gather_corners(grids: Tensor, places: Tensor, padding: Padding, align_corners: bool) -> Tensor:
    """The same as sums over the 2^k corners of the cell, one gather each."""
    sizes = list(grids.shape[2:])[::-1]  # W, H, [D]: the order of the coordinates
    extent = places.new_tensor(sizes)
    cell = (places + 1) / 2 * (extent - 1) if align_corners else ((places + 1) * extent - 1) / 2
    if padding == "border":
        cell = torch.minimum(cell.clamp(min=0), extent - 1)
    corner = cell.detach().floor()
    fraction = cell - corner
    table = grids.movedim(1, -1).reshape(-1, grids.shape[1])  # (B*[D*]H*W, C)
    first = torch.arange(len(grids), device=grids.device)[:, None] * grids[0, 0].numel()
    total = table.new_zeros(*places.shape[:2], table.shape[1])
    for offset in product((0, 1), repeat=len(sizes)):
        at = corner + corner.new_tensor(offset)
        inside = ((at >= 0) & (at < extent)).all(-1)
        index, stride = first, 1
        for axis, size in enumerate(sizes):
            index = index + at[..., axis].clamp(0, size - 1).long() * stride
            stride *= size
        share = torch.stack([fraction[..., k] if o else 1 - fraction[..., k] for k, o in enumerate(offset)]).prod(0)
        total = total + F.embedding(index, table) * (share * inside)[..., None]
    return total.movedim(-1, 1)
