"""config.json of a style pack: what it is, what it belongs to, how it was made."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from distill3d import __version__
from distill3d.errors import PackError
from distill3d.licences import Part

SCHEMA = 1
CONFIG, ADAPTER, CARD, SHEET, TURNTABLE = (
    "config.json",
    "adapter.safetensors",
    "README.md",
    "sheet.webp",
    "turntable.webp",
)
FILES = {CONFIG: 1 << 20, ADAPTER: 4 << 30, CARD: 1 << 20, SHEET: 32 << 20, TURNTABLE: 32 << 20}  # most bytes of each
NEEDED = (CONFIG, ADAPTER)

Format = Literal["full", "half", "low-rank"]  # of the adapter, see `distill3d.packs.adapter`
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Base:
    """The backbone's weights that a pack belongs to."""

    weights: str  # what they can be got by; "" where they were never published
    sha256: str  # of all tensors with their names, `distill3d.runs.fingerprint`


@dataclass(frozen=True)
class AdapterInfo:
    """adapter.safetensors, and how far what it makes is from what the run made."""

    format: Format
    sha256: str
    size: int  # bytes
    weights_error: float = 0.0  # of the change, relative L2; 0 is exact
    pictures_error: float = 0.0  # the largest RMS difference of a picture that was tried, pictures in [-1, 1]


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found."""

    protocol: str  # in words: what was measured, on whom
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Everything that a pack says of itself."""

    style: str
    prompt: str
    negative_prompt: str = ""
    backbone: str
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    photos: bool = False  # whether its subjects are photographs
    train: str = "default"  # the group of weights
    base: Base
    adapter: AdapterInfo
    method: str
    step: int  # how many were taken
    settings: Mapping[str, Any] = field(default_factory=dict)  # all of the run's, without places on a disk
    versions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()  # whose weights it was made with, and their licences
    metrics: Metrics | None = None

    def to_json(self) -> str:
        """What `from_json` reads."""
        values = {"schema": SCHEMA, "distill3d": __version__, **asdict(self)}
        return json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> PackConfig:
        """Read what somebody else's `to_json` wrote; settings and fields that are not known here are left alone.

        Args:
            source: what the text came from, for errors.
        Raises:
            PackError: if it is no config of a pack, damaged, or of a newer version.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PackError(f"The {CONFIG} of {source} is damaged: it is no JSON.") from error
        if not isinstance(values, dict) or "schema" not in values or "adapter" not in values:
            raise PackError(f"{source} is no style pack: its {CONFIG} was not written by `distill3d push`.")
        _check_schema(values, source)
        read = _Reader(values, source)
        return cls(
            style=read.lines("style"),
            prompt=read.lines("prompt"),
            negative_prompt=read.lines("negative_prompt"),
            backbone=read.text("backbone"),
            backbone_options={
                n: tuple(v) if isinstance(v, list) else v for n, v in read.table("backbone_options").items()
            },
            photos=read.flag("photos"),
            train=read.text("train"),
            base=_base(read.sub("base")),
            adapter=_adapter(read.sub("adapter")),
            method=read.text("method"),
            step=read.whole("step"),
            settings=read.table("settings"),
            versions={name: str(value) for name, value in read.table("versions").items()},
            parts=tuple(_part(part) for part in read.parts("parts")),
            metrics=None if values.get("metrics") is None else _metrics(read.sub("metrics")),
        )


def _check_schema(values: Mapping[str, Any], source: str) -> None:
    schema = values["schema"]
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise PackError(f"{source} is no style pack: its {CONFIG} has version {schema!r:.40}, versions are 1, 2, ...")
    if schema > SCHEMA:
        by = values.get("distill3d")
        raise PackError(
            f"The style pack {source} has version {schema}{f', of distill3d {by}' if isinstance(by, str) else ''}; "
            f"this distill3d {__version__} reads versions up to {SCHEMA}. Update distill3d."
        )


def _base(read: _Reader) -> Base:
    return Base(read.text("weights"), read.checksum("sha256"))


def _adapter(read: _Reader) -> AdapterInfo:
    stored = read.text("format")
    if stored not in FORMATS:
        raise read.wrong("format", f"one of {', '.join(FORMATS)}")
    size = read.whole("size")
    errors = (read.number("weights_error"), read.number("pictures_error"))
    return AdapterInfo(stored, read.checksum("sha256"), size, *errors)


def _part(read: _Reader) -> Part:
    return Part(read.text("role"), read.text("name"), read.text("licence"))


def _metrics(read: _Reader) -> Metrics:
    values = read.table("values")
    return Metrics(read.lines("protocol"), {name: read.sub("values").number(name) for name in values})


LONGEST = 10_000  # characters of a word or a prompt


class _Reader:
    """Values of a JSON object by name, each of the kind that is asked for."""

    def __init__(self, values: Mapping[str, Any], source: str, place: str = ""):
        self.values, self.source, self.place = values, source, place

    def wrong(self, name: str, wanted: str) -> PackError:
        given = repr(self.values.get(name, "nothing"))
        shown = given if len(given) <= 60 else given[:57] + "..."
        return PackError(
            f"The {CONFIG} of {self.source} is damaged: {self.place}{_one_line(name)} must be {wanted}, it is {shown}."
        )

    def get(self, name: str, wanted: str, fits: Callable[[Any], bool]) -> Any:
        if name not in self.values or not fits(self.values[name]):
            raise self.wrong(name, wanted)
        return self.values[name]

    def text(self, name: str) -> str:
        return self.get(name, "text of one line", lambda v: _is_text(v))

    def lines(self, name: str) -> str:
        return self.get(name, "text", lambda v: _is_text(v, but="\n\t"))

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

    def sub(self, name: str) -> _Reader:
        return _Reader(self.table(name), self.source, f"{self.place}{name}.")

    def parts(self, name: str) -> list[_Reader]:
        rows = self.get(name, "a list of tables", lambda v: isinstance(v, list) and all(isinstance(r, dict) for r in v))
        return [_Reader(row, self.source, f"{self.place}{name}[{i}].") for i, row in enumerate(rows)]


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _is_text(value: Any, but: str = "") -> bool:
    """Whether a terminal and a page can show it: not too long, no escape codes, no halves of characters."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return False
    return all(c in but or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in value)


def _one_line(name: str) -> str:
    return name if name.isprintable() and len(name) <= 60 else repr(name)[:60]


def tells_of_pack(path: Path) -> bool:
    """Whether a config.json is that of a pack, also one that is damaged or lacks its adapter; never raises."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and _is_small(path) else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "adapter" in found


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= FILES[CONFIG]
