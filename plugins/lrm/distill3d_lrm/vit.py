"""The vision transformer that reads TripoSR's picture, with the key names of transformers 4.35.

DINO, Caron et al., ICCV 2021, arXiv:2104.14294. Written out here because later releases of transformers rename its keys
and resize its position grid differently, and published weights depend on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.errors import WeightsError
from distill3d_lrm.attention import attend
from distill3d_lrm.configuration import size

EPSILON = 1e-12
MOST_LAYERS = 128


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Sizes; the defaults are those of facebook/dino-vitb16."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    image_size: int = 224  # of the stored position grid
    patch_size: int = 16

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ViTConfig:
        """Of a `config.json`; what is missing has its default.

        Raises:
            WeightsError: for sizes that do not belong together.
        """
        found = cls(**{name: size(config, name, default) for name, default in asdict(cls()).items()})
        if found.hidden_size % found.num_attention_heads or not found.grid or found.num_hidden_layers > MOST_LAYERS:
            raise WeightsError(f"No image tokenizer can have these sizes: {found}.")
        return found

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


class ViT(nn.Module):
    """(B, 3, H, W), normalised, to (B, 1 + patches, hidden_size)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, EPSILON)
        self.pooler = nn.Module()
        self.pooler.dense = nn.Linear(config.hidden_size, config.hidden_size)  # in the checkpoint; nothing reads it

    def forward(self, image: Tensor) -> Tensor:
        x = self.embeddings(image)
        for layer in self.encoder.layer:  # type: ignore[union-attr]
            x = layer(x)
        return self.layernorm(x)


class Embeddings(nn.Module):
    """Patches, a class token before them, and where they are."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + config.grid**2, width))
        self.patch_embeddings = nn.Module()
        self.patch_embeddings.projection = nn.Conv2d(3, width, patch, patch)
        self.grid = config.grid

    def forward(self, image: Tensor) -> Tensor:
        patches: Tensor = self.patch_embeddings.projection(image)  # type: ignore[operator]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(image), -1, -1), tokens], 1)
        return tokens + self.positions(*patches.shape[-2:])

    def positions(self, height: int, width: int) -> Tensor:
        """(1, 1 + height * width, C): the stored grid, resized where the picture has another one.

        The scale factor, a tenth of a cell more than it should be, moves every sample a little: the weights were
        trained with that.
        """
        own = self.grid
        if height == width == own:
            return self.position_embeddings
        first, grid = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        grid = grid.unflatten(1, (own, own)).permute(0, 3, 1, 2)
        scale = ((height + 0.1) / own, (width + 0.1) / own)
        resized = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([first, resized.flatten(2).transpose(1, 2)], 1)


class Layer(nn.Module):
    """Attention and a feed-forward network, each after a norm and added to what came in."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.attention = nn.Module()
        self.attention.attention = nn.Module()
        for name in ("query", "key", "value"):
            setattr(self.attention.attention, name, nn.Linear(width, width))
        self.attention.output = _dense(width, width)
        self.intermediate = _dense(width, config.intermediate_size)
        self.output = _dense(config.intermediate_size, width)
        self.layernorm_before = nn.LayerNorm(width, EPSILON)
        self.layernorm_after = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self.attention
        normed = self.layernorm_before(x)
        of = inner.attention
        x = x + inner.output.dense(attend(of.query(normed), of.key(normed), of.value(normed), self.heads))
        hidden = F.gelu(self.intermediate.dense(self.layernorm_after(x)))  # type: ignore[operator]
        return x + self.output.dense(hidden)  # type: ignore[operator]


def _dense(inputs: int, outputs: int) -> nn.Module:
    """A linear layer under the name `dense`, as the keys have it."""
    module = nn.Module()
    module.dense = nn.Linear(inputs, outputs)
    return module
