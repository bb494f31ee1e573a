"""From a config to the parts of a run, found and loaded."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill3d.anchors import anchored, check_anchors
from distill3d.config import DistillConfig
from distill3d.draws import Draws
from distill3d.errors import ConfigError, PromptError, UnknownNameError
from distill3d.licences import Part, check_commercial
from distill3d.methods import Method, build_method, reweighted
from distill3d.plugins import registry
from distill3d.precision import best_precision
from distill3d.renderer import Renderer
from distill3d.runs import check_device, fingerprint, load_backbone
from distill3d.scorer import Scorer
from distill3d.styles import Style

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

    @property
    def parts(self) -> tuple[Part, ...]:
        """Whose weights it is made with."""
        return _backbone_part(self.renderer), *self.scorer.parts


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
    if config.commercial_ok:
        check_commercial([_backbone_part(renderer)])  # before the scorer is fetched
    config = with_defaults(config, renderer)
    base = fingerprint(renderer)
    if config.train is not None:
        renderer.trainable(config.train)  # an unknown group is said before the scorer is loaded
    renderer.sample_codes(Draws(config.seed, 0, (0,)))  # and so are subjects that are missing or cannot be read
    scorer = load_scorer(config)
    if config.commercial_ok:
        check_commercial(scorer.parts)
    style = find_style(config.style, known.styles, scorer)
    assert config.steps is not None and config.batch is not None and config.lr is not None  # by with_defaults
    defaults = replace(renderer.defaults, steps=config.steps, batch=config.batch, lr=config.lr)
    method = build_method(config.method, build.load(), scorer, style, defaults, config.options)
    method = anchored(reweighted(method, config.term_weights), config.anchors, scorer, defaults)
    method = replace(method, trains=config.train or method.trains)
    config = replace(config, train=method.trains)
    return Recipe(config, style, base, renderer, scorer, method)


def _backbone_part(renderer: Renderer) -> Part:
    return Part("backbone", renderer.weights_name, renderer.weights_licence)


def with_defaults(config: DistillConfig, renderer: Renderer) -> DistillConfig:
    """The config with the backbone's numbers where it has None, and paths that hold in any folder."""
    defaults = renderer.defaults
    steps = config.steps or defaults.steps
    scorer = config.scorer or defaults.scorer
    return replace(
        with_absolute_paths(config),
        scorer=scorer,
        steps=steps,
        batch=config.batch or defaults.batch,
        lr=config.lr or defaults.lr,
        precision=config.precision or (best_precision(config.device) if "precision" in _takes(scorer) else "float32"),
        anchors=config.anchors or dict(defaults.anchors),
        save_every=config.save_every or max(1, steps // 6),
    )


def with_absolute_paths(config: DistillConfig) -> DistillConfig:
    """The config with places that hold in any folder."""
    return replace(
        config,
        weights=_absolute(config.weights),
        scorer_weights=_absolute(config.scorer_weights),
        fast=_absolute(config.fast) or config.fast if isinstance(config.fast, str) else config.fast,
        controlnets={name: _absolute(place) or place for name, place in config.controlnets.items()},
    )


def _absolute(place: str | None) -> str | None:
    """A path that exists made absolute; a name or a Hub id stays."""
    return str(Path(place).resolve()) if place is not None and Path(place).exists() else place


def _takes(scorer: str) -> Mapping[str, inspect.Parameter]:
    """What the loader of that scorer can be given."""
    return inspect.signature(registry().find("scorer", scorer).load()).parameters


def load_scorer(config: DistillConfig) -> Scorer:
    """The config's scorer, with what it is asked for beyond its weights.

    Raises:
        ConfigError: for something that this scorer does not take.
    """
    assert config.scorer is not None
    load = registry().find("scorer", config.scorer).load()
    wanted: dict[str, Any] = {
        "controlnets": dict(config.controlnets),
        "fast": config.fast,
        "precision": config.precision if config.precision != "float32" else None,  # every scorer's own
    }
    options = {name: value for name, value in wanted.items() if value}
    for name in options:
        if name not in _takes(config.scorer):
            raise ConfigError(
                f"Scorer {config.scorer!r} brings its own ControlNets; leave --controlnet out."
                if name == "controlnets"
                else f"Scorer {config.scorer!r} takes no --{name}; leave it out, or set --precision float32."
            )
    if config.commercial_ok and "commercial_ok" in _takes(config.scorer):
        options["commercial_ok"] = True  # it can tell before it fetches anything
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
