"""Runs in processes of their own, that can be killed.

Each is forked from a server that has imported everything, so that it begins within milliseconds.
"""

import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
import torch
import torch._dynamo
from safetensors.torch import save_file

from distill3d import recipe
from distill3d.errors import Distill3dError
from distill3d.plugins import Offer, registry
from distill3d.showcase import Showcase
from distill3d.training import checkpoint, loop
from distill3d.training.checkpoint import list_checkpoints
from distill3d.training.loop import CHECKPOINTS, METRICS

torch.set_num_threads(1)
SYSTEM_CALLS = ("mkdir", "fsync", "replace", "unlink", "rmdir")  # of `os`


imported = [__name__]  # by the server, before its first child


def bare(patch: pytest.MonkeyPatch) -> None:
    """Runs without pictures, and with the toy: for tests of what is kept, not of what is shown."""
    patch.setitem(registry().offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))
    for name in ("sheet", "turntable"):
        patch.setattr(Showcase, name, lambda *_: None)
    patch.setattr(recipe, "Instruments", lambda *_: loop.Instruments())
    patch.setattr(recipe, "write_report", lambda *_, **__: None)


def run(config, folder, kill: int | None = None, count: Path | None = None) -> None:
    """Begin the run in `folder`, or continue it; end with 1 and the sentence for a user if it cannot.

    Args:
        kill: end the process before that call by which files come and go, from 0; or within it, where it writes one.
        count: a file for how many such calls there are, and for the range of them in each checkpoint write.
    """
    bare(pytest.MonkeyPatch())
    calls = _count_calls(kill)
    try:
        if (folder / recipe.CONFIG).exists():
            recipe.resume(folder)
        else:
            recipe.distill(config, folder)
    except Distill3dError as error:
        sys.exit(str(error))
    if count is not None:
        count.write_text(json.dumps(asdict(calls)))


@dataclass
class Calls:
    """By which files and folders come and go."""

    total: int = 0
    saves: list[tuple[int, int]] = field(default_factory=list)  # of each checkpoint write: its first, and the next one


def _count_calls(kill: int | None) -> Calls:
    save_checkpoint, calls = loop.save_checkpoint, Calls()

    def is_last() -> bool:
        calls.total += 1
        return kill == calls.total - 1

    def watched(*arguments, **options):
        first = calls.total
        saved = save_checkpoint(*arguments, **options)
        calls.saves.append((first, calls.total))
        return saved

    def mortal(real):
        def call(*arguments, **options):
            if is_last():
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    def half_written(tensors, path):
        last = is_last()
        save_file(tensors, path)
        if last:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    loop.save_checkpoint, checkpoint.save_file = watched, half_written
    for name in SYSTEM_CALLS:
        setattr(os, name, mortal(getattr(os, name)))
    return calls


def start(target, *arguments) -> multiprocessing.process.BaseProcess:
    """A process that calls `target`, forked from the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(imported)
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def ended(target, *arguments) -> int:
    """The exit code of such a process, when it has ended."""
    process = start(target, *arguments)
    process.join()
    return process.exitcode


def told(target, *arguments) -> tuple[int, str]:
    """The exit code of such a process, and what it wrote to standard error."""
    with tempfile.NamedTemporaryFile() as file:
        return ended(_telling, file.name, target, *arguments), Path(file.name).read_text()


def _telling(path, target, *arguments):
    os.dup2(os.open(path, os.O_WRONLY), 2)
    target(*arguments)


def is_midway(folder: Path) -> bool:
    """Whether a run has a checkpoint, and an end that it has not reached."""
    return bool(list_checkpoints(folder / CHECKPOINTS)) and not (folder / recipe.RUN).exists()


def steps_noted(folder: Path) -> int:
    path = folder / METRICS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def losses(folder: Path) -> list[tuple[int, float, float]]:
    """Step, loss and gradient norm of each line of the log."""
    return [(r["step"], r["loss"], r["gradient_norm"]) for r in records(folder)]


def step_seconds(folder: Path) -> float:
    """What a step of a run took, the middle one."""
    return statistics.median(r["seconds"] for r in records(folder))


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
