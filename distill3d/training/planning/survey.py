"""Every plan for a backbone, a method and a scorer that are named: what `distill3d plan` shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from distill3d.errors import ConfigError
from distill3d.methods import Method, build_method
from distill3d.plugins import registry
from distill3d.precision import check_precision
from distill3d.renderer import Renderer
from distill3d.scorer import Scorer
from distill3d.styles import Style
from distill3d.training.planning.budget import GIB, RESERVED, parse_vram
from distill3d.training.planning.cards import CARDS, START, UTILISATION, Card
from distill3d.training.planning.choose import needed, rungs, too_small
from distill3d.training.planning.plan import FAST, last_saving
from distill3d.training.planning.predict import Prediction, predict
from distill3d.training.planning.rehearsal import DeviceKind


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is planned for; None is the backbone's own."""

    backbone: str
    vram: str
    method: str = "ld"
    scorer: str | None = None
    precision: str | None = None  # None: "half" on a GPU, else "float32"
    batch: int | None = None
    ema: bool = False
    device: str = "cuda"  # "cpu" for a run in main memory
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method

    @property
    def kind(self) -> DeviceKind:
        return "cpu" if self.device == "cpu" else "cuda"


@dataclass
class Survey:
    """Every rung of the ladder, from the fastest to the smallest; `chosen` is the first that fits."""

    question: Question
    budget: int  # bytes
    batch: int
    rungs: list[Prediction] = field(default_factory=list)
    chosen: Prediction | None = None

    @property
    def kind(self) -> DeviceKind:
        return self.question.kind

    def fits(self, rung: Prediction) -> bool:
        return needed(rung, self.kind) <= self.budget

    def relative_flops(self, rung: Prediction) -> float:
        """Of those of the fastest plan."""
        return rung.flops / self.rungs[0].flops

    def check(self) -> Prediction:
        """The chosen rung.

        Raises:
            ConfigError: if none fits, with what the smallest needs.
        """
        if self.chosen is None:
            same = [rung for rung in self.rungs if not rung.plan.fast]
            raise ConfigError(too_small(same[-1], self.kind, self.budget))
        return self.chosen

    def expected(self) -> list[tuple[Card, bool, float]]:
        """For known cards: whether the chosen plan fits, and steps a second, predicted. None for a plan for a CPU."""
        if self.chosen is None or self.kind == "cpu":
            return []
        half, single = self.chosen.half_flops, self.chosen.flops - self.chosen.half_flops
        least, started = needed(self.chosen, "cuda"), self.chosen.operations
        return [(card, least <= card.memory * GIB, card.steps_per_second(half, single, started)) for card in CARDS]

    def plain(self) -> dict[str, Any]:
        """For JSON; bytes and operations."""
        return {
            "predicted": True,
            "backbone": self.question.backbone,
            "method": self.question.method,
            "batch": self.batch,
            "budget": self.budget,
            "reserved": RESERVED[self.kind],
            "device": self.kind,
            "chosen": None if self.chosen is None else self.rungs.index(self.chosen),
            "rungs": [{**plain(rung), "fits": self.fits(rung)} for rung in self.rungs],
            "cards": [
                {"name": card.name, "gib": card.memory, "fits": fits, "steps_per_second": speed, "source": card.source}
                for card, fits, speed in self.expected()
            ],
            "utilisation": UTILISATION,
            "seconds_to_start_a_kernel": START,
        }


def plain(rung: Prediction) -> dict[str, Any]:
    """A prediction for JSON."""
    plan, economy = rung.plan, rung.plan.economy
    return {
        "saving": last_saving(plan),
        "changes_gradient": plan.fast,
        "plan": {
            "micro_batch": plan.micro_batch,
            "rerender": plan.rerender,
            "low_memory": plan.low_memory,
            "economy": dict(vars(economy)),
            "precision": plan.precision,
            "fast": plan.fast,
        },
        "peak": rung.peak,
        "flops": rung.flops,
        "half_flops": rung.half_flops,
        "operations": rung.operations,
        "parameters": {"backbone": rung.backbone, "reference": rung.reference, "scorer": rung.scorer},
        "gradients": rung.gradients,
        "optimizer": rung.optimizer,
        "averaged": rung.averaged,
        "phases": {
            name: {"activations": rung.activations(name), "flops": phase.flops} for name, phase in rung.phases.items()
        },
    }


def survey(question: Question, watch: Callable[[Survey, Prediction], None] = lambda survey, rung: None) -> Survey:
    """Predict every rung, from architectures alone where they are offered; nothing is downloaded then.

    A tiny autoencoder is the last rung. It changes the gradient, so it is chosen only where nothing else fits into a
    size that was named, not for "auto".

    Args:
        watch: told each rung as soon as it is predicted.
    Raises:
        UnknownNameError, ConfigError, WeightsError: for what cannot be found, made or run.
    """
    budget = parse_vram(question.vram, question.device)
    question = replace(question, precision=question.precision or ("half" if question.kind == "cuda" else "float32"))
    check_precision(str(question.precision))
    renderer = make_backbone(question.backbone)
    batch = question.batch or renderer.defaults.batch
    found = Survey(question, budget, batch)
    settings: dict[str, Any] = {"batch": batch, "ema": question.ema, "kind": question.kind}

    def keep(rung: Prediction, allowed: bool) -> None:
        found.rungs.append(rung)
        if found.chosen is None and allowed and found.fits(rung):
            found.chosen = rung
        watch(found, rung)

    scorer = make_scorer(question, renderer)
    for rung in rungs(renderer, scorer, make_method(question, renderer, scorer), **settings):
        keep(replace(rung, plan=replace(rung.plan, precision=question.precision)), True)
    tiny = make_scorer(question, renderer, fast=True)
    if tiny is not None:
        plan = FAST.take(found.rungs[-1].plan)
        named = question.vram.strip().lower() != "auto"
        keep(predict(plan, renderer, tiny, make_method(question, renderer, tiny), **settings), named)
    return found


def make_backbone(name: str) -> Renderer:
    """The backbone without its weights; one that does not offer its architecture is loaded."""
    known = registry()
    loader = known.find("backbone", name)
    offered = known.offers["architecture"].get(name)
    return offered.load()() if offered else loader.load()()


def make_scorer(question: Question, renderer: Renderer, *, fast: bool = False) -> Any:
    """The scorer likewise; None for a `fast` one that there is not."""
    known = registry()
    name = question.scorer or renderer.defaults.scorer
    loader = known.find("scorer", name)
    offered = known.offers["scorer architecture"].get(name)
    load = (offered or loader).load()
    takes = inspect.signature(load).parameters
    if fast and (offered is None or "fast" not in takes):
        return None
    wanted = {"precision": question.precision, "fast": fast}
    return load(**{key: value for key, value in wanted.items() if key in takes})


def make_method(question: Question, renderer: Renderer, scorer: Scorer) -> Method:
    """The method; what the style is called has no part in what a step needs."""
    build = registry().find("method", question.method).load()
    style = Style("any", "a portrait in some style")
    return build_method(question.method, build, scorer, style, renderer.defaults, question.options)
