"""What turns a backbone into a stylised one, wherever it lies: a run's folder, or a style pack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from distill3d.licences import Part


@dataclass(frozen=True)
class Backbone:
    """A backbone as a run began with it."""

    name: str
    weights: str | None  # None for the backbone's own
    options: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None  # of its tensors; None if nobody noted it
    weights_name: str = ""  # what others can get them by


class Stylisation(ABC):
    """Trained tensors, and what they belong to."""

    folder: Path
    name: str  # by which it is known in errors and mixtures

    @property
    @abstractmethod
    def style(self) -> str:
        """Its name, or the prompt."""

    @property
    @abstractmethod
    def backbone(self) -> Backbone:
        """What it was trained on."""

    @property
    @abstractmethod
    def train(self) -> str:
        """The group of weights that it trained."""

    @property
    @abstractmethod
    def device(self) -> str:
        """Where it is loaded unless somebody says otherwise."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """Whose weights it was made with, and their licences."""

    @abstractmethod
    def tensors(self, original: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained tensors.

        Args:
            original: those of the training group as they are before; the names and shapes that there must be.
        Raises:
            WeightsError, PackError: if they are damaged, or do not fit these.
        """
