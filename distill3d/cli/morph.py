"""`distill3d morph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill3d.cli.render import seeds_of
from distill3d.cli.shared import Base, Device
from distill3d.errors import ConfigError
from distill3d.styles import STRONGEST


def morph(
    models: Annotated[list[str], typer.Argument(help="Runs, style packs or Hub ids user/name: one, or several.")],
    strengths: Annotated[
        str | None, typer.Option(help="Of one style, from and to. (default: 0-1.5)", show_default=False)
    ] = None,
    columns: Annotated[int, typer.Option(min=2, help="Of the sheet.")] = 7,
    seeds: Annotated[str, typer.Option(help="Subjects: 0-3, or 1,5,9.")] = "0-3",
    frames: Annotated[int, typer.Option(min=2, help="Of the video, from style to style, or end to end.")] = 24,
    turn: Annotated[bool, typer.Option(help="The subjects turn round meanwhile.")] = False,
    yaw: Annotated[float, typer.Option(help="Where they are seen from else, degrees.")] = 0.0,
    format: Annotated[str, typer.Option(help="Of the video: webp, gif, or mp4 with the extra `video`.")] = "webp",
    base: Base = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="A new folder for what is written.")] = Path("morph"),
) -> None:
    """Show a style at growing strength, or the way from style to style: a sheet and a video."""
    numbers, limits = seeds_of(seeds), strengths_of(strengths)
    from rich.progress import Progress

    from distill3d.morph import MorphOptions
    from distill3d.morph import morph as morph_styles

    options = MorphOptions(
        strengths=limits,
        columns=columns,
        seeds=tuple(numbers),
        frames=frames,
        turn=turn,
        yaw=yaw,
        format=format,  # type: ignore[arg-type]  # checked there
    )
    with Progress() as bar:
        task = bar.add_task("loading", total=None)

        def shown(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        made = morph_styles(
            models, out, options=options, device=device, base=base, told=bar.console.print, progress=shown
        )
    typer.echo(f"Wrote {made.sheet} and {made.video}")


def strengths_of(text: str | None) -> tuple[float, float] | None:
    """The two numbers that --strengths names.

    Raises:
        ConfigError: if it names others.
    """
    if text is None:
        return None
    first, _, last = text.partition("-")
    try:
        low, high = float(first), float(last)
    except ValueError:
        low = high = 0.0
    if not 0 <= low < high <= STRONGEST:
        raise ConfigError(f"--strengths takes two numbers from 0 to {STRONGEST}, as 0-1.5, got {text!r}.")
    return low, high
