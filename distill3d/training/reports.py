"""What the processes of a launched run leave in the launcher's folder: their numbers, and what went wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

ASKED = "DISTILL3D_PROCESSES"  # how many were asked for
FOLDER = "DISTILL3D_LAUNCH"
THREADS = "DISTILL3D_THREADS"  # set if OMP_NUM_THREADS is the launcher's, not the user's


def report_in() -> None:
    """Say who this process is, and end it when the launcher is gone, which could not stop it any more."""
    if FOLDER not in os.environ:
        return
    _write(f"pid-{_rank()}", str(os.getpid()))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def report_error(text: str, *, lost: bool = False) -> bool:
    """Leave an error for the launcher to say; False if there is none.

    Args:
        lost: the error is that another process is missed: of interest only if nobody has one of its own.
    """
    if FOLDER not in os.environ:
        return False
    _write(f"{'lost' if lost else 'error'}-{_rank()}", text)
    return True


def read_pids(folder: Path) -> Mapping[int, int]:
    """The process numbers that are known, by rank."""
    return {int(path.name.removeprefix("pid-")): int(path.read_text()) for path in folder.glob("pid-*")}


def read_reports(folder: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Errors by rank: those of processes' own, and those of processes that missed another."""
    own, lost = (
        {int(path.name.removeprefix(kind)): path.read_text(encoding="utf-8") for path in folder.glob(f"{kind}*")}
        for kind in ("error-", "lost-")
    )
    return own, lost


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _write(name: str, text: str) -> None:
    path = Path(os.environ[FOLDER]) / name
    aside = path.with_name(f".{name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _end_with(parent: int, every: float = 1.0) -> None:
    while os.getppid() == parent:
        time.sleep(every)
    os._exit(1)  # a checkpoint that is being written has another name until it is whole
