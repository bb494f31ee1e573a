"""`distill3d eg3d`: convert, fetch and list checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Checkpoints of EG3D and PanoHead.", no_args_is_help=True)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="An official .pkl; nothing in it is executed.")],
    target: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
) -> None:
    """Turn an official checkpoint into safetensors."""
    from distill3d_eg3d.checkpoint import convert as convert_checkpoint

    found = convert_checkpoint(source, target)
    a = found.architecture
    typer.echo(
        f"Wrote {target}: {a.family}, {len(found.tensors)} tensors, {a.image_size} px, "
        f"neural resolution {a.neural_resolution}.\nLicence of the weights: {found.licence}.\n"
        f"Use it with: distill3d run --backbone {a.family} --weights {target} --style zombie"
    )


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name from `distill3d eg3d list`.")],
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="You have read it and agree.")] = False,
) -> None:
    """Download a published checkpoint; a broken download goes on where it was."""
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from distill3d.errors import ConfigError
    from distill3d_eg3d.download import download
    from distill3d_eg3d.known import cache_folder, find, how_to_get

    known = find(name)
    target = cache_folder() / known.file
    if target.is_file():
        typer.echo(f"{target} is here already.")
        return
    if known.url is None:
        raise ConfigError(f"{name}: {how_to_get(known)}")
    if not accept_licence:
        raise ConfigError(
            f"{name} ({known.size}) is under this licence: {known.licence}; see {known.page}. "
            "Say --accept-licence if you agree."
        )
    with Progress(
        *Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    ) as bar:
        task = bar.add_task(known.file, total=None)
        download(
            known.url,
            target,
            checksum=known.sha256,
            progress=lambda here, total: bar.update(task, completed=here, total=total),
        )
    typer.echo(f"Wrote {target}. Use it with: distill3d run --backbone {known.family} --weights {name} --style zombie")


@app.command("list")
def list_checkpoints() -> None:
    """Published checkpoints, and which of them are here."""
    from distill3d_eg3d.known import CHECKPOINTS, cache_folder

    for known in CHECKPOINTS.values():
        here = "here" if (cache_folder() / known.file).is_file() else "not here"
        typer.echo(f"{known.name:26s} {known.family:9s} {here:9s} {known.licence}\n{'':26s} {known.page}")
