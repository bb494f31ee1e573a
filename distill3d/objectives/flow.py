"""The probability flow of a diffusion model: latents to noise and back without drawing any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.scorer import Condition, Scorer

Predict = Callable[[Mapping[str, Tensor]], Tensor]  # the branches' noise predictions to the one that is followed


def ladder(top: float, steps: int, total: int) -> list[int]:
    """Timesteps from 0 to `top`, evenly spaced.

    Args:
        top: the noisiest level, as a fraction of the schedule in (0, 1).
        steps: how many steps to take, at least 1.
        total: timesteps of the schedule.
    Raises:
        ConfigError: if `top` or `steps` is out of range.
    """
    if not 0 < top < 1 or steps < 1:
        raise ConfigError(f"A flow takes 1 step or more to a level in (0, 1), got {steps} to {top}.")
    return [round(top * (total - 1) * i / steps) for i in range(steps + 1)]


@torch.no_grad()
def carry(
    scorer: Scorer, latents: Tensor, timesteps: Sequence[int], conditions: Mapping[str, Condition], predict: Predict
) -> Tensor:
    """Walk latents through noise levels by deterministic DDIM steps.

    Song et al., ICLR 2021, arXiv:2010.02502, equation 13: an Euler scheme of the probability flow, exact for small
    steps and invertible in that limit. Clean latents count as those of timestep 0.

    Args:
        latents: (B, C, h, w), noised to `timesteps[0]`.
        timesteps: the levels to pass, rising towards noise or falling towards the picture.
        conditions: of each branch that `predict` reads.
    Returns:
        (B, C, h, w) at `timesteps[-1]`; the clean estimate where that is 0.
    """
    for here, there in pairwise(timesteps):
        at = torch.full((len(latents),), here, device=latents.device)
        noise_pred = predict(scorer.predict_noise(latents, at, conditions))
        latents = scorer.schedule.denoised(latents, noise_pred, at)
        if there > 0:
            latents = scorer.schedule.add_noise(latents, noise_pred, torch.full_like(at, there))
    return latents
