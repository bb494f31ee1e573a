"""Small random networks of the real classes."""

import copy

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, DDIMScheduler, UNet2DConditionModel

from distill3d.scorer import encode_at_unit_scale
from distill3d.scorers.diffusers import DiffusersScorer


def networks(text_width):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=text_width,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return unet, vae


def small(embedded, prediction_type="epsilon", controls=("depth", "canny"), **parts):
    """Random UNet, VAE and ControlNets around a copy of the embedded text encoder; `parts` take their places."""
    unet, vae = networks(embedded.text_encoder.config.hidden_size)
    controlnets = {}
    for seed, name in enumerate(controls):
        torch.manual_seed(seed)
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
        for p in net.parameters():  # the zero convolutions would hide a control that is not passed on
            p.data += 0.05 * torch.randn_like(p)
        controlnets[name] = net
    return DiffusersScorer(
        text_encoder=copy.deepcopy(embedded.text_encoder),
        tokenizer=embedded.tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
        ),
        controlnets=controlnets,
        **{"unet": unet, "vae": vae, **parts},
    )


def tiny_autoencoder(channels=4, stages=2):
    """A random one that makes a latent of every 2^(stages - 1) pixels."""
    torch.manual_seed(3)
    return AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=(8,) * stages,
        decoder_block_out_channels=(8,) * stages,
        num_encoder_blocks=(1,) * stages,
        num_decoder_blocks=(1,) * stages,
    ).eval()


def smooth_pictures(count, size):
    """(count, 3, size, size) in [-1, 1]."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)


def encoded(scorer, images, cotangent=1.0):
    """Latents, and the gradient of their sum, weighted by fixed noise times `cotangent`, on the pictures."""
    images = images.clone().requires_grad_()
    latents = encode_at_unit_scale(scorer, images)
    weights = cotangent * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).to(latents)
    return latents.detach(), torch.autograd.grad((latents * weights).sum(), images)[0] / cotangent


def predicted(scorer, timesteps=(100, 600), **controls):
    """The predictions of two branches for two noised random latents."""
    shape = (2, scorer.latent_channels, scorer.latent_size, scorer.latent_size)
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    prompts = {"prompt": "Portrait of a zombie", "empty": ""}
    conditions = {name: scorer.condition([text] * 2, controls=controls) for name, text in prompts.items()}
    return scorer.predict_noise(noisy, torch.tensor(timesteps), conditions)
