"""`distill3d card`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill3d.cli.shared import Base, Device, Model

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


def card(
    run: Model,
    repo: Annotated[str | None, typer.Option(help="What the card calls it, as user/name. (default: user/RUN)")] = None,
    form: Annotated[
        str, typer.Option("--format", help="Of the pack: full, half or low-rank; see `distill3d pack`.")
    ] = "full",
    out: Annotated[Path | None, typer.Option(help="A file for it. (default: it is shown)")] = None,
    base: Base = None,
    device: Device = None,
) -> None:
    """Show the card that a run gets as a style pack on the Hub."""
    from rich.console import Console
    from rich.markdown import Markdown

    made = _made(run, repo, form, base, device)
    if out is not None:
        from distill3d.files import write_text

        write_text(out, str(made))
        typer.echo(f"Wrote {out}")
    elif sys.stdout.isatty():
        console = Console()
        console.print(made.data.to_yaml(), style="dim", markup=False, highlight=False)
        console.print(Markdown(made.text))
    else:
        typer.echo(str(made), nl=False)


def _made(run: str, repo: str | None, form: str, base: str | None, device: str | None) -> ModelCard:
    """The card of a pack that is there, or of one that is made aside and thrown away."""
    from rich.console import Console

    from distill3d.models import find_model
    from distill3d.packs.card import card_of
    from distill3d.packs.config import SHEET
    from distill3d.packs.pack import StylePack
    from distill3d.publish import PackOptions, preview_card

    found = find_model(run, told=lambda what: typer.echo(what, err=True))
    if isinstance(found, StylePack):
        return card_of(found.content, repo or found.name, pictures=(found.folder / SHEET).is_file())
    options = PackOptions(format=form)  # type: ignore[arg-type]  # it checks the word
    with Console(stderr=True).status("loading"):
        return preview_card(
            found.folder, repo_id=repo or f"user/{found.name}", options=options, base=base, device=device
        )
