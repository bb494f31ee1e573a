"""Changes of weights in few bytes: which tensors as products of two thin matrices, split where, of which rank.

A tensor of shape (a, b, c, ...) is a matrix in several ways: the first k axes down, the others across. A change of a
convolution is often simple across its kernel and its channels at once, (out x in, kernel), where it is not across
(out, in x kernel); so every split is tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LEVELS = 127  # of eight bits, on each side of 0
SCALE_BYTES, ENTRY_BYTES = 4, 100  # of a float32; of one tensor more in a header
# Share of its energy that a component loses when its two vectors are rounded: 2 (c / LEVELS)^2 / 12 for a largest
# number of c times the mean one. c is 4 for some thousand normal ones.
ROUNDED = 2e-4


@dataclass(frozen=True)
class Choice:
    """One way to store a change."""

    form: Literal["half", "rows", "factors"]  # all of it in float16, all of it in eight bits, or two factors in those
    bytes: int
    lost: float  # energy (sum of squares) of the change that it leaves out, about
    rows: int = 0  # of the matrix; not for "half"
    rank: int = 0  # of "factors"


def splits(shape: Sequence[int]) -> list[int]:
    """The numbers of rows that a tensor of this shape can have as a matrix."""
    return sorted({math.prod(shape[:axes]) for axes in range(1, len(shape))})


def choose(changes: Mapping[str, Tensor], lost: float, *, most: float = 1.0) -> dict[str, Choice]:
    """The fewest bytes (nearly) that lose at most `lost` of the changes' energy, all tensors together.

    Each tensor's choices have a lower hull of energy lost over bytes, which falls ever less steeply. Going down all
    hulls at once, always where a byte saves most, is the best for every sum of bytes that it passes.

    Args:
        changes: float64, by name.
        most: the share of its own energy that a tensor may lose: a small one can matter as much as a large one.
    """
    choices = {name: _choices(change) for name, change in changes.items()}
    hulls = {name: _hull(each) for name, each in choices.items()}
    allowed = {name: most * hull[0].lost for name, hull in hulls.items()}
    chosen = {name: next(c for c in hull if c.lost <= allowed[name]) for name, hull in hulls.items()}
    left = math.fsum(choice.lost for choice in chosen.values())
    for _, name, place in sorted(_descents(hulls)):
        if left <= lost:
            break
        others, following = left - chosen[name].lost, hulls[name][place]
        if following.lost >= chosen[name].lost:
            continue
        if others + following.lost <= lost:  # the last: what lies above the hull may do, with fewer bytes
            spare = min(lost - others, allowed[name])
            following = min((c for c in choices[name] if c.lost <= spare), key=_size, default=following)
        chosen[name], left = following, others + following.lost
    return chosen


def factors(change: Tensor, rows: int, rank: int) -> tuple[Tensor, Tensor]:
    """The two matrices (rows, rank) and (rank, columns) whose product is nearest to the change."""
    matrix = change.reshape(rows, -1)
    if matrix.shape[0] > matrix.shape[1]:
        right, left = _factors(matrix.T, rank)
        return left.T, right.T
    return _factors(matrix, rank)


def _factors(wide: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    basis = torch.linalg.eigh(wide @ wide.T)[1].flip(1)[:, :rank]
    return basis, basis.T @ wide


def in_eight_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers (m, n) from -127 to 127, int8, and the scale (m,) of each row."""
    scale = rows.abs().amax(1) / LEVELS
    scale = torch.where(scale > 0, scale, 1.0)
    return (rows / scale[:, None]).round().to(torch.int8), scale


def _choices(change: Tensor) -> list[Choice]:
    """Every way of every split."""
    size = change.numel()
    found = [Choice("half", 2 * size, 0.0)]
    if size == 0:
        return found
    for rows in splits(change.shape):
        matrix = change.reshape(rows, -1)
        numbers, scale = in_eight_bits(matrix)
        rounded = float((numbers * scale[:, None] - matrix).square().sum())
        found.append(Choice("rows", size + SCALE_BYTES * rows, rounded, rows))
        lost = _lost(matrix)
        component = rows + size // rows + SCALE_BYTES
        for rank in range(min(len(lost), math.ceil(2 * size / component))):  # beyond that "half" is smaller
            about = lost[rank] + ROUNDED * (lost[0] - lost[rank])
            found.append(Choice("factors", ENTRY_BYTES + rank * component, about, rows, rank))
    return found


def _lost(matrix: Tensor) -> list[float]:
    """Energy that the nearest matrix of rank 0, 1, 2, ... leaves out.

    From the small side's products: many times faster than a singular value decomposition, and the energies that it
    blurs are below 1e-15 of the whole.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    energies = torch.linalg.eigvalsh(wide @ wide.T).clamp(min=0)
    return [*energies.cumsum(0).flip(0).tolist(), 0.0]


def _hull(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no mixture of two others beats, from the fewest bytes on."""
    hull: list[Choice] = []
    for choice in sorted(choices, key=_size):
        if hull and choice.lost >= hull[-1].lost:
            continue
        while len(hull) >= 2 and _slope(hull[-2], choice) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(choice)
    return hull


def _descents(hulls: Mapping[str, Sequence[Choice]]) -> Iterator[tuple[float, str, int]]:
    """(slope, name, place on the hull that it leads to)."""
    for name, hull in hulls.items():
        slopes = itertools.starmap(_slope, itertools.pairwise(hull))
        for place, slope in enumerate(itertools.accumulate(slopes, max), 1):  # in order, however they were rounded
            yield slope, name, place


def _slope(a: Choice, b: Choice) -> float:
    """Below 0: energy saved for a byte."""
    return (b.lost - a.lost) / (b.bytes - a.bytes)


def _size(choice: Choice) -> tuple[int, float, int]:
    """What the smallest choice is the first by, and the same one every time."""
    return choice.bytes, choice.lost, choice.rows
