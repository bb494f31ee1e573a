"""A run: trained from its first step or from its last checkpoint, and shown."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill3d.assembly import computing, continue_from, open_run, plan_of, shrinking, trainer_of
from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, DivergedError
from distill3d.files import write_text
from distill3d.health import Health, HealthCheck, probe
from distill3d.licences import parts_to_json
from distill3d.preparation import Recipe, find_style, load_scorer, prepare, with_absolute_paths, with_defaults
from distill3d.report.page import write_report
from distill3d.run_files import LICENCES, RUNS
from distill3d.runs import (
    CONFIG,
    RUN,
    VERSIONS,
    check_base,
    claim_folder,
    new_folder,
    publish_weights,
    read_config,
    versions,
    write_base,
)
from distill3d.showcase import SHEET, TURNTABLE, Showcase
from distill3d.training.checkpoint import (
    best_checkpoint,
    config_difference,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from distill3d.training.lock import run_lock
from distill3d.training.loop import CHECKPOINTS, Instruments, Outcome, Watch, train
from distill3d.training.planning.plan import MemoryPlan
from distill3d.training.share import Share
from distill3d.training.trackers import check_trackers, open_trackers
from distill3d.training.trainer import Trainer

__all__ = ["Recipe", "distill", "find_style", "load_scorer", "open_run", "prepare", "resume", "with_defaults"]

logger = logging.getLogger(__name__)


def distill(
    config: DistillConfig, out: Path | None = None, *, watch: Watch | None = None, share: Share | None = None
) -> Path:
    """Train a stylised generator and write its run folder; see `docs/run_folder.md`.

    Args:
        out: the folder; None for a new one under `runs/`.
        share: this process's part of the run, where there are several; the leading one writes.
    Raises:
        RunError: if the folder cannot be written or holds another run.
    """
    share = share or Share()
    with _claimed(out if share.leads else None):
        recipe, plan = _prepared(config, share)
        folder = out or (new_folder(recipe.config) if share.leads else Path(RUNS))
    trainer = trainer_of(recipe, plan, share)
    if not share.leads:
        return _run(recipe, trainer, plan, folder, watch or Watch())
    with run_lock(folder):
        claim_folder(folder)
        _write_down(recipe, folder)
        return _run(recipe, trainer, plan, folder, watch or Watch())


def _prepared(config: DistillConfig, share: Share) -> tuple[Recipe, MemoryPlan]:
    """The parts of the run; what is wrong with its settings is said before anything is written."""
    check_trackers(config.trackers)
    recipe = prepare(config)
    assert recipe.config.batch is not None  # by with_defaults
    share.subjects(recipe.config.batch)
    return recipe, plan_of(recipe)


@contextmanager
def _claimed(out: Path | None) -> Iterator[None]:
    """A folder that was made here is gone again if the parts of the run cannot be had."""
    if out is None:
        yield
        return
    made = not out.exists()
    claim_folder(out)
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def _write_down(recipe: Recipe, folder: Path) -> None:
    """What the run is, before its first step; the config last, since with it the folder holds a run."""
    write_text(folder / VERSIONS, json.dumps(versions(), indent=2) + "\n")
    write_text(folder / LICENCES, parts_to_json(recipe.parts))
    write_base(folder, recipe.base)
    write_text(folder / CONFIG, recipe.config.to_json())


def resume(
    folder: Path,
    *,
    device: str | None = None,
    changes: Mapping[str, Any] | None = None,
    override: bool = False,
    watch: Watch | None = None,
    share: Share | None = None,
) -> Path:
    """Continue a run from its newest good checkpoint, bit for bit; from its first step if it has none yet.

    Args:
        device: takes the place of the run's own.
        changes: other settings that do.
        override: go on also with changes that decide what is computed; config.json then has the new ones.
    Raises:
        ConfigError: for such changes without `override`, naming each.
        RunError: if the folder holds no run, or another process is writing it.
        WeightsError: if no checkpoint is good, or the backbone's weights are not those that the run started from.
    """
    share = share or Share()
    saved = read_config(folder)
    changes = {**(changes or {}), **({"device": device} if device else {})}
    config = with_absolute_paths(replace(saved, **_merged(saved, changes)))
    _refuse_changes(saved, config, override)
    with run_lock(folder) if share.leads else contextlib.nullcontext():
        recipe, plan = _prepared(config, share)
        check_base(folder, recipe.base)
        trainer = trainer_of(recipe, plan, share)
        continue_from(folder, trainer, recipe.config, override)
        if config != saved and trainer.step_number and override:  # so that no checkpoint speaks of another run
            save_checkpoint(folder / CHECKPOINTS, trainer, config=recipe.config, versions=versions(), keep=config.keep)
        if config != saved and share.leads:
            write_text(folder / CONFIG, recipe.config.to_json())
        return _run(recipe, trainer, plan, folder, watch or Watch())


def _merged(saved: DistillConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A changed table keeps the entries that are not named; those of another method have nothing to say."""
    if changes.get("method", saved.method) != saved.method:
        changes = {"options": {}, "term_weights": {}, **changes}
        saved = replace(saved, options={}, term_weights={})
    tables = {name: {**getattr(saved, name), **value} for name, value in changes.items() if isinstance(value, Mapping)}
    return {**changes, **tables}


def _refuse_changes(saved: DistillConfig, now: DistillConfig, override: bool) -> None:
    changed = config_difference(saved, now)
    if changed and not override:
        raise ConfigError(
            f"This would no longer be the run that was begun: {'; '.join(changed)}. Leave that out to continue it, or "
            "add --override to go on from its checkpoint in the new way."
        )


def _run(recipe: Recipe, trainer: Trainer, plan: MemoryPlan, folder: Path, watch: Watch) -> Path:
    config, leads = recipe.config, trainer.share.leads
    assert config.steps is not None  # by with_defaults
    if leads and trainer.step_number < config.steps:
        for name in (RUN, SHEET, TURNTABLE):  # they speak of an end that is none any more
            (folder / name).unlink(missing_ok=True)
    showcase = Showcase(trainer.reference, trainer.renderer, folder)
    try:
        with computing(recipe), _instruments(recipe, trainer, showcase, folder) as instruments:
            outcome = train(
                trainer,
                folder,
                config,
                versions=versions(),
                instruments=instruments,
                watch=watch,
                shrink=shrinking(recipe, trainer, plan),
            )
            if leads:
                _finish(folder, trainer, outcome, showcase)
    except DivergedError:
        if leads:
            write_report(folder)
        raise
    return folder


def _finish(folder: Path, trainer: Trainer, outcome: Outcome, showcase: Showcase) -> None:
    """Publish the weights, show what they make."""
    checkpoints = folder / CHECKPOINTS
    best = best_checkpoint(checkpoints) if outcome.halted else None
    publish_weights(folder, best or latest_checkpoint(checkpoints), outcome.finished, outcome.halted)
    if outcome.finished or outcome.halted:
        if best is not None:
            load_checkpoint(best, trainer)
        with trainer.published_weights():
            showcase.sheet()
            showcase.turntable()
    write_report(folder)


@contextmanager
def _instruments(recipe: Recipe, trainer: Trainer, showcase: Showcase, folder: Path) -> Iterator[Instruments]:
    if not trainer.share.leads:
        yield Instruments()
        return
    config = recipe.config
    settings = json.loads(config.to_json())
    trackers = open_trackers(config.trackers, folder, settings, step=trainer.step_number)
    health = HealthCheck(trainer.reference, trainer.renderer, recipe.scorer)

    def check(step: int) -> Health:
        terms = probe(trainer, config.probe) if config.probe else {}
        return replace(health.check(step), terms=terms)

    try:
        yield Instruments(showcase.preview, check, trackers)
    finally:
        trackers.close()
