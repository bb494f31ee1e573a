"""`distill3d pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill3d.cli.shared import Base, Device, Pictures
from distill3d.packs.sizes import size_in_words


def pack(
    run: Annotated[str, typer.Argument(help="A run's folder, or its name below runs/.")],
    out: Annotated[Path, typer.Option(help="The pack's folder; an older one is replaced.")],
    form: Annotated[
        str, typer.Option("--format", help="full: exact. half, low-rank: smaller, with an error that is stated.")
    ] = "full",
    repo: Annotated[str | None, typer.Option(help="What the card calls it, as user/name. (default: user/RUN)")] = None,
    pictures: Pictures = None,
    base: Base = None,
    device: Device = None,
) -> None:
    """Write a run as a style pack, without pushing it anywhere."""
    from rich.console import Console

    from distill3d.models import find_run
    from distill3d.publish import PackOptions, make_pack

    options = PackOptions(format=form, pictures=pictures)  # type: ignore[arg-type]  # it checks the word
    found = find_run(run)
    with Console(stderr=True).status("loading") as status:
        made = make_pack(
            found.folder,
            out,
            repo_id=repo or f"user/{found.name}",
            options=options,
            base=base,
            device=device,
            progress=status.update,
        )
    typer.echo(describe(made.content.adapter.format, made.content.adapter.size, made.content.adapter.pictures_error))
    typer.echo(f"Wrote {out}")


def describe(form: str, size: int, error: float) -> str:
    """The adapter in a line."""
    exact = "exactly the run's" if not error else f"pictures within {error:.2g} of the run's (RMS, in [-1, 1])"
    return f"{size_in_words(size)}, {form}: {exact}"
