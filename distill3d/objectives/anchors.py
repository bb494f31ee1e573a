"""Anchors: terms that hold a subject near its original while a method changes it.

Each is 0 for an untouched renderer. They compose with any method: docs/anchors.md says what each one is for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill3d.objectives.term import Needs, StepBatch, Term, entry_of
from distill3d.renderer import Stage
from distill3d.scorer import Scorer, encode_at_unit_scale
from distill3d.views import View


class Anchor(Term):
    """A distance from the original, or from what is smooth; the log gets its mean over the subjects."""

    def forward(self, batch: StepBatch) -> Tensor:
        distance = self.distance(batch)
        batch.figures["distance"] = float(distance.detach().mean())
        return distance

    @abstractmethod
    def distance(self, batch: StepBatch) -> Tensor:
        """(S,), not negative."""


@dataclass(eq=False)
class OpacityAnchor(Anchor):
    """Mean squared difference of the opacities, trained and original, at a view: the outline stays."""

    view: View

    @property
    def needs(self) -> Needs:
        return Needs({self.view: "raw"}, {self.view: "raw"})

    def distance(self, batch: StepBatch) -> Tensor:
        trained, original = (side.views[self.view].opacity for side in (batch.trained, batch.reference))
        return (trained - original).square().flatten(1).mean(1)


@dataclass(eq=False)
class PerceptualAnchor(Anchor):
    """Mean squared distance of a view's latents, trained and original: its structure stays, its fine texture may not.

    The latents are those of the scorer's own image encoder: the one network that looks at pictures in every run.
    """

    view: View
    scorer: Scorer
    stage: Stage = "image"

    @property
    def needs(self) -> Needs:
        return Needs({self.view: self.stage}, {self.view: self.stage})

    def distance(self, batch: StepBatch) -> Tensor:
        size = self.scorer.image_size
        trained, original = (
            side.tiles([self.view], self.stage, size)[:, 0] for side in (batch.trained, batch.reference)
        )
        with torch.no_grad():
            latents = self.scorer.encode(original).to(original)
        return (encode_at_unit_scale(self.scorer, trained) - latents).square().flatten(1).mean(1)


@dataclass(eq=False)
class PlaneVariation(Anchor):
    """Total variation of the scene's planes: neighbours' squared difference, the means along h and along w added.

    The one anchor that does not look at the original, whose own variation is seldom 0.
    """

    entry: str = "planes"  # of the scene, (S, ..., h, w)

    @property
    def needs(self) -> Needs:
        return Needs()

    def distance(self, batch: StepBatch) -> Tensor:
        planes = entry_of(batch.trained.scene, self.entry, "The variation")
        return sum_of_means(planes.diff(dim=-2), planes.diff(dim=-1))


def sum_of_means(*differences: Tensor) -> Tensor:
    """(S,): the mean square of each, added."""
    return torch.stack([d.square().flatten(1).mean(1) for d in differences]).sum(0)


@dataclass(eq=False)
class SceneAnchor(Anchor):
    """||T - T0||^2 / ||T0||^2 of a scene entry: a subject's planes stay near those of the frozen original.

    Meant for a weight that falls (`falling`): first it keeps the scene in reach, at the end the style decides.
    """

    entry: str = "planes"

    @property
    def needs(self) -> Needs:
        return Needs()

    def distance(self, batch: StepBatch) -> Tensor:
        trained, original = (
            entry_of(side.scene, self.entry, "The scene anchor").flatten(1) for side in (batch.trained, batch.reference)
        )
        return (trained - original).square().sum(1) / original.square().sum(1).clamp_min(1e-12)


def falling(weight: float, steps: int) -> Callable[[int], float]:
    """From `weight` at step 0 in a straight line to 0 at the last of `steps`."""
    return lambda step: weight * max(0.0, 1 - step / max(1, steps - 1))
