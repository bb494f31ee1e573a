"""The true pictures of the subjects: what a real data set does not have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.files import written_aside
from distill3d.tiny import world
from distill3d.tiny.evaluation.setting import SIZE, Setting, one, recoloured
from distill3d.tiny.world import BACKGROUND, render_heads, style_rows

Progress = Callable[[str, int, int], None]  # what is made, how many are done, of how many

SHEET_SIZE, SHEET_SUBJECTS = 128, 16
MEAN = 0.5  # every identity number of the subject in the middle


def silent(what: str, done: int, total: int) -> None:
    """A progress that nobody sees."""


@dataclass(frozen=True)
class Truth:
    """Pictures of the procedural heads, [-1, 1]."""

    queries: Tensor  # (S, 3, 64, 64), in the style, from the queries' cameras, on the generator's background
    gallery: Tensor  # (S, 3, 64, 64), photos from the gallery's cameras on its colours
    mean: Tensor  # (S, 3, 64, 64), in the style, of the mean identity: who ignores identity would show this
    sheet: Tensor  # (16, 3, 128, 128): the first queries, large; fewer where there are fewer subjects


def true_pictures(
    setting: Setting, identity: Tensor, style: str, *, cache: Path | None = None, progress: Progress = silent
) -> Truth:
    """Render the truth, or read what was rendered before.

    Args:
        identity: (S, K) in [0, 1].
        style: a style of the embedded world.
        cache: a folder for the pictures, named by all that decides them; None keeps nothing.
    Raises:
        UnknownNameError: if the world has no such style.
    """
    count = min(SHEET_SUBJECTS, len(identity))
    means, cameras = mean_queries(setting)

    def query() -> Tensor:
        return _heads(identity, style, setting.queries, progress)

    def gallery() -> Tensor:
        return _recoloured_photos(identity, setting, progress)

    def mean() -> Tensor:
        return _heads(torch.full_like(identity[: len(means)], MEAN), style, cameras, progress)

    def sheet() -> Tensor:
        return _heads(identity[:count], style, setting.queries, progress, SHEET_SIZE, samples=2)

    store = _Store(cache, f"{world_checksum()}|{setting.seeds}|{identity.shape[1]}")
    return Truth(
        store.get(f"{style} queries", query),
        store.get("photo gallery", gallery),
        store.get(f"{style} mean", mean)[setting.camera],
        store.get(f"{style} sheet", sheet),
    )


def mean_queries(setting: Setting) -> tuple[Tensor, Cameras]:
    """The first subject of each query camera, and those cameras: all that the mean identity is seen from."""
    cameras = int(setting.camera.max()) + 1
    first = torch.stack([(setting.camera == i).nonzero()[0, 0] for i in range(cameras)])
    return first, Cameras(setting.queries.cam2world[first], setting.queries.intrinsics[first])


def world_checksum() -> str:
    """Of the source of the procedural world: pictures of another version of it are not read."""
    digest = hashlib.sha256()
    for path in sorted(Path(world.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _heads(
    identity: Tensor, style: str, cameras: Cameras, progress: Progress, size: int = SIZE, samples: int = 4
) -> Tensor:
    """(S, 3, size, size) in [-1, 1]."""
    pictures = []
    for i, head in enumerate(identity.split(1)):
        progress(f"true pictures, {style}", i, len(identity))
        rgb, _, _ = render_heads(head, style_rows([style]), one(cameras, i), size, samples=samples)
        pictures.append(2 * rgb[0, 0] - 1)
    progress(f"true pictures, {style}", len(identity), len(identity))
    return torch.stack(pictures)


def _recoloured_photos(identity: Tensor, setting: Setting, progress: Progress) -> Tensor:
    pictures = []
    for i, head in enumerate(identity.split(1)):
        progress("true photos", i, len(identity))
        rgb, _, mask = render_heads(head, style_rows(["photo"]), one(setting.gallery, i), SIZE)
        pictures.append(recoloured(2 * rgb[0, 0] - 1, mask[0, 0], setting.colours[i], 2 * BACKGROUND - 1))
    progress("true photos", len(identity), len(identity))
    return torch.stack(pictures)


class _Store:
    """Tensors that are read if they were written before."""

    def __init__(self, folder: Path | None, key: str):
        self.folder, self.key = folder, key

    def get(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if self.folder is None:
            return make()
        digest = hashlib.sha256(f"{self.key}|{name}".encode()).hexdigest()[:20]
        path = self.folder / f"{name.replace(' ', '-')}-{digest}.safetensors"
        if path.is_file():
            return load_file(path)["pictures"].float()
        pictures = make().half().float()  # the same numbers whether they come from the file or not
        with written_aside(path) as aside:
            save_file({"pictures": pictures.half().contiguous()}, aside)
        return pictures
