"""From a config to a finished run: find the parts, train, show."""

from __future__ import annotations

import difflib
import inspect
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, PromptError, UnknownNameError
from distill3d.files import write_text
from distill3d.methods import Method, build_method
from distill3d.plugins import registry
from distill3d.renderer import Renderer
from distill3d.report.page import write_report
from distill3d.runs import (
    CONFIG,
    LICENCES,
    VERSIONS,
    claim_folder,
    new_folder,
    publish_weights,
    read_config,
    versions,
)
from distill3d.scorer import Scorer
from distill3d.showcase import Showcase
from distill3d.styles import Style
from distill3d.training.checkpoint import latest_checkpoint, load_checkpoint
from distill3d.training.loop import CHECKPOINTS, Watch, train
from distill3d.training.trainer import Trainer, cosine_decay

logger = logging.getLogger(__name__)


@dataclass
class Recipe:
    """The parts of a run, found and loaded."""

    config: DistillConfig  # with the backbone's defaults filled in
    style: Style
    renderer: Renderer
    scorer: Scorer
    method: Method


def prepare(config: DistillConfig) -> Recipe:
    """Find and load what the config names.

    Raises:
        UnknownNameError, PromptError, ConfigError, WeightsError: what is wrong, and what to do.
    """
    known = registry()
    load_renderer, build = known.find("backbone", config.backbone), known.find("method", config.method)
    if config.scorer is not None:
        known.find("scorer", config.scorer)
    find_style(config.style, known.styles)
    renderer: Renderer = load_renderer.load()(config.weights, config.device)
    config = with_defaults(config, renderer)
    scorer = load_scorer(config)
    style = find_style(config.style, known.styles, scorer)
    method = build_method(config.method, build.load(), scorer, style, renderer.defaults, config.options)
    return Recipe(config, style, renderer, scorer, method)


def with_defaults(config: DistillConfig, renderer: Renderer) -> DistillConfig:
    """The config with the backbone's numbers where it has None."""
    defaults = renderer.defaults
    steps = config.steps or defaults.steps
    return replace(
        config,
        scorer=config.scorer or defaults.scorer,
        steps=steps,
        batch=config.batch or defaults.batch,
        lr=config.lr or defaults.lr,
        save_every=config.save_every or max(1, steps // 6),
    )


def load_scorer(config: DistillConfig) -> Scorer:
    """The config's scorer, with its ControlNets if it takes any."""
    assert config.scorer is not None
    load = registry().find("scorer", config.scorer).load()
    options: dict[str, Any] = {}
    if config.controlnets:
        if "controlnets" not in inspect.signature(load).parameters:
            raise ConfigError(f"Scorer {config.scorer!r} brings its own ControlNets; leave --controlnet out.")
        options["controlnets"] = dict(config.controlnets)
    return load(config.scorer_weights, config.device, **options)


def find_style(text: str, styles: Mapping[str, Style], scorer: Scorer | None = None) -> Style:
    """A style of the catalogue by name, or any other text as a prompt.

    A single word that looks like a misspelt name is refused. With a scorer, its vocabulary is asked.

    Raises:
        UnknownNameError: for a misspelt name.
        PromptError: if the scorer was taught none of the words.
    """
    name = text.strip().lower()
    if name in styles:
        return styles[name]
    if " " not in name and difflib.get_close_matches(name, styles, n=1, cutoff=0.6):
        raise UnknownNameError("style", text, styles)
    if scorer is not None:
        _check_words(text, styles, scorer)
    return Style(text.strip(), text.strip())


def _check_words(text: str, styles: Mapping[str, Style], scorer: Scorer) -> None:
    unknown = scorer.unknown_words(text)
    if not unknown:
        return
    near = difflib.get_close_matches(text.lower(), styles, n=3, cutoff=0.3) or sorted(styles)
    said = ", ".join(dict.fromkeys(unknown))
    if len(unknown) == len(re.findall(r"[\w']+", text)):
        raise PromptError(
            f"This scorer was taught none of these words: {said}. Nearest styles: {', '.join(near)}. "
            "Any prompt works with a full-size model: --scorer diffusers."
        )
    logger.warning("This scorer was not taught these words: %s. Nearest styles: %s.", said, ", ".join(near))


def distill(config: DistillConfig, out: Path | None = None, *, watch: Watch | None = None) -> Path:
    """Train a stylised generator and write its run folder; see `docs/run_folder.md`.

    Args:
        out: the folder; None for a new one under `runs/`.
    Raises:
        RunError: if the folder cannot be written or holds another run.
    """
    if out is not None:
        claim_folder(out)
    recipe = prepare(config)
    folder = out or new_folder(recipe.config)
    claim_folder(folder)
    write_text(folder / CONFIG, recipe.config.to_json())
    write_text(folder / VERSIONS, json.dumps(versions(), indent=2) + "\n")
    licences = {"backbone": recipe.renderer.weights_licence, "scorer": recipe.scorer.weights_licence}
    write_text(folder / LICENCES, json.dumps(licences, indent=2) + "\n")
    return _run(recipe, folder, watch or Watch(), continued=False)


def resume(folder: Path, *, watch: Watch | None = None) -> Path:
    """Continue a run from its newest checkpoint, bit for bit.

    Raises:
        RunError: if the folder holds no run, or no checkpoint.
    """
    config = read_config(folder)
    latest_checkpoint(folder / CHECKPOINTS)
    return _run(prepare(config), folder, watch or Watch(), continued=True)


def _run(recipe: Recipe, folder: Path, watch: Watch, *, continued: bool) -> Path:
    config, method = recipe.config, recipe.method
    assert config.steps is not None and config.lr is not None  # filled by with_defaults
    assert config.batch is not None and config.save_every is not None
    lr = cosine_decay(config.lr, method.final_lr, config.steps)
    trainer = Trainer(recipe.renderer, method, seed=config.seed, batch=config.batch, lr=lr)
    showcase = Showcase(trainer.reference, trainer.renderer, folder)
    if continued:
        load_checkpoint(latest_checkpoint(folder / CHECKPOINTS), trainer)
    finished = train(
        trainer,
        folder,
        steps=config.steps,
        save_every=config.save_every,
        preview=showcase.preview,
        watch=watch,
    )
    publish_weights(folder, trainer.step_number, finished)
    if finished:
        showcase.sheet()
        showcase.turntable()
    write_report(folder)
    return folder
