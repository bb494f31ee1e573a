"""Options out of a pickle: plain values, copied with a cap on depth and number."""

from __future__ import annotations

from typing import Any

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError, shown
from distill3d_eg3d.pickles.limits import Budget, Limits
from distill3d_eg3d.pickles.records import Global, Record

LARGEST_INT = 2**63


def plain(value: Any, where: str, limits: Limits, values: Budget) -> Any:
    """A copy of `value` of None, bool, int, float, str, list, tuple and dict with text keys, nothing else.

    Args:
        where: its name, for messages.
        limits: `nesting` caps the depth, which also ends a list that holds itself.
        values: pays for each value, which ends lists that multiply.
    Raises:
        PickleError: if it holds anything else.
    """
    return _copied(value, where, limits.nesting, values)


def _copied(value: Any, where: str, depth: int, values: Budget) -> Any:
    values.spend()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < LARGEST_INT:
        return value
    if isinstance(value, str) and _is_unicode(value):
        return value
    if depth == 0:
        raise PickleError(f"{where} is nested deeper than options are. {DOWNLOAD}")
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, where, depth - 1, values) for item in value)
    if isinstance(value, dict):
        return {_option(name, where): _copied(item, where, depth - 1, values) for name, item in value.items()}
    raise PickleError(f"{where} holds {_described(value)}, where only plain values are expected. {DOWNLOAD}")


def _is_unicode(value: str) -> bool:
    """A pickle may hold halves of characters, which could be neither printed nor written as JSON."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _option(name: Any, where: str) -> str:
    if not isinstance(name, str) or not name.isprintable():
        raise PickleError(f"{where} has an option called {shown(name)}. {DOWNLOAD}")
    return name


def _described(value: Any) -> str:
    if isinstance(value, Global):
        return shown(value.dotted)
    if isinstance(value, Record):
        return f"an object of {shown(value.kind.dotted)}"
    return shown(value)
