"""What a large reconstruction model is to this plugin: a picture in, planes out, rays to colours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.draws import Draws

Numbers = tuple[Tensor, ...]  # random numbers of rays, each (S, N, ...); none for a deterministic model


@dataclass(frozen=True)
class Traced:
    """What rays gathered, without any background."""

    colour: Tensor  # (S, N, 3): sum of weight * colour, colours in [0, 1]
    depth: Tensor  # (S, N, 1): sum of weight * distance, not divided by the opacity
    opacity: Tensor  # (S, N, 1) in [0, 1]


def joined(parts: Sequence[Traced]) -> Traced:
    """Subjects one after the other."""
    return Traced(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Traced)))


@dataclass(frozen=True)
class Parts:
    """Which parameters a training group means, by the beginnings of their names."""

    decoder: tuple[str, ...]
    plane_reader: tuple[str, ...]  # the first layer of that
    upsampler: tuple[str, ...]
    blocks: tuple[str, ...]  # one for each block of the plane transformer, in order
    low_rank_modules: tuple[str, ...]  # ends of the names of linear layers that take low-rank changes
    tokenizer: tuple[str, ...]
    low_rank_parameters: tuple[str, ...] = ()  # ends of the names of fused weights that do
    unread: tuple[str, ...] = ("\0",)  # in the checkpoint, but no picture depends on them


class ReconstructionModel(nn.Module, ABC):
    """A network with the published keys, in its own world and its own conventions.

    `reference=True` computes by the published recipe literally; the fast form agrees to rounding.
    """

    config: Any  # a dataclass of its sizes: what its weights do not say, as the number of heads
    image_size: int  # side of the picture that `tokens` reads
    box_side: float  # own units
    surface_density: float  # the published level of the mesh, per own unit
    to_own: tuple[tuple[float, float, float], ...]  # rows: canonical (x, y, z) to own
    camera_radius: float  # of the view that the input picture is, own units
    camera_focal: float  # divided by image size
    picture_size: int  # of published renders
    plane_channels: int
    reference: bool
    parts: Parts

    @abstractmethod
    def tokens(self, image: Tensor) -> Tensor:
        """The image tokenizer: pictures (S, 3, image_size, image_size) in [0, 1] to (S, T, C)."""

    @abstractmethod
    def planes(self, tokens: Tensor) -> Tensor:
        """The plane transformer and what upsamples it: (S, T, C) to planes (S, 3, C', h, w), the scene code."""

    @abstractmethod
    def numbers(self, draws: Draws | None, rays: int, like: Tensor) -> Numbers:
        """What sampling along that many rays takes: drawn, or the middles for None."""

    @abstractmethod
    def trace(self, planes: Tensor, origins: Tensor, directions: Tensor, numbers: Numbers) -> Traced:
        """Volume rendering of rays (S, N, 3) in the own world; directions have length 1. A ray that misses the box,
        or runs along an axis, is well defined: nothing, with finite slopes."""

    @abstractmethod
    def query(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The field at points (S, N, 3) of the own world: density (S, N) per own unit, colours (S, N, 3) in [0, 1].

        Outside of the box the density is 0.
        """
