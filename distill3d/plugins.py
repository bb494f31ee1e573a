"""Finding plugins and what they offer. A broken one is listed with its reason and breaks nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from distill3d import hookspecs
from distill3d.errors import ConfigError, UnknownNameError
from distill3d.styles import Style

KINDS = {  # what users call it, by the hook that offers it
    "register_renderers": "backbone",
    "register_scorers": "scorer",
    "register_architectures": "architecture",
    "register_scorer_architectures": "scorer architecture",
    "register_methods": "method",
    "register_metrics": "metric",
    "register_commands": "command",
}


@dataclass(frozen=True)
class Offer:
    """Something that a plugin offers under a name."""

    name: str
    target: str  # "package.module:function"
    plugin: str

    def load(self) -> Callable[..., Any]:
        """Import the module and return the function.

        Raises:
            ConfigError: if that fails, naming the plugin.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise ConfigError(
                f"{self.name!r} of plugin {self.plugin!r} cannot be loaded from {self.target!r}: "
                f"{type(error).__name__}: {error}"
            ) from error


@dataclass
class Plugin:
    """An installed plugin: what it offers, or why it is broken."""

    name: str
    package: str  # distribution and version
    offers: list[str] = field(default_factory=list)
    broken: str | None = None


@dataclass
class Registry:
    """Everything that plugins offer, by kind and name."""

    plugins: list[Plugin] = field(default_factory=list)
    offers: dict[str, dict[str, Offer]] = field(default_factory=lambda: {kind: {} for kind in KINDS.values()})
    styles: dict[str, Style] = field(default_factory=dict)

    def names(self, kind: str) -> list[str]:
        return sorted(self.offers[kind])

    def find(self, kind: str, name: str) -> Offer:
        """The offer of that name.

        Raises:
            UnknownNameError: naming what there is, and the nearest.
        """
        if name not in self.offers[kind]:
            raise UnknownNameError(kind, name, self.offers[kind])
        return self.offers[kind][name]


def collect(points: Iterable[EntryPoint]) -> Registry:
    """Load each entry point's module and ask it what it offers; the core's own comes first."""
    registry = Registry()
    for point in sorted(points, key=lambda p: (p.name != "builtin", p.name)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
        plugin = Plugin(point.name, package)
        registry.plugins.append(plugin)
        try:
            _ask(point.load(), plugin, registry)
        except (Exception, SystemExit) as error:  # a plugin's own fault, which must not stop the others
            plugin.broken = f"{type(error).__name__}: {error}"
    return registry


def _ask(module: Any, plugin: Plugin, registry: Registry) -> None:
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module, plugin.name)
    manager.check_pending()  # a misspelt hook would offer nothing, silently
    for hook, kind in KINDS.items():
        getattr(manager.hook, hook)(register=_registrar(kind, plugin, registry))

    def register_style(style: Style) -> None:
        _refuse_twice("style", style.name, registry.styles)
        registry.styles[style.name] = style
        plugin.offers.append(f"style {style.name}")

    manager.hook.register_styles(register=register_style)


def _registrar(kind: str, plugin: Plugin, registry: Registry) -> Callable[[str, str], None]:
    def register(name: str, target: str) -> None:
        _refuse_twice(kind, name, registry.offers[kind])
        if ":" not in target:
            raise ConfigError(f"{kind} {name!r} needs an import string like 'package.module:function', got {target!r}.")
        registry.offers[kind][name] = Offer(name, target, plugin.name)
        plugin.offers.append(f"{kind} {name}")

    return register


def _refuse_twice(kind: str, name: str, taken: Iterable[str]) -> None:
    if name in taken:
        raise ConfigError(f"another plugin already offers the {kind} {name!r}")


@lru_cache(maxsize=1)
def registry() -> Registry:
    """What is installed here."""
    return collect(entry_points(group=hookspecs.GROUP))
