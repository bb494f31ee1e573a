"""Dicts, sets and objects of the interpreter, made so that no key can be slow or deep to hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError
from distill3d_eg3d.pickles.records import Global, Record

LARGEST_KEY = 2**60  # beyond, Python's hash of an integer wraps around, and keys can be made to collide
DICT_CLASSES = {"dnnlib.util.EasyDict", "collections.OrderedDict"}


def key(value: Any) -> Any:
    """`value`, if it may be a key: text, a number, None, or the name of something.

    Raises:
        PickleError: for containers and records. Hashing a tuple goes as deep as the tuple.
    """
    if value is None or isinstance(value, str | float | bool | Global):
        return value
    if isinstance(value, int) and abs(value) < LARGEST_KEY:
        return value
    raise PickleError(f"it uses a {type(value).__name__} as a key, which no checkpoint does. {DOWNLOAD}")


def fresh_dict(items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A new dict of (key, value) pairs."""
    return {key(name): value for name, value in items}


def fresh_set(items: Iterable[Any]) -> set[Any]:
    """A new set."""
    return {key(item) for item in items}


def made(kind: Any) -> Any:
    """What stands for a new object of the class called `kind`: a dict for the known dicts, else an inert record.

    Raises:
        PickleError: if `kind` is not a name.
    """
    if not isinstance(kind, Global):
        raise PickleError(f"it makes an object of something that is not the name of a class. {DOWNLOAD}")
    return {} if kind.dotted in DICT_CLASSES else Record(kind)
