"""Numbers out of a checkpoint's config, checked before anything is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill3d.errors import WeightsError

LARGEST = 1 << 16  # no published size comes near; a config that asks for more would only fill the memory


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a config.

    Raises:
        WeightsError: if it is not there.
    """
    part = config.get(name)
    if not isinstance(part, Mapping):
        raise WeightsError(f"The checkpoint's config has no section {name!r}.")
    return part


def size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A positive whole number of a config.

    Raises:
        WeightsError: if it is missing, none, or absurdly large.
    """
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST:
        raise WeightsError(f"{name} in the checkpoint's config is a whole number from 1 to {LARGEST}, got {value!r}.")
    return value


def number(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A finite number of a config.

    Raises:
        WeightsError: if it is missing or none.
    """
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise WeightsError(f"{name} in the checkpoint's config is a number, got {value!r}.")
    return float(value)


def choice(config: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
    """One of some words of a config.

    Raises:
        WeightsError: for any other, which no published checkpoint has.
    """
    value = config.get(name, default)
    if value not in allowed:
        raise WeightsError(f"{name} in the checkpoint's config is {' or '.join(allowed)}, got {value!r}.")
    return str(value)
