"""From what a user writes after --weights to a renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill3d.state_dicts import fill, read_state_dict
from distill3d_lrm.cache import CodeCache, cache_folder
from distill3d_lrm.configs import read_json, read_yaml
from distill3d_lrm.foreground import Removal
from distill3d_lrm.hub import Published, find_checkpoint
from distill3d_lrm.model import ReconstructionModel
from distill3d_lrm.openlrm import OpenLRM, OpenLRMConfig
from distill3d_lrm.preparation import Preparation, Resize
from distill3d_lrm.renderer import Look, LrmRenderer
from distill3d_lrm.subjects import PhotoSubjects, Studio
from distill3d_lrm.triposr import TripoSR, TripoSRConfig

TRIPOSR = Published("stabilityai/TripoSR", "1.7 GB", "MIT", "config.yaml", ("model.ckpt",))
OPENLRM = Published("zxhezexin/openlrm-mix-base-1.1", "1.0 GB", "CC-BY-NC-4.0", "config.json", ("model.safetensors",))


@dataclass(frozen=True)
class Kind:
    """What tells the two published models apart when they are loaded."""

    published: Published
    read_config: Callable[[Path], Mapping[str, Any]]
    build: Callable[[Mapping[str, Any]], ReconstructionModel]
    composite: float
    resize: Resize
    quantised: bool
    shrink_to: int | None  # see `Preparation`; bicubic resizing of larger photos aliases


def _triposr(config: Mapping[str, Any]) -> TripoSR:
    return TripoSR(TripoSRConfig.from_dict(config, config.get("vit_config")))


def _openlrm(config: Mapping[str, Any]) -> OpenLRM:
    return OpenLRM(OpenLRMConfig.from_dict(config, config.get("encoder_config")))


KINDS = {
    "triposr": Kind(TRIPOSR, read_yaml, _triposr, 0.5, "antialiased", True, None),
    "openlrm": Kind(OPENLRM, read_json, _openlrm, 1.0, "bicubic", False, 512),
}


def load_triposr(
    weights: str | None = None,
    device: str = "cpu",
    *,
    subjects: Sequence[str] = (),
    background: float = Look.background,
    remove_background: Removal = "auto",
    foreground_ratio: float = 0.85,
    size: int = TripoSR.picture_size,
    last_blocks: int = Look.last_blocks,
    low_memory: bool = Look.low_memory,
    keep_codes: bool = True,
) -> LrmRenderer:
    """TripoSR, any object from one photo (Tochilkin et al., 2024); code and weights MIT.

    See `load_model`.
    """
    look = Look(background=background, last_blocks=last_blocks, low_memory=low_memory)
    return load_model("triposr", weights, device, subjects, look, remove_background, foreground_ratio, size, keep_codes)


def load_openlrm(
    weights: str | None = None,
    device: str = "cpu",
    *,
    subjects: Sequence[str] = (),
    background: float = Look.background,
    remove_background: Removal = "auto",
    foreground_ratio: float | None = None,
    size: int | None = None,
    last_blocks: int = Look.last_blocks,
    low_memory: bool = Look.low_memory,
    keep_codes: bool = True,
) -> LrmRenderer:
    """OpenLRM 1.1, any object from one photo (He and Wang, 2023); weights for research only.

    See `load_model`.
    """
    look = Look(background=background, last_blocks=last_blocks, low_memory=low_memory)
    return load_model("openlrm", weights, device, subjects, look, remove_background, foreground_ratio, size, keep_codes)


def load_model(
    kind: str,
    weights: str | None,
    device: str,
    subjects: Sequence[str],
    look: Look,
    remove_background: Removal,
    foreground_ratio: float | None,
    size: int | None,
    keep_codes: bool,
) -> LrmRenderer:
    """A renderer with a published checkpoint's weights, float32.

    Args:
        weights: a folder with config and weights, a weight file whose config lies beside it, or a Hub id
            ("user/name"), which is downloaded; None for the default checkpoint, if it is in the local cache.
        subjects: photo files, and folders of them.
        remove_background: see `foreground.with_alpha`.
        foreground_ratio: share of the picture's side that the subject fills; None leaves the framing as it is.
        size: side of pictures; None for that of published renders.
        keep_codes: on disk, what a photo becomes by weights that do not train, for the next run.
    Raises:
        WeightsError: if it is missing, damaged, or no checkpoint of this kind, saying what to do.
    """
    of = KINDS[kind]
    found = find_checkpoint(weights, of.published)
    config = of.read_config(found.config)
    with torch.device("meta"):
        model = of.build(config)
    fill(model, read_state_dict(found.weights), str(found.weights))
    model = model.eval()
    preparation = Preparation(model.image_size, of.composite, of.resize, foreground_ratio, of.quantised, of.shrink_to)
    studio = Studio(preparation, remove_background)
    cache = CodeCache(cache_folder() / "codes" if keep_codes else None)
    people = PhotoSubjects(subjects, studio) if subjects else None
    renderer = LrmRenderer(
        model,
        studio,
        people,
        look,
        cache=cache,
        image_size=size,
        licence=found.licence,
        weights_name=found.repo,
    )
    return renderer.to(device).eval()
