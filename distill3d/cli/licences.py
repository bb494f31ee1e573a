"""`distill3d licences`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from distill3d.cli.shared import Model

if TYPE_CHECKING:
    from distill3d.licences import Part

LONGEST = 100  # characters of a word in the table


def licences(
    run: Model,
    commercial_ok: Annotated[
        bool, typer.Option("--commercial-ok", help="Exit with 1 unless every part is open to commercial use.")
    ] = False,
) -> None:
    """Whose weights a run was made with, under which licences, and whether commercial use is open."""
    from distill3d.licences import is_open, verdict
    from distill3d.models import find_model

    parts = find_model(run, told=lambda what: typer.echo(what, err=True)).parts
    for line in _table(parts):
        typer.echo(line)
    typer.echo(verdict(parts))
    typer.echo("What is known of licences, and where it is written: docs/licences.md. This is no legal advice.")
    if commercial_ok and not is_open(parts):
        raise typer.Exit(1)


def _table(parts: Sequence[Part]) -> list[str]:
    """A line for each part, in columns."""
    from distill3d.licences import licence_in_words, licence_of, source_of
    from distill3d.report.columns import in_columns

    rows = [("part", "name", "licence", "commercial use", "source")]
    for part in parts:
        rows.append((part.role, part.name, licence_in_words(part), licence_of(part).commercial, source_of(part)))
    return in_columns([[_cell(text) for text in row] for row in rows])


def _cell(text: str) -> str:
    """What a stranger's pack says, on one line of a terminal and nothing else."""
    from distill3d.packs.markdown import one_line

    return one_line(text)[:LONGEST] or "-"
