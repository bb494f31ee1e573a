"""`distill3d render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill3d.cli.mixtures import STRONGEST, mixture
from distill3d.cli.shared import Base, Device
from distill3d.errors import ConfigError


def render(
    run: Annotated[
        str | None, typer.Argument(help="A run's folder, a style pack's, or its Hub id user/name.", show_default=False)
    ] = None,
    pack: Annotated[
        list[str] | None, typer.Option(help="A style and how much of it, as zombie:0.6; repeatable, to mix them.")
    ] = None,
    strength: Annotated[float, typer.Option(min=0, max=STRONGEST, help="Of the whole: 0 is the original.")] = 1.0,
    geometry: Annotated[float, typer.Option(min=0, max=STRONGEST, help="Of what shapes the subject.")] = 1.0,
    texture: Annotated[float, typer.Option(min=0, max=STRONGEST, help="Of what colours it.")] = 1.0,
    seeds: Annotated[str, typer.Option(help="Subjects: 0-7, or 1,5,9.")] = "0-7",
    views: Annotated[int, typer.Option(min=1, help="Cameras for each subject.")] = 5,
    yaw: Annotated[float, typer.Option(help="The cameras spread over +- this many degrees.")] = 60.0,
    original: Annotated[bool, typer.Option(help="Also the unstylised subject of each picture.")] = False,
    base: Base = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("renders"),
) -> None:
    """Render subjects of a stylised generator, or of a mixture of styles, to PNG files."""
    numbers = seeds_of(seeds)
    amounts = mixture(run, pack or [], strength, geometry, texture)
    from distill3d.models import load_mixture
    from distill3d.report.pictures import save_picture, to_picture
    from distill3d.showcase import look

    stylised = load_mixture(amounts, device=device, base=base, told=typer.echo)
    yaws = [0.0] if views == 1 else [-yaw + 2 * yaw * i / (views - 1) for i in range(views)]
    written = 0
    for prefix, renderer in [("stylised", stylised), *([("original", stylised.original)] if original else [])]:
        for seed in numbers:
            for i, picture in enumerate(look(renderer, [seed], yaws)[0]):
                save_picture(to_picture(picture), out / f"{prefix}_seed{seed:04d}_view{i}.png")
                written += 1
    typer.echo(f"Wrote {written} pictures to {out}")


def seeds_of(text: str) -> list[int]:
    """The numbers that --seeds names.

    Raises:
        ConfigError: if it names none.
    """
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            numbers += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        numbers = []
    if not numbers:
        raise ConfigError(f"--seeds takes numbers like 0-7 or 1,5,9, got {text!r}.")
    return numbers
