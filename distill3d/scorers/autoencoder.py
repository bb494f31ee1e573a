"""Pictures to latents and back, by a model's VAE or by a tiny autoencoder that was taught the same latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.errors import ConfigError
from distill3d.scorers.economy import recomputed

SD_SCALING = 0.18215  # of the latents of Stable Diffusion 1 and 2, which TAESD was taught
XL_SIZE = 1024  # pixels; VAEs made for such pictures leave the range of half precision


def dtype_of_vae(config: Any, wanted: torch.dtype) -> torch.dtype:
    """What an autoencoder computes in where `wanted` is asked for.

    Gradients go through its encoder, and float16's smallest number is 6e-8: float32 takes its place. bfloat16 has
    float32's range, and keeps the gradient of a VAE to a cosine above .999. SDXL's VAE computes in float32 there, too,
    and so does a tiny autoencoder, which costs next to nothing: its ReLUs switch where activations are rounded.
    """
    large = bool(config.get("force_upcast")) and (config.get("sample_size") or 0) >= XL_SIZE
    if wanted == torch.float16 or (wanted == torch.bfloat16 and (large or _is_tiny(config))):
        return torch.float32
    return wanted


def _is_tiny(config: Any) -> bool:
    return "latent_magnitude" in config


def pixels_of_a_latent(config: Any) -> int:
    """The side of the square of pixels that becomes one latent."""
    return int(2 ** (len(config["block_out_channels"]) - 1))


def encode(vae: Any, images: Tensor, noise: Tensor | None, recompute: bool = False) -> Tensor:
    """(B, 3, H, W) in [-1, 1] to latents at the scale that the UNet knows, in float32 at least.

    A tiny autoencoder's posterior is a point, so that `noise` changes nothing.

    Args:
        recompute: keep little for the backward: pictures one by one, and only the inputs of the encoder's blocks.
    """
    if recompute and images.requires_grad and torch.is_grad_enabled():
        rows = zip(images.split(1), noise.split(1) if noise is not None else [None] * len(images))
        with recomputed(_encoder_blocks(vae.encoder)):
            return torch.cat([encode(vae, image, drawn) for image, drawn in rows])
    encoded = vae.encode(images.to(_dtype(vae)))
    if hasattr(encoded, "latents"):
        latents = _full(encoded.latents)
    else:
        posterior = encoded.latent_dist
        latents = _full(posterior.mean)
        if noise is not None:
            latents = latents + _full(posterior.std) * noise.to(latents)
    return (latents - _shift(vae)) * vae.config.scaling_factor


def _encoder_blocks(encoder: Any) -> Iterator[nn.Module]:
    """The smallest that are worth computing again: residual blocks, attentions, downsamplings.

    diffusers' own checkpointing takes all residual blocks of a size together: of the largest size, half of the whole.
    """
    if not hasattr(encoder, "down_blocks"):  # a tiny one: convolutions, which keep nothing, and residual blocks
        yield from (layer for layer in encoder.layers if not isinstance(layer, nn.Conv2d))
        return
    for level in (*encoder.down_blocks, encoder.mid_block):
        for kind in ("resnets", "attentions", "downsamplers"):
            yield from (block for block in getattr(level, kind, None) or () if block is not None)


def decode(vae: Any, latents: Tensor, sliced: bool = False) -> Tensor:
    """Latents at the UNet's scale to pictures (B, 3, H, W) in about [-1, 1].

    Args:
        sliced: picture by picture. Tiles of a picture would show their seams.
    """
    if sliced and len(latents) > 1:
        return torch.cat([decode(vae, one) for one in latents.split(1)])
    scaled = latents / vae.config.scaling_factor + _shift(vae)
    return vae.decode(scaled.to(_dtype(vae))).sample


def _full(x: Tensor) -> Tensor:
    """Out of half precision: what follows is arithmetic of a few numbers."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _dtype(vae: Any) -> torch.dtype:
    return next(vae.parameters()).dtype


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


def check_taesd_fits(source: str, kind: Any) -> None:
    """Raise a ConfigError if the model at `source` has latents of another kind than TAESD's.

    Args:
        kind: the class of its VAE, which reads its config. One that is not to be had says nothing.
    """
    try:
        config = kind.load_config(source, subfolder="vae")
    except (OSError, ValueError):
        return
    scaling, channels = config.get("scaling_factor", SD_SCALING), config.get("latent_channels", 4)
    pixels = pixels_of_a_latent(config)
    if abs(scaling - SD_SCALING) > 1e-6 or channels != 4 or pixels != 8:
        raise ConfigError(
            f"TAESD knows the latents of Stable Diffusion 1 and 2 (4 channels, 8 pixels, scaled by {SD_SCALING}). "
            f"Those of {source} are others ({channels} channels, {pixels} pixels, scaled by {scaling}). "
            "Leave --fast out, or give the folder of a tiny autoencoder that was made for this model."
        )
