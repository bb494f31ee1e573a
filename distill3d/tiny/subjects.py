"""Subjects whose truth is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class WorldSubjects(ABC):
    """A capability of a backbone: its subjects are heads of the procedural world, so their true pictures are known."""

    @abstractmethod
    def world_codes(self, seeds: Sequence[int]) -> Tensor:
        """(S, 32): what `identity_from_codes` makes the heads of these seeds from."""
