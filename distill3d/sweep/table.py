"""One row for each run, read from what the runs left on disk."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill3d.files import write_text
from distill3d.report.columns import in_columns
from distill3d.sweep.place import (
    CONFIG,
    ENDED,
    EVALUATION,
    METRICS,
    STATE,
    Place,
    last_step,
    read_lines,
    read_state,
    status,
)
from distill3d.sweep.plan import PlannedRun, Sweep

SCHEMA = 1
JSON, MARKDOWN = "table.json", "table.md"
TITLES = {  # of columns whose name says too little
    "steps": "steps",
    "seconds_per_step": "s/step",
    "starts": "starts",
    "style_accuracy": "style accuracy",
    "retrieval_top1": "identity top-1",
    "psnr_gain": "PSNR gain (dB)",
}
PAIRED = ("style_accuracy", "retrieval_top1", "psnr_gain")  # shown of an evaluation against true pictures
Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows in the order of the plan; a cell that a row lacks is empty."""

    columns: list[str]
    rows: list[Row]
    varied: list[str]  # the columns that tell the runs apart

    def count(self, status: str) -> int:
        return sum(row["status"] == status for row in self.rows)


def make_table(sweep: Sweep) -> Table:
    """Read every run's row; nothing is computed again."""
    rows = [_row(Place(sweep.out), run) for run in sweep.runs]
    first = list(sweep.runs[0].varied)
    columns = [*first, *dict.fromkeys(name for row in rows for name in row if name not in (*first, "run", "remark"))]
    return Table([*columns, *(["remark"] if any(row.get("remark") for row in rows) else [])], rows, first)


def write_table(table: Table, out: Path) -> None:
    """table.json and table.md in the sweep's folder."""
    values = {"schema": SCHEMA, "columns": table.columns, "rows": table.rows}
    write_text(out / JSON, json.dumps(values, indent=2) + "\n")
    write_text(out / MARKDOWN, markdown(table))


def markdown(table: Table) -> str:
    """The table in markdown."""
    lines = [_titles(table.columns), ["---"] * len(table.columns), *cells(table)]
    escaped = ([cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def text_table(table: Table) -> str:
    """The table for a terminal: remarks, which are long, below it."""
    columns = [name for name in table.columns if name != "remark"]
    lines = in_columns([_titles(columns), *cells(table, columns)])
    remarks = [f"{row['run']}: {row['remark']}" for row in table.rows if row.get("remark")]
    return "\n".join([*lines, *remarks])


def cells(table: Table, columns: Sequence[str] | None = None) -> list[list[str]]:
    """Every row as words."""
    return [[said(name, row.get(name)) for name in columns or table.columns] for row in table.rows]


def said(column: str, value: Any) -> str:
    """A cell as a reader sees it."""
    if value is None:
        return "-"
    if isinstance(value, float) and column != "lr":
        return f"{value:+.1f}" if column == "psnr_gain" else f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def _titles(columns: Sequence[str]) -> list[str]:
    return [TITLES.get(name, name.replace("_", " ")) for name in columns]


def _row(place: Place, run: PlannedRun) -> Row:
    folder, events = place.run(run.name), place.events(run.name)
    last = events[-1] if events else {}
    seconds = [record["seconds"] for record in read_lines(folder / METRICS) if _finite(record.get("seconds"))]
    row = {
        "run": run.name,
        **run.varied,
        "status": _status(folder, last),
        "steps": f"{last_step(folder)}/{read_state(folder / CONFIG).get('steps') or run.config.steps or '?'}",
        "seconds_per_step": round(statistics.median(seconds), 4) if seconds else None,
        "starts": sum(event["event"] == "start" for event in events),
        **_figures(folder, run.name),
    }
    remark = (
        last.get("message") if last.get("event") in ("failed", "died") else read_state(folder / STATE).get("reason")
    )
    return {**row, "remark": remark} if remark else row


def _status(folder: Path, last: Row) -> str:
    """What the run itself says, unless it has not ended and a worker is at it or left it without."""
    event, said_by_run = str(last.get("event", "waiting")), status(folder)
    if said_by_run in ENDED or (said_by_run and event in ("done", "stopped")):
        return said_by_run
    return {"start": "running", "done": "unfinished"}.get(event, event)


def _figures(folder: Path, name: str) -> Row:
    """The evaluation's: against true pictures where there are any, else all that it holds."""
    values = read_state(folder / EVALUATION)
    own = values.get("rows", {}).get(name)
    if own is not None:
        return {figure: own.get(figure) for figure in PAIRED}
    return dict(values.get("metrics") or {})


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
