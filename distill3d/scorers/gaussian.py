"""A scorer whose score is known in closed form: what the objectives are proved on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.cameras import Cameras
from distill3d.errors import ConfigError
from distill3d.schedule import Schedule
from distill3d.scorer import NO_CONTROLS, Scorer

PATCH = 2  # pixels of a latent's side


@dataclass(frozen=True)
class GaussianCondition:
    """B prompts, and what the control pictures add to the mean: (B, 1, h, w) or None."""

    prompts: tuple[str, ...]
    shift: Tensor | None


@dataclass(frozen=True)
class Distribution:
    """p(x_0 | prompt) over the N numbers of a latent: sum_k weight_k N(mean_k, diag(diagonal) + factors factors^T)."""

    means: Tensor  # (K, N)
    weights: Tensor  # (K,)
    diagonal: Tensor  # (N,)
    factors: Tensor  # (N, R)


class GaussianScorer(Scorer):
    """x_0 given a prompt is Gaussian, or a mixture of `modes` of them.

    The mean varies over the picture, and a low-rank part of the covariance couples every pixel of a picture, so every
    view of a grid, with every other: a scrambled grid, a dropped flip or a wrong schedule cannot pass for the score.
    Each prompt, the empty one included, has a distribution of its own, made from its text and the picture's shape.
    """

    latent_channels = 4
    controls = ("depth", "canny")
    weights_licence = "Apache-2.0"

    def __init__(self, *, latent_size: int = 8, modes: int = 1, rank: int = 6, seed: int = 0):
        super().__init__()
        if modes < 1 or rank < 0:
            raise ConfigError(f"A Gaussian scorer has at least one mode and a rank of 0 or more, got {modes}, {rank}.")
        self.image_size, self.latent_size = PATCH * latent_size, latent_size
        self.modes, self.rank, self.seed = modes, rank, seed
        self.schedule = Schedule.scaled_linear()
        pixels = 3 * PATCH * PATCH
        basis = torch.linalg.qr(
            torch.randn(pixels, self.latent_channels, generator=self._generator("encoder")).double()
        )
        patches = basis.Q.T.reshape(self.latent_channels, 3, PATCH, PATCH)
        self.patches = nn.Parameter(patches, requires_grad=False)  # orthonormal: decode is encode's pseudo-inverse
        self._known: dict[tuple[str, tuple[int, ...]], Distribution] = {}

    @classmethod
    def mixture(cls, *, latent_size: int = 8, seed: int = 0) -> GaussianScorer:
        """Two modes for each prompt: a score that is not linear in x."""
        return cls(latent_size=latent_size, modes=2, seed=seed)

    def _generator(self, key: str) -> torch.Generator:
        digest = hashlib.blake2b(f"{self.seed}|{key}".encode(), digest_size=4).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little"))

    def distribution(self, prompt: str, shape: tuple[int, ...]) -> Distribution:
        """p(x_0 | prompt) for latents of `shape` (C, h, w)."""
        key = (prompt, shape)
        if key not in self._known:
            draw = self._generator(f"{prompt}|{shape}")
            n = torch.Size(shape).numel()
            self._known[key] = Distribution(
                means=torch.randn(self.modes, n, generator=draw, dtype=torch.float64),
                weights=torch.softmax(torch.randn(self.modes, generator=draw, dtype=torch.float64), 0),
                diagonal=0.05 + 0.5 * torch.rand(n, generator=draw, dtype=torch.float64),
                factors=torch.randn(n, self.rank, generator=draw, dtype=torch.float64) / max(1, self.rank) ** 0.5,
            )
        return self._known[key]

    def condition(
        self,
        prompts: Sequence[str],
        *,
        controls: Mapping[str, Tensor] = NO_CONTROLS,
        image: Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> GaussianCondition:
        if image is not None or cameras is not None:
            raise ConfigError("The Gaussian scorer is conditioned on prompts and controls only.")
        unknown = sorted(set(controls) - set(self.controls))
        if unknown:
            raise ConfigError(f"The Gaussian scorer has no control {', '.join(unknown)}; it has depth and canny.")
        shifts = [F.avg_pool2d(picture.cpu().double().mean(1, keepdim=True), PATCH) for picture in controls.values()]
        return GaussianCondition(tuple(prompts), torch.stack(shifts).sum(0) if shifts else None)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        latents = F.conv2d(images.double(), self.patches, stride=PATCH)
        if noise is not None:
            latents = latents + 0.1 * latents.abs() * noise.to(latents)
        return latents.to(images)

    def decode(self, latents: Tensor) -> Tensor:
        return F.conv_transpose2d(latents.double(), self.patches, stride=PATCH).to(latents)

    @torch.no_grad()
    def predict_noise(
        self, noisy: Tensor, timestep: Tensor, conditions: Mapping[str, GaussianCondition]
    ) -> dict[str, Tensor]:
        sigma, x = self.schedule.noise(timestep), noisy.cpu().double()  # distributions live on the CPU
        return {
            name: (-sigma * self._score(x, timestep.cpu(), condition)).to(noisy)
            for name, condition in conditions.items()
        }

    def _score(self, noisy: Tensor, timestep: Tensor, condition: GaussianCondition) -> Tensor:
        """grad log p(x_t | y) by the Woodbury identity, picture by picture."""
        rows = []
        for i, (x, t) in enumerate(zip(noisy, timestep)):
            offsets, known, signal, sigma = self._offsets(x, t, i, condition)
            diagonal = signal**2 * known.diagonal + sigma**2
            scaled = signal * known.factors / diagonal[:, None]  # (N, R)
            inner = torch.eye(known.factors.shape[1]).to(scaled) + signal * known.factors.T @ scaled
            whitened = offsets / diagonal - torch.linalg.solve(inner, (offsets @ scaled).T).T @ scaled.T
            share = torch.softmax(known.weights.log() - 0.5 * (offsets * whitened).sum(1), 0)  # of each mode
            rows.append(-(share @ whitened).view_as(x))
        return torch.stack(rows)

    def _offsets(
        self, x: Tensor, t: Tensor, i: int, condition: GaussianCondition
    ) -> tuple[Tensor, Distribution, Tensor, Tensor]:
        """x_t minus each mode's mean, (K, N), and what scales it."""
        known = self.distribution(condition.prompts[i], tuple(x.shape))
        signal, sigma = self.schedule.signals[t], self.schedule.noises[t]
        mean = known.means.view(-1, *x.shape)
        if condition.shift is not None:
            mean = mean + condition.shift[i]
        return (x - signal * mean).flatten(1), known, signal, sigma

    def log_prob(self, noisy: Tensor, timestep: Tensor, condition: GaussianCondition) -> Tensor:
        """log p(x_t | y), (B,), for autograd: an independent route, through the dense covariance."""
        rows = []
        for i, (x, t) in enumerate(zip(noisy, timestep)):
            offsets, known, signal, sigma = self._offsets(x, t, i, condition)
            covariance = torch.diag(known.diagonal) + known.factors @ known.factors.T
            covariance = signal**2 * covariance + sigma**2 * torch.eye(len(covariance)).to(covariance)
            normal = torch.distributions.MultivariateNormal(torch.zeros_like(offsets[0]), covariance)
            rows.append(torch.logsumexp(known.weights.log() + normal.log_prob(offsets), 0))
        return torch.stack(rows)


def load_gaussian(weights: str | None = None, device: str = "cpu") -> GaussianScorer:
    """The Gaussian scorer as `--scorer gaussian`; it has no weights."""
    if weights is not None:
        raise ConfigError(f"The Gaussian scorer has no weights to load, got {weights!r}.")
    return GaussianScorer(latent_size=16).to(device)
