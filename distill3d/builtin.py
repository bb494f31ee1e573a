"""What the core itself offers, through the hooks that everybody uses."""

from __future__ import annotations

from collections.abc import Callable

from distill3d.hookspecs import hookimpl
from distill3d.styles import CATALOGUE, Style


@hookimpl
def register_renderers(register: Callable[[str, str], None]) -> None:
    register("tiny", "distill3d.tiny.generator:load_tiny")


@hookimpl
def register_scorers(register: Callable[[str, str], None]) -> None:
    register("tiny", "distill3d.scorers.diffusers:load_tiny")
    register("diffusers", "distill3d.scorers.diffusers:load_diffusers")
    register("gaussian", "distill3d.scorers.gaussian:load_gaussian")


@hookimpl
def register_scorer_architectures(register: Callable[[str, str], None]) -> None:
    register("diffusers", "distill3d.scorers.shapes:shape_of_diffusers")


@hookimpl
def register_methods(register: Callable[[str, str], None]) -> None:
    register("ld", "distill3d.methods:ld")
    register("ld-paper", "distill3d.methods:ld_paper")
    register("ld-released", "distill3d.methods:ld_released")
    register("sds", "distill3d.methods:sds")
    register("csd", "distill3d.methods:csd")


@hookimpl
def register_metrics(register: Callable[[str, str], None]) -> None:
    register("diversity", "distill3d.evaluation.offered:diversity")
    register("similarity", "distill3d.evaluation.offered:similarity")


@hookimpl
def register_styles(register: Callable[[Style], None]) -> None:
    for style in CATALOGUE.values():
        register(style)
