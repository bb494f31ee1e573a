"""How much signal and how much noise a noised picture holds at each timestep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill3d.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """x_t = signal(t) x_0 + noise(t) eps, hence score(x_t) = -eps_hat / noise(t).

    One form for variance-preserving, zero-terminal-SNR and flow models alike. Both tables have one entry for each
    timestep of training; a variance-preserving model has signal = sqrt(alpha_bar), noise = sqrt(1 - alpha_bar).
    """

    signals: Tensor  # (T,) float64
    noises: Tensor  # (T,) float64

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Tensor) -> Schedule:
        """The variance-preserving schedule with these `alphas_cumprod` (T,)."""
        alpha_bar = alpha_bar.double()
        return cls(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    @classmethod
    def scaled_linear(cls, timesteps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Schedule:
        """Stable Diffusion's schedule: the square roots of beta are evenly spaced (Rombach et al., CVPR 2022)."""
        beta = torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float64) ** 2
        return cls.from_alpha_bar((1 - beta).cumprod(0))

    def __len__(self) -> int:
        return len(self.signals)

    def _read(self, table: Tensor, timestep: Tensor) -> Tensor:
        if timestep.min() < 0 or timestep.max() >= len(self):
            raise ConfigError(f"A timestep of this scorer lies in [0, {len(self)}), got {timestep.tolist()}.")
        return table[timestep.cpu()].view(-1, 1, 1, 1)  # on the CPU: not every device has float64

    def signal(self, timestep: Tensor) -> Tensor:
        """(B,) to (B, 1, 1, 1), float64 on the CPU."""
        return self._read(self.signals, timestep)

    def noise(self, timestep: Tensor) -> Tensor:
        """(B,) to (B, 1, 1, 1), float64 on the CPU: sigma."""
        return self._read(self.noises, timestep)

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t, in the dtype of `clean`."""
        return self.signal(timestep).to(clean) * clean + self.noise(timestep).to(clean) * noise

    def denoised(self, noisy: Tensor, noise_pred: Tensor, timestep: Tensor) -> Tensor:
        """Tweedie's estimate of x_0. Not defined where the signal is zero (terminal zero-SNR)."""
        return (noisy - self.noise(timestep).to(noisy) * noise_pred) / self.signal(timestep).to(noisy)
