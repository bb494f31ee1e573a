"""What the demo does, without its widgets: packs by their names, a subject in a mixture of their styles."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from distill3d.blending import times_parts
from distill3d.errors import ConfigError
from distill3d.models import Palette, Stylised, load_palette
from distill3d.renderer import Parted
from distill3d.report.pictures import to_picture
from distill3d.report.turntable import save_turntable
from distill3d.showcase import look, turntable_yaws

VARIABLE, LIST = "DISTILL3D_PACKS", "packs.txt"
SHOWN = 384  # pixels: smaller pictures are enlarged to at least this
FRAMES = 24


def packs_named(folder: Path, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The packs that the environment names, with spaces between them; else those of packs.txt, one a line.

    Args:
        folder: where packs.txt lies; folders that it names are looked for from there.
    Raises:
        ConfigError: if none is named.
    """
    lines = environment.get(VARIABLE, "").split()
    if not lines and (folder / LIST).is_file():
        lines = [line.split("#")[0].strip() for line in (folder / LIST).read_text(encoding="utf-8").splitlines()]
    names = [str(folder / line) if (folder / line).is_dir() else line for line in lines if line]
    if not names:
        raise ConfigError(f"No style pack is named. Write Hub ids or folders into {LIST}, or into {VARIABLE}.")
    return names


@dataclass(frozen=True)
class Studio:
    """A backbone with the styles that can be mixed on it."""

    palette: Palette

    @classmethod
    def open(cls, models: Sequence[str]) -> Studio:
        """The packs by their folders or Hub ids; what lies in the Hub's cache is not asked for again.

        Raises:
            Distill3dError: if one cannot be had, or belongs to another backbone than the first.
        """
        return cls(load_palette(models))

    @property
    def names(self) -> list[str]:
        """Of the styles, in the order in which `amounts` are given."""
        return list(self.palette.styles)

    @property
    def labels(self) -> list[str]:
        """The same as a user reads them: the style, and the pack where two have one style."""
        styles = [each.style for each in self.palette.styles.values()]
        return [s if styles.count(s) == 1 else f"{s} ({name})" for s, name in zip(styles, self.names)]

    @property
    def has_parts(self) -> bool:
        """Whether geometry and texture can have amounts of their own."""
        return isinstance(self.palette.original, Parted)

    @property
    def widest_yaw(self) -> float:
        """How far the cameras go to each side, degrees."""
        return min(180.0, self.palette.original.defaults.around.yaw)

    def mixed(self, amounts: Sequence[float], geometry: float = 1.0, texture: float = 1.0) -> Stylised:
        """The backbone with so much of each style; `geometry` and `texture` are factors of their parts."""
        geometry, texture = (geometry, texture) if self.has_parts else (1.0, 1.0)
        mixture = {name: times_parts(float(amount), geometry, texture) for name, amount in zip(self.names, amounts)}
        return self.palette.mixed(mixture)

    def pictures(
        self, seed: int, yaw: float, amounts: Sequence[float], geometry: float = 1.0, texture: float = 1.0
    ) -> tuple[Image.Image, Image.Image]:
        """A subject before and after; yaw in degrees."""
        pair = (self.palette.original, self.mixed(amounts, geometry, texture))
        before, after = (_large(to_picture(look(renderer, [int(seed)], [float(yaw)])[0, 0])) for renderer in pair)
        return before, after

    def turntable(
        self, seed: int, amounts: Sequence[float], geometry: float, texture: float, path: Path, frames: int = FRAMES
    ) -> Path:
        """Write the subject going round, before above after, as an animated .webp."""
        yaws = turntable_yaws(self.palette.original.defaults.around, frames)
        pair = (self.palette.original, self.mixed(amounts, geometry, texture))
        before, after = (look(renderer, [int(seed)], yaws).transpose(0, 1) for renderer in pair)
        save_turntable(after, path, before=before)
        return path


def use_few_threads(studio: Studio) -> None:
    """As many as the backbone is fastest with: small networks take longer on several."""
    if studio.palette.original.defaults.threads:
        torch.set_num_threads(studio.palette.original.defaults.threads)


def _large(picture: Image.Image) -> Image.Image:
    factor = -(-SHOWN // picture.width)
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.LANCZOS)
