"""What a term of the loss asks the trainer for, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.draws import Draws
from distill3d.errors import ConfigError
from distill3d.renderer import Render, Scene, Stage
from distill3d.views import View, fit


def furthest(requests: Iterable[Mapping[View, Stage]]) -> dict[View, Stage]:
    """All views of the requests, in their order, each to the furthest stage that anyone reads."""
    union: dict[View, Stage] = {}
    for request in requests:
        for view, stage in request.items():
            union[view] = "image" if "image" in (stage, union.get(view)) else "raw"
    return union


@dataclass(frozen=True)
class Needs:
    """All that the trainer must know before it renders; the stage of a view is the furthest that the term reads."""

    views: Mapping[View, Stage] = field(default_factory=dict)  # of the trained renderer, with gradient
    reference: Mapping[View, Stage] = field(default_factory=dict)  # of the frozen original
    previous: bool = False  # both scenes of the step before
    blind: frozenset[View] = frozenset()  # of `views`: those whose values are not read, only given a gradient

    def __or__(self, other: Needs) -> Needs:
        read = (self.views.keys() - self.blind) | (other.views.keys() - other.blind)
        return Needs(
            furthest([self.views, other.views]),
            furthest([self.reference, other.reference]),
            self.previous or other.previous,
            (self.blind | other.blind) - read,
        )


def entry_of(scene: Scene, name: str, reader: str) -> Tensor:
    """An entry of a scene.

    Raises:
        ConfigError: if this backbone's scenes have none of that name, beginning with `reader`.
    """
    if name not in scene:
        raise ConfigError(f"{reader} reads {name!r} of the scene; this backbone's scene has {', '.join(scene)}.")
    return scene[name]


class Side:
    """What one of the two renderers, trained or reference, made in this step.

    On the trained side `scene` and `views` are leaves: a term's graph ends there and never reaches the weights.

    Args:
        scene: or what makes it when it is first read.
        views: V = 1 each.
    """

    def __init__(self, scene: Scene | Callable[[], Scene], views: dict[View, Render] | None = None):
        self._scene = scene
        self.views: dict[View, Render] = {} if views is None else views

    @cached_property
    def scene(self) -> Scene:
        return self._scene() if callable(self._scene) else self._scene

    def tiles(self, views: Iterable[View], stage: Stage, size: int) -> Tensor:
        """The pictures of these views at that stage, (S, V, 3, size, size)."""
        return fit(torch.cat([self.views[view].stage(stage) for view in views], 1), size)

    def opacity(self, views: Iterable[View], size: int) -> Tensor:
        """(S, V, 1, size, size) in [0, 1]."""
        return fit(torch.cat([self.views[view].opacity for view in views], 1), size)


@dataclass
class StepBatch:
    """Everything a term may read in one step, for S subjects."""

    draws: Draws  # draws.step, draws.subjects
    codes: Tensor
    cameras: dict[View, Cameras]
    trained: Side
    reference: Side
    previous: tuple[Scene, Scene] | None = None  # (trained, reference) of the step before; None at the first
    memo: dict[Hashable, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)  # what terms report for the log

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What several terms want (an encoding, a prediction) is computed once in a step."""
        if key not in self.memo:
            self.memo[key] = compute()
        return self.memo[key]


class Term(ABC):
    """One summand of the loss.

    Not a Module: a term holds a scorer or a judge, whose weights are neither trained, moved nor saved with it.
    """

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What must be rendered for it."""

    @abstractmethod
    def forward(self, batch: StepBatch) -> Tensor:
        """(S,): one loss per subject; the trainer adds them up and divides by the global number of subjects."""


@dataclass(frozen=True)
class Weighted:
    """How a method uses a term: how much, and how often."""

    weight: float | Callable[[int], float]  # the second: of the step
    term: Term
    every: int = 1

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def loss(self, batch: StepBatch, step: int) -> Tensor:
        """The weighted sum over this process's subjects, a scalar."""
        weight = self.weight(step) if callable(self.weight) else self.weight
        return weight * self.term.forward(batch).sum()
