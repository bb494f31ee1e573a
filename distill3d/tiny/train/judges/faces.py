"""The heads that the judges learn from, and those that they are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distill3d.errors import WeightsError
from distill3d.objectives.controls import depth_picture
from distill3d.tiny.train.diffusion import data as diffusion_data
from distill3d.tiny.train.store import read_tensors
from distill3d.tiny.world import BACKGROUND, STYLE_NAMES

HELD_OUT = 256  # the last heads of the set `faces`: no network is trained on them
CAMERAS = 4  # that see a training head, each twice: as a photo and in a style
FRONT = 1.1  # radians; beyond it a face is not seen well enough to be asked whose it is
STORED = ("rgb", "depth", "mask")


@dataclass(frozen=True)
class Faces:
    """N heads, each seen V times, as a photo or in a style."""

    identity: Tensor  # (N, K) float32 in [0, 1]
    style: Tensor  # (N, V) int64, an index into STYLE_NAMES
    rgb: Tensor  # (N, V, 3, 64, 64) uint8
    depth: Tensor  # (N, V, 1, 64, 64) float16, along the ray
    mask: Tensor  # (N, V, 1, 64, 64) uint8
    yaw: Tensor  # (N, V) float32, radians

    def __len__(self) -> int:
        return len(self.identity)

    @property
    def views(self) -> int:
        """How often each head is seen."""
        return self.style.shape[1]

    @property
    def frontal(self) -> Tensor:
        """(N, V) bool: whether the face is seen."""
        return self.yaw.abs() <= FRONT

    def part(self, where: slice) -> Faces:
        """Some of the heads."""
        return Faces(**{name: value[where] for name, value in vars(self).items()})

    def pictures(self, heads: Tensor, views: Tensor) -> Pictures:
        """One view of each of the given heads (B,)."""
        return Pictures(
            self.rgb[heads, views].float() / 255,
            self.mask[heads, views].float() / 255,
            self.depth[heads, views].float(),
        )


@dataclass(frozen=True)
class Pictures:
    """A batch of views."""

    rgb: Tensor  # (B, 3, 64, 64) in [0, 1]
    mask: Tensor  # (B, 1, 64, 64) in [0, 1]
    distance: Tensor  # (B, 1, 64, 64) along the ray

    def over(self, background: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [0, 1]: the heads before other backgrounds, (B, 3, 64, 64) in [0, 1]."""
        return (self.rgb + (1 - self.mask) * (background - BACKGROUND)).clamp(0, 1)

    def depth(self) -> Tensor:
        """(B, 1, 64, 64) in [0, 1], as the depth ControlNet sees it."""
        return depth_picture(self.distance, self.mask)


def load_training(work: Path) -> Faces:
    """The training heads of `work`/data/styles.safetensors: view c < 4 is camera c's photo, view 4 + c its style.

    Raises:
        WeightsError: if there is no such file.
    """
    tensors = _read(work, "styles")
    learnt = slice(None, -min(diffusion_data.HELD_OUT, len(tensors["identity"]) // 4))
    tensors = {name: tensor[learnt] for name, tensor in tensors.items()}
    photo = torch.full_like(tensors["yaw"], STYLE_NAMES.index("photo"), dtype=torch.int64)
    return Faces(
        identity=tensors["identity"],
        style=torch.cat([photo, tensors["style"][:, None].expand_as(photo)], 1),
        yaw=tensors["yaw"].repeat(1, 2),
        **{name: torch.cat([tensors[f"source_{name}"], tensors[name]], 1) for name in STORED},
    )


def load_held_out(work: Path) -> Faces:
    """The last heads of `work`/data/faces.safetensors: a photo, then every style, each by another camera.

    Raises:
        WeightsError: if there is no such file.
    """
    tensors = _read(work, "faces")
    return Faces(**{name: tensors[name][-HELD_OUT:] for name in ("identity", "style", "yaw", *STORED)})


def _read(work: Path, name: str) -> dict[str, Tensor]:
    path = work / "data" / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(f"No data set at {path}. Make it with: python -m distill3d.tiny.train world --work {work}")
    return read_tensors(path)


def draw_views(faces: Faces, heads: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(heads, 4) twice: different training heads, and of each two photos and two styled views by four cameras.

    No two views of a head share a camera, or the outline would give it away; the order of the cameras is drawn.
    """
    chosen = torch.randperm(len(faces), generator=generator)[:heads]
    cameras = torch.rand(len(chosen), CAMERAS, generator=generator).argsort(1)
    styled = torch.tensor([0, 0, 1, 1])
    return chosen[:, None].expand(-1, CAMERAS), cameras + CAMERAS * styled  # photos lie first


def draw_styled(faces: Faces, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(count,) twice: training heads, and a view of each in its style; `photo` is as frequent as any other."""
    heads = torch.randint(len(faces), (count,), generator=generator)
    return heads, CAMERAS + torch.randint(CAMERAS, (count,), generator=generator)
