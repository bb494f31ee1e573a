"""`distill3d licences`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distill3d.licences import Part

LONGEST = 100  # characters of a word in the table


def licences(
    run: Annotated[str, typer.Argument(help="A run's folder, a style pack's, or its Hub id user/name.")],
    commercial_ok: Annotated[
        bool, typer.Option("--commercial-ok", help="Exit with 1 unless every part is open to commercial use.")
    ] = False,
) -> None:
    """Whose weights a run was made with, under which licences, and whether commercial use is open."""
    from distill3d.licences import not_open, verdict
    from distill3d.models import find_model

    parts = [_printable(part) for part in find_model(run).parts]
    for line in _table(parts):
        typer.echo(line)
    typer.echo(verdict(parts))
    typer.echo("What is known of licences, and where it is written: docs/licences.md. This is no legal advice.")
    if commercial_ok and (not_open(parts) or not parts):
        raise typer.Exit(1)


def _printable(part: Part) -> Part:
    """What a stranger's pack says, on one line of a terminal and nothing else."""
    from distill3d.packs.markdown import one_line

    return type(part)(*(one_line(text)[:LONGEST] for text in (part.role, part.name, part.licence)))


def _table(parts: Sequence[Part]) -> list[str]:
    """A line for each part, in columns."""
    from distill3d.licences import UNKNOWN, known_licence, source_of

    rows = [("part", "name", "licence", "commercial use", "source")]
    for part in parts:
        known = known_licence(part.licence)
        name = known.name if known is not UNKNOWN else part.licence or UNKNOWN.name
        rows.append((part.role, part.name or "-", name, known.commercial, source_of(part) or "-"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]
