"""Start a run in several processes of this machine through `torch.distributed.run`, and say how it ended.

The processes report to a folder of the launcher's: who they are, and what went wrong. So a stop reaches the one that
leads, and an end is one sentence instead of the launcher's own report with its stack.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill3d.errors import RunError
from distill3d.training.reports import ASKED, FOLDER, THREADS, read_pids, read_reports

INTERRUPTED = 130  # exit code of a process that Ctrl-C ended


@dataclass
class _Agent:
    """`torch.distributed.run` in a thread: it installs no signal handlers there, so a stop stays ours to pass on."""

    arguments: list[str]
    failures: Mapping[int, Any] = field(default_factory=dict)  # of processes that did not end well, by rank
    error: BaseException | None = None  # of the agent itself

    def start(self) -> threading.Thread:
        from torch.distributed import run  # here: an import in the thread would be deaf to Ctrl-C
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        _silence_reports()

        def work() -> None:
            try:
                run.run(run.parse_args(self.arguments))
            except ChildFailedError as error:
                self.failures = error.failures
            except BaseException as error:
                self.error = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


def launch(processes: int, module: str, words: Sequence[str], *, resume: str = "RUN") -> int:
    """Run `python -m MODULE WORDS...` in so many processes, and wait for their end.

    Ctrl-C asks the leading process to stop, which tells the others in the step's sum; twice ends all at once.

    Args:
        resume: the run's folder, for the sentence on how to go on.
    Returns:
        The exit code.
    Raises:
        RunError: if a process was killed or failed; says which, why, and how to go on.
        KeyboardInterrupt: if the run was stopped before it could save.
    """
    folder = Path(tempfile.mkdtemp(prefix="distill3d-launch-"))
    agent = _Agent(_arguments(processes, folder, module, words))
    kept = False
    try:
        with _environment(processes, folder), _signals(folder) as asked:
            thread = agent.start()
            while thread.is_alive():
                thread.join(0.2)
                if len(asked) > 1 or signal.SIGTERM in asked:
                    _signal_all(folder, signal.SIGTERM)  # again and again: some may only be starting
        if len(asked) > 1 or signal.SIGTERM in asked:
            raise KeyboardInterrupt
        if agent.error is not None:
            raise RunError(f"The {processes} processes could not be started: {agent.error}") from agent.error
        end = _End(agent.failures, folder, processes, resume)
        kept = end.log is not None
        return end.code()
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


class _End:
    """How the processes ended.

    Args:
        failures: of those that did not end well, by rank, as `torch.distributed.run` has them.
    """

    def __init__(self, failures: Mapping[int, Any], folder: Path, processes: int, resume: str):
        self.failures, self.folder, self.processes, self.resume = failures, folder, processes, resume
        self.errors, self.lost = read_reports(folder)  # what each said, and who missed another

    @property
    def first(self) -> int:
        """The process that failed by itself; others were ended by the launcher, or by missing that one."""
        own = {rank: f for rank, f in self.failures.items() if f.exitcode != -signal.SIGTERM} or self.failures
        killed = [rank for rank in own if own[rank].exitcode < 0]
        blameless = [rank for rank in own if rank in self.lost and rank not in killed]
        suspects = killed or [rank for rank in own if rank not in blameless] or own
        return min(suspects, key=lambda rank: (own[rank].timestamp, rank))

    @property
    def log(self) -> Path | None:
        """Where a process that failed without a word said what was not to be seen on the terminal."""
        if not self.failures or self.first == 0 or self.failures[self.first].exitcode < 0 or self.errors:
            return None
        return next(self.folder.glob(f"*/attempt_0/{self.first}/stderr.log"), None)

    def code(self) -> int:
        if not self.failures:
            return 0
        rank = self.first
        code = self.failures[rank].exitcode
        if code < 0:
            raise RunError(self._said_of_killed(signal.Signals(-code).name))
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if self.errors:
            raise RunError(self.errors[min(self.errors)])
        if rank in self.lost:
            raise RunError(f"The processes of this run lost each other: one of them hangs. {self._go_on()}")
        if code == 1:
            where = "what it said is above" if self.log is None else f"what it said is in {self.log}"
            raise RunError(f"The process of rank {rank} failed; {where}. {self._go_on()}")
        return code  # of a command that was not understood: the leading process has said so

    def _said_of_killed(self, name: str) -> str:
        guess = " Where nobody did that, memory ran out." if name == "SIGKILL" else ""
        others = " The others were stopped." if self.processes > 1 else ""
        which = f"The process of rank {self.first}, of {self.processes}, was killed ({name})."
        return f"{which}{guess}{others} {self._go_on()}"

    def _go_on(self) -> str:
        return (
            "What was saved before is intact. Continue with: "
            f"distill3d launch --processes {self.processes} run --resume {self.resume}"
        )


def _arguments(processes: int, folder: Path, module: str, words: Sequence[str]) -> list[str]:
    """For `torch.distributed.run`. What other processes than the first say goes to files."""
    options = {"nproc-per-node": processes, "max-restarts": 0, "monitor-interval": 0.2, "log-dir": folder}
    if processes > 1:
        options["redirects"] = ",".join(f"{rank}:3" for rank in range(1, processes))
    return ["--standalone", *(f"--{name}={value}" for name, value in options.items()), "-m", module, *words]


@contextmanager
def _environment(processes: int, folder: Path) -> Iterator[None]:
    """What the processes are told; afterwards all is as it was."""
    before = dict(os.environ)
    os.environ.update({ASKED: str(processes), FOLDER: str(folder)})
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, _cores() // processes))
        os.environ[THREADS] = "ours"
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _signals(folder: Path) -> Iterator[list[int]]:
    """Collect what we are asked by signals; the first Ctrl-C goes to the process that leads."""
    asked: list[int] = []

    def interrupted(signum: int, frame: object) -> None:
        pids = read_pids(folder)
        asked.append(signum if 0 in pids else signal.SIGTERM)  # nobody there yet who could save
        if 0 in pids and len(asked) == 1:
            _send(pids[0], signal.SIGINT)

    def terminated(signum: int, frame: object) -> None:
        asked.append(signal.SIGTERM)

    ours = {signal.SIGINT: interrupted, signal.SIGTERM: terminated}
    if hasattr(signal, "SIGHUP"):
        ours[signal.SIGHUP] = terminated
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_all(folder: Path, number: int) -> None:
    for pid in read_pids(folder).values():
        _send(pid, number)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _silence_reports() -> None:
    """The agent's own account of a failure, with its stack; ours takes its place."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):  # each has a handler of its own: silencing the first is not enough
            logging.getLogger(name).disabled = True
