"""The parts of a run put together: a trainer under a memory plan, at the step where a run stands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError
from distill3d.preparation import Recipe, prepare
from distill3d.runs import CONFIG, check_base, read_config
from distill3d.training.checkpoint import (
    Checkpoint,
    config_difference,
    latest_good_checkpoint,
    list_checkpoints,
    load_checkpoint,
    saved_config,
)
from distill3d.training.cpu import on_cpu
from distill3d.training.loop import CHECKPOINTS
from distill3d.training.planning.apply import apply_plan, current_plan, not_offered
from distill3d.training.planning.choose import choose_plan
from distill3d.training.planning.plan import OFFLOAD, SAVINGS, MemoryPlan, next_smaller
from distill3d.training.rates import cosine_decay
from distill3d.training.share import Share
from distill3d.training.trainer import Trainer

logger = logging.getLogger(__name__)


def plan_of(recipe: Recipe) -> MemoryPlan:
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


def trainer_of(recipe: Recipe, plan: MemoryPlan, share: Share) -> Trainer:
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


def computing(recipe: Recipe) -> AbstractContextManager[None]:
    defaults = recipe.renderer.defaults
    return on_cpu(defaults.threads, defaults.flush_denormal)


def shrinking(recipe: Recipe, trainer: Trainer, plan: MemoryPlan) -> Callable[[], bool]:
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


def continue_from(folder: Path, trainer: Trainer, config: DistillConfig, override: bool) -> None:
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
    trainer = trainer_of(recipe, plan_of(recipe), Share())
    start = _before(folder / CHECKPOINTS, step)
    if start is not None:
        made_with = saved_config(start)
        if made_with is not None:
            _refuse_other_config(start, made_with, recipe.config)
        load_checkpoint(start, trainer)
    elif step is None:
        raise RunError(f"The run in {folder} was stopped before its first checkpoint; it has no weights yet.")
    with computing(recipe):
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
