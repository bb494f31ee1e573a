"""Paths of a disk in settings that are passed on: left out when a pack is made, refused when one is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PureWindowsPath

from distill3d.config import DistillConfig


def without_places(config: DistillConfig) -> DistillConfig:
    """The config without paths of this machine, and without the files of subjects.

    A bare word stays, also where a file of that name lies here: it is a setting, or a name of weights.
    """
    kept = {
        name: value for name, value in config.backbone_options.items() if name != "subjects" and not _is_of_here(value)
    }
    return replace(
        config,
        weights=None if _is_of_here(config.weights) else config.weights,
        scorer_weights=None if _is_of_here(config.scorer_weights) else config.scorer_weights,
        fast=True if _is_of_here(config.fast) else config.fast,
        controlnets={name: place for name, place in config.controlnets.items() if not _is_of_here(place)},
        backbone_options=kept,
    )


def is_place(value: object) -> bool:
    """A path that can be no Hub id and no name, wherever one is: an absolute one, or from here, home or a drive.

    Of what is not text: whether a part of it is one.
    """
    return any(_is_path(text) for text in _texts(value))


def lying_here(value: object) -> str | None:
    """A text, of all that a value holds, by which a file or folder lies here; None if there is none."""
    return next(filter(os.path.lexists, _texts(value)), None)


def _is_of_here(value: object) -> bool:
    """A path, or a file in a folder here; user/name of a Hub id is none unless there is such a file."""
    return is_place(value) or any("/" in _slashed(text) and os.path.lexists(text) for text in _texts(value))


def _texts(value: object) -> Iterator[str]:
    """The text that a value is, or those in it."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, str) and part:
            yield part
        elif isinstance(part, list | tuple):
            left.extend(part)
        elif isinstance(part, dict):
            left.extend(part.values())


def _is_path(text: str) -> bool:
    first, *others = _slashed(text).split("/")
    return (
        PureWindowsPath(text).anchor != ""  # /x, C:x, \\host\x
        or first.startswith("~")
        or first in (".", "..")
        or ".." in others
        or text.lower().startswith("file:")
    )


def _slashed(text: str) -> str:
    return text.replace("\\", "/")
