"""`distill3d explain`: one step of a run, replayed and taken apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from distill3d.errors import ConfigError, RunError
from distill3d.explain.bridges import bridge_strips
from distill3d.explain.scores import score_strips
from distill3d.explain.seen import view_strips
from distill3d.explain.table import gradient_table
from distill3d.files import reading
from distill3d.models import find_run
from distill3d.objectives.bridge import Bridge
from distill3d.objectives.term import StepBatch, Term
from distill3d.objectives.terms import ScoreTerm
from distill3d.recipe import open_run
from distill3d.report.explained import Section, Strip, write_explanation
from distill3d.training.checkpoint import list_checkpoints
from distill3d.training.cpu import on_cpu
from distill3d.training.loop import CHECKPOINTS, METRICS
from distill3d.training.trainer import Trainer

FOLDER = "explain"

Progress = Callable[[int, int], None]  # the step that is reached, the one that is wanted


def explain(
    run: Path | str,
    step: int,
    *,
    subject: int = 0,
    device: str | None = None,
    progress: Progress = lambda reached, wanted: None,
) -> Path:
    """Replay a run to `step` and write what its gradient is made of; the page's path.

    The replay starts from the newest checkpoint at or before the step and is exact: random numbers are functions of
    seed and step. Nothing in the folder but explain/ is written.

    Args:
        run: its folder, or its name below runs/.
        step: one that the run has taken, or the next.
        subject: place in the step's batch.
        device: takes the place of the run's own.
    Raises:
        RunError: if the folder holds no run, or the run has not come to that step.
        ConfigError: if the batch has no such subject.
        WeightsError: if a checkpoint is damaged, or the backbone is not the one that the run started from.
    """
    found = find_run(run)
    folder, config = found.folder, found.config
    last = steps_taken(folder) if config.steps is None else min(steps_taken(folder), config.steps - 1)
    if not 0 <= step <= last:
        raise RunError(f"The run in {folder} has the steps 0 to {last} so far. Choose one with --step, not {step}.")
    if config.batch is not None and not 0 <= subject < config.batch:
        raise ConfigError(f"A step of this run has the subjects 0 to {config.batch - 1}, not {subject}.")
    recipe, trainer = open_run(folder, step=step, device=device, progress=progress)
    title = f"{recipe.style.name}, step {step}"
    about = f"subject {subject} of {trainer.batch}, method {config.method} on {config.backbone}, run {folder.name}"
    defaults = recipe.renderer.defaults
    with on_cpu(defaults.threads, defaults.flush_denormal):
        return explain_step(trainer, folder / FOLDER / f"step-{step:06d}", title=title, about=about, subject=subject)


def explain_step(trainer: Trainer, folder: Path, *, title: str, about: str, subject: int = 0) -> Path:
    """Take apart the step that `trainer` is about to take, and leave it untouched."""
    step = trainer.step_number
    due = {name: weighted for name, weighted in trainer.method.terms.items() if weighted.due(step)}
    sections, on_pixels = [], {}
    for name, weighted in due.items():
        batch, gradients = trainer.look_at(step, name)
        strips = view_strips(trainer, batch, gradients, weighted.term, subject)
        squares = (float(g[subject].square().sum()) for of_view in gradients.values() for g in of_view.values())
        on_pixels[name] = math.sqrt(sum(squares))
        facts, inside = look_inside(weighted.term, batch, subject)
        note = "" if strips else "This term reads no picture: it acts on the scene itself."
        sections.append(Section(f"{name}: {type(weighted.term).__name__}", note, facts, [*strips, *inside]))
    waiting = {name: w.every * (step // w.every + 1) for name, w in trainer.method.terms.items() if name not in due}
    later = "".join(f" {name} is next due at step {next_step}." for name, next_step in waiting.items())
    table = gradient_table(trainer, step, on_pixels)
    return write_explanation(folder, title=title, note=f"{about}.{later}", table=table, sections=sections)


def look_inside(term: Term, batch: StepBatch, subject: int) -> tuple[dict[str, str], list[Strip]]:
    """What is known of this kind of term beyond its gradient; nothing for others."""
    if isinstance(term, ScoreTerm):
        return score_strips(term, batch, subject)
    if isinstance(term, Bridge):
        return bridge_strips(term, batch, subject)
    return {}, []


def steps_taken(folder: Path) -> int:
    """How far a run has come, by its log and its checkpoints."""
    saved = [checkpoint.step for checkpoint in list_checkpoints(folder / CHECKPOINTS)]
    logged = []
    path = folder / METRICS
    if path.is_file():
        with reading(path):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            try:
                logged.append(int(json.loads(line)["step"]) + 1)
            except (ValueError, KeyError, TypeError):
                break
    return max([0, *saved, *logged])
