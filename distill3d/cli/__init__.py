"""The command line: parses, calls one library function, prints. The only place that prints."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from distill3d.errors import Distill3dError

DEBUG = "--debug"


class PluginGroup(TyperGroup):
    """The core's commands and those that plugins offer, which are imported when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *_plugin_commands()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _plugin_commands():
            return own
        from distill3d.plugins import registry

        offered: Any = registry().find("command", cmd_name).load()
        return typer.main.get_command(offered)


def _plugin_commands() -> list[str]:
    from distill3d.plugins import registry

    return registry().names("command")


app = typer.Typer(
    cls=PluginGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil the score of a text-to-image diffusion model into a 3D generator.",
)


@app.callback()
def options(
    debug: bool = typer.Option(False, DEBUG, help="Show the traceback of an error."),
) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)


def _register_commands() -> None:
    from distill3d.cli import doctor, lists, render, run

    app.command()(run.run)
    app.command()(render.render)
    lists.add_to(app)
    app.command()(doctor.doctor)


_register_commands()


def main() -> None:
    """Entry point: a user's mistake is one sentence and exit code 1."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    debug = DEBUG in sys.argv
    if debug:
        sys.argv.remove(DEBUG)
    try:
        app()
    except Distill3dError as error:
        if debug:
            traceback.print_exc()
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
