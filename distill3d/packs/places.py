"""Paths of a disk in settings that are passed on: left out when a pack is made, refused when one is read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath

from distill3d.config import DistillConfig


def without_places(config: DistillConfig) -> DistillConfig:
    """The config without paths of this machine, and without the files of subjects."""
    kept = {
        name: value for name, value in config.backbone_options.items() if name != "subjects" and not is_place(value)
    }
    return replace(
        config,
        weights=None if is_place(config.weights) else config.weights,
        scorer_weights=None if is_place(config.scorer_weights) else config.scorer_weights,
        fast=True if is_place(config.fast) else config.fast,
        controlnets={name: place for name, place in config.controlnets.items() if not is_place(place)},
        backbone_options=kept,
    )


def is_place(value: object) -> bool:
    """A path that can be no Hub id and no name: an absolute one, one from here or from home, or one that is here.

    Of what is not text: whether a part of it is one.
    """
    if isinstance(value, list | tuple):
        return any(is_place(part) for part in value)
    if isinstance(value, dict):
        return any(is_place(part) for part in value.values())
    if not isinstance(value, str) or not value:
        return False
    if os.path.lexists(value):  # what a stranger's config names must not be read because it happens to lie here
        return True
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith((".", "~")):
        return True
    return ".." in value.replace("\\", "/").split("/")
