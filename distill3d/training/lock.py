"""One process writes a run's folder at a time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from distill3d.errors import RunError
from distill3d.files import drop_leftovers, storing

LOCK = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of the folder inside the block.

    What one that was killed left half-written there is deleted. The system holds the lock and drops it with the
    process, however that ends: the file that stays behind locks nothing. It says who holds it, or was the last to.

    Raises:
        RunError: if another process holds it, naming that process, or if the folder cannot be written.
    """
    path = folder / LOCK
    was_held, holder = path.exists(), _holder(path)  # before it is asked for: that can empty the file
    lock = FileLock(path)
    with storing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{holder} is writing {folder}: wait until it ends, or stop it.") from None
    try:
        if was_held:
            drop_leftovers(folder)
        with suppress(OSError):  # a full disk: the lock holds without its note
            path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Who wrote the note in the lock file, in words."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return f"Another process (pid {int(note['pid'])} on {note['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "Another process"
