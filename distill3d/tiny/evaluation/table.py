"""All rows of an exam, as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill3d.tiny.evaluation.exam import CEILING
from distill3d.tiny.evaluation.figures import COLUMNS, Figures, cell

SCHEMA = 1


@dataclass(frozen=True)
class Evaluation:
    """The rows of one style, the stylised generators first."""

    style: str
    subjects: int
    rows: Mapping[str, Figures]  # by name
    made_with: Mapping[str, str] = field(default_factory=dict)  # what a repetition needs

    def plain(self) -> dict[str, Any]:
        """Everything for JSON, with null for what says nothing."""
        return {
            "schema": SCHEMA,
            "style": self.style,
            "subjects": self.subjects,
            "rows": {name: figures.plain() for name, figures in self.rows.items()},
            "made_with": dict(self.made_with),
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.plain(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        rows = {name: Figures.from_plain(row) for name, row in values["rows"].items()}
        return cls(values["style"], values["subjects"], rows, values["made_with"])

    def of_ceiling(self, row: str) -> dict[str, float]:
        """Style accuracy and retrieval of a row as parts of the ceiling's."""
        ours, best = self.rows[row], self.rows[CEILING]
        return {
            name: getattr(ours, name) / getattr(best, name) if getattr(best, name) else math.nan
            for name in ("style_accuracy", "retrieval_top1")
        }


def shown_columns(rows: Mapping[str, Figures]) -> list[str]:
    """The columns in which any row has a number."""
    return [name for name in COLUMNS if any(math.isfinite(getattr(row, name)) for row in rows.values())]


def markdown(rows: Mapping[str, Figures]) -> str:
    """The rows as a table in markdown."""
    columns = shown_columns(rows)
    lines = ["| | " + " | ".join(COLUMNS[name][0] for name in columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for title, row in rows.items():
        cells = [cell(getattr(row, name), COLUMNS[name][1]) for name in columns]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def text_table(rows: Mapping[str, Figures]) -> str:
    """The rows as columns of plain text, for a terminal."""
    columns = shown_columns(rows)
    left = max(len(COLUMNS[name][0]) for name in columns)
    widths = [max(len(title), 6) for title in rows]
    lines = [" " * left + "".join(f"  {title:>{width}}" for title, width in zip(rows, widths))]
    for name in columns:
        title, pattern = COLUMNS[name]
        cells = [f"  {cell(getattr(row, name), pattern):>{width}}" for row, width in zip(rows.values(), widths)]
        lines.append(f"{title:{left}}" + "".join(cells))
    return "\n".join(lines)
