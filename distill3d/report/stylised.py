"""index.html: a photograph in a style, its files beside the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill3d.files import write_text
from distill3d.report.page import template

PAGE = "index.html"


def write_page(
    folder: Path, record: Mapping[str, Any], *, photo: str, sheet: str, turntable: str, mesh: str | None
) -> Path:
    """Write the page that shows these files of its own folder.

    Args:
        record: what stylize.json says.
        photo, sheet, turntable, mesh: names of files in `folder`; None for no mesh.
    Raises:
        RunError: if it cannot be written.
    """
    settings = record["settings"]
    page = template("stylised.html.j2").render(
        record=record,
        settings={name: value for name, value in settings.items() if name != "mesh"},
        photo=photo,
        sheet=sheet,
        turntable=turntable,
        mesh=mesh,
    )
    write_text(folder / PAGE, page)
    return folder / PAGE
