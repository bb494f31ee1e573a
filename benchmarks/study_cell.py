"""One cell of the study: a short distillation, measured on the way."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from cells import Networks, Settings, panel_of

from distill3d.errors import DivergedError
from distill3d.methods import build_method
from distill3d.plugins import registry
from distill3d.scorer import Scorer
from distill3d.styles import CATALOGUE
from distill3d.tiny.evaluation import Exam, Setting, load_clip, true_pictures
from distill3d.tiny.generator import TinyTriplane, load_tiny
from distill3d.training.rates import cosine_decay
from distill3d.training.trainer import Trainer

FINAL_LR = 0.05  # share that is left at the last step: the same for every method


@lru_cache(maxsize=1)
def scorer_of(folder: str | None) -> Scorer:
    return registry().find("scorer", "tiny").load()(folder)


@lru_cache(maxsize=2)
def exam_of(networks: Networks, style: str, subjects: tuple[int, ...], cache: str) -> Exam:
    """Prepared once for a style in a process; the true pictures once for all."""
    original: TinyTriplane = load_tiny(networks.weights)
    setting = Setting.of(subjects)
    truth = true_pictures(setting, setting.identity(original), style, cache=Path(cache))
    clip = load_clip(networks.clip) if networks.clip else None
    return Exam(original, CATALOGUE[style], panel_of(networks.judges), truth, setting, clip)


def run_cell(settings: Settings) -> dict[str, Any]:
    """Distil with these settings and measure at each snapshot.

    Unlike `distill3d run`, every method has the same schedule of the learning rate, and one graph of all views is kept
    (the same gradients for less time).
    """
    networks = Networks(**settings["networks"])
    exam = exam_of(networks, settings["style"], tuple(settings["subjects"]), settings["cache"])
    renderer = load_tiny(networks.weights)
    factory = registry().find("method", settings["method"]).load()
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in settings["options"].items()}
    style, scorer = CATALOGUE[settings["style"]], scorer_of(networks.scorer_weights)
    method = build_method(settings["method"], factory, scorer, style, renderer.defaults, options)
    lr = cosine_decay(settings["lr"], FINAL_LR, settings["steps"])
    trainer = Trainer(renderer, method, seed=settings["seed"], batch=settings["batch"], lr=lr, rerender=False)
    snapshots: list[dict[str, Any]] = []
    skipped = 0
    try:
        for step in range(1, settings["steps"] + 1):
            skipped += trainer.step().skipped
            if step in settings["snapshots"]:
                snapshots.append({"step": step, **exam.measure(renderer).plain()})
    except DivergedError:
        return {"snapshots": snapshots, "skipped": skipped, "diverged": True}
    return {"snapshots": snapshots, "skipped": skipped, "diverged": False}


def run_references(settings: Settings) -> dict[str, Any]:
    """Ceiling, floors and chance of a style."""
    networks = Networks(**settings["networks"])
    exam = exam_of(networks, settings["style"], tuple(settings["subjects"]), settings["cache"])
    return {"rows": {name: figures.plain() for name, figures in exam.references().items()}}


def run_any(settings: Settings) -> dict[str, Any]:
    """A cell of either kind."""
    return run_references(settings) if settings["kind"] == "references" else run_cell(settings)
