"""Values of somebody else's JSON, each of the kind that is asked for."""

from __future__ import annotations

import math
import re
import reprlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distill3d.errors import PackError

LONGEST = 10_000  # characters of a word or a prompt
MOST = 1_000  # values of a table, those of its tables and lists among them
DEEPEST = 4  # tables and lists within each other


class Reader:
    """Values of a JSON object by name.

    Args:
        source: what the object is, for errors: "The config.json of user/zombie".
        place: where in it the values are, as "adapter.".
    """

    def __init__(self, values: Mapping[str, Any], source: str, place: str = ""):
        self.values, self.source, self.place = values, source, place

    def wrong(self, name: str, wanted: str) -> PackError:
        given = shown(self.values[name]) if name in self.values else "'nothing'"
        called = name if name.isprintable() and len(name) <= 60 else shown(name)
        return PackError(f"{self.source} is damaged: {self.place}{called} must be {wanted}, it is {given}.")

    def get(self, name: str, wanted: str, fits: Callable[[Any], bool]) -> Any:
        if name not in self.values or not fits(self.values[name]):
            raise self.wrong(name, wanted)
        return self.values[name]

    def text(self, name: str) -> str:
        return self.get(name, "text of one line", lambda v: is_text(v))

    def lines(self, name: str) -> str:
        return self.get(name, "text", lambda v: is_text(v, but="\n\t"))

    def checksum(self, name: str) -> str:
        return self.get(name, "a sha256", lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) is not None)

    def flag(self, name: str) -> bool:
        return self.get(name, "true or false", lambda v: isinstance(v, bool))

    def whole(self, name: str) -> int:
        return self.get(
            name,
            "a whole number from 0",
            lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 53,
        )

    def number(self, name: str) -> float:
        return float(self.get(name, "a finite number", _is_finite))

    def table(self, name: str) -> dict[str, Any]:
        return self.get(name, "a table", lambda v: isinstance(v, dict))

    def sub(self, name: str) -> Reader:
        return Reader(self.table(name), self.source, f"{self.place}{name}.")

    def tables(self, name: str) -> list[Reader]:
        rows = self.get(name, "a list of tables", lambda v: isinstance(v, list) and all(isinstance(r, dict) for r in v))
        if len(rows) > MOST:
            raise self.wrong(name, f"a list of at most {MOST} tables")
        return [Reader(row, self.source, f"{self.place}{name}[{i}].") for i, row in enumerate(rows)]

    def named(self, name: str) -> dict[str, Any]:
        """A table whose names are words."""
        table = self.table(name)
        if len(table) > MOST or not all(map(is_text, table)):
            raise self.wrong(name, f"a table of at most {MOST} names, each text of one line")
        return table

    def settings(self, name: str) -> dict[str, Any]:
        """A table of settings by name, of any kind that can be shown: none is deep, long, or nothing to be read."""
        table, inner = self.named(name), self.sub(name)
        wanted = f"null, true, false, a finite number, text, or lists and tables of these, at most {DEEPEST} deep"
        for setting in table:
            inner.get(setting, wanted, lambda v: _is_setting(v, DEEPEST))
        if sum(1 for _ in _values(table)) > MOST:
            raise self.wrong(name, f"a table of at most {MOST} values")
        return table


def _is_setting(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(is_text(name) and _is_setting(part, depth - 1) for name, part in value.items())
    if isinstance(value, list):
        return depth > 0 and all(_is_setting(part, depth - 1) for part in value)
    return value is None or isinstance(value, bool) or _is_finite(value) or is_text(value, but="\n\t")


def _values(value: Any) -> Iterator[Any]:
    """It and all within it."""
    yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _values(part)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def is_text(value: Any, but: str = "") -> bool:
    """Whether a terminal and a page can show it: not too long, no escape codes, no halves of characters."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return False
    return all(c in but or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in value)


def shown(value: Any) -> str:
    """A value in an error: short however long it is, and flat however deep."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
