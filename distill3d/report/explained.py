"""index.html of one step under the microscope, its pictures beside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from distill3d.files import folder_written_aside
from distill3d.report.page import template

PAGE = "index.html"


@dataclass(frozen=True)
class Shown:
    """A picture with the words under it."""

    label: str
    picture: Image.Image


@dataclass(frozen=True)
class Strip:
    """Pictures side by side."""

    title: str
    pictures: Sequence[Shown]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """What is said and shown of one term."""

    title: str
    note: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    strips: Sequence[Strip] = ()


def write_explanation(
    folder: Path, *, title: str, note: str, table: Sequence[Sequence[str]], sections: Sequence[Section]
) -> Path:
    """Write a folder with the page and its pictures, whole or not at all; an older one is replaced.

    Args:
        table: of the terms, the titles first.
    Raises:
        RunError: if it cannot be written.
    """
    with folder_written_aside(folder) as aside:
        pages = [_saved(section, f"{i:02d}", aside) for i, section in enumerate(sections, 1)]
        page = template("explained.html.j2").render(title=title, note=note, table=table, sections=pages)
        (aside / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def _saved(section: Section, number: str, folder: Path) -> dict[str, Any]:
    """The section with names of files for its pictures."""
    strips = []
    for i, strip in enumerate(section.strips, 1):
        shown = []
        for j, each in enumerate(strip.pictures, 1):
            name = f"{number}-{i:02d}-{j:02d}.png"
            each.picture.save(folder / name)
            shown.append({"file": name, "label": each.label})
        strips.append({"title": strip.title, "note": strip.note, "pictures": shown})
    return {"title": section.title, "note": section.note, "facts": section.facts, "strips": strips}
