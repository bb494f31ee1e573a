"""OpenLRM 1.1: one picture to tri-planes (He and Wang, after LRM, arXiv:2311.04400; weights CC-BY-NC-4.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.draws import Draws
from distill3d.errors import ShapeError, WeightsError
from distill3d.volume import XY_XZ_ZY, even_quantiles
from distill3d_lrm.attention import attend
from distill3d_lrm.configuration import choice, size
from distill3d_lrm.decoder import decode, decode_literally
from distill3d_lrm.dinov2 import ENCODERS, DinoV2, DinoV2Config
from distill3d_lrm.model import Numbers, Parts, ReconstructionModel, Traced
from distill3d_lrm.openlrm_volume import HALF, Field, density_of, inside, march, ray_limits

EPSILON = 1e-6
RATIO = 4  # of an MLP's width to the transformer's
NEURONS, HIDDEN_LAYERS = 64, 3
STRETCH = 0.001  # colours are sigmoids that reach this much past 0 and 1, so that both can be met
AXES = XY_XZ_ZY
SIZES = {512: (224, 192), 768: (336, 288), 1024: (448, 384)}  # by width: of the picture read, of published renders
SAMPLES = (8, 4096)  # along a ray: the second pass needs a few intervals
LARGEST = {"channels": 8192, "camera_channels": 8192, "layers": 128, "plane_size": 256, "plane_channels": 1024}


@dataclass(frozen=True, kw_only=True)
class OpenLRMConfig:
    """Sizes; the defaults are the base checkpoint's."""

    encoder: DinoV2Config = field(default_factory=lambda: ENCODERS["dinov2_vitb14_reg"])
    camera_channels: int = 1024
    channels: int = 768
    heads: int = 12
    layers: int = 12
    plane_size: int = 32  # of the tokens; planes have twice as many cells along each side
    plane_channels: int = 48
    samples: int = 96  # of a ray, half of them in each pass
    image_size: int = 336
    picture_size: int = 288

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], encoder: Mapping[str, Any] | None = None, *, image_size: int | None = None
    ) -> OpenLRMConfig:
        """Of a `config.json`.

        Args:
            config: names the encoder. The size of the picture it reads is not in it, but follows from the width.
            encoder: arguments of DINOv2's class instead, for one without a name.
            image_size: of the picture, instead of the published variant's; `source_image_size` of `config` likewise.
        Raises:
            WeightsError: naming what is missing or is not OpenLRM 1.1's.
        """
        if "encoder_type" not in config:
            raise WeightsError("The config has no encoder_type, so it is not OpenLRM 1.1's; 1.0 had another layout.")
        choice(config, "encoder_type", ("dinov2",))
        found_encoder = _encoder(config) if encoder is None else DinoV2Config.from_dict(encoder)
        channels = size(config, "transformer_dim")
        read, rendered = SIZES.get(channels, (224, 288))
        found = cls(
            encoder=found_encoder,
            camera_channels=size(config, "camera_embed_dim"),
            channels=channels,
            heads=size(config, "transformer_heads"),
            layers=size(config, "transformer_layers"),
            plane_size=size(config, "triplane_low_res"),
            plane_channels=size(config, "triplane_dim"),
            samples=size(config, "rendering_samples_per_ray"),
            image_size=image_size or size(config, "source_image_size", read),
            picture_size=size(config, "render_size", rendered),
        )
        found._check(size(config, "triplane_high_res"), size(config, "encoder_feat_dim"))
        return found

    def _check(self, cells: int, encoder_channels: int) -> None:
        for name, most in LARGEST.items():
            if getattr(self, name) > most:
                raise WeightsError(f"{name} of the checkpoint's config is at most {most}, got {getattr(self, name)}.")
        if self.channels % self.heads:
            raise WeightsError(f"transformer_heads {self.heads} do not divide transformer_dim {self.channels}.")
        if cells != 2 * self.plane_size:
            raise WeightsError(f"triplane_high_res is twice triplane_low_res {self.plane_size}, got {cells}.")
        if encoder_channels != self.encoder.dim:
            raise WeightsError(f"encoder_feat_dim is {self.encoder.dim} for this encoder, got {encoder_channels}.")
        if not SAMPLES[0] <= self.samples <= SAMPLES[1] or self.samples % 2:
            least, most = SAMPLES
            raise WeightsError(f"rendering_samples_per_ray is even, from {least} to {most}, got {self.samples}.")
        if self.image_size % self.encoder.patch:
            raise WeightsError(f"The picture's size is whole patches of {self.encoder.patch}, got {self.image_size}.")


def _encoder(config: Mapping[str, Any]) -> DinoV2Config:
    return ENCODERS[choice(config, "encoder_model_name", tuple(ENCODERS))]


class OpenLRM(ReconstructionModel):
    """The network with the published keys.

    World: z up, the camera of the input picture at (0, -2, 0); a cube of half side 1.
    """

    to_own = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
    camera_radius, camera_focal = 2.0, 0.75
    box_side = 2 * HALF
    surface_density = 3.0

    def __init__(self, config: OpenLRMConfig | None = None, *, reference: bool = False):
        super().__init__()
        self.config = c = config or OpenLRMConfig()
        self.reference = reference
        self.image_size, self.picture_size, self.plane_channels = c.image_size, c.picture_size, c.plane_channels
        self.pos_embed = nn.Parameter(torch.randn(1, 3 * c.plane_size**2, c.channels) / c.channels**0.5)
        self.encoder = nn.ModuleDict({"model": DinoV2(c.encoder)})
        embedder = nn.Sequential(
            nn.Linear(16, c.camera_channels), nn.SiLU(), nn.Linear(c.camera_channels, c.camera_channels)
        )
        self.camera_embedder = nn.ModuleDict({"mlp": embedder})
        self.transformer = PlaneTransformer(c)
        self.upsampler = nn.ConvTranspose2d(c.channels, c.plane_channels, 2, 2)
        self.synthesizer = nn.ModuleDict({"decoder": nn.ModuleDict({"net": _perceptron(3 * c.plane_channels)})})
        self.parts = Parts(
            decoder=("synthesizer.decoder.",),
            plane_reader=("synthesizer.decoder.net.0.",),
            upsampler=("upsampler.",),
            blocks=tuple(f"transformer.layers.{i}." for i in range(c.layers)),
            tokenizer=("encoder.",),
            # Each layer's own: norms and the camera's embedding have an `mlp.0` too.
            low_rank_modules=(
                "cross_attn.out_proj",
                "self_attn.out_proj",
                *(f"layers.{i}.mlp.{place}" for i in range(c.layers) for place in (0, 3)),
            ),
            low_rank_parameters=("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
        )

    @property
    def decoder(self) -> nn.Sequential:
        return self.synthesizer["decoder"]["net"]  # type: ignore[index]

    def tokens(self, image: Tensor) -> Tensor:
        """See `ReconstructionModel.tokens`; the class token comes first. Pictures are not normalised."""
        return self.encoder["model"](image)

    def camera_embedding(self, camera: Tensor) -> Tensor:
        """Cameras of pictures, (S, 16), to (S, C)."""
        if camera.ndim != 2 or camera.shape[1] != 16:
            raise ShapeError(f"A picture's camera is (S, 16), got {tuple(camera.shape)}.")
        return self.camera_embedder["mlp"](camera)

    def plane_tokens(self, tokens: Tensor, camera: Tensor | None = None) -> Tensor:
        """(S, T, C) to (S, 3 * plane_size^2, channels)."""
        if camera is None:
            camera = source_camera(tokens)
        return self.transformer(self.pos_embed, tokens, self.camera_embedding(camera))

    def planes(self, tokens: Tensor, camera: Tensor | None = None) -> Tensor:
        """See `ReconstructionModel.planes`.

        Args:
            camera: of the pictures, (S, 16) or (1, 16): the rows of a 3x4 camera-to-world matrix, then focal lengths
                and principal point divided by image size. None: `source_camera`.
        """
        side = self.config.plane_size
        found = self.plane_tokens(tokens, camera).unflatten(1, (3, side, side))
        return self.upsampler(found.movedim(-1, 2).flatten(0, 1)).unflatten(0, (len(tokens), 3))

    def numbers(self, draws: Draws | None, rays: int, like: Tensor) -> Numbers:
        """Jitter of the even pass and quantiles of the second, (S, rays, samples / 2): drawn, or the middles."""
        count = self.config.samples // 2
        if draws is None:
            jitter = like.new_full((len(like), rays, count), 0.5)
            return jitter, even_quantiles(count, like).expand_as(jitter)
        return tuple(draws.uniform(name, rays, count).to(like) for name in ("jitter", "importance"))

    def field(self, planes: Tensor) -> Field:
        """What the decoder says at points, in the box or not."""

        def at(points: Tensor) -> tuple[Tensor, Tensor]:
            look_up = decode_literally if self.reference else decode
            found = look_up(self.decoder, planes, points, AXES, self.box_side)
            return found[..., 0], found[..., 1:].sigmoid() * (1 + 2 * STRETCH) - STRETCH

        return at

    def trace(self, planes: Tensor, origins: Tensor, directions: Tensor, numbers: Numbers) -> Traced:
        """See `ReconstructionModel.trace`."""
        limits = ray_limits(origins, directions)
        jitter, u = numbers
        ray = march(self.field(planes), origins, directions, limits, jitter, u, reference=self.reference)
        return Traced(ray.colour, ray.depth, ray.opacity)

    def query(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `ReconstructionModel.query`. As published, a query has density outside of the box too; here it has not,
        as in a render."""
        density, colours = self.field(planes)(points)
        return density_of(density) * inside(points), colours.clamp(0, 1)


def source_camera(like: Tensor) -> Tensor:
    """(1, 16): the camera that every picture is taken to be seen by."""
    rows = [[1.0, 0, 0, 0], [0, 0, -1, -OpenLRM.camera_radius], [0, 1, 0, 0]]
    lens = [[OpenLRM.camera_focal, OpenLRM.camera_focal, 0.5, 0.5]]
    return like.new_tensor(rows + lens).reshape(1, 16)


def _perceptron(inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in [inputs, *[NEURONS] * (HIDDEN_LAYERS - 1)]:
        layers += [nn.Linear(width, NEURONS), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(NEURONS, 4))  # density, then colour


class PlaneTransformer(nn.Module):
    """Plane tokens that look at the image tokens and at each other, told the camera by every norm."""

    def __init__(self, c: OpenLRMConfig):
        super().__init__()
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.channels, eps=EPSILON)

    def forward(self, start: Tensor, tokens: Tensor, camera: Tensor) -> Tensor:
        """start (1, N, C), tokens (S, T, C') and camera (S or 1, C'') to (S, N, C)."""
        x = start.expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, tokens, camera)
        return self.norm(x)


class Block(nn.Module):
    """Cross-attention first, then self-attention and an MLP; each after a norm and added."""

    def __init__(self, c: OpenLRMConfig):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (ModulatedNorm(c.channels, c.camera_channels) for _ in range(3))
        self.cross_attn = Attention(c.channels, c.heads, c.encoder.dim)
        self.self_attn = Attention(c.channels, c.heads, c.channels)
        hidden = RATIO * c.channels
        self.mlp = nn.Sequential(nn.Linear(c.channels, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, c.channels))

    def forward(self, x: Tensor, tokens: Tensor, camera: Tensor) -> Tensor:
        x = x + self.cross_attn(self.norm1(x, camera), tokens)
        normed = self.norm2(x, camera)
        x = x + self.self_attn(normed, normed)
        return x + self.mlp(self.norm3(x, camera))


class ModulatedNorm(nn.Module):
    """A layer norm that a camera shifts and scales (Peebles and Xie, ICCV 2023, arXiv:2212.09748)."""

    def __init__(self, channels: int, camera_channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(camera_channels, 2 * channels))

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        shift, scale = self.mlp(camera)[:, None].chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift


class Attention(nn.Module):
    """Attention to `tokens`, under the names of torch's: its three matrices are one where all widths agree."""

    def __init__(self, channels: int, heads: int, token_channels: int):
        super().__init__()
        self.heads = heads
        self.fused = token_channels == channels
        if self.fused:
            self.in_proj_weight = _matrix(3 * channels, channels)
        else:
            self.q_proj_weight = _matrix(channels, channels)
            self.k_proj_weight = _matrix(channels, token_channels)
            self.v_proj_weight = _matrix(channels, token_channels)
        self.out_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        if self.fused and tokens is x:
            queries, keys, values = F.linear(x, self.in_proj_weight).chunk(3, -1)
        else:
            q, k, v = self._matrices()
            queries, keys, values = F.linear(x, q), F.linear(tokens, k), F.linear(tokens, v)
        return self.out_proj(attend(queries, keys, values, self.heads))

    def _matrices(self) -> tuple[Tensor, ...]:
        if self.fused:
            return self.in_proj_weight.chunk(3)
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight


def _matrix(outputs: int, inputs: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
