"""`distill3d pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill3d.cli.pack import describe

if TYPE_CHECKING:
    from distill3d.packs.pack import StylePack


def pull(
    model: Annotated[str, typer.Argument(metavar="USER/NAME[@REVISION]", help="A style pack on the Hub.")],
    out: Annotated[Path | None, typer.Option(help="A new folder for it. (default: the Hugging Face cache)")] = None,
) -> None:
    """Fetch a style pack from the Hugging Face Hub, and say what it is."""
    from distill3d.files import check_replaceable
    from distill3d.packs.copies import check_whole, copy_pack
    from distill3d.packs.hub import fetch
    from distill3d.packs.pack import open_pack

    if out is not None:
        check_replaceable(out, ())
    pack = open_pack(fetch(model, told=typer.echo), model)
    check_whole(pack)
    for line in _described(pack):
        typer.echo(line)
    if out is not None:
        copy_pack(pack, out)
        typer.echo(f"Wrote {out}")
    else:
        typer.echo(f"It is {model} for every command that takes a run, and lies in {pack.folder}")


def _described(pack: StylePack) -> list[str]:
    """What a pack says of itself, as lines of what can be seen of it."""
    from distill3d.licences import verdict
    from distill3d.packs.markdown import one_line

    content, adapter = pack.content, pack.content.adapter
    by_name = f" ({content.prompt})" if content.prompt != content.style else ""
    made = ", ".join(f"{part.role} {part.name} ({part.licence})" for part in content.parts)
    said = {
        "style": f"{content.style}{by_name}",
        "backbone": content.backbone,
        "base": f"{content.base.weights or 'never published'}, sha256 {content.base.sha256[:16]}",
        "adapter": describe(adapter.format, adapter.size, adapter.pictures_error),
        "made by": f"method {content.method}, {content.step} steps",
        "parts": made or "not noted",
        "licences": verdict(content.parts),
    }
    return [f"{name:9} {one_line(text)}" for name, text in said.items()]
