"""`distill3d launch`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from distill3d.errors import ConfigError

WORKER = "distill3d.cli.worker"
DEBUG = "--debug"


def add_to(app: typer.Typer) -> None:
    """Offer the command; its options stand before `run`, everything behind belongs to that."""
    app.command(context_settings={"allow_extra_args": True, "allow_interspersed_args": False})(launch)


def launch(
    context: typer.Context,
    processes: Annotated[
        int, typer.Option(min=1, help="How many; on --device cuda one for each GPU, else so many on the CPU.")
    ] = 2,
) -> None:
    """Share a run among processes of this machine: launch --processes 2 run --style zombie ...

    They share the subjects of a step, or with `run --split views` the views of each.
    """
    words = list(context.args)
    if words[:1] != ["run"]:
        raise ConfigError("What is launched is a run: distill3d launch --processes 2 run --style zombie ...")
    from distill3d.training.launch import launch as start

    words += [DEBUG] if DEBUG in sys.argv else []
    raise typer.Exit(start(processes, WORKER, words, resume=run_folder(words)))


def run_folder(words: Sequence[str]) -> str:
    """The folder that these words of `run` name, RUN if they leave it to the run."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--out", "--resume"):
            return value if equals else (words[i + 1] if i + 1 < len(words) else "RUN")
    return "RUN"
