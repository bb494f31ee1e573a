"""The pictures by which a run is judged: previews on the way, a sheet and a turntable at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from distill3d.cameras import CameraPrior, orbit
from distill3d.renderer import Renderer, Scene, example
from distill3d.report.pictures import before_after_sheet, save_picture
from distill3d.report.turntable import save_turntable

PREVIEW_SEEDS, PREVIEW_YAWS = (0, 1, 2, 3), (-35.0, 0.0, 35.0)
SHEET_SEEDS, SHEET_YAWS = (0, 1, 2, 3, 4, 5), (-60.0, -30.0, 0.0, 30.0, 60.0)
TURNTABLE_SEEDS, TURNTABLE_FRAMES = (0, 1, 2), 24
SHEET, TURNTABLE = "sheet.png", "turntable.webp"
PITCH = 5.0  # degrees: a little from above


@torch.no_grad()
def look(renderer: Renderer, seeds: Sequence[int], yaws: Sequence[float]) -> Tensor:
    """Subjects by cameras, (S, V, 3, H, W) in [-1, 1] on the CPU; yaws in degrees."""
    scenes = (renderer.scene(renderer.codes_of_seeds([seed])) for seed in seeds)
    return torch.stack([look_round(renderer, scene, yaws) for scene in scenes])


@torch.no_grad()
def look_round(
    renderer: Renderer, scene: Scene, yaws: Sequence[float], *, seen: Callable[[], None] = lambda: None
) -> Tensor:
    """One subject by cameras, (V, 3, H, W) in [-1, 1] on the CPU.

    Rendered one picture at a time: memory does not grow with the number of views.

    Args:
        scene: as returned by `renderer.scene`, one subject.
        yaws: degrees.
        seen: called after each picture.
    """
    angles = torch.deg2rad(torch.tensor([list(yaws), [PITCH] * len(yaws)]))
    front, like = renderer.defaults.front, example(scene)
    pictures = []
    for yaw, pitch in angles.T:
        camera = orbit(yaw.view(1, 1), pitch.view(1, 1), front.radius, front.focal).to(like)
        pictures.append(renderer.render(scene, camera).stage("image")[0].float().cpu())
        seen()
    return torch.cat(pictures)


def turntable_yaws(around: CameraPrior, frames: int) -> list[float]:
    """Once around where the backbone's cameras go all round, else to and fro within their range; degrees."""
    turn = torch.arange(frames) / frames
    if around.yaw >= 180:
        return (360 * turn).tolist()
    return (around.yaw * torch.sin(2 * torch.pi * turn)).tolist()


@dataclass
class Showcase:
    """Before and after, for the subjects of fixed seeds that no step trains on."""

    original: Renderer
    stylised: Renderer
    folder: Path

    @cached_property
    def _originals(self) -> Tensor:
        return look(self.original, PREVIEW_SEEDS, PREVIEW_YAWS)

    def preview(self, step: int) -> Path:
        """previews/step_NNNNNN.png: four subjects, three views each, above them the original."""
        after = self._originals if step == 0 else look(self.stylised, PREVIEW_SEEDS, PREVIEW_YAWS)
        path = self.folder / "previews" / f"step_{step:06d}.png"
        sheet = before_after_sheet(
            self._originals, after, subject_labels=_names(PREVIEW_SEEDS), view_labels=degrees(PREVIEW_YAWS)
        )
        save_picture(sheet, path)
        return path

    def sheet(self) -> Path:
        """sheet.png: six subjects, five views each, before and after."""
        before, after = (look(r, SHEET_SEEDS, SHEET_YAWS) for r in (self.original, self.stylised))
        sheet = before_after_sheet(before, after, subject_labels=_names(SHEET_SEEDS), view_labels=degrees(SHEET_YAWS))
        save_picture(sheet, self.folder / SHEET)
        return self.folder / SHEET

    def turntable(self) -> Path:
        """turntable.webp: three subjects go round, the original above."""
        yaws = turntable_yaws(self.original.defaults.around, TURNTABLE_FRAMES)
        before, after = (look(r, TURNTABLE_SEEDS, yaws).transpose(0, 1) for r in (self.original, self.stylised))
        path = self.folder / TURNTABLE
        save_turntable(after, path, before=before)
        return path


def _names(seeds: Sequence[int]) -> list[str]:
    return [f"seed {seed}" for seed in seeds]


def degrees(yaws: Sequence[float]) -> list[str]:
    """The words above the columns of a sheet."""
    return [f"{yaw:+.0f}°" if yaw else "front" for yaw in yaws]
