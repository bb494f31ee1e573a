"""The pictures that the diffusion model learns from, single and as grids of four views."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.cameras import CameraPrior
from distill3d.errors import WeightsError
from distill3d.objectives.controls import canny_edges, depth_picture
from distill3d.tiny.train.diffusion.captions import Caption, caption, traits, view_words
from distill3d.tiny.train.store import read_tensors
from distill3d.tiny.world.identity import IDENTITY_NAMES
from distill3d.tiny.world.styles import STYLE_NAMES
from distill3d.views import Grid

HELD_OUT = 280  # the last subjects: never trained on
VIEWS = 4
LAYOUT = Grid(2, 2, CameraPrior())  # of the tiles, as a distillation will join them; its cameras are not used


@dataclass(frozen=True)
class Subjects:
    """N heads, each in one style and seen by four cameras."""

    identity: Tensor  # (N, K) float32 in [0, 1]
    style: Tensor  # (N,) int64, an index into STYLE_NAMES
    rgb: Tensor  # (N, 4, 3, 64, 64) uint8
    depth: Tensor  # (N, 4, 1, 64, 64) float16, along the ray
    mask: Tensor  # (N, 4, 1, 64, 64) uint8
    yaw: Tensor  # (N, 4) float32, radians
    source_rgb: Tensor  # the same heads as photos, from the same cameras: rgb, depth and mask as above
    source_depth: Tensor
    source_mask: Tensor

    def __len__(self) -> int:
        return len(self.style)

    def part(self, where: slice) -> Subjects:
        """Some of the subjects."""
        return Subjects(**{name: value[where] for name, value in vars(self).items()})

    def style_name(self, subject: int) -> str:
        """The style of one subject."""
        return STYLE_NAMES[int(self.style[subject])]

    def identity_of(self, subject: int) -> dict[str, float]:
        """Its identity by the names of `IDENTITY_NAMES`."""
        return dict(zip(IDENTITY_NAMES, self.identity[subject].tolist(), strict=True))

    def caption(self, subject: int, view: int | None, generator: torch.Generator) -> Caption:
        """A caption of one view, or of the grid of all four if `view` is None."""
        yaw = None if view is None else float(self.yaw[subject, view])
        return caption(self.style_name(subject), self.identity_of(subject), yaw, generator)

    def truth(self, subject: int, view: int | None) -> tuple[str, dict[str, str], tuple[str, ...]]:
        """What `Caption.fits` asks of a picture: style, traits, view words."""
        style = self.style_name(subject)
        views = ("four views",) if view is None else view_words(float(self.yaw[subject, view]))
        return style, traits(style, self.identity_of(subject)), views


def load_subjects(work: Path, held_out: int = HELD_OUT) -> tuple[Subjects, Subjects]:
    """The training subjects and the held-out ones of `work`/data/styles.safetensors.

    Raises:
        WeightsError: if there is no such file.
    """
    path = work / "data" / "styles.safetensors"
    if not path.is_file():
        raise WeightsError(f"No data set at {path}. Make it with: python -m distill3d.tiny.train world --work {work}")
    tensors = read_tensors(path)
    subjects = Subjects(**{field.name: tensors[field.name] for field in fields(Subjects)})
    held_out = min(held_out, len(subjects) // 4)
    return subjects.part(slice(None, -held_out)), subjects.part(slice(-held_out, None))


def to_image(rgb: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 to float32 in [-1, 1]."""
    return rgb.float() / 127.5 - 1


def grid(tiles: Tensor) -> Tensor:
    """(B, 4, C, H, W) to (B, C, H, W): each tile area-pooled to half its size, row by row."""
    return LAYOUT.join(F.avg_pool2d(tiles.flatten(0, 1), 2).unflatten(0, (-1, VIEWS)))


def flip_some(pictures: Tensor, flipped: Tensor) -> Tensor:
    """(B, C, H, W) with those mirrored for which `flipped` (B,) is true."""
    return torch.where(flipped.view(-1, 1, 1, 1), pictures.flip(-1), pictures)


def depth_control(depth: Tensor, mask: Tensor) -> Tensor:
    """What the depth ControlNet sees: opacity * 1/depth, stretched to [0, 1] in each picture; near is bright.

    Args:
        depth: (B, 1, H, W) along the ray, world units.
        mask: (B, 1, H, W) opacity in [0, 1].
    Returns:
        (B, 3, H, W) in [0, 1], background 0; all 0 where nothing is seen.
    """
    return depth_picture(depth.float(), mask).expand(-1, 3, -1, -1)


def grid_control(depth: Tensor, mask: Tensor) -> Tensor:
    """(B, 4, 1, H, W) each to (B, 3, H, W): every tile pooled, then stretched on its own, then joined."""
    small = [F.avg_pool2d(tensor.float().flatten(0, 1), 2) for tensor in (depth, mask)]
    return LAYOUT.join(depth_control(small[0], small[1]).unflatten(0, (-1, VIEWS)))


def edge_control(images: Tensor) -> Tensor:
    """What the edge ControlNet sees: (B, 3, H, W) in [-1, 1] to OpenCV's Canny edges, (B, 3, H, W) of 0 and 1."""
    return canny_edges(images)[:, None].expand(-1, 3, -1, -1)


def grid_edges(tiles: Tensor) -> Tensor:
    """(B, 4, 3, H, W) to (B, 3, H, W): every tile pooled, its edges found, then joined."""
    small = F.avg_pool2d(tiles.flatten(0, 1), 2)
    return LAYOUT.join(edge_control(small).unflatten(0, (-1, VIEWS)))
