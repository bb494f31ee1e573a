"""What a plugin can offer. Imports nothing heavy, so a plugin's own module can stay light too.

A plugin is a module named in its package's entry points, group `distill3d`:

    [project.entry-points.distill3d]
    mine = "my_package"

    # my_package/__init__.py
    from distill3d.hookspecs import hookimpl

    @hookimpl
    def register_renderers(register):
        register("mine", "my_package.renderer:load_mine")

What is offered is an import string, "package.module:function"; the module is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from distill3d.styles import Style

GROUP = "distill3d"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_renderers(register: Callable[[str, str], None]) -> None:
    """Offer backbones: `load(weights: str | None = None, device: str = "cpu", **settings) -> Renderer`.

    The first line of `load`'s docstring is what `distill3d backbones` says of it; keyword-only parameters are settings
    that `--backbone-set` takes. One called `subjects` takes the paths of `--subjects`.
    """


@hookspec
def register_scorers(register: Callable[[str, str], None]) -> None:
    """Offer scorers: `load(weights: str | None = None, device: str = "cpu") -> Scorer`.

    Where a run asks for them, and only then, a loader is given by keyword: `controlnets: Mapping[str, str]`,
    `precision` (one of `distill3d.precision.PRECISIONS`) and `fast: bool | str`. One that does not take one of them has
    no such parameter.
    """


@hookspec
def register_architectures(register: Callable[[str, str], None]) -> None:
    """Offer what backbones of these names are without their weights: `build(device: str = "meta", **settings)`.

    A renderer as the loader of that name returns it by default, its weights random, or of no value on the meta device.
    `distill3d plan` then needs no download.
    """


@hookspec
def register_scorer_architectures(register: Callable[[str, str], None]) -> None:
    """The same for scorers; `precision` and `fast` are passed on where `build` takes them."""


@hookspec
def register_styles(register: Callable[[Style], None]) -> None:
    """Offer styles."""


@hookspec
def register_methods(register: Callable[[str, str], None]) -> None:
    """Offer methods: `build(scorer, style, defaults, **options) -> Method`; see `distill3d.methods.ld`."""


@hookspec
def register_metrics(register: Callable[[str, str], None]) -> None:
    """Offer metrics: `measure(before, after, style) -> Mapping[str, float]`, images (S, V, 3, H, W) in [-1, 1].

    Its attribute `parts: tuple[distill3d.licences.Part, ...]` says whose weights it uses, `()` for none; without it
    they count as unknown, and what it measured is not open to commercial use.
    """


@hookspec
def register_commands(register: Callable[[str, str], None]) -> None:
    """Offer subcommands of `distill3d`: a `typer.Typer` app."""
