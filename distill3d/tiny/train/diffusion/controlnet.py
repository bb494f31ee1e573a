# diffusers loads its classes lazily: to mypy they are untyped names.
# mypy: disable-error-code="attr-defined,operator,union-attr"
"""A ControlNet that reads depth: the denoiser's encoder again, with a picture beside the latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from distill3d.tiny.train.diffusion.data import Subjects, depth_control, flip_some, grid_control
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.diffusion.unet import Batch, Batches, add_noise, build_scheduler, min_snr_loss

RECIPE = Recipe(steps=1_500, lr=6e-3, batch=24, ema=0.99)
NO_PROMPT = 0.3  # often, so that the depth has to be read


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that starts from the denoiser's weights and changes nothing yet.

    Its picture is 64 x 64 where the latents are 16 x 16: three entries make two halvings.
    """
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 32), conditioning_channels=3)


def batch_control(subjects: Subjects, batch: Batch) -> Tensor:
    """(B, 3, 64, 64) in [0, 1]: the depth of each picture of the batch, mirrored where it is."""
    if batch.views is None:
        control = grid_control(subjects.depth[batch.subjects], subjects.mask[batch.subjects].float() / 255)
    else:
        where = batch.subjects, batch.views
        control = depth_control(subjects.depth[where], subjects.mask[where].float() / 255)
    return flip_some(control, batch.flipped)


def controlnet_loss(
    controlnet: ControlNetModel, unet: UNet2DConditionModel, batches: Batches, batch: int
) -> Callable[[int, torch.Generator], Tensor]:
    """The denoiser's loss with the ControlNet's help; noisier timesteps are drawn more often, they decide the shape."""
    for net in (controlnet, unet.requires_grad_(False)):
        net.set_attn_processor(AttnProcessor())
    alpha_bar = build_scheduler().alphas_cumprod

    def loss(step: int, generator: torch.Generator) -> Tensor:
        drawn = batches.draw(batch, step, generator, NO_PROMPT)
        timestep = (999 * (1 - torch.rand(batch, generator=generator) ** 1.5)).long()
        noisy, noise = add_noise(drawn.latents, timestep, alpha_bar, generator)
        control = batch_control(batches.subjects, drawn)
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
