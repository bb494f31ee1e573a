"""From the first step of a run to its last, with what it leaves on disk on the way."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distill3d.config import DistillConfig
from distill3d.errors import RunError
from distill3d.files import storing, write_text
from distill3d.health import Health, collapsed
from distill3d.training.checkpoint import Checkpoint, save_checkpoint
from distill3d.training.planning.budget import is_out_of_memory
from distill3d.training.share import StepLog
from distill3d.training.trackers import Trackers
from distill3d.training.trainer import Trainer

logger = logging.getLogger(__name__)

METRICS, HEALTH = "metrics.jsonl", "health.jsonl"
CHECKPOINTS = "checkpoints"


@dataclass
class Watch:
    """What a run tells whoever looks on, and how it is asked to stop. Each does nothing unless it is set."""

    on_start: Callable[[int, int], None] = lambda step, steps: None
    on_step: Callable[[StepLog, float], None] = lambda log, seconds: None
    on_preview: Callable[[Path], None] = lambda path: None
    on_save: Callable[[Checkpoint], None] = lambda checkpoint: None
    on_health: Callable[[Health], None] = lambda health: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class Instruments:
    """What a run looks through on its way; only the process that leads uses them."""

    preview: Callable[[int], Path | None] = lambda step: None  # makes a picture
    check: Callable[[int], Health | None] = lambda step: None
    trackers: Trackers = field(default_factory=lambda: Trackers({}))


@dataclass(frozen=True)
class Outcome:
    """How a run ended: at its last step, because somebody asked, or because it was not well."""

    finished: bool
    halted: str | None = None  # why it was not well


def train(
    trainer: Trainer,
    folder: Path,
    config: DistillConfig,
    *,
    versions: Mapping[str, str],
    instruments: Instruments,
    watch: Watch,
    shrink: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Step until the config's last step, or until something ends the run before; save at the end in any case.

    Args:
        versions: of what it is computed with, noted in each checkpoint.
        shrink: called when a step does not fit into memory: makes the trainer thriftier, or says False.
    Raises:
        DivergedError: after too many steps in a row that were not finite.
    """
    assert config.steps is not None and config.save_every is not None  # by the recipe
    book = _Book(trainer, folder, config, versions, instruments, watch)
    book.open()
    watch.on_start(trainer.step_number, config.steps)
    if trainer.step_number >= config.steps:
        halted = book.verdict(book.health(noted=False))
        return Outcome(finished=halted is None, halted=halted)
    book.show()
    while trainer.step_number < config.steps:
        started = time.perf_counter()
        log = _step(trainer, watch.should_stop, shrink)
        seconds = time.perf_counter() - started
        book.note(log, seconds)
        watch.on_step(log, seconds)
        trainer.raise_if_diverged()
        last = trainer.step_number >= config.steps
        # Alone, a wish that came after the gradients need not wait for the next step's agreement.
        stopping = log.stopping or (trainer.share.world == 1 and watch.should_stop())
        if stopping or last or trainer.step_number % config.save_every == 0:
            halted = book.save()
            if stopping and not last:
                return Outcome(finished=False)
            book.show()
            if halted is not None:
                return Outcome(finished=False, halted=halted)
    return Outcome(finished=True)


def _step(trainer: Trainer, stopping: Callable[[], bool], shrink: Callable[[], bool]) -> StepLog:
    """One step; where this process's part of it does not fit into memory, a thriftier trainer takes that again.

    Not where the others wait in the middle of it for what would begin anew.
    """
    log = _own_gradients(trainer)
    if log is None and not trainer.share.lockstep and shrink():
        log = _own_gradients(trainer)
    try:
        if log is not None:
            trainer.sum_up(log, stopping=stopping)
            trainer.apply(log)
            return log
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise RunError(
        "A step does not fit into memory, and not by the next smaller plan either. What was saved before is kept: "
        "continue with --resume and --vram auto, or with another --device. `distill3d plan` says what a step needs."
    )


def _own_gradients(trainer: Trainer) -> StepLog | None:
    """None if they do not fit into memory."""
    try:
        return trainer.own_gradients()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    trainer.forget_gradients()  # here, where the error holds its step's tensors no longer
    return None


@dataclass
class _Book:
    """What a run writes down. Of several processes, the leading one holds the pen."""

    trainer: Trainer
    folder: Path
    config: DistillConfig
    versions: Mapping[str, str]
    instruments: Instruments
    watch: Watch

    @property
    def leads(self) -> bool:
        return self.trainer.share.leads

    def open(self) -> None:
        if self.leads:
            _drop_from(self.folder / METRICS, lambda step: step >= self.trainer.step_number)
            _drop_from(self.folder / HEALTH, lambda step: step > self.trainer.step_number)

    def note(self, log: StepLog, seconds: float) -> None:
        if not self.leads:
            return
        record = asdict(log)
        del record["stopping"]  # of the moment
        record.update(lr=self.trainer.lr(log.step), seconds=round(seconds, 4))  # lr: of a parameter whose rate is 1
        _append(self.folder / METRICS, record)
        self.instruments.trackers.log(record, log.step)

    def save(self) -> str | None:
        """Look how the run is, write a checkpoint; return why the run should end here, if it should."""
        try:
            health = self.health()
        except BaseException:  # whatever went wrong in looking, the steps are not lost
            self._write(best=False)
            raise
        well = health is None or (health.finite and not collapsed(health) and self._identity_is_kept(health))
        self._write(best=well)
        return self.verdict(health)

    def _write(self, *, best: bool) -> None:
        saved = save_checkpoint(
            self.folder / CHECKPOINTS,
            self.trainer,
            config=self.config,
            versions=self.versions,
            keep=self.config.keep,
            best=best,
        )
        if saved is not None:
            self.watch.on_save(saved)

    def verdict(self, health: Health | None) -> str | None:
        """Why the run should end here, for all processes alike; None if it should not."""
        reason = self._reason_to_halt(health)
        if self.trainer.share.agree(reason is not None):
            return reason or "the leading process ended it"
        return None

    def show(self) -> None:
        if not self.leads:
            return
        with self.trainer.published_weights():
            path = self.instruments.preview(self.trainer.step_number)
        if path is not None:
            self.watch.on_preview(path)

    def health(self, *, noted: bool = True) -> Health | None:
        """How the run is; None where nobody looks, or where a look does not fit into memory."""
        if not self.leads:
            return None
        try:
            with self.trainer.published_weights():
                health = self.instruments.check(self.trainer.step_number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("A look at the run's health does not fit into memory and is left out; --probe 0 needs less.")
            return None
        if health is not None and noted:
            _append(self.folder / HEALTH, json.loads(health.to_json()))
            figures = {name: getattr(health, name) for name in ("diversity", "identity", "change", "kept")}
            self.instruments.trackers.log({"health": figures}, health.step - 1)
            self.watch.on_health(health)
        return health

    def _identity_is_kept(self, health: Health | None) -> bool:
        return health is None or self.config.stop_identity is None or not health.identity < self.config.stop_identity

    def _reason_to_halt(self, health: Health | None) -> str | None:
        if health is None:
            return None
        if self.config.stop_on_collapse and collapsed(health):
            return f"collapsed at step {health.step}: {health.kept:.2f} of the subjects' differences are left"
        if not self._identity_is_kept(health):
            return f"identity {health.identity:.2f} fell below {self.config.stop_identity} at step {health.step}"
        return None


def _append(path: Path, record: dict[str, Any]) -> None:
    """Add one line of JSON, with null for what is not finite: JSON has no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    with storing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(record)) + "\n")


def _drop_from(path: Path, again: Callable[[int], bool]) -> None:
    """Forget the lines of steps that will be taken again, and a last line cut short by a kill."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if not again(json.loads(line)["step"]):
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))
