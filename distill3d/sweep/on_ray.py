"""Workers on a Ray cluster: each run a task, which Ray starts again elsewhere when its worker dies."""

from __future__ import annotations

import os
import threading
import traceback
from pathlib import Path
from typing import Any

from distill3d.errors import MissingExtraError, RunError
from distill3d.files import storing
from distill3d.sweep.engine import Ended, judged
from distill3d.sweep.place import Place

OBJECT_STORE = 100 << 20  # bytes; nothing but exit codes goes through it
MANY = 1_000  # tasks handed over at a time where the cluster alone decides how many run


class RayEngine:
    """Tasks of the cluster at $RAY_ADDRESS, else of one on this machine that ends with the sweep.

    All nodes must have the package installed and the sweep's folder under the same path.
    """

    retries = 0  # Ray does it

    def __init__(self, place: Place, workers: int | None, retries: int, cpus: float = 1, gpus: float = 0):
        self._place, self._ray = place, _import_ray()
        self._started_here = "RAY_ADDRESS" not in os.environ
        self._limit = workers or (1 if self._started_here else MANY)
        self._names: dict[Any, str] = {}
        self._stopping = False
        _connect(self._ray, self._limit * max(cpus, 1) if self._started_here else None)
        make = self._ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=retries,
            retry_exceptions=True,
            max_calls=1,  # each run a process of its own, so that none inherits another's memory
        )
        self._task = make(run_task)

    def has_room(self) -> bool:
        return len(self._names) < self._limit

    def start(self, name: str) -> None:
        self._names[self._task.options(name=name).remote(str(self._place.out), name)] = name

    def ended(self) -> list[Ended]:
        if not self._names:
            return []
        over, _ = self._ray.wait(list(self._names), num_returns=len(self._names), timeout=0)
        return [self._judged(self._names.pop(task), task) for task in over]

    def running(self) -> list[str]:
        return list(self._names.values())

    def stop(self) -> None:
        self._stopping = True
        for task in self._names:
            self._ray.cancel(task, force=True)  # the last checkpoint is what there is to go on from

    def close(self) -> None:
        self._ray.shutdown()

    def _judged(self, name: str, task: Any) -> Ended:
        try:
            return judged(self._place, name, self._ray.get(task))
        except self._ray.exceptions.WorkerCrashedError:
            return Ended(name, "stopped") if self._stopping else Ended(name, "died", "its worker was killed")
        except self._ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            return Ended(name, "stopped") if self._stopping else Ended(name, "died", last[0])


def run_task(out: str, name: str) -> int:
    """What a worker of the cluster does."""
    from distill3d.sweep.worker import work

    try:
        return work(Path(out), name, stopping=threading.Event(), stepping=threading.Event())
    except Exception:  # Ray tries again; the reason stands where the other engine leaves it
        log = Place(Path(out)).log(name)
        with storing(log), log.open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("A sweep on Ray", "ray") from error
    return ray


def _connect(ray: Any, cpus: float | None) -> None:
    """Join the cluster that is there, or start one of so many cores; its dashboard and chatter stay away."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if cpus is None:
            ray.init(address="auto", **quiet)
        else:
            os.environ.setdefault("RAY_worker_niceness", "0")  # as the local engine's workers; Ray's own choice is 15
            store = {"object_store_memory": OBJECT_STORE}
            ray.init(address="local", num_cpus=int(cpus), include_dashboard=False, **store, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"There is no Ray cluster to be had: {reason}") from error
