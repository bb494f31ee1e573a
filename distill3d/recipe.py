"""A run: trained from its first step or from its last checkpoint, and shown."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, DivergedError, RunError
from distill3d.files import write_text
from distill3d.health import Health, HealthCheck, probe
from distill3d.preparation import Recipe, find_style, load_scorer, prepare, with_absolute_paths, with_defaults
from distill3d.report.page import write_report
from distill3d.runs import (
    CONFIG,
    LICENCES,
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
    Checkpoint,
    best_checkpoint,
    config_difference,
    latest_checkpoint,
    latest_good_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    saved_config,
)
from distill3d.training.cpu import on_cpu
from distill3d.training.lock import run_lock
from distill3d.training.loop import CHECKPOINTS, Instruments, Outcome, Watch, train
from distill3d.training.planning.apply import apply_plan, current_plan, not_offered
from distill3d.training.planning.choose import choose_plan
from distill3d.training.planning.plan import OFFLOAD, SAVINGS, MemoryPlan, next_smaller
from distill3d.training.rates import cosine_decay
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
        folder = out or (new_folder(recipe.config) if share.leads else Path("runs"))
    trainer = _trainer(recipe, plan, share)
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
    return recipe, _plan(recipe)


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
    licences = {"backbone": recipe.renderer.weights_licence, "scorer": recipe.scorer.weights_licence}
    write_text(folder / LICENCES, json.dumps(licences, indent=2) + "\n")
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
        trainer = _trainer(recipe, plan, share)
        _continue_from(folder, trainer, recipe.config, override)
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
        with _computing(recipe), _instruments(recipe, trainer, showcase, folder) as instruments:
            outcome = train(
                trainer,
                folder,
                config,
                versions=versions(),
                instruments=instruments,
                watch=watch,
                shrink=_shrinking(recipe, trainer, plan),
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


def _computing(recipe: Recipe) -> contextlib.AbstractContextManager[None]:
    defaults = recipe.renderer.defaults
    return on_cpu(defaults.threads, defaults.flush_denormal)


def _plan(recipe: Recipe) -> MemoryPlan:
    """How a step is computed: as the backbone's defaults say, or within the memory that the config allows."""
    config, renderer = recipe.config, recipe.renderer
    if config.vram is None:
        return current_plan(renderer, recipe.scorer)
    assert config.batch is not None
    plan = choose_plan(
        renderer,
        recipe.scorer,
        recipe.method,
        batch=config.batch,
        vram=config.vram,
        ema=config.ema > 0,
        device=config.device,
    )
    apply_plan(plan, renderer, recipe.scorer)
    return plan


def _trainer(recipe: Recipe, plan: MemoryPlan, share: Share) -> Trainer:
    config, method = recipe.config, recipe.method
    assert config.steps is not None and config.lr is not None and config.batch is not None  # by with_defaults
    return Trainer(
        recipe.renderer,
        method,
        seed=config.seed,
        batch=config.batch,
        rerender=plan.rerender,
        lr=cosine_decay(config.lr, method.final_lr, config.steps, config.warmup),
        clip=config.clip,
        ema=config.ema,
        share=share,
        micro_batch=plan.micro_batch,
    )


def _continue_from(folder: Path, trainer: Trainer, config: DistillConfig, override: bool) -> None:
    """The state of the newest good checkpoint, if there is any."""
    if not list_checkpoints(folder / CHECKPOINTS):
        return
    checkpoint, passed_over = latest_good_checkpoint(folder / CHECKPOINTS)
    for sentence in passed_over:
        logger.warning("%s", sentence)
    made_with = saved_config(checkpoint)
    if made_with is not None and not override:
        _refuse_other_config(checkpoint, made_with, config)
    load_checkpoint(checkpoint, trainer)


def _refuse_other_config(checkpoint: Checkpoint, made_with: DistillConfig, config: DistillConfig) -> None:
    if changed := config_difference(made_with, config):
        raise ConfigError(
            f"{CONFIG} is not what {checkpoint.path} was made with: {'; '.join(changed)}. Put that back, or add "
            "--override to --resume to go on as it says now."
        )


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


def _shrinking(recipe: Recipe, trainer: Trainer, plan: MemoryPlan) -> Callable[[], bool]:
    """What makes the trainer thriftier, once."""
    left = [plan]
    useless = not_offered(recipe.renderer, recipe.scorer, batch=trainer.batch)
    if recipe.config.device == "cpu":
        useless |= {OFFLOAD.name}

    def shrink() -> bool:
        smaller = next_smaller(left.pop(), batch=trainer.batch, without=useless) if left else None
        if smaller is None:
            return False
        added = [saving.name for saving in SAVINGS if saving.taken(smaller) and not saving.taken(plan)]
        logger.warning("Out of memory: going on with the next smaller plan (%s).", ", ".join(added))
        apply_plan(smaller, recipe.renderer, recipe.scorer)
        trainer.rerender, trainer.micro_batch = smaller.rerender, smaller.micro_batch
        return True

    return shrink


def open_run(
    folder: Path,
    step: int | None = None,
    *,
    device: str | None = None,
    progress: Callable[[int, int], None] = lambda step, wanted: None,
) -> tuple[Recipe, Trainer]:
    """The trainer of a run as it was before that step, taken there again from the newest checkpoint before it.

    Args:
        step: None for the newest good checkpoint's.
        progress: called with the step that is reached and the one that is wanted.
    Raises:
        ConfigError: for a step beyond the run's last.
        RunError, WeightsError: if the folder holds no run that can be continued.
    """
    config = read_config(folder)
    recipe = prepare(replace(config, device=device) if device else config)
    check_base(folder, recipe.base)
    if step is not None and not 0 <= step < (recipe.config.steps or 0):
        raise ConfigError(f"This run has the steps 0 to {(recipe.config.steps or 0) - 1}, got {step}.")
    trainer = _trainer(recipe, _plan(recipe), Share())
    start = _before(folder / CHECKPOINTS, step)
    if start is not None:
        made_with = saved_config(start)
        if made_with is not None:
            _refuse_other_config(start, made_with, recipe.config)
        load_checkpoint(start, trainer)
    elif step is None:
        raise RunError(f"The run in {folder} was stopped before its first checkpoint; it has no weights yet.")
    with _computing(recipe):
        while step is not None and trainer.step_number < step:
            progress(trainer.step_number, step)
            trainer.step()
    return recipe, trainer


def _before(checkpoints: Path, step: int | None) -> Checkpoint | None:
    """The newest checkpoint from which that step can be reached."""
    if step is None:
        return latest_good_checkpoint(checkpoints)[0] if list_checkpoints(checkpoints) else None
    reachable = [c for c in list_checkpoints(checkpoints) if c.step <= step]
    return reachable[-1] if reachable else None
