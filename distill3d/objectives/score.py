"""Score distillation: one family, of which LD, SDS and CSD are choices of fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from distill3d.errors import ConfigError, ShapeError
from distill3d.objectives.guidance import ScoreName, Table, guidance_table, guide
from distill3d.objectives.postprocess import NanPolicy, postprocess
from distill3d.objectives.rank import PAPER_WEIGHTS, rank_weight, restore_statistics, spectrum
from distill3d.objectives.weighting import Weighting, weighting_of
from distill3d.scorer import Scorer, encode_at_unit_scale
from distill3d.views import join_mirrored, resize

Family = TypeVar("Family", bound="ScoreDistillation")

RELEASED_TIMESTEPS = tuple(981 - 20 * k for k in range(35, 50))  # DDIM positions 35 to 49 of 50


@dataclass(frozen=True)
class ScoreDistillation:
    r"""A gradient on the latents that is no gradient of any loss: only its direction is meant.

        d loss / d latents = w(t) * (score part - noise_baseline * noise)

    The value of the loss has no meaning; its gradient is exact, and summed over the pictures of a batch.
    """

    scorer: Scorer
    _: KW_ONLY
    score: ScoreName | Table = "full"  # what is followed: see `guidance_table`
    guidance_scale: float = 7.5  # 1.0 = plain conditional prediction
    weighting: str | Weighting = "paper"
    noise_baseline: float = 0.0  # how much of the drawn noise is subtracted: LD 0, SDS 1
    rank_weights: Sequence[float] | None = None  # the paper's: (1, .75, .5, .25)
    rank_on: Literal["guidance", "score"] = "guidance"  # "score": the literal form, on the whole score part
    rank_restore: bool = False  # put each channel's mean and contrast back after rank weighting (released script)
    scale: float = 1.0
    clamp: float | None = None
    nan: NanPolicy = "keep"
    t_range: tuple[float, float] = (0.02, 0.5)  # fraction of the scorer's timesteps that `timestep` is drawn from
    timesteps: Sequence[int] | None = None  # draw from this list instead
    negative_prompt: str = ""
    mirror_weights: tuple[float, float] = (1.0, 1.0)
    figures: dict[str, float] = field(default_factory=dict, compare=False, repr=False)  # of the last call, for a log

    def __post_init__(self) -> None:
        low, high = self.t_range
        if not 0 <= low < high <= 1:
            raise ConfigError(
                f"t_range must satisfy 0 <= low < high <= 1, got {self.t_range}. "
                "It is a fraction of the scorer's timesteps, so write (0.02, 0.3), not (20, 300)."
            )
        if self.rank_on not in ("guidance", "score"):
            raise ConfigError(f'rank_on must be "guidance" or "score", got {self.rank_on!r}.')
        guidance_table(self.score, self.guidance_scale)
        weighting_of(self.weighting)

    @property
    def table(self) -> Table:
        """The coefficient of each branch; its keys are the branches that must be predicted."""
        return guidance_table(self.score, self.guidance_scale)

    def branches(self, prompts: Sequence[str]) -> dict[str, list[str]]:
        """The prompts of each branch that the table names."""
        texts = {"prompt": list(prompts), "empty": [self.negative_prompt] * len(prompts)}
        missing = set(self.table) - set(texts)
        if missing:
            raise ConfigError(f"No prompt is known for the branches {', '.join(sorted(missing))} of the table.")
        return {name: texts[name] for name in self.table}

    def latent_gradient(
        self, branches: Mapping[str, Tensor], noise: Tensor, timestep: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The gradient that is injected on the latents, (B, C, h, w).

        Args:
            branches: noise predictions by name, each (B, C, h, w).
            noise: as drawn, (B, C, h, w).
            timestep: (B,).
            mask: (B, 1, H, W) in [0, 1] or None.
        """
        score_part = self.score_part(branches) - self.noise_baseline * noise
        weight = weighting_of(self.weighting)(self.scorer.schedule, timestep).to(score_part)
        gradient, figures = postprocess(
            weight * score_part, mask=mask, scale=self.scale, clamp=self.clamp, nan=self.nan
        )
        self.figures.update(figures)
        return gradient

    def score_part(self, branches: Mapping[str, Tensor]) -> Tensor:
        """The guided noise prediction (B, C, h, w), its direction rank weighted."""
        rest, direction = guide(branches, self.table)
        if self.rank_weights is None:
            return rest + direction
        on_all = self.rank_on == "score"
        score = rest + direction if on_all else direction
        self.figures.update({f"spectrum{i}": float(share) for i, share in enumerate(spectrum(score).mean(0))})
        weighted = rank_weight(score, self.rank_weights)
        if self.rank_restore:
            weighted = restore_statistics(weighted, score)
        return weighted if on_all else rest + weighted

    def on_latents(
        self,
        latents: Tensor,
        prompt: str | Sequence[str],
        control: Tensor | Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
        *,
        timestep: int | Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The part below the image encoder.

        Args:
            latents: (B, C, h, w), with the graph that the gradient is to flow into.
            prompt: one for all pictures, or B of them.
            control: pictures (B, 3, H, W) in [0, 1] by name, resized to the scorer; a tensor where the scorer knows
                one control only.
            mask: (B, 1, H, W) in [0, 1], multiplied on the latent gradient.
            timestep, noise: hold the randomness still: (B,) or one number, and (B, C, h, w).
            generator: for what of it is drawn here.
        Returns:
            A scalar whose gradient on `latents` is `latent_gradient`.
        """
        batch = len(latents)
        prompts = [prompt] * batch if isinstance(prompt, str) else list(prompt)
        if len(prompts) != batch:
            raise ShapeError(f"{batch} pictures take one prompt or {batch} of them, got {len(prompts)}.")
        with torch.no_grad():
            timestep = self._timesteps(timestep, latents, generator)
            noise = _normal(latents, generator) if noise is None else noise
            if noise.shape != latents.shape:
                raise ShapeError(
                    f"noise must have the latents' shape {tuple(latents.shape)}, got {tuple(noise.shape)}."
                )
            noisy = self.scorer.schedule.add_noise(latents, noise, timestep)
            pictures = self._controls(control, batch)
            conditions = {
                name: self.scorer.condition(texts, controls=pictures) for name, texts in self.branches(prompts).items()
            }
            predicted = self.scorer.predict_noise(noisy, timestep, conditions)
            gradient = self.latent_gradient(predicted, noise, timestep, mask)
        return surrogate(latents, gradient).sum()

    def __call__(
        self,
        images: Tensor,
        prompt: str | Sequence[str],
        mirrored: Tensor | None = None,
        control: Tensor | Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
        *,
        timestep: int | Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of images (B, 3, H, W) in [-1, 1], resized differentiably to the scorer.

        Args:
            mirrored: (B, 3, H, W), rendered from the mirrored cameras: gets the flipped gradient.
            others: see `on_latents`.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"Images have shape (B, 3, H, W), got {tuple(images.shape)}.")
        picture = resize(images, self.scorer.image_size)
        if mirrored is not None:
            if mirrored.shape != images.shape:
                raise ShapeError(f"mirrored must have the images' shape, got {tuple(mirrored.shape)}.")
            picture = join_mirrored(picture, resize(mirrored, self.scorer.image_size), self.mirror_weights)
        latents = encode_at_unit_scale(self.scorer, picture)
        return self.on_latents(latents, prompt, control, mask, timestep=timestep, noise=noise, generator=generator)

    def _timesteps(self, given: int | Tensor | None, latents: Tensor, generator: torch.Generator | None) -> Tensor:
        if given is not None:
            return torch.as_tensor(given, device=latents.device).expand(len(latents))
        choices = self.timestep_choices()
        device = generator.device if generator is not None else latents.device
        place = torch.randint(len(choices), (len(latents),), generator=generator, device=device)
        return torch.tensor(choices, device=latents.device)[place.to(latents.device)]

    def timestep_choices(self) -> Sequence[int]:
        """The timesteps that one is drawn from."""
        if self.timesteps is not None:
            return self.timesteps
        total = len(self.scorer.schedule)
        first = min(int(self.t_range[0] * total), total - 1)
        return range(first, max(first + 1, int(self.t_range[1] * total)))

    def _controls(self, control: Tensor | Mapping[str, Tensor] | None, batch: int) -> Mapping[str, Tensor]:
        if control is None:
            return {}
        named = self._named(control)
        for name, picture in named.items():
            if picture.ndim != 4 or picture.shape[:2] != (batch, 3):
                raise ShapeError(f"The {name} control has shape ({batch}, 3, H, W), got {tuple(picture.shape)}.")
        return {name: resize(picture, self.scorer.image_size) for name, picture in named.items()}

    def _named(self, control: Tensor | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if not isinstance(control, Tensor):
            return control
        if len(self.scorer.controls) != 1:
            raise ConfigError(
                f"This scorer knows the controls ({', '.join(self.scorer.controls) or 'none'}); name the one that "
                "the picture is for: control={'depth': picture}."
            )
        return {self.scorer.controls[0]: control}


def surrogate(latents: Tensor, gradient: Tensor) -> Tensor:
    """(B,): a loss whose gradient on `latents` is `gradient`.

    Not |x - (x - g)|^2 / 2: in float32 that difference cancels for gradients of 1e-4.
    """
    return (latents * gradient.detach()).flatten(1).sum(1)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else like.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=torch.float32).to(like)


@dataclass(frozen=True)
class LDLoss(ScoreDistillation):
    r"""Likelihood distillation: follow the score itself, no sampled noise subtracted.

        dL/dx_0 = -grad_{x_t} log p(x_t | y) * dx_t/dx_0 = sqrt(alpha_bar) / sigma * noise_pred

    because score = -noise_pred / sigma and x_t = sqrt(alpha_bar) x_0 + sigma * noise. Bilecen et al., ICCV 2025,
    arXiv:2411.13536. With equal w(t) it is SDS plus `w * noise`: the same mean gradient, more variance.
    """

    @classmethod
    def released(cls: type[Family], scorer: Scorer, **changes: Any) -> Family:
        """The gradient of the authors' released script, which is not the printed equation.

        It follows the guidance difference only, reads the schedule at the step's place in its list of 50 DDIM steps
        instead of its timestep, puts each channel's mean and contrast back after rank weighting, weights the mirror
        .75 : .25, divides by 1000 and clamps to +-1. Its timesteps are positions 35 to 49: t = 281, 261, ..., 1.
        Called on images, this loss encodes the posterior's mean and joins the mirror before the encoder; the script
        samples the posterior and joins after it, as the method `ld-released` does.
        """
        options: dict[str, Any] = {
            "score": "guidance",
            "weighting": "released",
            "rank_weights": PAPER_WEIGHTS,
            "rank_restore": True,
            "scale": 1e-3,
            "clamp": 1.0,
            "nan": "zero",
            "timesteps": RELEASED_TIMESTEPS,
            "mirror_weights": (0.75, 0.25),
        }
        return cls(scorer, **{**options, **changes})


@dataclass(frozen=True)
class SDSLoss(ScoreDistillation):
    """Score distillation sampling: sigma^2 * (guided prediction - drawn noise). Poole et al., arXiv:2209.14988."""

    guidance_scale: float = 100.0
    weighting: str | Weighting = "sigma_squared"
    noise_baseline: float = 1.0
    t_range: tuple[float, float] = (0.02, 0.98)


@dataclass(frozen=True)
class CSDLoss(ScoreDistillation):
    """Classifier score distillation: w * (prompt - empty), no prior term. Yu et al., arXiv:2310.19415."""

    score: ScoreName | Table = "guidance"
    guidance_scale: float = 1.0
    weighting: str | Weighting = "sigma_squared"
    t_range: tuple[float, float] = (0.02, 0.98)


def variant(loss: Family, **changes: Any) -> Family:
    """The same loss with some fields changed and figures of its own."""
    return replace(loss, **{"figures": {}, **changes})
