"""The networks of Stable Diffusion 1.5 as data: their shapes without their weights.

What a step costs and how much memory it takes follow from the shapes alone; a network on the meta device costs nothing
to make. Weights are random: such a scorer says nothing about any style.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from distill3d.errors import ConfigError
from distill3d.scorers.diffusers import DiffusersScorer

Size = Literal["full", "reduced"]  # "reduced": half the widths, half the picture's side; about a sixteenth of the work

UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # the number of heads: so the published config has it
}
VAE: dict[str, Any] = {
    "sample_size": 512,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": 0.18215,
}
CONTROLNET: dict[str, Any] = {
    "block_out_channels": UNET["block_out_channels"],
    "cross_attention_dim": UNET["cross_attention_dim"],
    "attention_head_dim": UNET["attention_head_dim"],
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
}
TEXT: dict[str, Any] = {  # the text half of CLIP ViT-L/14
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
TINY_AUTOENCODER: dict[str, Any] = {  # TAESD
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "latent_channels": 4,
}
SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "set_alpha_to_one": False,
    "clip_sample": False,
}
HALVED = {  # numbers, or tuples of them, that "reduced" halves; head counts stay, so that heads get narrower
    *("sample_size", "block_out_channels", "cross_attention_dim", "conditioning_embedding_out_channels"),
    *("hidden_size", "intermediate_size", "projection_dim", "encoder_block_out_channels", "decoder_block_out_channels"),
}


class NumberedWords:
    """A stand-in for a tokenizer: every word a number of its own, padded to the text encoder's length."""

    model_max_length = TEXT["max_position_embeddings"]
    begin, end = TEXT["vocab_size"] - 2, TEXT["vocab_size"] - 1

    def __call__(self, texts: str | list[str], *, padding: str = "", **_: Any) -> SimpleNamespace:
        if isinstance(texts, str):
            return SimpleNamespace(input_ids=self._ids(texts))
        rows = [self._ids(text)[: self.model_max_length] for text in texts]
        if padding:
            rows = [row + [self.end] * (self.model_max_length - len(row)) for row in rows]
        return SimpleNamespace(input_ids=rows)

    def _ids(self, text: str) -> list[int]:
        return [self.begin, *(sum(word.encode()) % self.begin for word in text.split()), self.end]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def sd15(
    size: Size = "full",
    *,
    controlnets: Collection[str] = ("depth", "canny"),
    fast: bool = False,
    dtype: torch.dtype = torch.float32,
    vae_dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> DiffusersScorer:
    """A scorer of Stable Diffusion 1.5's shapes with random weights; nothing is downloaded.

    Args:
        size: "full" for 512 px; "reduced" has half of every width and looks at 256 px.
        controlnets: the names of the control pictures, each with a network of its own.
        fast: the tiny autoencoder (TAESD) instead of the VAE.
        dtype, vae_dtype: see `DiffusersScorer`.
        device: "meta" for shapes alone.
    Raises:
        ConfigError: for another size.
    """
    if size not in get_args(Size):
        raise ConfigError(f"The size is {' or '.join(get_args(Size))}, got {size!r}.")
    with _random_weights(dtype, device):
        nets: dict[str, Any] = {
            "unet": UNet2DConditionModel(**sized(UNET, size)),
            "vae": AutoencoderTiny(**sized(TINY_AUTOENCODER, size)) if fast else AutoencoderKL(**sized(VAE, size)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**sized(TEXT, size))),
        }
        controls = {name: _controlnet(size) for name in controlnets}
    schedule = DDIMScheduler(**SCHEDULE)
    return DiffusersScorer(
        **nets, tokenizer=NumberedWords(), scheduler=schedule, controlnets=controls, dtype=dtype, vae_dtype=vae_dtype
    )


def sized(config: dict[str, Any], size: Size) -> dict[str, Any]:
    """A network's config at a size."""
    return config if size == "full" else {k: _half(v) if k in HALVED else v for k, v in config.items()}


def _half(value: Any) -> Any:
    return value // 2 if isinstance(value, int) else tuple(number // 2 for number in value)


def _controlnet(size: Size) -> nn.Module:
    """One whose zero convolutions are not zero, so that its picture matters."""
    net: Any = ControlNetModel(**sized(CONTROLNET, size))
    zeros = [*net.controlnet_down_blocks, net.controlnet_mid_block, net.controlnet_cond_embedding.conv_out]
    for layer in zeros:
        nn.init.normal_(layer.weight, std=0.02)
    return net


@contextmanager
def _random_weights(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Networks made here have this dtype and place and equal weights at every call; the caller's random state stays."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)  # `.to(dtype)` afterwards would hold both copies of a network at once
        try:
            yield
        finally:
            torch.set_default_dtype(before)
