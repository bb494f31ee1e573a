"""From a run's folder to a style pack: the trained tensors, what they belong to, pictures and a card."""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from distill3d import showcase
from distill3d.errors import ConfigError
from distill3d.files import check_replaceable, folder_written_aside, sha256
from distill3d.models import Stylised, load_stylised, pristine_of, put
from distill3d.packs.adapter import decode, encode, relative_error
from distill3d.packs.card import card_of
from distill3d.packs.config import (
    ADAPTER,
    CARD,
    CONFIG,
    FILES,
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
from distill3d.run_files import EVALUATION, FIGURES, VERSIONS
from distill3d.runs import RunFolder, step_of_weights, trained_weights
from distill3d.showcase import look
from distill3d.training.snapshot import load_tensors

logger = logging.getLogger(__name__)

SHEET_QUALITY = 90  # of a format with loss, an eighth of the size of one without
TRIED_SEEDS, TRIED_YAWS = (0, 1, 2, 3), (-35.0, 0.0, 35.0)  # by which the error of an adapter is measured; degrees
Progress = Callable[[str], None]  # what is being done


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """How a run becomes a pack.

    Args:
        format: "full" holds the trained tensors themselves; "half" and "low-rank" are smaller, with an error that is
            measured and stated.
        pictures: sheet and turntable; None leaves them out where they would show subjects that somebody gave.
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
        out: the pack's folder, new or empty; an older pack is replaced.
        repo_id: "user/name", by which the card calls it.
        base, device: see `distill3d.models.load`.
    Raises:
        RunError, WeightsError, ConfigError: for a run that cannot be loaded, or a place that cannot be written.
    """
    options = options or PackOptions()
    check_replaceable(out, FILES)
    source = RunFolder(run)
    shown = _are_shown(source, options)
    progress("loading the run")
    stylised = _load(source, options, shown, base, device)
    with folder_written_aside(out) as folder:
        progress("writing the adapter")
        packed, adapter = _write_adapter(folder, source, stylised, options.format)
        if shown:
            progress("drawing the pictures")
            _draw(folder, source, stylised.original, packed, exact=options.format == "full")
        content = _content(source, stylised, adapter)
        (folder / CONFIG).write_text(content.to_json(), encoding="utf-8")
        (folder / CARD).write_text(str(card_of(content, repo_id, pictures=shown)), encoding="utf-8")
    return open_pack(out)


@torch.no_grad()
def preview_card(
    run: Path, *, repo_id: str, options: PackOptions | None = None, base: str | None = None, device: str | None = None
) -> ModelCard:
    """The card that `make_pack` writes; nothing is drawn or kept."""
    options = options or PackOptions()
    source = RunFolder(run)
    shown = _are_shown(source, options)
    stylised = _load(source, options, shown, base, device)
    with tempfile.TemporaryDirectory() as aside:
        _, adapter = _write_adapter(Path(aside), source, stylised, options.format)
    return card_of(_content(source, stylised, adapter), repo_id, pictures=shown)


def _are_shown(run: RunFolder, options: PackOptions) -> bool:
    """Whether sheet and turntable are in it; unless told, not where subjects that somebody gave are on them."""
    return "subjects" not in run.config.backbone_options if options.pictures is None else options.pictures


def _load(run: RunFolder, options: PackOptions, shown: bool, base: str | None, device: str | None) -> Stylised:
    """With the subjects that it was trained on only where pictures are made of them."""
    return load_stylised(run, base=base, device=device, subjects=shown or options.format != "full")


def _write_adapter(folder: Path, run: RunFolder, stylised: Stylised, form: Format) -> tuple[Stylised, AdapterInfo]:
    """adapter.safetensors, and what it makes, read again."""
    trained, before = stylised.palette.trained[run.name], pristine_of(stylised.original, run.train)
    path = folder / ADAPTER
    save_file(_encoded(before, trained, stylised.original, form), path)
    path.chmod(0o644)  # safetensors writes for its owner alone, and a pack is passed on
    tensors = decode(before, load_tensors(path), form, run.name)
    packed = copy.deepcopy(stylised)
    put(packed, tensors)
    error = 0.0 if form == "full" else _pictures_error(stylised, packed)
    size, checksum = path.stat().st_size, sha256(path)
    return packed, AdapterInfo(form, checksum, size, relative_error(before, trained, tensors), error)


def _encoded(
    before: Mapping[str, Tensor], trained: Mapping[str, Tensor], original: Renderer, form: Format
) -> dict[str, Tensor]:
    """What the group added is small already, and no difference to anything: it is never made of lower rank."""
    if form != "low-rank":
        return encode(before, trained, form)
    own = dict(original.named_parameters()).keys()
    kept, added = ({n: tensor for n, tensor in trained.items() if (n in own) == is_own} for is_own in (True, False))
    stored: dict[str, Tensor] = {}
    if kept:
        stored |= encode({name: before[name] for name in kept}, kept, form)
    if added:
        stored |= encode({name: before[name] for name in added}, added, "half")
    return stored


def _content(run: RunFolder, stylised: Stylised, adapter: AdapterInfo) -> PackConfig:
    config = without_places(run.config)
    style = find_style(run.style, registry().styles)
    return PackConfig(
        style=style.name,
        prompt=style.prompt,
        negative_prompt=style.negative_prompt,
        backbone=config.backbone,
        backbone_options=config.backbone_options,
        photos=isinstance(stylised, FromPhotos),
        train=run.train,
        base=Base(stylised.original.weights_name, stylised.palette.sha256),
        adapter=adapter,
        method=config.method,
        step=step_of_weights(run.folder),
        settings=json.loads(config.to_json()),
        versions=_read_table(run.folder / VERSIONS),
        parts=run.parts,
        metrics=_metrics(run, adapter.format),
    )


def _read_table(path: Path) -> dict[str, str]:
    """A file of words by name; none if it is not there or damaged, since nothing hangs on it."""
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}


PAIRED = "style and identity judges of the embedded world on {subjects} of its subjects that no run trains on"
UNPAIRED = "pictures before and after, of 16 subjects from 3 cameras"
NOT_EXACT = ", of the run itself, of which this pack has the {format} form"


def _metrics(run: RunFolder, form: Format) -> Metrics | None:
    """What `distill3d evaluate` found, if it was asked about these weights."""
    path = run.folder / EVALUATION / FIGURES
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["made_with"]["weights_sha256"] != sha256(trained_weights(run.folder)):
            raise ValueError("measured before the run went on")
        paired = "rows" in found
        values = next(iter(found["rows"].values())) if paired else found["metrics"]
        protocol = PAIRED.format(subjects=found["subjects"]) if paired else UNPAIRED
        numbers = {name: float(value) for name, value in values.items() if value is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        logger.warning(
            "%s is of other weights, or older: the card has no figures. Measure again: distill3d evaluate %s",
            path,
            run.folder,
        )
        return None
    protocol += "" if form == "full" else NOT_EXACT.format(format=form)
    return Metrics(protocol, {name: value for name, value in numbers.items() if math.isfinite(value)})


def _pictures_error(run: Renderer, packed: Renderer) -> float:
    """The largest RMS difference of a picture."""
    one, other = (look(renderer, TRIED_SEEDS, TRIED_YAWS) for renderer in (run, packed))
    return float((one - other).square().mean((-3, -2, -1)).sqrt().max())


def _draw(folder: Path, run: RunFolder, original: Renderer, packed: Renderer, *, exact: bool) -> None:
    own = run.folder / showcase.SHEET, run.folder / showcase.TURNTABLE
    if exact and _is_picture(own[0], "PNG") and _is_picture(own[1], "WEBP"):  # they show exactly this
        sheet, turntable = own
        shutil.copyfile(turntable, folder / TURNTABLE)
    else:
        drawn = showcase.Showcase(original, packed, folder)
        sheet, turntable = drawn.sheet(), drawn.turntable()
        assert turntable == folder / TURNTABLE
    with Image.open(sheet) as picture:
        save_picture(picture, folder / SHEET, quality=SHEET_QUALITY)
    if sheet.parent == folder:
        sheet.unlink()


def _is_picture(path: Path, form: str) -> bool:
    """Whether it is there, and whole."""
    try:
        with Image.open(path, formats=[form]) as picture:
            picture.load()
    except (OSError, SyntaxError):
        return False
    return True
