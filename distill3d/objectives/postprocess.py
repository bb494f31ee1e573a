"""The last touch on every latent gradient: scale, mask, clamp, and what to do about NaN; each leaves a figure."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.views import resize

NanPolicy = Literal["keep", "zero"]


def postprocess(
    gradient: Tensor, *, mask: Tensor | None, scale: float, clamp: float | None, nan: NanPolicy
) -> tuple[Tensor, dict[str, float]]:
    """Mask, then scale, clamp and clean a latent gradient (B, C, h, w).

    Args:
        mask: (B, 1, H, W) in [0, 1], resized by area to the latents.
        clamp: largest absolute value, after `scale`; None for no limit.
        nan: "keep" leaves values that are not finite for the trainer to see, which skips the step; "zero" drops them.
    Returns:
        The gradient, and figures for the log: its RMS, half its mean square as "loss" (the number that others show
        for such a gradient), the share that was clamped, the number of values that were not finite.
    """
    if nan not in ("keep", "zero"):
        raise ConfigError(f'nan must be "keep" or "zero", got {nan!r}.')
    if mask is not None:
        gradient = gradient * resize(mask.to(gradient), max(gradient.shape[-2:]))
    gradient = gradient * scale
    figures = {"not_finite": float((~gradient.isfinite()).sum())}
    if clamp is not None:
        figures["clamped"] = float((gradient.abs() > clamp).float().mean())
        gradient = gradient.clamp(-clamp, clamp)
    if nan == "zero":
        gradient = torch.nan_to_num(gradient)
    mean_square = float(gradient.square().mean())
    figures.update(rms=mean_square**0.5, loss=mean_square / 2)
    return gradient, figures
