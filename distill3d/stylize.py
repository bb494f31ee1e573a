"""A photograph in a style: turned round, as a mesh and on a page, by a run on a backbone that reads photographs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from distill3d import __version__
from distill3d.errors import ConfigError, MissingExtraError, RunError
from distill3d.export import Mesh, extract_mesh, save_mesh
from distill3d.files import as_file_name, folder_written_aside, storing
from distill3d.models import Told, find_model, load_stylised, tell_log
from distill3d.renderer import FromPhotos, Renderer, Scene
from distill3d.report.pictures import contact_sheet, save_picture
from distill3d.report.stylised import PAGE, write_page
from distill3d.report.turntable import save_turntable
from distill3d.runs import numbered_folder
from distill3d.showcase import degrees, look_round, turntable_yaws

PHOTO, SHEET, TURNTABLE = "photo.png", "sheet.png", "turntable.webp"
MESH, RECORD = "head.glb", "stylize.json"
SHOWN = 1024  # pixels on the longer side of the photograph on the page
SHEET_YAW = 60.0  # degrees to both sides, where the backbone's cameras go that far
Progress = Callable[[str, int, int], None]  # what is being done, how much of how much is


@dataclass(frozen=True, kw_only=True)
class StylizeOptions:
    """What is made of a photograph.

    Args:
        original: show the subject before the run above the stylised one.
        frames: of the turntable, at least 2.
        resolution: of the mesh, points along each side of the box, at least 8.
        mesh: None makes one where backbone and installed packages can; True insists.
    """

    original: bool = True
    frames: int = 24
    resolution: int = 128
    mesh: bool | None = None

    def __post_init__(self) -> None:
        if self.frames < 2 or self.resolution < 8:
            raise ConfigError(
                f"A turntable has at least 2 frames and a mesh 8 points along a side, got {self.frames} and "
                f"{self.resolution}."
            )


@dataclass(frozen=True)
class StylisedPhoto:
    """Where it was written, and why no mesh was, if none was."""

    folder: Path
    no_mesh: str | None

    @property
    def page(self) -> Path:
        return self.folder / PAGE


@torch.no_grad()
def stylize(
    photo: Path,
    model: str,
    out: Path | None = None,
    *,
    options: StylizeOptions | None = None,
    device: str | None = None,
    base: str | None = None,
    told: Told = tell_log,
    progress: Progress = lambda what, done, total: None,
) -> StylisedPhoto:
    """Read a photograph by a run's generator and write what it looks like in the style; the files are named above.

    Args:
        model: see `distill3d.models.find_model`.
        device, base, told: see `distill3d.models.load`.
        out: the folder, new or empty; None for stylised/PHOTO-STYLE, with a number if that is taken.
    Raises:
        ConfigError: for a picture that cannot be read, a backbone that reads none, or a mesh that cannot be had.
        MissingExtraError: if a mesh is insisted on without the `mesh` extra.
        RunError, WeightsError: for a run that cannot be found or loaded, or a place that cannot be written.
    """
    options = options or StylizeOptions()
    if not os.path.isfile(photo):  # Path.is_file raises for a name that is too long
        raise ConfigError(f"There is no picture {photo}.")
    progress("loading", 0, 1)
    found = find_model(model, told=told)
    stylised = load_stylised(found, device=device, base=base, subjects=False)
    original = stylised.original
    if not isinstance(original, FromPhotos):
        raise ConfigError(
            f"Backbone {found.backbone.name!r} draws its subjects itself; stylize needs one that reads photographs, as "
            "triposr or openlrm."
        )
    name = f"{as_file_name(photo.stem) or 'photo'}-{as_file_name(found.style) or 'style'}"
    with _claimed(out, Path("stylised") / name) as folder:
        progress("reading the photograph", 0, 1)
        codes = original.codes_of_photos([photo])  # of both: nothing that is trained acts before `scene`
        scene = stylised.scene(codes)
        mesh, no_mesh = _mesh(stylised, scene, options, progress)
        shown = {"original": (original, original.scene(codes))} if options.original else {}
        pictures = _Pictures.of({**shown, "stylised": (stylised, scene)}, options.frames, progress)
        record = {
            "photo": photo.name,
            "run": found.name,  # no path of this machine
            "style": found.style,
            "backbone": found.backbone.name,
            "distill3d": __version__,
            "weights_licence": original.weights_licence,
            "settings": {**asdict(options), "mesh": mesh is not None},
        }
        with folder_written_aside(folder) as aside:
            _write(aside, photo, pictures, mesh, record)
    return StylisedPhoto(folder, no_mesh)


@contextlib.contextmanager
def _claimed(out: Path | None, first: Path) -> Iterator[Path]:
    """The folder to write: made empty, so that a place that cannot be written is known before the work.

    Where the work fails, what was made here is gone again.
    """
    wanted = out or first
    above = [place for place in wanted.parents if not os.path.lexists(place)]
    own = out is None or not os.path.lexists(out)
    folder = numbered_folder(first) if out is None else _made_empty(out)
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):
            for place in ([folder] if own else []) + above:
                place.rmdir()  # unless something else is in it by now
        raise


def _made_empty(folder: Path) -> Path:
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RunError(f"{folder} is not empty. Choose another place with --out.")
        if folder.samefile(Path.cwd()):  # it is put in its place whole, which would take the ground away
            raise RunError(f"{folder} is where you are. Choose a folder in it with --out.")
    return folder


def _mesh(
    renderer: Renderer, scene: Scene, options: StylizeOptions, progress: Progress
) -> tuple[Mesh | None, str | None]:
    """The surface, or None and why."""
    if options.mesh is False:
        return None, None
    resolution = options.resolution
    try:
        step = lambda done, total: progress("asking the field", done, total)  # noqa: E731
        return extract_mesh(renderer, scene, resolution=resolution, progress=step), None
    except (ConfigError, MissingExtraError) as error:
        if options.mesh:
            raise
        return None, str(error)


@dataclass(frozen=True)
class _Pictures:
    """Views of the original, if it is shown, and of the stylised subject, by those names."""

    sheet: dict[str, Tensor]  # each (V, 3, H, W) in [-1, 1]
    turn: dict[str, Tensor]  # each (T, 3, H, W)
    sheet_yaws: list[float]

    @classmethod
    def of(cls, scenes: dict[str, tuple[Renderer, Scene]], frames: int, progress: Progress) -> _Pictures:
        around = scenes["stylised"][0].defaults.around
        widest = min(SHEET_YAW, around.yaw)
        sheet_yaws = [widest * place for place in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        yaws = [*sheet_yaws, *turntable_yaws(around, frames)]
        done, total = 0, len(scenes) * len(yaws)

        def seen() -> None:
            nonlocal done
            done += 1
            progress("rendering", done, total)

        rows = {name: look_round(renderer, scene, yaws, seen=seen) for name, (renderer, scene) in scenes.items()}
        count = len(sheet_yaws)
        return cls({n: row[:count] for n, row in rows.items()}, {n: row[count:] for n, row in rows.items()}, sheet_yaws)


def _given(photo: Path) -> Image.Image:
    """The photograph for a page that is passed on: upright, small, without what a camera noted in it."""
    with Image.open(photo) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I"):  # 16 bits: Pillow would cut them off, not scale them
            picture = Image.fromarray((np.asarray(picture).astype(np.float32) / 257).clip(0, 255).astype(np.uint8))
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        picture.thumbnail((SHOWN, SHOWN))
        plain = Image.new(picture.mode, picture.size)
        plain.paste(picture)
        return plain


def _write(folder: Path, photo: Path, pictures: _Pictures, mesh: Mesh | None, record: dict) -> None:
    _given(photo).save(folder / PHOTO)
    rows = pictures.sheet
    sheet = contact_sheet(torch.stack(list(rows.values())), list(rows), degrees(pictures.sheet_yaws))
    save_picture(sheet, folder / SHEET)
    turn = {name: frames[:, None] for name, frames in pictures.turn.items()}
    save_turntable(turn["stylised"], folder / TURNTABLE, before=turn.get("original"))
    if mesh is not None:
        save_mesh(mesh, folder / MESH)
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_page(folder, record, photo=PHOTO, sheet=SHEET, turntable=TURNTABLE, mesh=MESH if mesh is not None else None)
