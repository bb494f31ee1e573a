"""`distill3d push`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill3d.cli.pack import describe
from distill3d.cli.shared import Base, Device, Pictures
from distill3d.errors import ConfigError, RunError

if TYPE_CHECKING:
    from distill3d.packs.pack import StylePack
    from distill3d.stylisation import Stylisation


def push(
    run: Annotated[str, typer.Argument(help="A run's folder, or a style pack's.")],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="What it is called on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made if there is none. (default: main)")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose it to the owner of USER/NAME.")] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="full, half or low-rank; see `distill3d pack`. (default: full)"),
    ] = None,
    pictures: Pictures = None,
    commercial_ok: Annotated[bool, typer.Option(help="Refuse parts that are not open to commercial use.")] = False,
    base: Base = None,
    device: Device = None,
) -> None:
    """Publish a run as a style pack on the Hugging Face Hub."""
    from distill3d.licences import check_commercial
    from distill3d.models import find_model
    from distill3d.packs.hub import check_push
    from distill3d.packs.hub import push as push_pack
    from distill3d.packs.hub.names import MAIN

    found = find_model(run, told=typer.echo)
    if commercial_ok:
        check_commercial(found.parts)
    check_push(repo, private=private, revision=revision, create_pr=create_pr)  # before the pictures are drawn
    with _folder_aside() as aside:
        name = f"{repo}@{revision}" if revision not in (None, MAIN) else repo  # as the card's code loads it
        pack = _as_pack(found, aside / "pack", name, form, pictures, base, device)
        adapter = pack.content.adapter
        typer.echo(describe(adapter.format, adapter.size, adapter.pictures_error))
        address = push_pack(pack, repo, private=private, revision=revision, create_pr=create_pr, told=typer.echo)
    typer.echo(f"{'Proposed' if create_pr else 'Pushed'}: {address}")


@contextmanager
def _folder_aside() -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    try:
        made = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"The pack cannot be written aside: {reason}. TMPDIR names a place for it.") from error
    with made as name:
        yield Path(name)


def _as_pack(
    found: Stylisation,
    folder: Path,
    repo: str,
    form: str | None,
    pictures: bool | None,
    base: str | None,
    device: str | None,
) -> StylePack:
    """A run made into a pack; a pack as it is, with the card for its name."""
    from rich.console import Console

    from distill3d.packs.copies import check_whole, renamed
    from distill3d.packs.pack import StylePack
    from distill3d.publish import PackOptions, make_pack

    if isinstance(found, StylePack):
        stored = found.content.adapter.format
        if form not in (None, stored):
            raise ConfigError(f"{found.name} is a style pack of format {stored}: push its run to get {form}.")
        check_whole(found)
        return renamed(found, folder, repo, pictures=pictures is not False)
    options = PackOptions(format=form or "full", pictures=pictures)  # type: ignore[arg-type]  # it checks the word
    with Console(stderr=True).status("loading") as status:
        return make_pack(
            found.folder, folder, repo_id=repo, options=options, base=base, device=device, progress=status.update
        )
