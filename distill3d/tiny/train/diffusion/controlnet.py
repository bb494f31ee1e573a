# diffusers loads its classes lazily: to mypy they are untyped names.
# mypy: disable-error-code="attr-defined,operator,union-attr"
"""ControlNets, one that reads depth and one that reads edges: the denoiser's encoder again, with a picture beside the
latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from distill3d.tiny.train.diffusion.data import (
    Subjects,
    depth_control,
    edge_control,
    flip_some,
    grid_control,
    grid_edges,
    to_image,
)
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.diffusion.unet import Batch, Batches, add_noise, build_scheduler, min_snr_loss

RECIPE = Recipe(steps=900, lr=6e-3, batch=24, ema=0.99)
NO_PROMPT = 0.3  # often, so that the control has to be read
# How often the control is that of the same head as a photo. A distillation controls with what the untouched generator
# shows; a model that had only seen a werewolf's own depth would draw that depth, and no werewolf's ears.
FROM_SOURCE = 0.5
# And a generator's heads are softer than drawn ones: the largest deviation of a blur, in pixels of a single view.
SOFTEST = {"depth": 2.0, "canny": 1.0}


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that starts from the denoiser's weights and changes nothing yet.

    Convolutions only: the prompt acts in the denoiser, and without attention it is half as large. Its picture is
    64 x 64 where the latents are 16 x 16: three entries make two halvings.
    """
    config = unet.config
    controlnet = ControlNetModel(
        in_channels=config.in_channels,
        conditioning_channels=3,
        down_block_types=("DownBlock2D",) * len(config.block_out_channels),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        cross_attention_dim=config.cross_attention_dim,
        attention_head_dim=config.attention_head_dim,
        conditioning_embedding_out_channels=(8, 16, 32),
    )
    known, own = unet.state_dict(), controlnet.state_dict()
    own.update({name: known[name] for name in own if name in known})
    controlnet.load_state_dict(own)
    return controlnet


def batch_control(
    name: str, subjects: Subjects, batch: Batch, source: Tensor, softness: Tensor | None = None
) -> Tensor:
    """(B, 3, 64, 64) in [0, 1]: the control of each picture of a batch, mirrored where it is.

    Args:
        name: a key of `CONTROLS`.
        source: (B,) bool, whose control is that of the head as a photo.
        softness: (B,) deviations in pixels of the blur that each head gets first; None for none.
    """
    parts, single, grid = CONTROLS[name]
    where = batch.subjects if batch.views is None else (batch.subjects, batch.views)
    views = {}
    for part in parts:
        own, photo = (getattr(subjects, f"{prefix}{part}")[where].float() for prefix in ("", "source_"))
        chosen = torch.where(source.view(-1, *[1] * (own.ndim - 1)), photo, own)
        views[part] = chosen if softness is None else blurred(chosen, softness)
    return flip_some((grid if batch.views is None else single)(views), batch.flipped)


def blurred(pictures: Tensor, deviation: Tensor) -> Tensor:
    """(B, ..., H, W), each convolved with a Gaussian of its `deviation` (B,) in pixels; 0 leaves it as it is."""
    half = math.ceil(3 * max(SOFTEST.values()))
    away = torch.arange(-half, half + 1)
    weights = torch.exp(-away.square() / (2 * deviation.clamp_min(1e-3)[:, None].square()))
    layers = pictures.flatten(1, -3)  # (B, L, H, W)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(layers.shape[1], 0)[:, None, None]
    padded = F.pad(layers, (half,) * 4, mode="replicate").flatten(0, 1)[None]
    across = F.conv2d(padded, weights, groups=len(weights))
    return F.conv2d(across, weights.mT, groups=len(weights)).view_as(pictures)


Views = Mapping[str, Tensor]  # of `Subjects`, as floats: (B, C, 64, 64) or, for grids, (B, 4, C, 64, 64)


def _depth(views: Views) -> Tensor:
    return depth_control(views["depth"], views["mask"] / 255)


def _depth_grid(views: Views) -> Tensor:
    return grid_control(views["depth"], views["mask"] / 255)


def _edges(views: Views) -> Tensor:
    return edge_control(to_image(views["rgb"]))


def _edges_grid(views: Views) -> Tensor:
    return grid_edges(to_image(views["rgb"]))


# What each reads of a head, how it becomes a control, and how four views become one.
CONTROLS: dict[str, tuple[tuple[str, ...], Callable[[Views], Tensor], Callable[[Views], Tensor]]] = {
    "depth": (("depth", "mask"), _depth, _depth_grid),
    "canny": (("rgb",), _edges, _edges_grid),
}


def controlnet_loss(
    name: str, controlnet: ControlNetModel, unet: UNet2DConditionModel, batches: Batches, batch: int
) -> Callable[[int, torch.Generator], Tensor]:
    """The denoiser's loss with the ControlNet's help; noisier timesteps are drawn more often, they decide the shape."""
    unet.requires_grad_(False).set_attn_processor(AttnProcessor())
    alpha_bar = build_scheduler().alphas_cumprod

    def loss(step: int, generator: torch.Generator) -> Tensor:
        drawn = batches.draw(batch, step, generator, NO_PROMPT)
        timestep = (999 * (1 - torch.rand(batch, generator=generator) ** 1.5)).long()
        noisy, noise = add_noise(drawn.latents, timestep, alpha_bar, generator)
        source = torch.rand(batch, generator=generator) < FROM_SOURCE
        softness = SOFTEST[name] * torch.rand(batch, generator=generator).square()  # most are nearly sharp
        control = batch_control(name, batches.subjects, drawn, source, softness)
        with torch.autocast("cpu", torch.bfloat16):
            down, mid = controlnet(noisy, timestep, drawn.embedding, control, return_dict=False)
            predicted = unet(
                noisy,
                timestep,
                drawn.embedding,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
            ).sample
        return min_snr_loss(predicted.float(), noise, alpha_bar[timestep])

    return loss
