"""From the first step of a run to its last, with what it leaves on disk on the way."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill3d.files import storing, write_text
from distill3d.training.checkpoint import Checkpoint, save_checkpoint
from distill3d.training.share import StepLog
from distill3d.training.trainer import Trainer

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"


@dataclass
class Watch:
    """What a run tells whoever looks on, and how it is asked to stop. Each does nothing unless it is set."""

    on_start: Callable[[int, int], None] = lambda step, steps: None
    on_step: Callable[[StepLog, float], None] = lambda log, seconds: None
    on_preview: Callable[[Path], None] = lambda path: None
    on_save: Callable[[Checkpoint], None] = lambda checkpoint: None
    should_stop: Callable[[], bool] = lambda: False


def train(
    trainer: Trainer,
    folder: Path,
    *,
    steps: int,
    save_every: int,
    preview: Callable[[int], Path | None],
    watch: Watch,
) -> bool:
    """Step until `steps`, or until asked to stop; save at the end in either case.

    Args:
        preview: called with the step number before the first step and after every save; returns the picture's path.
    Returns:
        Whether the run reached its last step.
    Raises:
        DivergedError: after too many steps in a row that were not finite.
    """
    _drop_metrics_from(folder / METRICS, trainer.step_number)
    watch.on_start(trainer.step_number, steps)
    _show(preview(trainer.step_number), watch)
    while trainer.step_number < steps:
        started = time.perf_counter()
        log = trainer.step()
        seconds = time.perf_counter() - started
        lr = trainer.lr(log.step)  # of a parameter whose rate is 1
        _append(folder / METRICS, {**asdict(log), "lr": lr, "seconds": round(seconds, 4)})
        watch.on_step(log, seconds)
        stopping = watch.should_stop()
        if stopping or trainer.step_number == steps or trainer.step_number % save_every == 0:
            watch.on_save(save_checkpoint(folder / CHECKPOINTS, trainer))
            if not stopping:
                _show(preview(trainer.step_number), watch)
        if stopping:
            return trainer.step_number >= steps
    return True


def _append(path: Path, record: dict[str, Any]) -> None:
    """Add one line of JSON, with null for what is not finite: JSON has no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    with storing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(record)) + "\n")


def _show(path: Path | None, watch: Watch) -> None:
    if path is not None:
        watch.on_preview(path)


def _drop_metrics_from(path: Path, step: int) -> None:
    """Forget the lines of steps that will be taken again, and a last line cut short by a kill."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line)
        except (ValueError, KeyError):
            break
    write_text(path, "".join(f"{line}\n" for line in kept))
