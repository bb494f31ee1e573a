# diffusers loads its classes lazily: to mypy they are untyped names.
# mypy: disable-error-code="attr-defined"
"""The autoencoder: 64 x 64 pictures to 4 x 16 x 16 latents and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from distill3d.tiny.train.diffusion.data import Subjects, flip_some, grid, to_image
from distill3d.tiny.train.diffusion.loop import Recipe

RECIPE = Recipe(steps=5_500, lr=0.02, batch=4, ema=0.995, decay_share=0.6)
GRID_EVERY = 5  # steps: the decoder must also draw heads of half the size
KL_WEIGHT = 2e-4  # for each latent number; enough to keep the latents near one scale, too little to blur


def build_vae() -> AutoencoderKL:
    """An untrained autoencoder; two halvings, so latents are 16 x 16."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )
    with torch.no_grad():  # start with almost exact latents: noise of size 1 would drown the first thousand steps
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6.0
    return vae


def draw_images(subjects: Subjects, batch: int, step: int, generator: torch.Generator) -> Tensor:
    """(B, 3, 64, 64) in [-1, 1]: single views or, at every fifth step, grids; half of them mirrored."""
    chosen = torch.randint(len(subjects), (batch,), generator=generator)
    flipped = torch.rand(batch, generator=generator) < 0.5
    if step % GRID_EVERY == 0:
        order = torch.rand(batch, 4, generator=generator).argsort(1)
        images = grid(to_image(subjects.rgb[chosen[:, None], order]))
    else:
        images = to_image(subjects.rgb[chosen, torch.randint(4, (batch,), generator=generator)])
    return flip_some(images, flipped)


def vae_loss(vae: AutoencoderKL, subjects: Subjects, batch: int) -> Callable[[int, torch.Generator], Tensor]:
    """L1, squared error, L1 of the edges at two scales, and a little KL."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        images = draw_images(subjects, batch, step, generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample.float()
        halves = F.avg_pool2d(decoded, 2), F.avg_pool2d(images, 2)
        edges = edge_loss(decoded, images) + edge_loss(*halves)
        pixels = F.l1_loss(decoded, images) + 2 * F.mse_loss(decoded, images)
        return pixels + 0.5 * edges + KL_WEIGHT * posterior.kl().float().mean() / posterior.mean[0].numel()

    return loss


def edge_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """L1 between the horizontal and vertical differences: blur costs more than a shift of tone."""
    across = F.l1_loss(decoded.diff(dim=-1), images.diff(dim=-1))
    return across + F.l1_loss(decoded.diff(dim=-2), images.diff(dim=-2))


@torch.no_grad()
def finish_vae(vae: AutoencoderKL, subjects: Subjects, folder: Path) -> None:
    """Set the scaling factor so that scaled latents have standard deviation 1, and save."""
    step = max(1, len(subjects) // 250)
    images = torch.cat([to_image(subjects.rgb[::step, 0]), grid(to_image(subjects.rgb[1::step]))])
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(32)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.save_pretrained(folder)


@torch.no_grad()
def vae_psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Mean PSNR in dB of pictures (B, 3, 64, 64) in [-1, 1] after encoding and decoding."""
    decoded = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in images.split(32)])
    error = (decoded.float().clamp(-1, 1) - images).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()
