"""The released schedule and our methods' steps, counted on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from released_step import AlexDistance, DepthAnything, ReleasedStep
from step_meter import Meter, Tally, Unseen, plain
from step_models import FROZEN, make_renderer, make_scorer, watch_renderer, watch_scorer

from distill3d.draws import Draws
from distill3d.methods import build_method
from distill3d.plugins import registry
from distill3d.renderer import frozen_copy
from distill3d.scorers.architectures import Size
from distill3d.scorers.diffusers import DiffusersScorer
from distill3d.styles import CATALOGUE
from distill3d.training.trainer import Trainer

STYLE = CATALOGUE["werewolf"]
METHODS = {"ld-released": "ld-released", "ld": "ld", "ld --fast": "ld"}  # as a user writes them, and the method's name
Tallies = dict[str, Tally]


def make_trainer(name: str, size: Size, device: str, scorer: DiffusersScorer | None = None) -> Trainer:
    """A trainer of one of `METHODS` on the published backbone's defaults."""
    method = METHODS[name]
    renderer = make_renderer(size, device)
    scorer = scorer or make_scorer(size, device, fast=name.endswith("--fast"))
    factory = registry().find("method", method).load()
    built = build_method(method, factory, scorer, STYLE, renderer.defaults, {})
    return Trainer(renderer, built, batch=renderer.defaults.batch, rerender=renderer.defaults.rerender)


def scorer_of(trainer: Trainer) -> DiffusersScorer:
    return next(iter(trainer.method.terms.values())).term.denoising.scorer  # type: ignore[attr-defined]


def metered(step: Callable[[], Any], meter: Meter) -> Tallies:
    """What the second of two steps does: the first knows no step before it."""
    with Unseen():
        step()
        meter.parts.clear()
        with meter:
            step()
    return dict(meter.parts)


def count_method(name: str, size: Size) -> Tallies:
    """A whole step of `Trainer`, Adam's included."""
    with Unseen():
        trainer = make_trainer(name, size, "meta")
    meter, scorer = Meter(), scorer_of(trainer)
    plain(scorer)
    watch_renderer(meter, trainer.renderer)  # type: ignore[arg-type]
    watch_renderer(meter, trainer.reference, FROZEN)  # type: ignore[arg-type]
    watch_scorer(meter, scorer)
    return metered(trainer.step, meter)


def count_released(size: Size) -> Tallies:
    """The released schedule; at the reduced size as it is timed there, without Depth Anything and LPIPS.

    The table that the full size is checked against lists no background network, so there is none in it.
    """
    full = size == "full"
    renderer = make_renderer(size, "meta", reference=True, background="none" if full else "learnt")
    asked = [*renderer.trainable().values(), *renderer.generator.decoder.parameters()]  # the decoder's for nothing
    reference = frozen_copy(renderer, asked)
    for parameter in asked:
        parameter.requires_grad_(True)
    scorer, meter = make_scorer(size, "meta"), Meter()
    plain(scorer)
    watch_renderer(meter, renderer)
    watch_renderer(meter, reference, FROZEN)
    watch_scorer(meter, scorer)
    networks = _networks_of_full_size(meter) if full else {}
    step = ReleasedStep(renderer, reference, scorer, STYLE.prompt, **networks)
    scene = {name: entry.detach() for name, entry in renderer.scene(renderer.codes_of_seeds([0])).items()}
    return metered(lambda: step.gradients(Draws(0, 1, (0,)), (scene, scene)), meter)


def _networks_of_full_size(meter: Meter) -> dict[str, torch.nn.Module]:
    with torch.device("meta"):
        depth, distance = DepthAnything(), AlexDistance()
    plain(depth)
    meter.watch(depth, "forward", "Depth Anything", len)
    meter.watch(distance, "forward", "LPIPS", lambda one, _: len(one))
    return {"depth": depth, "perceptual": distance}
