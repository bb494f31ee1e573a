"""What the checks of a scorer look at, computed once: pictures, latents, conditions, predictions."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.scorer import Scorer
from distill3d.testing.contract import default_tolerance, outer_dtype


class ScorerBench:
    """A scorer, two smooth pictures, and what it made of them so far."""

    def __init__(self, scorer: Scorer, prompts: tuple[str, ...], tolerance: float | None):
        self.scorer, self.prompts = scorer, prompts
        self.tolerance = default_tolerance(scorer) if tolerance is None else tolerance
        self.dtype = outer_dtype(scorer)
        tensors = [*scorer.parameters(), *scorer.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")

    def normal(self, seed: int, *shape: int) -> Tensor:
        """The same numbers on every device."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device, self.dtype)

    @cached_property
    def images(self) -> Tensor:
        """(2, 3, H, W) in [-1, 1]: smooth, since encoders are made for pictures and not for noise."""
        size = self.scorer.image_size
        return F.interpolate(self.normal(0, 2, 3, 4, 4), size=(size, size), mode="bicubic").clamp(-1, 1)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Of two pictures."""
        return 2, self.scorer.latent_channels, self.scorer.latent_size, self.scorer.latent_size

    @cached_property
    def latents(self) -> Tensor:
        """Of the two pictures."""
        with torch.no_grad():
            return self.scorer.encode(self.images)

    @cached_property
    def noise(self) -> Tensor:
        """Drawn, of the latents' shape."""
        return self.normal(1, *self.latent_shape)

    def timesteps(self, *fractions: float) -> Tensor:
        """(B,) int64: fractions of the schedule's last timestep."""
        last = len(self.scorer.schedule) - 1
        return torch.tensor([round(fraction * last) for fraction in fractions], device=self.device)

    @cached_property
    def conditions(self) -> dict[str, object]:
        """Two branches, each with one of the prompts for both pictures."""
        first, second = self.prompts
        return {"first": self.condition(first, 2), "second": self.condition(second, 2)}

    def condition(self, prompt: str, count: int) -> object:
        """Of `count` pictures with the same prompt."""
        with torch.no_grad():
            return self.scorer.condition([prompt] * count)

    def predict(self, timestep: Tensor, conditions: dict[str, object], pick: slice = slice(None)) -> dict[str, Tensor]:
        """The noise predictions of the noised pictures, or of those in `pick`; one timestep for each picture."""
        latents, noise = self.latents[pick], self.noise[pick]
        with torch.no_grad():
            noisy = self.scorer.schedule.add_noise(latents, noise, timestep)
            return self.scorer.predict_noise(noisy, timestep, conditions)

    @cached_property
    def together(self) -> dict[str, Tensor]:
        """Both branches, both pictures, at two timesteps, in one call."""
        return self.predict(self.timesteps(0.5, 0.5), self.conditions)
