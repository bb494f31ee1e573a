"""Which part of a step an operation belongs to, on the way back too."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

OTHER = "terms"  # losses, guidance, resizing: what no network does
BACK = " backward"


@dataclass
class Phase:
    """One part of a step."""

    peak: int = 0  # bytes alive at most while it ran, everything counted
    flops: int = 0
    half_flops: int = 0  # those of them in bfloat16 or float16
    operations: int = 0  # that a device is told to start


@dataclass
class Phases:
    """Told what is entered, finds the part that runs; backward, the part whose forward made the graph's node.

    Autograd numbers its nodes in the order in which they are made: a node's number says when that was.
    """

    parts: dict[str, Phase] = field(default_factory=dict)
    stack: list[str] = field(default_factory=lambda: [OTHER])
    starts: list[int] = field(default_factory=lambda: [0])  # node numbers from which `owners` made the graph
    owners: list[str] = field(default_factory=lambda: [OTHER])

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """What runs here is part of `name`."""
        self._owned_by(name)
        self.stack.append(name)
        try:
            yield
        finally:
            self.stack.pop()
            self._owned_by(self.stack[-1])

    def of(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls part of `name`."""

        @functools.wraps(call)
        def named(*args: Any, **kwargs: Any) -> Any:
            with self.inside(name):
                return call(*args, **kwargs)

        return named

    @property
    def now(self) -> str:
        node = torch._C._current_autograd_node()
        if node is None:
            return self.stack[-1]
        return self.owners[bisect_right(self.starts, node._sequence_nr()) - 1] + BACK

    def at(self, live: int) -> None:
        """So many bytes are alive after an operation."""
        part = self.parts.setdefault(self.now, Phase())
        part.peak = max(part.peak, live)
        part.operations += 1

    def count(self, flops: int, dtype: torch.dtype) -> None:
        """So many floating-point operations were just done."""
        part = self.parts.setdefault(self.now, Phase())
        part.flops += flops
        part.half_flops += flops if dtype in (torch.bfloat16, torch.float16) else 0

    def _owned_by(self, name: str) -> None:
        self.starts.append(torch.autograd._get_sequence_nr())
        self.owners.append(name)
