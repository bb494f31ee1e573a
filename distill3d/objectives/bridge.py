"""A term that follows the score over all noise levels at once, instead of one that is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill3d.draws import Draws
from distill3d.objectives.denoising import Denoising
from distill3d.objectives.flow import carry, ladder
from distill3d.objectives.score import ScoreDistillation
from distill3d.objectives.term import Needs, StepBatch, Term

SOURCE = "empty"  # the branch that leads to noise


@dataclass(eq=False)
class Bridge(Term):
    """Mean absolute difference of a view and what the reference's view becomes in the style, in [0, 1] units.

    The reference's latents are carried to noise by the empty prompt's score and back by the guided one: a dual
    diffusion implicit bridge (Su et al., ICLR 2023, arXiv:2203.08382). What lies between both ends is the difference
    of the two scores, integrated over the noise levels along one path. SDS and LD follow the same difference at one
    level and one noise, drawn anew each step: their mean over steps is blurred by the draw, and one step from a high
    level with guidance overshoots in colour. A bridge is deterministic: equal references have equal targets. Absolute
    differences, because targets of neighbouring views disagree in details: a median keeps one, a mean blurs both.
    """

    denoising: Denoising  # views, prompts and controls; its draws are not used
    objective: ScoreDistillation  # guidance and rank weighting
    top: float = 0.8  # how far to go, as a fraction of the schedule
    steps: tuple[int, int] = (6, 5)  # there, and back
    keep: bool = False  # keep every target for when its draws come again: for methods that replay theirs
    _kept: dict[Draws, Tensor] = field(default_factory=dict, repr=False)

    @property
    def needs(self) -> Needs:
        layout, stage = self.denoising.layout, self.denoising.stage
        read = Needs(dict.fromkeys(layout.views, stage), reference=dict.fromkeys(layout.shown, stage))
        return self.denoising.needs | read

    def forward(self, batch: StepBatch) -> Tensor:
        layout, stage = self.denoising.layout, self.denoising.stage
        target = self._kept_target(batch) if self.keep else self.target(batch)
        tiles = batch.trained.tiles(layout.views, stage, layout.tile(self.denoising.scorer.image_size))
        # Each view has its own distance: under the mirror, what two renders differ by is pulled together too.
        distance = ((tiles - layout.split(target)) / 2).abs().flatten(1).mean(1)
        batch.figures["bridge"] = float(distance.detach().mean())
        return distance

    def _kept_target(self, batch: StepBatch) -> Tensor:
        if batch.draws not in self._kept:
            self._kept[batch.draws] = self.target(batch).half().cpu()
        return self._kept[batch.draws].to(batch.codes.device).float()

    @torch.no_grad()
    def target(self, batch: StepBatch) -> Tensor:
        """(S, 3, H, W) in [-1, 1]: the reference's picture at the other end of the bridge."""
        scorer, layout = self.denoising.scorer, self.denoising.layout
        tiles = batch.reference.tiles(layout.shown, self.denoising.stage, layout.tile(scorer.image_size))
        conditions = self.denoising.conditions(batch)
        there, back = (ladder(self.top, steps, len(scorer.schedule)) for steps in self.steps)
        source = {SOURCE: conditions[SOURCE]}
        noisy = carry(scorer, scorer.encode(layout.join(tiles)), there, source, lambda branches: branches[SOURCE])
        latents = carry(scorer, noisy, back[::-1], conditions, self.objective.score_part)
        return scorer.decode(latents).clamp(-1, 1)
