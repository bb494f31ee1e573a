"""TripoSR: one picture to tri-planes (Tochilkin et al., arXiv:2403.02151; code and weights MIT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.cameras import focal_from_fov
from distill3d.draws import Draws
from distill3d.errors import ConfigError, WeightsError
from distill3d.volume import XY_XZ_YZ
from distill3d_lrm.attention import attend
from distill3d_lrm.configuration import choice, number, section, size
from distill3d_lrm.decoder import decode, decode_literally
from distill3d_lrm.model import Numbers, Parts, ReconstructionModel, Traced, joined
from distill3d_lrm.remembered import Remembered
from distill3d_lrm.triposr_volume import density_of, trace
from distill3d_lrm.vit import ViT, ViTConfig

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
POINTS_AT_ONCE = 8192  # that the published script decodes together
LARGEST = {
    "image_size": 4096,
    "plane_size": 256,
    "channels": 8192,
    "layers": 128,
    "plane_channels": 1024,
    "upsample": 64,
    "neurons": 4096,
    "hidden_layers": 128,
    "samples": 4096,
}


@dataclass(frozen=True, kw_only=True)
class TripoSRConfig:
    """Sizes; the defaults are the published checkpoint's."""

    image_size: int = 512
    vit: ViTConfig = field(default_factory=ViTConfig)
    plane_size: int = 32  # of the tokens
    channels: int = 1024
    heads: int = 16
    layers: int = 16
    groups: int = 32
    upsample: int = 2  # planes have this many cells for each side of a token
    plane_channels: int = 40
    neurons: int = 64
    hidden_layers: int = 9
    radius: float = 0.87
    density_bias: float = -1.0
    samples: int = 128

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], vit: Mapping[str, Any] | None = None) -> TripoSRConfig:
        """Of a `config.yaml`, its references resolved; `vit` is the image tokenizer's own config, None for DINO-B/16.

        Raises:
            WeightsError: naming what is missing or is not TripoSR's.
        """
        tokenizer, backbone, decoder = (section(config, name) for name in ("tokenizer", "backbone", "decoder"))
        upsampler, renderer = section(config, "post_processor"), section(config, "renderer")
        choice(renderer, "feature_reduction", ("concat",), "concat")
        choice(renderer, "density_activation", ("exp",))
        choice(decoder, "activation", ("silu",))
        heads = size(backbone, "num_attention_heads")
        found = cls(
            image_size=size(config, "cond_image_size"),
            vit=ViTConfig.from_dict(vit or {}),
            plane_size=size(tokenizer, "plane_size"),
            channels=size(tokenizer, "num_channels"),
            heads=heads,
            layers=size(backbone, "num_layers"),
            groups=size(backbone, "norm_num_groups", cls.groups),
            upsample=size(upsampler, "scale", cls.upsample),
            plane_channels=size(upsampler, "out_channels"),
            neurons=size(decoder, "n_neurons"),
            hidden_layers=size(decoder, "n_hidden_layers"),
            radius=number(renderer, "radius"),
            density_bias=number(renderer, "density_bias"),
            samples=size(renderer, "num_samples_per_ray"),
        )
        for name, most in LARGEST.items():
            if getattr(found, name) > most:
                raise WeightsError(f"{name} of the checkpoint's config is at most {most}, got {getattr(found, name)}.")
        if found.radius <= 0:
            raise WeightsError(f"radius of the checkpoint's config is above 0, got {found.radius}.")
        if heads * size(backbone, "attention_head_dim") != found.channels or found.channels % found.groups:
            raise WeightsError(f"{heads} heads or {found.groups} groups do not divide {found.channels} channels.")
        return found


class TripoSR(ReconstructionModel):
    """The network with the published keys.

    World: x towards the camera of the input picture, y to its right, z up; a cube of half side `radius`.
    """

    to_own = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    camera_radius, camera_focal = 1.9, focal_from_fov(40.0)
    picture_size = 256

    def __init__(self, config: TripoSRConfig | None = None, *, reference: bool = False):
        super().__init__()
        self.config = c = config or TripoSRConfig()
        self.reference = reference
        self.image_size, self.box_side, self.plane_channels = c.image_size, 2 * c.radius, c.plane_channels
        self.surface_density = 25.0 / self.box_side  # published: 25 for a crossing of the box
        self.image_tokenizer = nn.Module()
        self.image_tokenizer.model = ViT(c.vit)
        self.tokenizer = nn.Module()
        self.tokenizer.embeddings = nn.Parameter(
            torch.randn(3, c.channels, c.plane_size, c.plane_size) / c.channels**0.5
        )
        self.backbone = PlaneTransformer(c, reference)
        self.post_processor = nn.Module()
        self.post_processor.upsample = nn.ConvTranspose2d(c.channels, c.plane_channels, c.upsample, c.upsample)
        self.decoder = nn.Module()
        self.decoder.layers = _perceptron(3 * c.plane_channels, c.neurons, c.hidden_layers)
        self.parts = Parts(
            decoder=("decoder.",),
            plane_reader=("decoder.layers.0.",),
            upsampler=("post_processor.",),
            blocks=tuple(f"backbone.transformer_blocks.{i}." for i in range(c.layers)),
            tokenizer=("image_tokenizer.",),
            unread=("image_tokenizer.model.pooler.",),
            low_rank_modules=("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
        )

    def embed(self, image: Tensor) -> Tensor:
        """(S, 3, H, W) in [0, 1] to the tokenizer's embeddings (S, 1 + patches, C)."""
        return self.image_tokenizer.model.embeddings(_normalised(image))  # type: ignore[union-attr, operator]

    def tokens(self, image: Tensor) -> Tensor:
        """See `ReconstructionModel.tokens`; the class token comes first."""
        return self.image_tokenizer.model(_normalised(image))  # type: ignore[operator]

    def tokenizer_tokens(self) -> Tensor:
        """(1, channels, 3 * plane_size^2): what the plane transformer starts from, for every picture."""
        return _flattened(self.tokenizer.embeddings)  # type: ignore[arg-type]

    def plane_tokens(self, tokens: Tensor) -> Tensor:
        """(S, T, C) to (S, channels, 3 * plane_size^2)."""
        return self.backbone(self.tokenizer.embeddings, tokens)

    def planes(self, tokens: Tensor) -> Tensor:
        """See `ReconstructionModel.planes`."""
        c = self.config
        found = self.plane_tokens(tokens).unflatten(2, (3, c.plane_size, c.plane_size))
        upsampled = self.post_processor.upsample(found.transpose(1, 2).flatten(0, 1))  # type: ignore[operator]
        return upsampled.unflatten(0, (len(tokens), 3))

    def numbers(self, draws: Draws | None, rays: int, like: Tensor) -> Numbers:
        """None: TripoSR takes the middles of equal parts of a ray, always."""
        return ()

    def decode(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density before its activation (S, N), colours before theirs (S, N, 3)."""
        layers: nn.Sequential = self.decoder.layers  # type: ignore[assignment]
        if self.reference:
            parts = points.split(POINTS_AT_ONCE, 1)
            found = torch.cat([decode_literally(layers, planes, part, XY_XZ_YZ, self.box_side) for part in parts], 1)
        else:
            found = decode(layers, planes, points, XY_XZ_YZ, self.box_side)
        return found[..., 0], found[..., 1:]

    def trace(self, planes: Tensor, origins: Tensor, directions: Tensor, numbers: Numbers) -> Traced:
        """See `ReconstructionModel.trace`."""
        c = self.config
        settings = (c.radius, c.samples, c.density_bias)
        found = [
            trace(partial(self.decode, one), from_, along, *settings, reference=self.reference)
            for one, from_, along in zip(planes.split(1), origins.split(1), directions.split(1))
        ]
        return joined(found)

    def query(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `ReconstructionModel.query`.

        Density counts for a crossing of the box, however long that is; here it is divided by the box's side.
        """
        density, colour = self.decode(planes, points)
        inside = (points.abs() <= self.config.radius).all(-1)
        return density_of(density, self.config.density_bias) / self.box_side * inside, colour.sigmoid()


def _normalised(image: Tensor) -> Tensor:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ConfigError(f"A picture is (S, 3, H, W), got {tuple(image.shape)}.")
    return (image - image.new_tensor(MEAN)[:, None, None]) / image.new_tensor(DEVIATION)[:, None, None]


def _flattened(embeddings: Tensor) -> Tensor:
    """(3, C, h, w) to (1, C, 3 * h * w)."""
    return embeddings.transpose(0, 1).flatten(1)[None]


def _perceptron(inputs: int, neurons: int, hidden: int) -> nn.Sequential:
    """`hidden` layers of `neurons` with SiLU, then density and colour."""
    layers: list[nn.Module] = [nn.Linear(inputs, neurons), nn.SiLU()]
    for _ in range(hidden - 1):
        layers += [nn.Linear(neurons, neurons), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(neurons, 4))


class PlaneTransformer(nn.Module):
    """Plane tokens that look at each other and at the image tokens; what comes out is added to what went in."""

    def __init__(self, c: TripoSRConfig, reference: bool = False):
        super().__init__()
        self.norm = nn.GroupNorm(c.groups, c.channels, 1e-6)
        self.proj_in = nn.Linear(c.channels, c.channels)
        self.transformer_blocks = nn.ModuleList([Block(c) for _ in range(c.layers)])
        self.proj_out = nn.Linear(c.channels, c.channels)
        remembered = Remembered(self._begin, [self.norm, self.proj_in, self._first.norm1, self._first.attn1])
        self._start = self._begin if reference else remembered

    @property
    def _first(self) -> Block:
        return self.transformer_blocks[0]  # type: ignore[return-value]

    def _begin(self, embeddings: Tensor) -> Tensor:
        """(1, N, C): all that no picture decides, up to the first block's look at the picture."""
        h = self.proj_in(self.norm(_flattened(embeddings)).transpose(1, 2))
        return h + self._first.attn1(self._first.norm1(h))

    def forward(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        """Embeddings (3, C, h, w) of N cells and tokens (S, T, C') to (S, C, N)."""
        h = self._start(embeddings).expand(len(tokens), -1, -1)
        for block in self.transformer_blocks:
            h = block(h, tokens, begun=block is self._first)
        return self.proj_out(h).transpose(1, 2) + _flattened(embeddings)


class Block(nn.Module):
    """Self-attention, cross-attention, a gated feed-forward network; each after a norm and added."""

    def __init__(self, c: TripoSRConfig):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(c.channels) for _ in range(3))
        self.attn1 = Attention(c.channels, c.channels, c.heads)
        self.attn2 = Attention(c.channels, c.vit.hidden_size, c.heads)
        self.ff = FeedForward(c.channels)

    def forward(self, h: Tensor, tokens: Tensor, *, begun: bool = False) -> Tensor:
        """`begun`: self-attention is done."""
        if not begun:
            h = h + self.attn1(self.norm1(h))
        h = h + self.attn2(self.norm2(h), tokens)
        return h + self.ff(self.norm3(h))


class Attention(nn.Module):
    """Attention to `tokens`, or to itself."""

    def __init__(self, width: int, token_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(token_width, width, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        tokens = x if tokens is None else tokens
        return self.to_out(attend(self.to_q(x), self.to_k(tokens), self.to_v(tokens), self.heads))


class FeedForward(nn.Module):
    """Four times as wide inside, gated by GELU: the first half is the value, the second the gate."""

    def __init__(self, width: int):
        super().__init__()
        gate = nn.Module()
        gate.proj = nn.Linear(width, 8 * width)
        self.net = nn.ModuleList([gate, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.net[0].proj(x).chunk(2, -1)  # type: ignore[operator]
        return self.net[2](value * F.gelu(gate))
