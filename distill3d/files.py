"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from distill3d.errors import RunError


def user_cache(part: str) -> Path:
    """Where what can be made or fetched again is kept: that part of $DISTILL3D_CACHE, else of ~/.cache/distill3d."""
    given = os.environ.get("DISTILL3D_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "distill3d") / part


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the system says about a file that cannot be written into one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if is_full(error):
            raise RunError(f"The disk is full: {path} was not written. What was saved before is intact.") from error
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"Cannot write {path}: {reason}. Choose another place with --out.") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says about a file that cannot be read into one sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror or error}.") from error


def is_full(error: Exception) -> bool:
    """The disk, or what this user may have of it; safetensors tells the number in its text alone."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(f"os error {number}" in str(error) for number in full)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour to write to; it takes the place of `path` in one step when the block succeeds."""
    aside = aside_of(path)
    aside = aside.with_name(aside.name + path.suffix)
    with storing(path):
        try:
            _make_folder(path.parent)
            yield aside
            _sync(aside)
            os.replace(aside, path)
            _sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """The same for a folder of files; an older one of that name is replaced, or the one that a link leads to.

    A kill while it is replaced can leave the older one as .NAME.oldPID, whole, and none called NAME.

    Raises:
        RunError: for what is no folder, the current folder, or one above it; see also `check_replaceable`.
    """
    with storing(path):
        _check_may_go(path)
        place = path.resolve() if path.is_symlink() else path
        with _put_in_place(place) as aside:
            yield aside


@contextmanager
def _put_in_place(path: Path) -> Iterator[Path]:
    aside, older = aside_of(path), path.with_name(f".{path.name}.old{os.getpid()}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        _make_folder(path.parent)
        aside.mkdir()
        yield aside
        for file in aside.iterdir():
            _sync(file)
        _sync_folder(aside)
        _check_may_go(path)  # again: work took its time
        if path.exists():
            os.replace(path, older)
        os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        if older.exists() and not path.exists():  # the second rename failed
            os.replace(older, path)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def check_replaceable(folder: Path, names: Collection[str]) -> None:
    """That a folder of these files, which is written whole, may take the place of what is there.

    It may where nothing is, an empty folder, or one that holds nothing but such files: an older one of its kind.

    Raises:
        RunError: for a folder with anything else in it, the current folder, one above it, a file, or a dead link.
    """
    with storing(folder):
        _check_may_go(folder)
        if not folder.is_dir():
            return
        with os.scandir(folder) as found:
            others = [each.name for each in found if each.name not in names or each.is_dir(follow_symlinks=False)]
    if others:
        raise RunError(f"{folder} holds other things, as {min(others)!r:.100}. Choose another place with --out.")


def _check_may_go(path: Path) -> None:
    """Refuse what a folder cannot take the place of."""
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        what = "is a link that leads nowhere" if path.is_symlink() and not path.exists() else "is no folder"
        raise RunError(f"{path} {what}. Choose another place with --out.")
    here = Path.cwd()
    if any(path.samefile(folder) for folder in (here, *here.parents)):  # that would take the ground away
        where = "where you are" if path.samefile(here) else "above where you are"
        raise RunError(f"{path} is {where}. Choose another place with --out.")


def drop_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left half-written in a folder and below.

    What `folder_written_aside` was about to replace stays where its successor did not come.
    """
    for path in [*folder.rglob(".*")]:
        name = re.fullmatch(r"\.(.+)\.(part|old)(\d+)(\.\w+)?", path.name)
        if name and not _is_another(int(name[3])) and (name[2] == "part" or path.with_name(name[1]).exists()):
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.unlink()


def _is_another(pid: int) -> bool:
    """Whether there is another process of that number, which may be writing."""
    if pid == os.getpid() or os.name != "posix":  # elsewhere signal 0 is a real one
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Hexadecimal checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def aside_of(path: Path) -> Path:
    """The name of what is not yet, or no more, the file or folder of that name."""
    return path.with_name(f".{path.name}.part{os.getpid()}")


def _make_folder(path: Path) -> None:
    """With those above it; their names are on the disk when this returns."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync(path: Path) -> None:
    """To the disk, not only to the system's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """The names in a folder, so that a rename outlives a loss of power; some systems and shares cannot do that."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR):
            raise


def as_file_name(text: str) -> str:
    """A short name of small letters, digits and dashes; empty if the text has no such."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
