"""Keeps workers busy until every run has ended, whatever happens to them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distill3d.errors import RunError
from distill3d.files import storing
from distill3d.sweep.engine import Ended, Engine
from distill3d.sweep.local import LocalEngine
from distill3d.sweep.page import write_page
from distill3d.sweep.place import Job, Place, is_done, last_step, refuse_changed
from distill3d.sweep.plan import Sweep
from distill3d.sweep.table import Table, make_table, write_table

PAUSE = 0.25  # seconds between two looks at the workers


@dataclass(frozen=True)
class Counts:
    """How a sweep stands."""

    runs: int
    done: int
    failed: int
    running: dict[str, tuple[int, int | None]]  # steps taken and wanted, by name


@dataclass
class SweepWatch:
    """What a sweep tells whoever looks on. Each does nothing unless it is set."""

    on_change: Callable[[Counts], None] = lambda counts: None
    on_end: Callable[[Ended, bool], None] = lambda ended, again: None  # again: it will be taken up again


@dataclass
class _Standing:
    waiting: list[str]
    done: set[str]
    failed: set[str] = field(default_factory=set)
    deaths: Counter[str] = field(default_factory=Counter)


def run_sweep(sweep: Sweep, *, cache: Path | None = None, watch: SweepWatch | None = None) -> Table:
    """Do all runs that are not done, and write one table of all; see `docs/sweep.md`.

    Args:
        cache: a folder that keeps true pictures.
    Returns:
        the table, which also lies in the sweep's folder.
    Raises:
        RunError: if another sweep is working in the folder, or a run in it was begun with other settings.
        MissingExtraError: for an engine that is not installed.
        KeyboardInterrupt: after the runs were saved and the table written.
    """
    place, watch = Place(sweep.out), watch or SweepWatch()
    with _locked(sweep.out):
        for run in sweep.runs:
            refuse_changed(place, run.name, run.config)
        for run in sweep.runs:
            place.write_job(run.name, Job(run.config, sweep.evaluate, cache))
        names = [run.name for run in sweep.runs]
        done = {name for name in names if is_done(place.run(name), sweep.evaluate)}
        standing = _Standing([name for name in names if name not in done], done)
        _write_tables(sweep)
        try:
            if standing.waiting:
                _work_off(sweep, place, standing, watch)
        finally:
            table = _write_tables(sweep)
        return table


def _work_off(sweep: Sweep, place: Place, standing: _Standing, watch: SweepWatch) -> None:
    engine = make_engine(sweep, place)
    steps = {run.name: run.config.steps for run in sweep.runs}

    def look() -> bool:
        """Take note of what has ended; whether anything still runs."""
        for ended in engine.ended():
            watch.on_end(ended, _settle(place, standing, ended, engine.retries))
            _write_tables(sweep)
        running = {name: (last_step(place.run(name)), steps[name]) for name in engine.running()}
        watch.on_change(Counts(len(sweep.runs), len(standing.done), len(standing.failed), running))
        return bool(running)

    try:
        while standing.waiting or engine.running():
            while standing.waiting and engine.has_room():
                engine.start(standing.waiting.pop(0))
            if look():
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        engine.stop()
        while look():  # a second Ctrl-C ends this too
            time.sleep(PAUSE)
        raise
    finally:
        engine.close()


def make_engine(sweep: Sweep, place: Place) -> Engine:
    """What runs the workers of this sweep."""
    cuda = any(run.config.device.startswith("cuda") for run in sweep.runs)
    if sweep.engine == "ray":
        from distill3d.sweep.on_ray import RayEngine

        cpus, gpus = sweep.ray.get("num_cpus", 1), sweep.ray.get("num_gpus", float(cuda))
        return RayEngine(place, sweep.workers, sweep.retries, cpus, gpus)
    return LocalEngine(place, sweep.workers or 1, sweep.retries, _gpus() if cuda else 0)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _settle(place: Place, standing: _Standing, ended: Ended, retries: int) -> bool:
    """Put a run where it belongs; whether one that died waits for its next worker, not having died too often."""
    if ended.how == "done":
        standing.done.add(ended.name)
    elif ended.how == "died":
        place.note(ended.name, "died", message=ended.message)
        standing.deaths[ended.name] += 1
        if standing.deaths[ended.name] <= retries:
            standing.waiting.insert(0, ended.name)
            return True
        standing.failed.add(ended.name)
    elif ended.how == "failed":
        standing.failed.add(ended.name)
    elif place.last_event(ended.name).get("event") == "start":  # it left before it could say so
        place.note(ended.name, "stopped")
    return False


def _write_tables(sweep: Sweep) -> Table:
    table = make_table(sweep)
    write_table(table, sweep.out)
    write_page(table, sweep.out)
    return table


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder, so that no second sweep works in it."""
    from filelock import FileLock, Timeout

    with storing(out):
        (out / ".sweep").mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"Another sweep is working in {out}. Wait for it, or give this one another `out`."
            ) from error
    try:
        yield
    finally:
        lock.release()
