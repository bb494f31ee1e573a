"""The terms that methods are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distill3d.objectives.annealing import NO_ANNEALING, Annealing
from distill3d.objectives.denoising import Denoising, Prediction
from distill3d.objectives.guidance import Table, guide
from distill3d.objectives.score import ScoreDistillation, surrogate
from distill3d.objectives.term import Needs, StepBatch, Term, entry_of
from distill3d.views import ViewLayout


@dataclass(eq=False)
class ScoreTerm(Term):
    """A member of the score family on the views of a denoising.

    Antithetic, it looks twice, at a noise and at its negative, and follows the mean: what of the gradient is odd in
    the noise cancels. For Gaussian data that is all of it (a prediction is linear there).
    """

    denoising: Denoising
    objective: ScoreDistillation
    mask: Literal["trained", "reference"] | None = None  # whose opacity multiplies the latent gradient
    annealing: Annealing = NO_ANNEALING
    antithetic: bool = False

    @property
    def needs(self) -> Needs:
        if self.mask != "reference":
            return self.denoising.needs
        return self.denoising.needs | Needs(reference=dict.fromkeys(self.denoising.layout.shown, "raw"))

    def forward(self, batch: StepBatch) -> Tensor:
        prediction = self.denoising.predict(batch)
        return surrogate(prediction.latents, self.latent_gradient(prediction, batch))

    def latent_gradient(self, prediction: Prediction, batch: StepBatch) -> Tensor:
        """(S, C, h, w): what is put on the latents."""
        gradient = self._of_one_look(prediction, batch)
        if not self.antithetic:
            return gradient
        return (gradient + self._of_one_look(self.denoising.opposite(prediction), batch)) / 2

    def _of_one_look(self, prediction: Prediction, batch: StepBatch) -> Tensor:
        objective = self.annealing.objective(self.objective, batch.draws.step)
        gradient = objective.latent_gradient(
            prediction.branches, prediction.noise, prediction.timestep, self._mask(batch)
        )
        batch.figures.update(objective.figures)
        return gradient

    def _mask(self, batch: StepBatch) -> Tensor | None:
        if self.mask is None:
            return None
        layout: ViewLayout = self.denoising.layout
        side = batch.trained if self.mask == "trained" else batch.reference
        return layout.join(side.opacity(layout.shown, layout.tile(self.denoising.scorer.latent_size))).detach()


@dataclass(eq=False)
class Tweedie(Term):
    """Mean squared distance between a view and its own denoised estimate, in [0, 1] units (released script)."""

    denoising: Denoising
    table: Table

    @property
    def needs(self) -> Needs:
        return self.denoising.needs

    def forward(self, batch: StepBatch) -> Tensor:
        scorer, layout = self.denoising.scorer, self.denoising.layout
        prediction = self.denoising.predict(batch)
        target = batch.once((self.denoising, "denoised"), lambda: self._estimate(prediction))
        tiles = batch.trained.tiles(layout.shown, self.denoising.stage, layout.tile(scorer.image_size))
        return ((layout.join(tiles) - target) / 2).square().flatten(1).mean(1)

    @torch.no_grad()
    def _estimate(self, prediction: Prediction) -> Tensor:
        scorer = self.denoising.scorer
        noise_pred = torch.stack(guide(prediction.branches, self.table)).sum(0)
        denoised = scorer.schedule.denoised(prediction.noisy, noise_pred, prediction.timestep)
        return scorer.decode(denoised).clamp(-1, 1)


@dataclass(eq=False)
class RelativeDistance(Term):
    """LDIS: two subjects in a row stay as far apart as their originals, plane by plane (DiffusionGAN3D, CVPR 2024).

        mean | ||T_a - T_b||^2 / (||T0_a - T0_b||^2 + 1e-8) - 1 |,  a: the step before, b: now

    The norm runs over the plane axis, as in the released script. 0 at the first step.
    """

    entry: str = "planes"  # of the scene, (S, planes, ...)

    @property
    def needs(self) -> Needs:
        return Needs(previous=True)

    def forward(self, batch: StepBatch) -> Tensor:
        now = entry_of(batch.trained.scene, self.entry, "The relative distance")
        if batch.previous is None:
            return now.new_zeros(len(now))
        before, before_reference = (scene[self.entry] for scene in batch.previous)
        moved = (now - before).square().sum(1)
        moved_reference = (batch.reference.scene[self.entry] - before_reference).square().sum(1)
        return (moved / (moved_reference + 1e-8) - 1).abs().flatten(1).mean(1)
