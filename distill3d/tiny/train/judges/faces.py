"""The heads that the judges learn from, and those that they are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distill3d.errors import WeightsError
from distill3d.objectives.controls import depth_picture
from distill3d.tiny.train.store import read_tensors
from distill3d.tiny.world import BACKGROUND

HELD_OUT = 256  # the last heads: never trained on
FRONT = 1.1  # radians; beyond it a face is not seen well enough to be asked whose it is


@dataclass(frozen=True)
class Faces:
    """N heads, each seen by V cameras, in another style by each."""

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


def load_faces(work: Path, held_out: int = HELD_OUT) -> tuple[Faces, Faces]:
    """The training heads and the held-out ones of `work`/data/faces.safetensors.

    Raises:
        WeightsError: if there is no such file.
    """
    path = work / "data" / "faces.safetensors"
    if not path.is_file():
        raise WeightsError(f"No data set at {path}. Make it with: python -m distill3d.tiny.train world --work {work}")
    tensors = read_tensors(path)
    faces = Faces(**{name: tensors[name] for name in ("identity", "style", "rgb", "depth", "mask", "yaw")})
    held_out = min(held_out, len(faces) // 3)
    return faces.part(slice(None, -held_out)), faces.part(slice(-held_out, None))


def draw_views(faces: Faces, heads: int, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(heads, each) twice: different heads, and different views of each, frontal ones if there are enough."""
    chosen = torch.randperm(len(faces), generator=generator)[:heads]
    keys = torch.rand(len(chosen), faces.views, generator=generator) - 2 * faces.frontal[chosen].float()
    return chosen[:, None].expand(-1, each), keys.argsort(1)[:, :each]
