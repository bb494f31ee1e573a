"""What processes say to each other: sums, rows, texts, pictures. Every process must make the same calls in one order.

Nothing is pickled: shapes and dtypes go ahead as small integers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from distill3d.errors import RunError

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # that pictures and their gradients may have


class LostProcessError(RunError):
    """Another process of this run is gone, or does not answer."""


@contextmanager
def together() -> Iterator[None]:
    """Around every call that waits for another process: say in one sentence what became of it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # all that torch.distributed raises is one
        raise LostProcessError(
            "A process of this run died or hangs. The last checkpoint is in the run's folder; continue with: "
            f"distill3d launch --processes {os.environ.get('WORLD_SIZE', 'N')} run --resume RUN"
        ) from error


def add_up(tensor: Tensor) -> None:
    """The sum over all processes, in place; bit for bit the same in each."""
    with together():
        dist.all_reduce(tensor)


def gather_text(text: str) -> list[str]:
    """Every process's text, by rank."""
    line = torch.tensor(list(text.encode()), dtype=torch.uint8)
    lines = _gather_parts(line)
    return [bytes(line.tolist()).decode() for line in lines]


def gather_rows(entry: Tensor) -> Tensor:
    """Every process's (n, ...) behind each other, by rank."""
    return torch.cat(_gather_parts(entry))


def share_out(pictures: Sequence[Tensor | None], device: str) -> list[Tensor | None]:
    """Give everybody what anybody has.

    Args:
        pictures: (S, V, C, H, W) each; None for what another process has, or nobody. No two processes have the same.
        device: where the others' are put.
    """
    found = list(pictures)
    table = _table(pictures)
    for owner in range(dist.get_world_size()):
        for code, dtype in enumerate(DTYPES):
            rows = [i for i, row in enumerate(table) if row[:2] == [owner + 1, code]]
            sent = _broadcast([pictures[i] for i in rows], [table[i][2:] for i in rows], owner, dtype, device)
            for i, picture in zip(rows, sent):
                found[i] = picture
    return found


def _table(pictures: Sequence[Tensor | None]) -> list[list[int]]:
    """For each picture who has it (rank + 1, 0 for nobody), its dtype and its shape."""
    if not pictures:
        return []
    table = torch.zeros(len(pictures), 2 + 5, dtype=torch.int64)
    for row, picture in zip(table, pictures):
        if picture is not None:
            row.copy_(torch.tensor([dist.get_rank() + 1, DTYPES.index(picture.dtype), *picture.shape]))
    add_up(table)
    return table.tolist()


def _broadcast(
    pictures: Sequence[Tensor | None],
    shapes: Sequence[Sequence[int]],
    owner: int,
    dtype: torch.dtype,
    device: str,
) -> Sequence[Tensor | None]:
    """Pictures of one dtype from the process that has them, in one message."""
    if not shapes:
        return []
    sizes = [int(torch.Size(shape).numel()) for shape in shapes]
    here = owner == dist.get_rank()
    if here:
        flat = torch.cat([picture.reshape(-1) for picture in pictures if picture is not None])
    else:
        flat = torch.empty(sum(sizes), dtype=dtype, device=device)
    with together():
        dist.broadcast(flat, owner)
    return pictures if here else [piece.view(*shape) for piece, shape in zip(flat.split(sizes), shapes)]


def _gather_parts(entry: Tensor) -> list[Tensor]:
    """Every process's (n, ...), whatever its n; the other sides are equal."""
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    with together():
        dist.all_gather(counts, torch.tensor([len(entry)]))
    lengths = [int(count) for count in counts]
    padded = entry.new_zeros(max(lengths), *entry.shape[1:])  # a collective wants equal shapes
    padded[: len(entry)] = entry
    parts = [torch.empty_like(padded) for _ in lengths]
    if padded.numel():
        with together():
            dist.all_gather(parts, padded)
    return [piece[:length] for piece, length in zip(parts, lengths)]
