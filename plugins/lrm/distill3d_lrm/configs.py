"""The config beside a checkpoint, as plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distill3d.errors import WeightsError

LARGEST = 1 << 16  # bytes; published ones have two thousand
DEEPEST = 16  # sections within sections
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def read_json(path: Path) -> Mapping[str, Any]:
    """A `config.json`.

    Raises:
        WeightsError: if it is no JSON object.
    """
    try:
        return _mapping(json.loads(_text(path)), path)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error


def read_yaml(path: Path) -> Mapping[str, Any]:
    """A `config.yaml`, its references such as `${tokenizer.num_channels}` resolved.

    Other references, to the environment or to each other, have no place in a file that somebody else wrote.

    Raises:
        WeightsError: if it is no YAML mapping, or a reference leads nowhere.
    """
    text = _text(path)
    try:
        _refuse_tangles(text)
        plain = yaml.safe_load(text)
        return _mapping(_resolved(plain, plain), path)
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is no YAML config: {first}") from error


def _refuse_tangles(text: str) -> None:
    """Nesting without end crashes YAML's reader in C, and aliases of aliases fill the memory."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has aliases, which no published config has")
        if depth == 0 and isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent):
            raise ValueError("it holds no settings by name")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"its sections are nested more than {DEEPEST} deep")


def _resolved(value: Any, whole: Any) -> Any:
    """References replaced by the numbers and words that they name."""
    if isinstance(value, Mapping):
        return {name: _resolved(part, whole) for name, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part, whole) for part in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    named = REFERENCE.fullmatch(value)
    target = whole
    for name in named[1].split(".") if named else ():
        target = target.get(name) if isinstance(target, Mapping) else None
    if target is None or isinstance(target, Mapping | list) or "${" in str(target):
        raise ValueError(f"the reference {value} does not lead to a number or a word in it")
    return target


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
