"""Which cameras a term looks through, and how several views make one picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.cameras import CameraPrior, Cameras
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError


@dataclass(frozen=True)
class View:
    """A request for one camera per subject. Equal requests are one view: drawn once, rendered once, shared."""

    name: str
    prior: CameraPrior
    mirrored: bool = False  # the mirror image of the view of the same name: the same draw
    size: int | None = None  # the largest side at which its raw picture is looked at; None: the backbone's own

    def cameras(self, draws: Draws) -> Cameras:
        """(S, 1)."""
        cameras = self.prior.draw(draws, f"camera/{self.name}")
        return cameras.mirrored() if self.mirrored else cameras


class ViewLayout(ABC):
    """How several views make one picture.

    `join(split(picture)) == picture` for all; `split(join(tiles)) == tiles` for Single and Grid.
    """

    views: tuple[View, ...]  # that get the picture's gradient

    @property
    def shown(self) -> tuple[View, ...]:
        """The views that the picture's values come from: all that controls and masks need."""
        return self.views

    def tile(self, size: int) -> int:
        """The side each view must have, so that the longer side of the joined picture is `size`."""
        return size

    @abstractmethod
    def join(self, tiles: Tensor) -> Tensor:
        """(S, V, C, h, w) to (S, C, H, W)."""

    @abstractmethod
    def split(self, picture: Tensor) -> Tensor:
        """(S, C, H, W) to (S, V, C, h, w)."""


@dataclass(frozen=True)
class Single(ViewLayout):
    """One view is the picture."""

    view: View

    @property
    def views(self) -> tuple[View, ...]:  # type: ignore[override]
        return (self.view,)

    def join(self, tiles: Tensor) -> Tensor:
        return tiles[:, 0]

    def split(self, picture: Tensor) -> Tensor:
        return picture[:, None]


def join_mirrored(picture: Tensor, mirrored: Tensor, weights: tuple[float, float]) -> Tensor:
    """The value of `picture`, the derivatives of both: `weights[0]` to it, `weights[1]`, flipped, to `mirrored`."""
    change = picture - picture.detach()  # zero in value, one in derivative
    change_mirrored = (mirrored - mirrored.detach()).flip(-1)
    return picture.detach() + weights[0] * change + weights[1] * change_mirrored


@dataclass(frozen=True)
class Mirror(ViewLayout):
    """Mirror gradients: one score serves a view and, flipped, its mirrored view (arXiv:2411.13536, eq. 6).

    Joined on images they cost one VAE encode for two views; joined on latents they are the released script's.
    """

    view: View
    weights: tuple[float, float] = (1.0, 1.0)

    @property
    def views(self) -> tuple[View, ...]:  # type: ignore[override]
        return (self.view, replace(self.view, mirrored=True))

    @property
    def shown(self) -> tuple[View, ...]:
        return (self.view,)

    def join(self, tiles: Tensor) -> Tensor:
        if tiles.shape[1] == 1:  # values only: a control, a mask
            return tiles[:, 0]
        return join_mirrored(tiles[:, 0], tiles[:, 1], self.weights)

    def split(self, picture: Tensor) -> Tensor:
        return torch.stack([picture, picture.flip(-1)], 1)


@dataclass(frozen=True)
class Grid(ViewLayout):
    """rows x columns views of one subject, denoised as one picture, so that the denoiser relates them."""

    rows: int
    columns: int
    prior: CameraPrior
    size: int | None = None  # of each view, see `View.size`

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ConfigError(f"A grid has at least one row and one column, got {self.rows} x {self.columns}.")

    @property
    def views(self) -> tuple[View, ...]:  # type: ignore[override]
        return tuple(View(f"grid{i}", self.prior, size=self.size) for i in range(self.rows * self.columns))

    def tile(self, size: int) -> int:
        longer = max(self.rows, self.columns)
        if size % longer:
            raise ConfigError(f"A grid of {self.rows} x {self.columns} views does not divide a side of {size}.")
        return size // longer

    def join(self, tiles: Tensor) -> Tensor:
        s, v, c, h, w = tiles.shape
        if v != self.rows * self.columns:
            raise ShapeError(f"A {self.rows} x {self.columns} grid joins {self.rows * self.columns} views, got {v}.")
        rows = tiles.reshape(s, self.rows, self.columns, c, h, w)
        return rows.permute(0, 3, 1, 4, 2, 5).reshape(s, c, self.rows * h, self.columns * w)

    def split(self, picture: Tensor) -> Tensor:
        s, c, h, w = picture.shape
        if h % self.rows or w % self.columns:
            raise ShapeError(f"A picture of {h} x {w} does not split into {self.rows} x {self.columns} tiles.")
        tiles = picture.reshape(s, c, self.rows, h // self.rows, self.columns, w // self.columns)
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def resize(images: Tensor, size: int) -> Tensor:
    """(B, C, h, w) to `size` on the longer side: area when it shrinks, bilinear when it grows. Differentiable."""
    height, width = images.shape[-2:]
    longer = max(height, width)
    if longer == size:
        return images
    target = (max(1, round(height * size / longer)), max(1, round(width * size / longer)))
    if size < longer:
        return F.interpolate(images, size=target, mode="area")
    return F.interpolate(images, size=target, mode="bilinear", align_corners=False)


def fit(tiles: Tensor, size: int) -> Tensor:
    """(S, V, C, h, w) resized view by view, before `join`: resizing a joined picture would bleed over the seams."""
    return resize(tiles.flatten(0, 1), size).unflatten(0, tiles.shape[:2])
