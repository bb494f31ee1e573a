# diffusers loads its classes lazily: to mypy they are untyped names.
# mypy: disable-error-code="attr-defined,operator"
"""The denoiser: predicts the noise in a latent, from a caption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from distill3d.files import sha256
from distill3d.tiny.train.diffusion.data import Subjects, grid, to_image
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.diffusion.text import TEXT_WIDTH
from distill3d.tiny.train.diffusion.tokenizer import token_ids
from distill3d.tiny.train.store import read_tensors, write_tensors

RECIPE = Recipe(steps=4_500, lr=0.02, adam_share=0.06, batch=32, warmup=100, decay_share=0.5)
GRID_EVERY = 8  # steps
NO_PROMPT = 0.12
SNR_CAP = 5.0


def build_unet() -> UNet2DConditionModel:
    """An untrained denoiser of 3.9 M parameters; attention where 8 x 8 latents are, and in the middle."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 96, 112),
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Latents:
    """The posteriors of all training pictures: mean and standard deviation as 8 channels, float16, unscaled."""

    single: Tensor  # (N, 4 views, 2 plain and mirrored, 8, 16, 16)
    grid: Tensor  # (N, 2 plain and mirrored, 8, 16, 16): four views in their order
    scale: float

    def sample(self, posterior: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 8, 16, 16) posteriors to scaled latents (B, 4, 16, 16)."""
        mean, deviation = posterior.float().chunk(2, 1)
        return self.scale * (mean + deviation * torch.randn(mean.shape, generator=generator))


@torch.no_grad()
def _posteriors(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """(B, 3, 64, 64) to (B, 2, 8, 16, 16), plain and mirrored."""
    both = [vae.encode(side).latent_dist for side in (images, images.flip(-1))]
    return torch.stack([torch.cat([d.mean, d.std], 1) for d in both], 1).half()


def cached_latents(vae: AutoencoderKL, subjects: Subjects, folder: Path) -> Latents:
    """Encode every picture once; the result lies in `folder`, named for the autoencoder that made it."""
    key = sha256(folder / "vae" / "diffusion_pytorch_model.safetensors")[:12]
    path = folder / f"latents-{key}-{len(subjects)}.safetensors"
    if not path.is_file():
        parts = [subjects.part(slice(at, at + 32)).rgb for at in range(0, len(subjects), 32)]
        single = [_posteriors(vae, to_image(rgb.flatten(0, 1))).unflatten(0, (-1, 4)) for rgb in parts]
        grids = [_posteriors(vae, grid(to_image(rgb))) for rgb in parts]
        write_tensors(path, {"single": torch.cat(single), "grid": torch.cat(grids)})
    tensors = read_tensors(path)
    return Latents(tensors["single"], tensors["grid"], vae.config.scaling_factor)


@dataclass(frozen=True)
class Batch:
    """What the denoiser and the ControlNet train on."""

    latents: Tensor  # (B, 4, 16, 16), clean, scaled
    embedding: Tensor  # (B, tokens, width), of captions or of nothing
    subjects: Tensor  # (B,) which heads
    views: Tensor | None  # (B,) which of their views; None for grids
    flipped: Tensor  # (B,) bool


class Batches:
    """Draws training batches: single views, and every so many steps grids of four."""

    def __init__(self, subjects: Subjects, latents: Latents, text: CLIPTextModel, tokenizer: CLIPTokenizer):
        self.subjects, self.latents, self.text, self.tokenizer = subjects, latents, text, tokenizer

    def draw(self, batch: int, step: int, generator: torch.Generator, no_prompt: float = NO_PROMPT) -> Batch:
        """The batch of a step; `no_prompt` of the captions are replaced by the empty one."""
        chosen = torch.randint(len(self.subjects), (batch,), generator=generator)
        flipped = torch.rand(batch, generator=generator) < 0.5
        views = None if step % GRID_EVERY == 0 else torch.randint(4, (batch,), generator=generator)
        side = flipped.long()
        posterior = self.latents.grid[chosen, side] if views is None else self.latents.single[chosen, views, side]
        names = [None] * batch if views is None else views.tolist()
        captions = [self.subjects.caption(int(s), view, generator).text for s, view in zip(chosen, names)]
        silent = (torch.rand(batch, generator=generator) < no_prompt).tolist()
        texts = ["" if quiet else text for quiet, text in zip(silent, captions)]
        return Batch(self.latents.sample(posterior, generator), self.embed(texts), chosen, views, flipped)

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """(B, tokens, width): the text encoder's last hidden state."""
        return self.text(token_ids(self.tokenizer, texts)).last_hidden_state


def unet_loss(unet: UNet2DConditionModel, batches: Batches, batch: int) -> Callable[[int, torch.Generator], Tensor]:
    """Squared error of the noise prediction with min-SNR weights."""
    unet.set_attn_processor(AttnProcessor())  # the fused attention's backward is several times slower at this size
    alpha_bar = build_scheduler().alphas_cumprod

    def loss(step: int, generator: torch.Generator) -> Tensor:
        drawn = batches.draw(batch, step, generator)
        timestep = spread_timesteps(torch.rand(batch, generator=generator))
        noisy, noise = add_noise(drawn.latents, timestep, alpha_bar, generator)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(noisy, timestep, drawn.embedding).sample
        return min_snr_loss(predicted.float(), noise, alpha_bar[timestep])

    return loss


def spread_timesteps(uniform: Tensor) -> Tensor:
    """(B,) timesteps in [0, 1000), one in each B-th of the range: less variance than independent ones."""
    batch = len(uniform)
    return ((torch.arange(batch) + uniform) / batch * 1000).long().clamp(0, 999)


def add_noise(
    latents: Tensor, timestep: Tensor, alpha_bar: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noisy latents, and the noise."""
    noise = torch.randn(latents.shape, generator=generator)
    share = alpha_bar[timestep].view(-1, 1, 1, 1)
    return share.sqrt() * latents + (1 - share).sqrt() * noise, noise


def min_snr_loss(predicted: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Squared error times min(SNR, 5) / SNR: Hang et al., ICCV 2023, arXiv:2303.09556."""
    snr = alpha_bar / (1 - alpha_bar)
    return (snr.clamp(max=SNR_CAP) / snr * (predicted - noise).square().mean((1, 2, 3))).mean()
