"""The config beside a checkpoint, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill3d.errors import WeightsError

LARGEST = 1 << 20  # bytes; published ones have two thousand


def read_json(path: Path) -> Mapping[str, Any]:
    """A `config.json`.

    Raises:
        WeightsError: if it is no JSON object.
    """
    try:
        return _mapping(json.loads(_text(path)), path)
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A `config.yaml`, its `${...}` references resolved.

    Raises:
        WeightsError: if it is no YAML mapping, or a reference leads nowhere.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    text = _text(path)
    if "${oc." in text or "${env" in text:  # references to the environment and to code that resolves them
        raise WeightsError(f"{path} has references that reach outside of it.")
    try:
        return _mapping(OmegaConf.to_container(OmegaConf.create(text), resolve=True), path)
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is no YAML config: {first}") from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise WeightsError(f"{path} is larger than any config of a checkpoint.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _mapping(value: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise WeightsError(f"{path} holds no settings by name.")
    return value
