"""One run of a sweep, from wherever it stands to its end: `python -m distill3d.sweep.worker OUT NAME`.

A worker listens on its standard input. When that ends, whoever started it wants it to stop or is dead: it finishes the
step, saves and leaves, so that no orphan goes on for hours.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill3d.errors import Distill3dError
from distill3d.sweep.engine import DONE, REFUSED, STOPPED
from distill3d.sweep.place import CONFIG, ENDED, EVALUATION, Job, Place, is_done, last_step, status


def work(out: Path, name: str, *, stopping: threading.Event, stepping: threading.Event) -> int:
    """Train, go on training, or evaluate: what is left of a run. One worker at a time is at it.

    Args:
        stopping: set when the run shall save and leave after the step.
        stepping: set while there are steps, after which it can.
    Returns:
        an exit code.
    """
    from filelock import FileLock

    place = Place(out)
    with FileLock(place.lock(name)):  # a worker whose sweep was killed may still be saving
        place.note(name, "start", step=last_step(place.run(name)))
        try:
            code = _finish(place, name, place.read_job(name), stopping, stepping)
        except Distill3dError as error:
            place.note(name, "failed", message=str(error))
            return REFUSED
        place.note(name, "done" if code == DONE else "stopped")
        return code


def _finish(place: Place, name: str, job: Job, stopping: threading.Event, stepping: threading.Event) -> int:
    from distill3d.evaluate import evaluate_run

    folder = place.run(name)
    if status(folder) not in ENDED:
        _train(folder, job, stopping, stepping)
        stepping.clear()
        if stopping.is_set():
            return DONE if is_done(folder, job.evaluate) else STOPPED
    if job.evaluate and not (folder / EVALUATION).is_file():
        with _truth_of_style(job):
            evaluate_run(folder, cache=job.cache, device=job.config.device)
    return DONE


def _train(folder: Path, job: Job, stopping: threading.Event, stepping: threading.Event) -> None:
    from distill3d.recipe import distill, resume
    from distill3d.runs import BASE
    from distill3d.training.loop import Watch

    watch = Watch(on_start=lambda step, steps: stepping.set(), should_stop=stopping.is_set)
    begun = folder / CONFIG
    if begun.is_file() and not (folder / BASE).is_file():
        begun.unlink()  # killed before the run had noted what it starts from
    if begun.is_file():
        resume(folder, changes={name: getattr(job.config, name) for name in job.config.FREE}, watch=watch)
    else:
        distill(job.config, folder, watch=watch)


@contextmanager
def _truth_of_style(job: Job) -> Iterator[None]:
    """One worker renders the true pictures of a style; the others wait and read them."""
    if job.cache is None:
        yield
        return
    from filelock import FileLock

    from distill3d.files import as_file_name

    job.cache.mkdir(parents=True, exist_ok=True)
    with FileLock(job.cache / f".{as_file_name(job.config.style)}.lock"):
        yield


def leave_with(stream: int, stopping: threading.Event, stepping: threading.Event) -> None:
    """When the stream of that descriptor ends, stop after the step; at once if there is nothing to save."""
    while os.read(stream, 1):
        pass
    stopping.set()
    if not stepping.is_set():
        os._exit(STOPPED)  # a thread cannot end the main one otherwise


def main(arguments: list[str]) -> int:
    out, name = arguments
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    stopping, stepping = threading.Event(), threading.Event()
    watched = (sys.stdin.fileno(), stopping, stepping)
    threading.Thread(target=leave_with, args=watched, daemon=True).start()
    return work(Path(out), name, stopping=stopping, stepping=stepping)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
