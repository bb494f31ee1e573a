"""`distill3d list-packs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distill3d.packs.hub import Entry


def list_packs(
    author: Annotated[str | None, typer.Option(help="Only those of this user or organisation.")] = None,
) -> None:
    """List the style packs of the Hugging Face Hub, those changed last first."""
    from distill3d.packs.hub import list_packs as listed

    entries = listed(author)
    for line in _table(entries) if entries else ["There are no style packs."]:
        typer.echo(line)


def _table(entries: list[Entry]) -> list[str]:
    """A line for each pack, in columns."""
    from distill3d.packs.markdown import one_line
    from distill3d.report.columns import in_columns

    rows = [("pack", "style", "backbone", "changed", "downloads", "likes")]
    for entry in entries:
        name = one_line(entry.id) + (" (private)" if entry.private else "")
        changed = f"{entry.updated:%Y-%m-%d}" if entry.updated else "-"
        rows.append((name, entry.style or "-", entry.backbone or "-", changed, f"{entry.downloads}", f"{entry.likes}"))
    return in_columns(rows)
