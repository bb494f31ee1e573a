"""`distill3d styles|backbones|scorers|methods|plugins`."""

from __future__ import annotations

import typer

from distill3d.errors import ConfigError
from distill3d.options import option_names
from distill3d.plugins import registry


def add_to(app: typer.Typer) -> None:
    """Register the listing commands."""
    for command in (styles, backbones, scorers, methods, plugins):
        app.command()(command)


def styles() -> None:
    """List the styles of the catalogue."""
    for name, style in sorted(registry().styles.items()):
        typer.echo(f"{name:12} {style.prompt}")
    typer.echo("Any other text is taken as a prompt.")


def backbones() -> None:
    """List the 3D generators that are installed, with the settings that --backbone-set takes."""
    _list_with_settings("backbone")


def scorers() -> None:
    """List the diffusion models that are installed."""
    _list("scorer")


def methods() -> None:
    """List the methods, with the settings that --set takes."""
    _list_with_settings("method")


def plugins() -> None:
    """List the plugins, what each offers, and why one is broken."""
    for plugin in registry().plugins:
        typer.echo(f"{plugin.name:12} {plugin.package}: {', '.join(plugin.offers) or 'nothing'}")
        if plugin.broken:
            typer.secho(f"{'':12} broken: {plugin.broken}", fg=typer.colors.RED)


def _list_with_settings(kind: str) -> None:
    for name in registry().names(kind):
        try:
            make = registry().find(kind, name).load()
        except ConfigError as error:
            typer.secho(f"{name:12} broken: {error}", fg=typer.colors.RED)
            continue
        summary = ((make.__doc__ or "").strip().splitlines() or [""])[0]
        settings = ", ".join(option_names(make))
        typer.echo(f"{name:12} {summary}" + (f"\n{'':12} settings: {settings}" if settings else ""))


def _list(kind: str) -> None:
    for name in registry().names(kind):
        typer.echo(f"{name:12} from {registry().find(kind, name).plugin}")
