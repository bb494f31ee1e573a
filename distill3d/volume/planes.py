"""Features of a point from axis-aligned planes or grids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    places = _places(planes, points, axes, box_side)
    look_up = _grid_sample if lookup == "fast" else _gather_corners
    found = look_up(planes.flatten(0, 1), places.flatten(0, 1), padding, align_corners)  # (S*P, C, N)
    return found.unflatten(0, planes.shape[:2])


def _places(planes: Tensor, points: Tensor, axes: Axes, box_side: float) -> Tensor:
    """Where in every plane (or grid) the points are: (S, P, N, 2 or 3) in [-1, 1] inside the box."""
    _check(planes, points, axes)
    return torch.stack([points[..., list(a)] for a in axes], 1) * (2 / box_side)


def _check(planes: Tensor, points: Tensor, axes: Axes) -> None:
    flat = planes.ndim - 3  # 2 for planes, 3 for grids
    fitting = flat in (2, 3) and points.ndim == 3 and len(points) == len(planes) and len(axes) == planes.shape[1]
    if not fitting or any(len(a) != flat for a in axes):
        raise ShapeError(
            "Planes (S, P, C, [D,] H, W) take points (S, N, 3) and one tuple of 2 (grids: 3) axes for each of P, "
            f"got {tuple(planes.shape)}, {tuple(points.shape)} and {tuple(axes)}."
        )


def _grid_sample(grids: Tensor, places: Tensor, padding: Padding, align_corners: bool) -> Tensor:
    flat = places.shape[-1]
    places = places.reshape(len(places), *[1] * (flat - 1), -1, flat)
    return F.grid_sample(grids, places, "bilinear", padding, align_corners).flatten(2)


def _gather_corners(grids: Tensor, places: Tensor, padding: Padding, align_corners: bool) -> Tensor:
    """The same as sums over the 2^k corners of the cell, one gather each."""
    table = grids.movedim(1, -1).reshape(-1, grids.shape[1])  # (B*[D*]H*W, C)
    first = torch.arange(len(grids), device=grids.device)[:, None] * grids[0, 0].numel()
    total = table.new_zeros(*places.shape[:2], table.shape[1])
    for index, share in _corners(grids.shape[2:], places, padding, align_corners):
        total = total + F.embedding(first + index, table) * share[..., None]
    return total.movedim(-1, 1)


def _corners(
    shape: Sequence[int], places: Tensor, padding: Padding, align_corners: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The 2^k corners of each place's cell: number in a flattened grid ([D,] H, W), and share, both (B, N)."""
    sizes = list(shape)[::-1]  # W, H, [D]: the order of the coordinates
    ends = [_ends(places[..., axis], size, padding, align_corners) for axis, size in enumerate(sizes)]
    return _products(ends, sizes)


Ends = list[tuple[Tensor, Tensor]]  # the two neighbours along one axis: number and share


def _ends(place: Tensor, size: int, padding: Padding, align_corners: bool) -> Ends:
    """Of a coordinate in [-1, 1]. Shares fall to 0 within a cell, so that outside of the box nothing is left."""
    cell = (place + 1) * ((size - 1) / 2) if align_corners else (place + 1) * (size / 2) - 0.5
    if padding == "border":
        cell = cell.clamp(0, size - 1)
    low = cell.detach().floor().clamp(0, max(0, size - 2))
    above = cell - low
    ends = [(low.int(), (1 - above.abs()).relu())]
    return ends if size == 1 else [*ends, (low.int() + 1, (1 - (above - 1).abs()).relu())]


def _products(ends: Sequence[Ends], sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Every combination of neighbours along the axes; `sizes` from the fastest to the slowest."""
    for corner in product(*ends):
        (index, share), *others = corner
        stride = 1
        for size, (more, factor) in zip(sizes, others):
            stride *= size
            index, share = index + stride * more, share * factor
        yield index, share


def mean_of_planes(planes: Tensor, points: Tensor, axes: Axes, box_side: float) -> Tensor:
    """`sample_planes(...).mean(1)`, a row for each point: EG3D's, PanoHead's and OpenLRM's reduction.

    On the CPU one weighted sum of rows of a table takes the place of a look-up for each plane: two thirds of the time
    forwards, half backwards (benchmarks/eg3d_step.py), and what a decoder reads comes out contiguous.

    Args:
        planes, points, axes, box_side: see `sample_planes`.
    Returns:
        (S, N, C).
    """
    if planes.is_cuda:
        return sample_planes(planes, points, axes, box_side).mean(1).transpose(1, 2)
    _check(planes, points, axes)
    subjects = len(planes)
    table = planes.movedim((1, 2), (-2, -1)).reshape(-1, planes.shape[2])  # (S*[D*]H*W*P, C): a view of channels last
    index, share = _rows_of_planes(planes.shape[3:], points * (2 / box_side), axes)  # (S, N, P * 2^k)
    first = torch.arange(subjects, device=planes.device, dtype=torch.int32) * (len(table) // subjects)
    index = (index + first[:, None, None]).flatten(0, 1)
    return _WeightedRows.apply(table, index, share.flatten(0, 1)).unflatten(0, (subjects, -1))


def _rows_of_planes(shape: Sequence[int], places: Tensor, axes: Axes) -> tuple[Tensor, Tensor]:
    """Rows of a table ([D,] H, W, P), and how much each counts in the mean over P; places (S, N, 3) in [-1, 1]."""
    sizes = list(shape)[::-1]  # W, H, [D]: the order of the coordinates
    wanted = {(axis, size) for plane in axes for axis, size in zip(plane, sizes)}
    ends = {(axis, size): _ends(places[..., axis], size, "zeros", False) for axis, size in wanted}
    rows, shares = [], []
    for number, plane in enumerate(axes):
        for index, share in _products([ends[key] for key in zip(plane, sizes)], sizes):
            rows.append(index * len(axes) + number)
            shares.append(share / len(axes))
    return torch.stack(rows, -1), torch.stack(shares, -1)


class _WeightedRows(torch.autograd.Function):
    """Sums of rows of a table: table (T, C), index and share (N, k) to (N, C).

    `embedding_bag`, whose own backward takes twice the time of adding one column of indices after the other.
    """

    BLOCK = 8192  # rows whose gradient stays in the cache while its columns are added

    @staticmethod
    def forward(context: Any, table: Tensor, index: Tensor, share: Tensor) -> Tensor:
        context.save_for_backward(table, index, share)
        return F.embedding_bag(index, table, per_sample_weights=share, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, index, share = context.saved_tensors
        wants_table, _, wants_share = context.needs_input_grad
        for_table = torch.zeros_like(table) if wants_table else None
        if for_table is not None:
            columns, block = index.T.long().contiguous(), _WeightedRows.BLOCK  # 64 bits: index_add_ is slow with 32
            for some, rows, weights in zip(grad.split(block), columns.split(block, 1), share.T.split(block, 1)):
                for row, weight in zip(rows, weights):
                    for_table.index_add_(0, row, some * weight[:, None])
        for_share = [(grad * table[rows]).sum(1) for rows in index.unbind(1)] if wants_share else None
        return for_table, None, None if for_share is None else torch.stack(for_share, 1)
