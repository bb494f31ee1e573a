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

from distill3d.anchors import anchored, check_anchors
from distill3d.config import DistillConfig
from distill3d.draws import Draws
from distill3d.errors import ConfigError, DivergedError, PromptError, UnknownNameError
from distill3d.files import write_text
from distill3d.methods import Method, build_method
from distill3d.plugins import registry
from distill3d.renderer import Renderer
from distill3d.report.page import write_report
from distill3d.runs import (
    CONFIG,
    LICENCES,
    VERSIONS,
    check_base,
    check_device,
    claim_folder,
    fingerprint,
    load_backbone,
    new_folder,
    publish_weights,
    read_config,
    versions,
    write_base,
)
from distill3d.scorer import Scorer
from distill3d.showcase import Showcase
from distill3d.styles import Style
from distill3d.training.checkpoint import list_checkpoints, load_checkpoint
from distill3d.training.cpu import on_cpu
from distill3d.training.loop import CHECKPOINTS, Watch, train
from distill3d.training.rates import cosine_decay
from distill3d.training.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass
class Recipe:
    """The parts of a run, found and loaded."""

    config: DistillConfig  # with the backbone's defaults filled in
    style: Style
    base: str  # fingerprint of the backbone as it was loaded
    renderer: Renderer
    scorer: Scorer
    method: Method


def prepare(config: DistillConfig) -> Recipe:
    """Find and load what the config names.

    Raises:
        UnknownNameError, PromptError, ConfigError, WeightsError: what is wrong, and what to do.
    """
    check_device(config.device)
    known = registry()
    known.find("backbone", config.backbone)
    check_anchors(config.anchors)
    build = known.find("method", config.method)
    if config.scorer is not None:
        known.find("scorer", config.scorer)
    find_style(config.style, known.styles)
    renderer = load_backbone(config)
    config = with_defaults(config, renderer)
    base = fingerprint(renderer)
    if config.train is not None:
        renderer.trainable(config.train)  # an unknown group is said before the scorer is loaded
    renderer.sample_codes(Draws(config.seed, 0, (0,)))  # and so are subjects that are missing or cannot be read
    scorer = load_scorer(config)
    style = find_style(config.style, known.styles, scorer)
    assert config.steps is not None and config.batch is not None and config.lr is not None  # by with_defaults
    defaults = replace(renderer.defaults, steps=config.steps, batch=config.batch, lr=config.lr)
    method = build_method(config.method, build.load(), scorer, style, defaults, config.options)
    method = anchored(method, config.anchors, scorer, defaults)
    method = replace(method, trains=config.train or method.trains)
    config = replace(config, train=method.trains)
    return Recipe(config, style, base, renderer, scorer, method)


def with_defaults(config: DistillConfig, renderer: Renderer) -> DistillConfig:
    """The config with the backbone's numbers where it has None, and paths that hold in any folder."""
    defaults = renderer.defaults
    steps = config.steps or defaults.steps
    return replace(
        config,
        scorer=config.scorer or defaults.scorer,
        steps=steps,
        batch=config.batch or defaults.batch,
        lr=config.lr or defaults.lr,
        anchors=config.anchors or dict(defaults.anchors),
        save_every=config.save_every or max(1, steps // 6),
        weights=_absolute(config.weights),
        scorer_weights=_absolute(config.scorer_weights),
        controlnets={name: _absolute(place) or place for name, place in config.controlnets.items()},
    )


def _absolute(place: str | None) -> str | None:
    """A path that exists made absolute; a name or a Hub id stays."""
    return str(Path(place).resolve()) if place is not None and Path(place).exists() else place


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
    if " " not in name and difflib.get_close_matches(name, styles, n=1, cutoff=0.7):
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
    telling = set(re.findall(r"[\w']+", text.lower())) - FILLERS
    if telling <= set(unknown):
        raise PromptError(
            f"This scorer was not taught what the prompt is about: {said}. Nearest styles: {', '.join(near)}. "
            "Any prompt works with a full-size model: --scorer diffusers."
        )
    logger.warning("This scorer was not taught these words: %s. Nearest styles: %s.", said, ", ".join(near))


FILLERS = frozenset(  # words that say nothing of a style
    word
    for words in (
        "a an the of in on at with and or as like is style look portrait photo picture image",
        "view front side back person man woman face head",
    )
    for word in words.split()
)


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
    write_base(folder, recipe.base)
    with on_cpu(recipe.renderer.defaults.threads, recipe.renderer.defaults.flush_denormal):
        return _run(recipe, folder, watch or Watch())


def resume(folder: Path, *, device: str | None = None, watch: Watch | None = None) -> Path:
    """Continue a run from its newest checkpoint, bit for bit; from its first step if it has none yet.

    Args:
        device: takes the place of the run's own.
    Raises:
        RunError: if the folder holds no run.
        WeightsError: if a checkpoint is damaged, or the backbone's weights are not those that the run started from.
    """
    config = read_config(folder)
    recipe = prepare(replace(config, device=device) if device else config)
    check_base(folder, recipe.base)
    with on_cpu(recipe.renderer.defaults.threads, recipe.renderer.defaults.flush_denormal):
        return _run(recipe, folder, watch or Watch())


def _run(recipe: Recipe, folder: Path, watch: Watch) -> Path:
    config, method = recipe.config, recipe.method
    assert config.steps is not None and config.lr is not None  # filled by with_defaults
    assert config.batch is not None and config.save_every is not None
    lr = cosine_decay(config.lr, method.final_lr, config.steps)
    rerender = recipe.renderer.defaults.rerender
    trainer = Trainer(recipe.renderer, method, seed=config.seed, batch=config.batch, rerender=rerender, lr=lr)
    showcase = Showcase(trainer.reference, trainer.renderer, folder)
    if checkpoints := list_checkpoints(folder / CHECKPOINTS):
        load_checkpoint(checkpoints[-1], trainer)
    try:
        finished = train(
            trainer, folder, steps=config.steps, save_every=config.save_every, preview=showcase.preview, watch=watch
        )
    except DivergedError:
        write_report(folder)
        raise
    publish_weights(folder, trainer.step_number, finished)
    if finished:
        showcase.sheet()
        showcase.turntable()
    write_report(folder)
    return folder
