"""DINOv2 with registers: a picture to tokens, with the published names of the weights.

Oquab et al., arXiv:2304.07193; Darcet et al., "Vision transformers need registers", arXiv:2309.16588.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.errors import ShapeError, WeightsError
from distill3d_lrm.attention import attend
from distill3d_lrm.configuration import choice, number, size

EPSILON = 1e-6
LARGEST = {"dim": 8192, "layers": 128, "patch": 64, "trained_size": 4096, "registers": 64, "ratio": 16}


@dataclass(frozen=True, kw_only=True)
class DinoV2Config:
    """Sizes of one encoder."""

    dim: int
    layers: int = 12
    heads: int
    patch: int = 14
    trained_size: int = 518  # of the pictures that the position embedding was trained for
    registers: int = 4
    ratio: int = 4  # of an MLP's width to `dim`

    @property
    def trained_grid(self) -> int:
        return self.trained_size // self.patch

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DinoV2Config:
        """Of the arguments that DINOv2's own class takes.

        Raises:
            WeightsError: naming what is missing, or is not as in the published encoders with registers.
        """
        if not isinstance(values, Mapping):
            raise WeightsError(f"An encoder's config has entries by name, got {type(values).__name__}.")
        if number(values, "interpolate_offset", 0.0) != 0 or values.get("interpolate_antialias") is not True:
            raise WeightsError("Only encoders whose position grid is resized with antialiasing, as with registers.")
        if abs(number(values, "norm_eps", EPSILON) - EPSILON) > 1e-9:
            raise WeightsError(f"norm_eps of DINOv2 is {EPSILON}, got {values['norm_eps']!r}.")
        for name in ("layer_scale", "qkv_bias"):
            choice({name: str(values.get(name, True))}, name, ("True",))
        found = cls(
            dim=size(values, "embed_dim"),
            layers=size(values, "depth"),
            heads=size(values, "num_heads"),
            patch=size(values, "patch_size", cls.patch),
            trained_size=size(values, "img_size", cls.trained_size),
            registers=size(values, "num_register_tokens", cls.registers),
            ratio=size(values, "mlp_ratio", cls.ratio),
        )
        for name, most in LARGEST.items():
            if getattr(found, name) > most:
                raise WeightsError(f"{name} of an encoder's config is at most {most}, got {getattr(found, name)}.")
        if found.dim % found.heads or found.trained_grid < 1:
            raise WeightsError(f"{found.heads} heads do not divide {found.dim} channels, or no patch fits the picture.")
        return found


ENCODERS = {
    "dinov2_vits14_reg": DinoV2Config(dim=384, heads=6),
    "dinov2_vitb14_reg": DinoV2Config(dim=768, heads=12),
    "dinov2_vitl14_reg": DinoV2Config(dim=1024, heads=16, layers=24),
}


class DinoV2(nn.Module):
    """Pictures (S, 3, H, W) to tokens (S, 1 + H/14 * W/14, dim): the class token, then the patches row by row."""

    def __init__(self, config: DinoV2Config):
        super().__init__()
        dim = config.dim
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.trained_grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, config.patch, config.patch)})
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)

    def embed(self, image: Tensor) -> Tensor:
        """What the first block reads: the class token, the registers, the patches.

        Raises:
            ShapeError: if a side of the picture is not whole patches.
        """
        patch = self.config.patch
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] % patch or image.shape[3] % patch:
            raise ShapeError(
                f"DINOv2 reads pictures (S, 3, H, W) with sides that {patch} divides, got {tuple(image.shape)}."
            )
        patches = self.patch_embed["proj"](image)
        place, (height, width) = self.pos_embed, patches.shape[2:]
        cls = (self.cls_token + place[:, :1]).expand(len(image), -1, -1)
        registers = self.register_tokens.expand(len(image), -1, -1)  # these have no place
        return torch.cat([cls, registers, patches.flatten(2).mT + resized(place[:, 1:], height, width)], 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image)
        for block in self.blocks:
            x = block(x)
        return self.without_registers(self.norm(x))

    def without_registers(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, :1], tokens[:, 1 + self.config.registers :]], 1)


def resized(places: Tensor, height: int, width: int) -> Tensor:
    """The places of a square grid (1, G * G, C) at another one, (1, height * width, C)."""
    grid = round(places.shape[1] ** 0.5)
    if (height, width) == (grid, grid):
        return places
    square = places.unflatten(1, (grid, grid)).movedim(-1, 1)
    # antialias: as the encoders with registers were published, unlike those without
    square = F.interpolate(square, (height, width), mode="bicubic", antialias=True)
    return square.flatten(2).mT


class Block(nn.Module):
    """Attention and an MLP, each scaled by a learned factor for each channel."""

    def __init__(self, config: DinoV2Config):
        super().__init__()
        dim = config.dim
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attn = SelfAttention(dim, config.heads)
        self.ls1 = Scale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = MLP(dim, config.ratio * dim)
        self.ls2 = Scale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).chunk(3, -1)
        return self.proj(attend(queries, keys, values, self.heads))


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
