"""The numbers of one set of pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One row of the table. NaN: says nothing there, or was not measured."""

    style_accuracy: float = math.nan  # [0, 1], by the style judge
    retrieval_top1: float = math.nan  # [0, 1], by the face judge, among all subjects
    mean_rank: float = math.nan  # of the own subject in the gallery, 1 = nearest
    psnr: float = math.nan  # dB, mean over subjects, to the true stylised picture
    psnr_gain: float = math.nan  # dB more than the untouched generator's
    perceptual: float = math.nan  # to the true stylised picture, in the judges' features
    rsa_base: float = math.nan  # correlation of pairwise distances with the untouched generator's
    rsa_truth: float = math.nan  # with the true stylised pictures'
    diversity: float = math.nan  # mean pairwise distance, 1 = as before
    clip: float = math.nan  # cosine with the style's prompt, by the judges' CLIP
    clip_direction: float = math.nan  # cosine of the way pictures and prompts went
    own_clip: float = math.nan  # the same two by the diffusion model's own CLIP
    own_clip_direction: float = math.nan

    def plain(self) -> dict[str, float | None]:
        """For JSON, which has no NaN and no infinity: null."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Figures:
        """Inverse of `plain`, but for infinities."""
        known = {field.name for field in fields(cls)}
        return cls(**{n: math.nan if v is None else float(v) for n, v in values.items() if n in known})


COLUMNS = {  # title and format in a table
    "style_accuracy": ("style accuracy", ".2f"),
    "retrieval_top1": ("identity top-1", ".2f"),
    "mean_rank": ("mean rank", ".1f"),
    "psnr": ("PSNR to truth", ".1f"),
    "psnr_gain": ("gain", "+.1f"),
    "perceptual": ("perceptual", ".3f"),
    "rsa_base": ("RSA base", ".2f"),
    "rsa_truth": ("RSA truth", ".2f"),
    "diversity": ("diversity", ".2f"),
    "clip": ("CLIP", ".3f"),
    "clip_direction": ("CLIP direction", ".3f"),
    "own_clip": ("own CLIP", ".3f"),
    "own_clip_direction": ("own direction", ".3f"),
}


def cell(value: float, pattern: str) -> str:
    """A number as a table shows it."""
    return format(value, pattern) if math.isfinite(value) else "-"
