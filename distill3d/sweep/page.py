"""index.html: the runs' sheets side by side, styles down and methods across."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill3d.files import write_text
from distill3d.report.page import template
from distill3d.sweep.table import Row, Table, cells, said

PAGE, REPORT = "index.html", "report.html"
WIDTH, TALLEST = 440, 1.15  # pixels of a thumbnail, and its height in widths: the first three subjects of a sheet


def write_page(table: Table, out: Path) -> Path:
    """Write index.html; its pictures are inside, its links lead to the runs' reports."""
    across = [name for name in table.varied if name != "style"]
    styles = list(dict.fromkeys(row["style"] for row in table.rows))
    heads = list(dict.fromkeys(_head(row, across, table.rows) for row in table.rows))
    grid: dict[str, dict[str, Any]] = {str(style): {} for style in styles}
    for row in table.rows:
        grid[str(row["style"])][_head(row, across, table.rows)] = _cell(row, out)
    titles = [name.replace("_", " ") for name in table.columns]
    page = template("sweep.html.j2").render(
        name=out.name, heads=heads, grid=grid, titles=titles, rows=cells(table), finished=table.count("finished")
    )
    write_text(out / PAGE, page)
    return out / PAGE


def _head(row: Row, across: Sequence[str], rows: Sequence[Row]) -> str:
    """The title of a run's column: the method, and what else differs anywhere."""
    telling = [name for name in across if name != "method" and any(other[name] != row[name] for other in rows)]
    return ", ".join([str(row["method"]), *(f"{name} {said(name, row[name])}" for name in telling)])


def _cell(row: Row, out: Path) -> dict[str, Any]:
    folder = out / row["run"]
    pictures = [folder / "sheet.png", *sorted((folder / "previews").glob("step_*.png"), reverse=True)]
    picture = next((path for path in pictures if path.is_file()), None)
    return {
        "name": row["run"],
        "status": row["status"],
        "remark": row.get("remark"),
        "picture": None if picture is None else _thumbnail(picture, picture.stat().st_mtime_ns),
        "link": f"{row['run']}/{REPORT}" if (folder / REPORT).is_file() else None,
    }


@lru_cache(maxsize=4096)
def _thumbnail(path: Path, changed: int) -> str | None:
    """A picture made small, as text that a page can hold; None if it cannot be read."""
    from PIL import Image  # only when a page is written

    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except OSError:
        return None
    top = small.crop((0, 0, small.width, min(small.height, round(TALLEST * small.width))))
    top.thumbnail((WIDTH, 2 * WIDTH))
    buffer = io.BytesIO()
    top.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
