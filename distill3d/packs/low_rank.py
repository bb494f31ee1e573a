"""Changes of weights as products of two thin matrices: which tensors are worth it, split where, of which rank.

A tensor of shape (a, b, c, ...) is a matrix in several ways: the first k axes down, the others across. A change of a
convolution is often simple across its kernel and its channels at once, (out x in, kernel), where it is not across
(out, in x kernel); so every split is tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HALF_BYTES = 2  # of a float16


@dataclass(frozen=True)
class Choice:
    """One way to store a change."""

    bytes: int
    lost: float  # energy (sum of squares) of the change that it leaves out
    rows: int = 0  # of the matrix; 0: the whole difference
    rank: int = 0


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
    """The two matrices (rows, rank) and (rank, columns) whose product is nearest to the change, equally large."""
    matrix = change.reshape(rows, -1)
    if matrix.shape[0] > matrix.shape[1]:
        right, left = _factors(matrix.T, rank)
        return left.T.contiguous(), right.T.contiguous()
    return _factors(matrix, rank)


def _factors(wide: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    energies, basis = torch.linalg.eigh(wide @ wide.T)
    size = energies[-rank:].clamp(min=torch.finfo(wide.dtype).tiny) ** 0.25 if rank else energies[:0]
    basis = basis[:, -rank:] if rank else basis[:, :0]
    return (basis * size).flip(1).contiguous(), ((basis.T @ wide) / size[:, None]).flip(0).contiguous()


def _choices(change: Tensor) -> list[Choice]:
    """Every rank of every split that takes fewer bytes than the whole difference, and that."""
    whole = HALF_BYTES * change.numel()
    found = [Choice(whole, 0.0)]
    if change.numel() == 0:
        return found
    for rows in splits(change.shape):
        columns = change.numel() // rows
        lost = _lost(change.reshape(rows, columns))
        sizes = (HALF_BYTES * rank * (rows + columns) for rank in range(len(lost)))
        found += [Choice(size, lost[rank], rows, rank) for rank, size in enumerate(sizes) if size < whole]
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
    return choice.bytes, choice.lost, choice.rows
