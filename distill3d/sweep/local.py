"""Workers on this machine, each a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from distill3d.files import storing
from distill3d.sweep.engine import Ended, judged
from distill3d.sweep.place import Place


class LocalEngine:
    """At most `workers` processes at a time."""

    def __init__(self, place: Place, workers: int, retries: int, gpus: int = 0):
        self.retries = retries
        self._place, self._workers, self._gpus = place, workers, gpus
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._slots: dict[str, int] = {}

    def has_room(self) -> bool:
        return len(self._processes) < self._workers

    def start(self, name: str) -> None:
        slot = min(set(range(self._workers)) - set(self._slots.values()))
        command = [sys.executable, "-m", "distill3d.sweep.worker", str(self._place.out), name]
        log = self._place.log(name)
        with storing(log), log.open("ab") as file:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end is the sign to stop, also when this process is killed
                stdout=file,
                stderr=file,
                env={**os.environ, **environment(slot, self._workers, self._gpus)},
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
            )
        self._slots[name] = slot

    def ended(self) -> list[Ended]:
        over = [(name, process) for name, process in self._processes.items() if process.poll() is not None]
        for name, process in over:
            assert process.stdin is not None
            process.stdin.close()
            del self._processes[name], self._slots[name]
        return [self._judged(name, process.returncode) for name, process in over]

    def running(self) -> list[str]:
        return list(self._processes)

    def stop(self) -> None:
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()

    def _judged(self, name: str, code: int) -> Ended:
        if code < 0:
            return Ended(name, "died", f"killed by {signal.Signals(-code).name}")
        return judged(self._place, name, code)


def environment(slot: int, workers: int, gpus: int) -> dict[str, str]:
    """What a worker's processes see: its share of the cores, and where there are several GPUs one of them."""
    shared = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
    variables = {name: os.environ.get(name, value) for name, value in shared.items()}
    variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // workers))
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if "CUDA_VISIBLE_DEVICES" in os.environ else []
        variables["CUDA_VISIBLE_DEVICES"] = visible[slot % gpus] if len(visible) >= gpus else str(slot % gpus)
    return variables


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
