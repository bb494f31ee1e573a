"""The files in a pack's folder, which may have come in an archive that somebody sent, or lie in the Hub's cache."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from distill3d.errors import PackError
from distill3d.files import written_aside
from distill3d.packs.config import FILES, NEEDED, SHEET, TURNTABLE

PICTURES = (SHEET, TURNTABLE)
BEGINNING = 12  # bytes: RIFF, four of a length, WEBP
MODEL = "models--"  # what the folder of a model in the Hub's cache begins with: models--USER--NAME


def check_files(folder: Path, source: str) -> list[str]:
    """The files of a pack that are there: each a regular one of this folder, no larger than it may be, and readable.

    Args:
        source: the pack's name, for errors.
    Raises:
        PackError: if one is anything else, or one that a pack must have is missing.
    """
    for name in NEEDED:
        if not os.path.lexists(folder / name):
            raise PackError(f"{source} is no style pack: it has no {name}.")
    there = [name for name in FILES if os.path.lexists(folder / name)]
    for name in there:
        _check_file(folder, name, source)
    return there


def copy_files(folder: Path, to: Path, source: str, *, without: Collection[str] = ()) -> None:
    """Copy the files of a pack into a folder that is there, each whole or not at all; links become files.

    Args, Raises: see `check_files`.
    Raises:
        RunError: if one cannot be written.
    """
    for name in check_files(folder, source):
        if name not in without:
            with written_aside(to / name) as aside:
                shutil.copyfile(folder / name, aside)


def _check_file(folder: Path, name: str, source: str) -> None:
    """Nothing of the file is read before it is known to be one: a pipe or a device would not end."""
    path = folder / name
    if path.is_symlink() and not _may_lead_to(folder, path):
        raise PackError(
            f"{source} is refused: its {name} is a link that leads out of its folder, to a file of somebody's disk."
        )
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise PackError(f"{source} is no style pack: its {name} is no file.")
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
    except OSError as error:
        raise PackError(f"The {name} of {source} cannot be read: {error.strerror}.") from error
    if found.st_size > FILES[name]:
        raise PackError(
            f"{source} is refused: its {name} has {found.st_size:,} bytes, a style pack's has at most {FILES[name]:,}."
        )
    if name in PICTURES and not _is_webp(beginning):
        raise PackError(f"{source} is refused: its {name} is no WebP picture.")


def _may_lead_to(folder: Path, link: Path) -> bool:
    """Into the folder itself; or as links of the Hub's cache do, from snapshots/COMMIT/NAME to blobs/CHECKSUM."""
    inside, end = Path(os.path.realpath(folder)), Path(os.path.realpath(link))
    if end.is_relative_to(inside):
        return True
    snapshots, model = inside.parent, inside.parents[1]
    return (
        snapshots.name == "snapshots" and model.name.startswith(MODEL) and end.parent == model / "blobs"
    )  # of a link called blobs, `end` would be elsewhere


def _is_webp(beginning: bytes) -> bool:
    return beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP"
