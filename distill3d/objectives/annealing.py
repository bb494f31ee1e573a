"""Settings of an objective that move along a run: where timesteps are drawn from, how strong guidance is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill3d.draws import Draws
from distill3d.errors import ConfigError
from distill3d.objectives.denoising import Timesteps, pick
from distill3d.objectives.score import ScoreDistillation, variant


@dataclass(frozen=True)
class Annealing:
    """From an objective's own values at step 0, in a straight line, to these at the last step; None stays.

    DreamTime (Huang et al., arXiv:2306.12422) and ProlificDreamer (Wang et al., arXiv:2305.16213) draw noisier
    timesteps early, when shapes form, than late, when details do.
    """

    steps: int = 1  # of the run
    t_range: tuple[float, float] | None = None  # fractions of the scorer's timesteps
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if self.t_range is not None and not 0 <= self.t_range[0] < self.t_range[1] <= 1:
            raise ConfigError(f"t_range_end must satisfy 0 <= low < high <= 1, got {self.t_range}.")

    def __bool__(self) -> bool:
        return self.t_range is not None or self.guidance_scale is not None

    def objective(self, objective: ScoreDistillation, step: int) -> ScoreDistillation:
        """What it is at that step."""
        done = min(1.0, step / max(1, self.steps - 1))
        changes: dict[str, object] = {}
        if self.t_range is not None:
            changes["t_range"] = tuple(a + done * (b - a) for a, b in zip(objective.t_range, self.t_range))
        if self.guidance_scale is not None:
            start = objective.guidance_scale
            changes["guidance_scale"] = start + done * (self.guidance_scale - start)
        return variant(objective, figures=objective.figures, **changes) if changes else objective

    def timesteps(self, objective: ScoreDistillation) -> Timesteps:
        """Where each subject draws its timestep from."""
        if self.t_range is None:
            return pick(objective.timestep_choices())

        def at(draws: Draws) -> Tensor:
            choices = torch.tensor(list(self.objective(objective, draws.step).timestep_choices()))
            return choices[draws.integers("timestep", len(choices))]

        return at


NO_ANNEALING = Annealing()
