"""What the tiny generator is trained on, phase by phase.

1. `field`: the views come with depth, so colour and density are known at points: on the surface, before it, behind it.
   One point costs a sixteenth of a ray, and no ray has to find the surface first.
2. `render`: patches of the rendered picture, with an edge term for eyes and lips.
3. `superres`: the doubled picture; only super-resolution and the features that it reads move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor
from torch.func import functional_call

from distill3d.cameras import Cameras, orbit
from distill3d.tiny.generator import BACKGROUND_DEPTH, TinyTriplane
from distill3d.volume import pixel_rays

DETAIL = 6.0  # how much more an error counts where the picture has detail: eyes and lips are few pixels
SURFACE = 0.02  # half the thickness of the shell that carries the surface's colour, world units


@dataclass(frozen=True)
class Photos:
    """Pictures of N subjects with their cameras, as uint8 in memory."""

    z: Tensor  # (N, code_size)
    rgb: Tensor  # (N, V, 3, h, w) uint8
    yaw: Tensor  # (N, V)
    pitch: Tensor  # (N, V)
    depth: Tensor | None = None  # (N, V, 1, h, w) float16
    mask: Tensor | None = None  # (N, V, 1, h, w) uint8

    @classmethod
    def read(cls, path: Path) -> Photos:
        wanted = cls.__dataclass_fields__
        with safe_open(path, "pt") as file:
            return cls(**{name: file.get_tensor(name) for name in file.keys() if name in wanted})  # noqa: SIM118

    def __len__(self) -> int:
        return len(self.z)

    def split(self, held_out: int) -> tuple[Photos, Photos]:
        """The training subjects, and the last `held_out`, but at most a quarter."""
        held_out = min(held_out, len(self.z) // 4)
        return self._part(slice(None, -held_out)), self._part(slice(-held_out, None))

    def _part(self, where: slice) -> Photos:
        found = {name: value[where] for name, value in vars(self).items() if value is not None}
        return Photos(**found)

    def cameras(self, subjects: Tensor, views: Tensor) -> Cameras:
        """subjects (B,), views (B, V) indices to cameras (B, V)."""
        return orbit(self.yaw[subjects[:, None], views], self.pitch[subjects[:, None], views])

    def pixels(self, subjects: Tensor, views: Tensor) -> dict[str, Tensor]:
        """rgb (B, V, 3, h, w) in [-1, 1]; its `detail`, depth and mask (B, V, 1, h, w), mask in [0, 1]."""
        at = (subjects[:, None], views)
        rgb = self.rgb[at].float() / 127.5 - 1
        found = {"rgb": rgb, "detail": detail(rgb)}
        if self.depth is not None and self.mask is not None:
            found |= {"depth": self.depth[at].float(), "mask": self.mask[at].float() / 255}
        return found


def detail(rgb: Tensor) -> Tensor:
    """(B, V, 3, h, w) to weights (B, V, 1, h, w), 1 where the picture is flat, more where it is not; mean 1."""
    flat = F.avg_pool2d(F.pad(rgb.flatten(0, 1), (2, 2, 2, 2), mode="replicate"), 5, 1).view_as(rgb)
    weight = 1 + DETAIL * (rgb - flat).abs().mean(2, keepdim=True)
    return weight / weight.mean()


Logged = Mapping[str, float]


def psnr(mean_square: Tensor) -> float:
    """dB, from the mean square error of colours in [-1, 1]."""
    return float(-10 * torch.log10(mean_square.detach() / 4))


def _pick(photos: Photos, subjects: int, views: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices (B,) of subjects and (B, views) of different views."""
    chosen = torch.randint(len(photos), (subjects,), generator=g)
    shuffled = torch.rand(subjects, photos.yaw.shape[1], generator=g).argsort(1)
    return chosen, shuffled[:, :views]


def planes_of(renderer: TinyTriplane, z: Tensor, half: bool) -> Tensor:
    """(B, 3, C, h, w) float32; `half` computes them in bfloat16, channels last: twice as fast where the CPU has AMX."""
    w = renderer.mapping(z)
    if not half:
        return renderer.synthesis(w)
    weights = {name: _half(p) for name, p in renderer.synthesis.named_parameters()}
    return functional_call(renderer.synthesis, weights, (w.bfloat16(),)).float()


def _half(p: Tensor) -> Tensor:
    return p.bfloat16().contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p.bfloat16()


def field_loss(renderer: TinyTriplane, photos: Photos, g: torch.Generator, half: bool) -> tuple[Tensor, Logged]:
    """Colour on the surface, nothing before it, something behind it."""
    subjects, views = _pick(photos, 12, 3, g)
    size, rays = photos.rgb.shape[-1], 400
    pixel = torch.randint(size * size, (*views.shape, rays), generator=g)  # (B, V, rays)

    def at(x: Tensor) -> Tensor:  # (B, V, C, h*w) to (B, V * rays, C)
        x = x.gather(-1, pixel[:, :, None].expand(-1, -1, x.shape[2], -1))
        return x.transpose(2, 3).flatten(1, 2)

    origins, directions = (at(x.transpose(2, 3)) for x in pixel_rays(photos.cameras(subjects, views), size, size))
    truth = {name: at(x.flatten(3)) for name, x in photos.pixels(subjects, views).items()}
    depth, solid = truth["depth"], truth["mask"] > 0.95
    u = torch.rand(*depth.shape[:2], 3, generator=g)
    end = torch.where(solid, depth - 0.006, torch.full_like(depth, BACKGROUND_DEPTH + 0.1))
    start = 2.3
    t = torch.cat(
        [
            depth + (u[..., :1] - 0.25) * 2 * SURFACE,  # colour: a shell, so that a blurred surface has it too
            start + (end - start) * (1 - u[..., 1:2].square()),  # empty: mostly just before the surface
            depth + 0.008 + u[..., 2:] * 0.05,  # solid
        ],
        2,
    )  # (B, N, 3)
    points = origins[:, :, None] + directions[:, :, None] * t[..., None]
    density, values = renderer.look_up(planes_of(renderer, photos.z[subjects], half), points.flatten(1, 2))
    density, colour = density.unflatten(1, t.shape[1:]) * 0.03, values[:, :3].unflatten(2, t.shape[1:])[..., 0]
    on = solid[..., 0].float()
    error = (colour.transpose(1, 2) - truth["rgb"]) / 2
    counts = on * truth["detail"][..., 0]
    colour_loss = ((error.abs() + 2 * error.square()).mean(-1) * counts).sum() / counts.sum()
    known = on + (truth["mask"][..., 0] < 0.05)  # half-covered pixels say nothing about either side
    empty_loss = (density[..., 1].clamp(max=20) * known).mean()
    solid_loss = (-torch.log(-torch.expm1(-density[..., 2]) + 1e-4) * on).mean()
    logged = {"colour": colour_loss.item(), "empty": empty_loss.item(), "solid": solid_loss.item()}
    return colour_loss + 0.5 * (empty_loss + solid_loss), logged


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.diff(dim=-1), x.diff(dim=-2)


def picture_loss(ours: Tensor, truth: Tensor, weight: Tensor, edge_weight: float) -> tuple[Tensor, Tensor]:
    """L1 and squares, weighted, and edges of pictures (..., h, w) in [-1, 1]; and the mean square, unweighted."""
    error = (ours - truth) / 2
    edges = sum(e.abs().mean() for e in _edges(error))
    weighted = (weight * (error.abs() + 2 * error.square())).mean()
    return weighted + edge_weight * edges, 4 * error.square().mean()


def patches(photos: Photos, views: int, count: int, side: int, g: torch.Generator):
    """Subjects, views and the corners of square patches, the middle of the picture more often than its rim."""
    subjects, chosen = _pick(photos, count, views, g)
    corner = torch.randint(0, 64 - side + 1, (2, count, views, 2), generator=g).sum(0) // 2
    return subjects, chosen, corner


def crop(x: Tensor, corner: Tensor, side: int) -> Tensor:
    """(B, V, C, h, w) to (B, V, C, side, side) at `corner` (B, V, 2)."""
    rows = corner[..., :1] + torch.arange(side)  # (B, V, side)
    columns = corner[..., 1:] + torch.arange(side)
    x = x.gather(3, rows[:, :, None, :, None].expand(-1, -1, x.shape[2], -1, x.shape[4]))
    return x.gather(4, columns[:, :, None, None, :].expand(-1, -1, x.shape[2], side, -1))


def _trace_patches(renderer: TinyTriplane, planes: Tensor, cameras: Cameras, corner: Tensor, side: int, jitter):
    """Values (B, V, 3 + features, side, side), depth and opacity (B, V, 1, side, side)."""
    size = renderer.raw_size
    rays = [x.transpose(2, 3).unflatten(3, (size, size)) for x in pixel_rays(cameras, size, size)]
    origins, directions = (crop(x, corner, side).flatten(3).transpose(2, 3).flatten(1, 2) for x in rays)
    found = renderer.trace(planes, origins, directions, jitter)
    return [x.unflatten(2, (corner.shape[1], side, side)).transpose(1, 2) for x in found]


def render_loss(renderer: TinyTriplane, photos: Photos, g: torch.Generator, half: bool) -> tuple[Tensor, Logged]:
    """Pictures, opacity and depth of patches, with jittered samples."""
    count, views, side = 8, 2, 24
    subjects, chosen, corner = patches(photos, views, count, side, g)
    jitter = torch.rand(count, views * side * side, 1, generator=g)
    planes = planes_of(renderer, photos.z[subjects], half)
    found = _trace_patches(renderer, planes, photos.cameras(subjects, chosen), corner, side, jitter)
    values, depth, opacity = found
    truth = {name: crop(x, corner, side) for name, x in photos.pixels(subjects, chosen).items()}
    picture, square = picture_loss(values[:, :, :3], truth["rgb"], truth["detail"], edge_weight=0.5)
    mask_loss = (opacity - truth["mask"]).abs().mean()
    depth_loss = ((depth - truth["depth"]).abs() * (truth["mask"] > 0.9)).mean()
    logged = {"psnr": psnr(square), "mask": mask_loss.item(), "depth": depth_loss.item()}
    return picture + 0.3 * mask_loss + depth_loss, logged


def superres_loss(renderer: TinyTriplane, photos: Photos, g: torch.Generator, half: bool) -> tuple[Tensor, Logged]:
    """The doubled picture of patches; a rim of 2 raw pixels is dropped, where the convolutions saw no neighbours."""
    count, side, rim = 6, 32, 4
    subjects, chosen, corner = patches(photos, 1, count, side, g)
    with torch.no_grad():
        planes, w = planes_of(renderer, photos.z[subjects], half), renderer.mapping(photos.z[subjects])
    values, _, _ = _trace_patches(
        renderer, planes, photos.cameras(subjects, chosen), corner, side,
        torch.rand(count, side * side, 1, generator=g),
    )  # fmt: skip
    ours = renderer.superresolution(values[:, 0, :3].detach(), values[:, 0, 3:], w)
    pixels = photos.pixels(subjects, chosen)
    truth, weight = (crop(pixels[name], 2 * corner, 2 * side)[:, 0] for name in ("rgb", "detail"))
    inner = slice(rim, -rim)
    loss, square = picture_loss(
        ours[..., inner, inner], truth[..., inner, inner], weight[..., inner, inner], edge_weight=0.5
    )
    baseline = F.interpolate(values[:, 0, :3].detach(), scale_factor=2.0, mode="bilinear")
    plain = (baseline - truth)[..., inner, inner].square().mean()
    return loss, {"psnr": psnr(square), "bilinear": psnr(plain)}
