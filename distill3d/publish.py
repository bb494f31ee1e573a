"""From a run's folder to a style pack: the trained tensors, what they belong to, pictures and a card."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from distill3d import showcase
from distill3d.errors import ConfigError
from distill3d.evaluate import FOLDER as EVALUATION
from distill3d.evaluate import JSON
from distill3d.files import folder_written_aside, sha256
from distill3d.models import Stylised, load_stylised, put, trained_of
from distill3d.packs.adapter import decode, encode, relative_error
from distill3d.packs.card import card_of
from distill3d.packs.config import (
    ADAPTER,
    CARD,
    CONFIG,
    FORMATS,
    SHEET,
    TURNTABLE,
    AdapterInfo,
    Base,
    Format,
    Metrics,
    PackConfig,
)
from distill3d.packs.pack import StylePack, open_pack
from distill3d.packs.places import without_places
from distill3d.plugins import registry
from distill3d.preparation import find_style
from distill3d.renderer import FromPhotos, Renderer
from distill3d.report.pictures import save_picture
from distill3d.runs import VERSIONS, RunFolder, fingerprint, step_of_weights
from distill3d.showcase import look
from distill3d.training.snapshot import load_tensors

SHEET_QUALITY = 90  # of a format with loss, an eighth of the size of one without
TRIED_SEEDS, TRIED_YAWS = (0, 1, 2, 3), (-35.0, 0.0, 35.0)  # by which the error of an adapter is measured; degrees
Progress = Callable[[str], None]  # what is being done


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """How a run becomes a pack.

    Args:
        format: "full" holds the trained tensors themselves; "half" and "low-rank" are smaller, with an error that is
            measured and stated.
        pictures: sheet and turntable; None leaves them out where they would show people's photographs.
    """

    format: Format = "full"
    pictures: bool | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"A pack's format is one of {', '.join(FORMATS)}, got {self.format!r}.")


@torch.no_grad()
def make_pack(
    run: Path,
    out: Path,
    *,
    repo_id: str,
    options: PackOptions | None = None,
    base: str | None = None,
    device: str | None = None,
    progress: Progress = lambda what: None,
) -> StylePack:
    """Write a run as a style pack: the folder is there whole, or not at all.

    Args:
        run: a run's folder.
        out: the pack's folder; an older one is replaced.
        repo_id: "user/name", by which the card calls it.
        base, device: see `distill3d.models.load`.
    Raises:
        RunError, WeightsError, ConfigError: for a run that cannot be loaded, or a place that cannot be written.
    """
    options = options or PackOptions()
    source = RunFolder(run)
    progress("loading the run")
    stylised = load_stylised(source, base=base, device=device)
    trained = stylised.palette.trained[source.name]
    before = trained_of(stylised.original, source.train)
    progress("writing the adapter")
    with folder_written_aside(out) as folder:
        save_file(encode(before, trained, options.format), folder / ADAPTER)
        (folder / ADAPTER).chmod(0o644)  # safetensors writes for its owner alone, and a pack is passed on
        packed = _with(stylised, decode(before, load_tensors(folder / ADAPTER), options.format, source.name))
        adapter = AdapterInfo(
            options.format,
            sha256(folder / ADAPTER),
            (folder / ADAPTER).stat().st_size,
            relative_error(before, trained, dict(packed.named_parameters())),
            0.0 if options.format == "full" else _pictures_error(stylised, packed),
        )
        content = _content(source, stylised.original, adapter)
        pictures = _shows_nobody(source, stylised) if options.pictures is None else options.pictures
        if pictures:
            progress("drawing the pictures")
            _draw(folder, source, stylised.original, packed, exact=options.format == "full")
        write_pack_files(folder, content, repo_id)
    return open_pack(out)


def write_pack_files(folder: Path, content: PackConfig, repo_id: str) -> None:
    """config.json and the card of a pack whose other files are there."""
    (folder / CONFIG).write_text(content.to_json(), encoding="utf-8")
    card = card_of(content, repo_id, pictures=(folder / SHEET).is_file())
    (folder / CARD).write_text(str(card), encoding="utf-8")


def _content(run: RunFolder, original: Renderer, adapter: AdapterInfo) -> PackConfig:
    config = without_places(run.config)
    style = find_style(run.style, registry().styles)
    return PackConfig(
        style=style.name,
        prompt=style.prompt,
        negative_prompt=style.negative_prompt,
        backbone=config.backbone,
        backbone_options=config.backbone_options,
        photos=isinstance(original, FromPhotos),
        train=run.train,
        base=Base(original.weights_name, fingerprint(original)),
        adapter=adapter,
        method=config.method,
        step=step_of_weights(run.folder),
        settings=json.loads(config.to_json()),
        versions=_read_table(run.folder / VERSIONS),
        parts=run.parts,
        metrics=_metrics(run),
    )


def _read_table(path: Path) -> dict[str, str]:
    """A file of words by name; none if it is not there or damaged, since nothing hangs on it."""
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


PAIRED = "style and identity judges of the embedded world on {subjects} of its subjects that no run trains on"
UNPAIRED = "pictures before and after, of 16 subjects from 3 cameras"


def _metrics(run: RunFolder) -> Metrics | None:
    """What `distill3d evaluate` found, if it was asked."""
    try:
        found = json.loads((run.folder / EVALUATION / JSON).read_text(encoding="utf-8"))
        paired = "rows" in found
        values = found["rows"][run.name] if paired else found["metrics"]
        protocol = PAIRED.format(subjects=found["subjects"]) if paired else UNPAIRED
        numbers = {name: float(value) for name, value in values.items() if value is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Metrics(protocol, {name: value for name, value in numbers.items() if math.isfinite(value)})


def _with(stylised: Stylised, tensors: Mapping[str, Tensor]) -> Stylised:
    packed = copy.deepcopy(stylised)
    put(packed, tensors)
    return packed


def _pictures_error(run: Renderer, packed: Renderer) -> float:
    """The largest RMS difference of a picture."""
    one, other = (look(renderer, TRIED_SEEDS, TRIED_YAWS) for renderer in (run, packed))
    return float((one - other).square().mean((-3, -2, -1)).sqrt().max())


def _shows_nobody(run: RunFolder, renderer: Renderer) -> bool:
    """Whether no photograph that somebody gave is in its pictures."""
    return not (isinstance(renderer, FromPhotos) and "subjects" in run.config.backbone_options)


def _draw(folder: Path, run: RunFolder, original: Renderer, packed: Renderer, *, exact: bool) -> None:
    own = run.folder / showcase.SHEET, run.folder / showcase.TURNTABLE
    if exact and all(path.is_file() for path in own):  # they show exactly this
        sheet, turntable = own
    else:
        drawn = showcase.Showcase(original, packed, folder)
        sheet, turntable = drawn.sheet(), drawn.turntable()
    with Image.open(sheet) as picture:
        save_picture(picture, folder / SHEET, quality=SHEET_QUALITY)
    if turntable.parent == folder:
        sheet.unlink()
    else:
        shutil.copyfile(turntable, folder / TURNTABLE)
