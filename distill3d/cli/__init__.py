"""The command line: parses, calls one library function, prints. The only place that prints."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from distill3d import __version__
from distill3d.errors import Distill3dError

DEBUG = "--debug"


class PluginCommand(TyperCommand):
    """A plugin's command, whose module is imported when it is called: --help needs none of them."""

    def __init__(self, name: str, plugin: str):
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        super().__init__(name, help=f"From plugin {plugin}.", context_settings=settings, add_help_option=False)

    def invoke(self, ctx: Any) -> Any:
        from distill3d.plugins import registry

        offered: Any = registry().find("command", str(self.name)).load()
        command = typer.main.get_command(offered)
        return command.main(args=list(ctx.args), prog_name=ctx.command_path, standalone_mode=False)


class PluginGroup(TyperGroup):
    """The core's commands and those that plugins offer."""

    def list_commands(self, ctx: Any) -> list[str]:
        from distill3d.plugins import registry

        return [*super().list_commands(ctx), *registry().names("command")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        from distill3d.plugins import registry

        offers = registry().offers["command"]
        return PluginCommand(cmd_name, offers[cmd_name].plugin) if cmd_name in offers else None


app = typer.Typer(
    cls=PluginGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil the score of a text-to-image diffusion model into a 3D generator.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distill3d {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(False, DEBUG, help="Show the traceback of an error; may stand anywhere."),
) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)


def _register_commands() -> None:
    from distill3d.cli import (
        card,
        doctor,
        evaluate,
        explain,
        launch,
        licences,
        lists,
        mesh,
        morph,
        pack,
        packs,
        plan,
        pull,
        push,
        render,
        run,
        stylize,
        sweep,
    )

    app.command()(run.run)
    launch.add_to(app)
    app.command()(sweep.sweep)
    app.command()(plan.plan)
    app.command()(render.render)
    app.command()(morph.morph)
    app.command()(mesh.mesh)
    app.command()(stylize.stylize)
    app.command()(evaluate.evaluate)
    app.command()(explain.explain)
    app.command()(pack.pack)
    app.command()(push.push)
    app.command()(pull.pull)
    app.command("list-packs")(packs.list_packs)
    app.command()(card.card)
    app.command()(licences.licences)
    lists.add_to(app)
    app.command()(doctor.doctor)


_register_commands()


def main() -> None:
    """Entry point: a user's mistake is one sentence and exit code 1."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it would tell of every try; what failed is said once
    debug = DEBUG in sys.argv
    arguments = [word for word in sys.argv[1:] if word != DEBUG]
    try:
        app(args=arguments)
    except Distill3dError as error:
        if debug:
            traceback.print_exc()
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except OSError as error:
        from distill3d.files import is_full

        if not is_full(error):
            raise
        if debug:
            traceback.print_exc()
        typer.secho("Error: The disk is full. What was saved before is intact.", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho("Stopped.", err=True)
        sys.exit(130)
