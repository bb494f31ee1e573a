"""Checks of what a pickle passes to a function that it may call."""

from __future__ import annotations

from typing import Any

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError, shown

LARGEST_RANK = 8
LARGEST_INT = 2**62  # offsets and sizes in elements; their products are checked where they are used


def misused(function: str) -> PickleError:
    """The error for a known function with arguments that it never has."""
    return PickleError(f"it calls {function} with arguments that it never has. {DOWNLOAD}")


def at_least(arguments: tuple[Any, ...], count: int, function: str) -> tuple[Any, ...]:
    """The first `count` arguments.

    Raises:
        PickleError: if there are fewer.
    """
    if len(arguments) < count:
        raise misused(function)
    return arguments[:count]


def checked(value: Any, kind: type | tuple[type, ...], function: str) -> Any:
    """`value`, if it is of that kind; True is no number here."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise misused(function)
    return value


def sizes(value: Any, function: str) -> tuple[int, ...]:
    """`value`, if it is a tuple of at most `LARGEST_RANK` sizes or strides."""
    checked(value, tuple, function)
    if len(value) > LARGEST_RANK:
        raise PickleError(
            f"it holds a tensor of {len(value)} dimensions, and {LARGEST_RANK} is the most expected. {DOWNLOAD}"
        )
    return tuple(size(item, function) for item in value)


def size(value: Any, function: str) -> int:
    """`value`, if it is a size, stride or offset."""
    if not 0 <= checked(value, int, function) < LARGEST_INT:
        raise PickleError(f"it passes a size out of range to {function}. {DOWNLOAD}")
    return value


def text(value: Any, function: str) -> str:
    """`value`, if it is a short text; Python 2 wrote some as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise PickleError(f"it passes {shown(value)} to {function}, which takes a short text. {DOWNLOAD}")
    return value
