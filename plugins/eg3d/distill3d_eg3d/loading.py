"""From what a user writes after --weights to a renderer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distill3d.errors import UnknownNameError, WeightsError
from distill3d.files import sha256
from distill3d.state_dicts import check_state_dict, read_state_dict
from distill3d_eg3d.architecture import Family
from distill3d_eg3d.checkpoint import Checkpoint, convert, load
from distill3d_eg3d.convolution import FIR
from distill3d_eg3d.known import CHECKPOINTS, DEFAULTS, cache_folder, find, how_to_get, published_as
from distill3d_eg3d.look import Background, Look, Noise, Precision
from distill3d_eg3d.renderer import TriplaneRenderer
from distill3d_eg3d.subjects import read_subjects

STATE_DICTS = (".pth", ".pt")


def _loader(family: Family, summary: str) -> Callable[..., TriplaneRenderer]:
    """The function that the plugin offers; its keyword-only parameters are what --backbone-set takes."""

    def load_family(
        weights: str | None = None,
        device: str = "cpu",
        *,
        psi: float = Look.psi,
        cutoff: int | None = Look.cutoff,
        background: Background = Look.background,
        noise: Noise = Look.noise,
        precision: Precision = Look.precision,
        compiled: bool = Look.compiled,
        low_memory: bool = Look.low_memory,
        subjects: Sequence[str] = (),
    ) -> TriplaneRenderer:
        look = Look(
            psi=psi,
            cutoff=cutoff,
            background=background,
            noise=noise,
            precision=precision,
            compiled=compiled,
            low_memory=low_memory,
        )
        return load_generator(weights, device, family=family, look=look, subjects=subjects)

    load_family.__doc__ = f"{summary}\n\nSee `load_generator` for weights and subjects, `Look` for the others."
    return load_family


load_eg3d = _loader("eg3d", "EG3D, by default the FFHQ heads (Chan et al., CVPR 2022).")
load_panohead = _loader("panohead", "PanoHead, full heads from all sides (An et al., CVPR 2023).")


def load_generator(
    weights: str | None,
    device: str = "cpu",
    *,
    family: Family,
    look: Look | None = None,
    subjects: Sequence[str] = (),
) -> TriplaneRenderer:
    """A renderer with a checkpoint's weights, float32.

    Args:
        weights: a file that `distill3d eg3d convert` wrote, an official `.pkl` (converted once into the cache), a
            stylised `.pth` (a plain state dict, on the family's default checkpoint), or the name of a published
            checkpoint; None for the family's default.
        subjects: `.npz` files of W+ codes, or folders of them; none for the generator's own.
    Raises:
        WeightsError: if it is missing, damaged, or of the other family, saying what to do.
    """
    given = weights or DEFAULTS[family]
    found = read(given, family)
    if found.architecture.family != family:
        raise WeightsError(
            f"{weights} is a checkpoint of {found.architecture.family}; use --backbone {found.architecture.family}."
        )
    codes = read_subjects(subjects) if subjects else None
    name = given if given in CHECKPOINTS else published_as(found.source, found.source_sha256)
    renderer = TriplaneRenderer(found.architecture, look, licence=found.licence, weights_name=name, subjects=codes)
    fill(renderer, found.tensors, given)
    return renderer.to(device).eval()


def read(weights: str, family: Family) -> Checkpoint:
    """The checkpoint that these words mean."""
    if weights in CHECKPOINTS:
        return _read_known(weights)
    path = Path(weights)
    if not path.is_file():
        hint = "" if path.suffix else f" {UnknownNameError('published checkpoint', weights, CHECKPOINTS)}"
        raise WeightsError(f"There is no weight file {path}.{hint}")
    if path.suffix.lower() == ".pkl":
        return _converted_once(path)
    if path.suffix in STATE_DICTS:
        return _stylised(path, _read_known(DEFAULTS[family]))
    return load(path)


def _read_known(name: str) -> Checkpoint:
    known = find(name)
    source = cache_folder() / known.file
    if not source.is_file():
        raise WeightsError(f"The checkpoint {name} is not here. {how_to_get(known)}")
    return _converted_once(source)


def _converted_once(source: Path) -> Checkpoint:
    """By the file's checksum, so that another file of that name is converted again."""
    target = cache_folder() / "converted" / f"{sha256(source)[:24]}.safetensors"
    if target.is_file():
        try:
            return load(target)
        except WeightsError:  # damaged, or written by another version: it can be made again
            target.unlink()
    return convert(source, target)


def _stylised(path: Path, base: Checkpoint) -> Checkpoint:
    """A state dict of a whole generator, as the paper's authors publish theirs, on the checkpoint it came from."""
    tensors = read_state_dict(path)
    return Checkpoint(base.architecture, tensors, path.name, sha256(path), base.licence)


def fill(renderer: TriplaneRenderer, tensors: dict[str, Tensor], source: str) -> None:
    """Put a checkpoint's tensors in, every one of them.

    Raises:
        WeightsError: naming what is missing, left over, or of another shape.
    """
    check_state_dict(renderer.generator.state_dict(), tensors, source)
    for name, value in tensors.items():
        if name.endswith("resample_filter") and not torch.allclose(value.float(), FIR, atol=1e-6):
            raise WeightsError(f"{name} in {source} is another filter than 1 3 3 1, which all published ones have.")
    renderer.generator.load_state_dict(tensors)
