"""config.json of a style pack: what it is, what it belongs to, how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from distill3d import __version__
from distill3d.errors import PackError
from distill3d.licences import Part
from distill3d.packs.reader import Reader, is_text, shown

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

        Settings of any name stay, if they can be shown; see `distill3d.packs.reader`.

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
        read = Reader(values, f"The {CONFIG} of {source}")
        return cls(
            style=read.lines("style"),
            prompt=read.lines("prompt"),
            negative_prompt=read.lines("negative_prompt"),
            backbone=read.text("backbone"),
            backbone_options={
                n: tuple(v) if isinstance(v, list) else v for n, v in read.settings("backbone_options").items()
            },
            photos=read.flag("photos"),
            train=read.text("train"),
            base=_base(read.sub("base")),
            adapter=_adapter(read.sub("adapter")),
            method=read.text("method"),
            step=read.whole("step"),
            settings=read.settings("settings"),
            versions={name: read.sub("versions").text(name) for name in read.named("versions")},
            parts=tuple(_part(part) for part in read.tables("parts")),
            metrics=None if values.get("metrics") is None else _metrics(read.sub("metrics")),
        )


def _check_schema(values: Mapping[str, Any], source: str) -> None:
    schema = values["schema"]
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise PackError(f"{source} is no style pack: its {CONFIG} has version {shown(schema)}, versions are 1, 2, ...")
    if schema > SCHEMA:
        by = values.get("distill3d", "")
        written_by = f", of distill3d {by}" if is_text(by) and by else ""
        raise PackError(
            f"The style pack {source} has version {shown(schema)}{written_by[:60]}; "
            f"this distill3d {__version__} reads versions up to {SCHEMA}. Update distill3d."
        )


def _base(read: Reader) -> Base:
    return Base(read.text("weights"), read.checksum("sha256"))


def _adapter(read: Reader) -> AdapterInfo:
    stored = read.text("format")
    if stored not in FORMATS:
        raise read.wrong("format", f"one of {', '.join(FORMATS)}")
    size = read.whole("size")
    errors = (read.number("weights_error"), read.number("pictures_error"))
    return AdapterInfo(stored, read.checksum("sha256"), size, *errors)


def _part(read: Reader) -> Part:
    return Part(read.text("role"), read.text("name"), read.text("licence"))


def _metrics(read: Reader) -> Metrics:
    values = {name: read.sub("values").number(name) for name in read.table("values")}
    read.named("values")
    return Metrics(read.lines("protocol"), values)


def tells_of_pack(path: Path) -> bool:
    """Whether a config.json is that of a pack, also one that is damaged or lacks its adapter; never raises."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and _is_small(path) else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "adapter" in found


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= FILES[CONFIG]
