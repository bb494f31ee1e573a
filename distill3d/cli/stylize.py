"""`distill3d stylize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill3d.cli.shared import Base, Device


def stylize(
    photo: Annotated[Path, typer.Argument(help="The picture of the subject.")],
    model: Annotated[str, typer.Option(help="A run's folder, a style pack's, or its Hub id user/name.")],
    out: Annotated[
        Path | None, typer.Option(help="A new folder for what is written. (default: stylised/PHOTO-STYLE)")
    ] = None,
    original: Annotated[bool, typer.Option(help="Show the subject before the run above the stylised one.")] = True,
    frames: Annotated[int, typer.Option(min=2, help="Pictures of the turntable.")] = 24,
    resolution: Annotated[int, typer.Option(min=8, help="Of the mesh: points along each side of the box.")] = 128,
    mesh: Annotated[
        bool | None, typer.Option("--mesh/--no-mesh", help="Insist on a mesh, or make none. (default: if it can be)")
    ] = None,
    base: Base = None,
    device: Device = None,
) -> None:
    """Show a photograph in a style: turned round, as a mesh and on a page."""
    from rich.progress import Progress

    from distill3d.stylize import StylizeOptions
    from distill3d.stylize import stylize as stylize_photo

    options = StylizeOptions(original=original, frames=frames, resolution=resolution, mesh=mesh)
    with Progress() as bar:
        task = bar.add_task("loading", total=None)

        def shown(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        made = stylize_photo(
            photo, model, out, options=options, device=device, base=base, told=bar.console.print, progress=shown
        )
    if made.no_mesh:
        typer.echo(f"Without a mesh: {made.no_mesh}")
    typer.echo(f"Wrote {made.page}")
