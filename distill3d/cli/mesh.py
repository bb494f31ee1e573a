"""`distill3d mesh`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill3d.cli.shared import Base, Device, Model


def mesh(
    run: Model,
    seed: Annotated[int, typer.Option(min=0, help="The subject.")] = 0,
    resolution: Annotated[int, typer.Option(min=8, help="Points along each side of the box.")] = 128,
    original: Annotated[bool, typer.Option(help="The subject as it was before the run.")] = False,
    device: Device = None,
    base: Base = None,
    out: Annotated[Path, typer.Option(help="The file: .glb, .ply or .obj.")] = Path("head.glb"),
) -> None:
    """Write a subject of a stylised generator as a coloured mesh."""
    from rich.progress import Progress

    from distill3d.export import extract_mesh, save_mesh
    from distill3d.models import load

    stylised = load(run, device=device, base=base, told=typer.echo)
    renderer = stylised.original if original else stylised
    with Progress() as bar:
        task = bar.add_task("asking the field", total=resolution)
        scene = renderer.scene(renderer.codes_of_seeds([seed]))
        found = extract_mesh(
            renderer, scene, resolution=resolution, progress=lambda done, total: bar.update(task, completed=done)
        )
    save_mesh(found, out)
    typer.echo(f"Wrote {out}: {len(found.vertices)} vertices, {len(found.faces)} faces")
