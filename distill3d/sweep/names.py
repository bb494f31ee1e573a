"""A run's folder is named by what is varied, so that adding values to a sweep moves no run that is there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

BARE = ("style", "method", "backbone", "scorer")  # whose values say what they are
LONGEST, MOST = 40, 160  # letters of one value, and of a name: file systems allow 255 bytes, and endings are added


def run_name(varied: Mapping[str, Any]) -> str:
    """As `zombie-ld-seed0-lr0.01`: small letters, digits, dots and dashes, at most 160."""
    name = "-".join(_part(field, value) for field, value in varied.items())
    return name if len(name) <= MOST else f"{name[: MOST - 7]}-{_digest(name)}"


def _part(field: str, value: Any) -> str:
    name = field.rpartition(".")[2].replace("_", "-")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{name}{value}"
    return _word(value) if field in BARE else f"{name}-{_word(value)}"


def _word(value: Any) -> str:
    """A value as letters; one that letters do not tell apart from others carries a few digits of its checksum."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    word = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST].strip("-")
    if word == re.sub(r"[ _]", "-", text.lower()):
        return word
    return f"{word}-{_digest(text)}" if word else _digest(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
