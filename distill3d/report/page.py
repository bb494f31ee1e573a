"""report.html: one self-contained page, pictures first."""

from __future__ import annotations

import base64
import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from distill3d.config import DistillConfig
from distill3d.errors import RunError
from distill3d.files import write_text
from distill3d.licences import licence_in_words, parts_of_run
from distill3d.report.curves import curves_svg, read_metrics, spectrum_svg
from distill3d.report.health import alarm, health_svg, terms_svg
from distill3d.run_files import EVALUATION, FIGURES

MIME = {".png": "image/png", ".webp": "image/webp", ".gif": "image/gif"}
SHOWN_PREVIEWS = 8


def write_report(folder: Path) -> Path:
    """Write report.html from what lies in a run's folder; what is missing is left out.

    Raises:
        RunError: if it cannot be written.
    """
    config, records = _read_json(folder / "config.json"), read_metrics(folder / "metrics.jsonl")
    health = read_metrics(folder / "health.jsonl")
    page = template("report.html.j2").render(
        config={**config, **{name: " ".join(_shown(config.get(name, {}))) for name in ("options", "anchors")}},
        state=_read_json(folder / "run.json"),
        sheet=data_uri(folder / "sheet.png"),
        turntable=data_uri(folder / "turntable.webp"),
        previews=_previews(folder / "previews"),
        evaluation=evaluation_table(_read_json(folder / EVALUATION / FIGURES)),
        evaluation_sheet=data_uri(folder / EVALUATION / "sheet.png"),
        alarm=alarm(health),
        health=health_svg(health),
        terms=terms_svg(health),
        curves=curves_svg(records) if records else None,
        spectrum=spectrum_svg(records),
        summary=summary(records),
        versions=_read_json(folder / "versions.json"),
        licences=_licences(folder),
        commands=commands(config, str(folder)),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _shown(options: Mapping[str, Any]) -> list[str]:
    """Settings as they would be typed, whether or not there is an option that takes them."""
    return [f"{n}={','.join(map(str, v)) if isinstance(v, list) else v}" for n, v in options.items()]


def _licences(folder: Path) -> dict[str, str]:
    """By part; none if the note is damaged, since a page is better than none."""
    try:
        return {f"{part.role} {part.name}".strip(): licence_in_words(part) for part in parts_of_run(folder)}
    except RunError:
        return {}


def template(name: str) -> Any:
    """A jinja2 template of this folder; what it is given is escaped."""
    import jinja2  # heavy: only when a page is written

    loader = jinja2.PackageLoader("distill3d.report")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(name)


def data_uri(path: Path) -> str | None:
    """A picture as text that a page can hold, or None if there is none."""
    if not path.is_file():
        return None
    return f"data:{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def summary(records: list[dict[str, Any]]) -> dict[str, str]:
    """What the steps cost, in words."""
    if not records:
        return {}
    seconds = [record["seconds"] for record in records]
    return {
        "steps taken": str(len(records)),
        "seconds per step (median)": f"{statistics.median(seconds):.2f}",
        "time in steps": f"{sum(seconds):.0f} s",
        "steps skipped (gradient not finite)": str(sum(record["skipped"] for record in records)),
    }


def evaluation_table(values: Mapping[str, Any]) -> list[list[str]]:
    """The rows that `distill3d evaluate` left, the titles first; a column that says nothing anywhere is left out."""
    rows = values.get("rows") or ({"run": values["metrics"]} if values.get("metrics") else {})
    titles = [t for t in next(iter(rows.values()), {}) if any(row.get(t) is not None for row in rows.values())]
    lines = [["-" if row.get(t) is None else f"{row[t]:.3g}" for t in titles] for row in rows.values()]
    named = [[name, *line] for name, line in zip(rows, lines)]
    return [["", *(title.replace("_", " ") for title in titles)], *named] if named else []


TABLES = {  # settings that hold several, and the option that gives one of them
    "backbone_options": "--backbone-set",
    "controlnets": "--controlnet",
    "options": "--set",
    "term_weights": "--weight",
    "anchors": "--anchor",
}


def commands(config: Mapping[str, Any], folder: str) -> dict[str, str]:
    """How to do it again, go on, and look closer."""
    again = command_again(config)
    return {
        **({"Do it again": again} if again else {}),
        "Go on after a stop": shlex.join(["distill3d", "run", "--resume", folder]),
        "Measure it": shlex.join(["distill3d", "evaluate", folder]),
        "More pictures": shlex.join(["distill3d", "render", folder, "--seeds", "0-7", "--views", "5"]),
        "Take a step apart": shlex.join(["distill3d", "explain", folder, "--step", "0"]),
    }


def command_again(config: Mapping[str, Any]) -> str | None:
    """The `distill3d run` of these settings; None if no options can give them."""
    try:
        return shlex.join(["distill3d", "run", *_words(config)])
    except _NotSayableError:
        return None


class _NotSayableError(Exception):
    """A setting of another kind than options are."""


def _words(config: Mapping[str, Any]) -> list[str]:
    """Every setting that is not the default, as `distill3d run` takes it."""
    words = []
    for field in fields(DistillConfig):
        name = field.name
        value: Any = config.get(name)
        if value in (None, field.default, {}, []):
            continue
        option = f"--{name.replace('_', '-')}"
        if name in TABLES:
            table = _table(name, value)
            words += [word for path in _list("subjects", table.pop("subjects", ())) for word in ("--subjects", path)]
            words += [word for setting in _settings(table) for word in (TABLES[name], setting)]
        elif name == "trackers":
            words += [word for tracker in _list(name, value) for word in ("--track", tracker)]
        elif name == "fast" and isinstance(value, str):
            words += ["--autoencoder", value]
        else:
            words += [option] if value is True else [option, _word(name, value)]
    return words


def _settings(options: Mapping[str, Any]) -> list[str]:
    """NAME=VALUE as --set takes them."""
    return [
        f"{name}={','.join(_list(name, value)) if isinstance(value, list | tuple) else _word(name, value)}"
        for name, value in options.items()
    ]


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _NotSayableError(name)
    return dict(value)


def _list(name: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise _NotSayableError(name)
    return [_word(name, part) for part in value]


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise _NotSayableError(name)
    return str(value)


def _previews(folder: Path) -> list[tuple[int, str]]:
    """(step, picture) of at most eight previews, evenly over the run, the first and the last among them."""
    paths = sorted(folder.glob("step_*.png"))
    if len(paths) > SHOWN_PREVIEWS:
        places = [round(i * (len(paths) - 1) / (SHOWN_PREVIEWS - 1)) for i in range(SHOWN_PREVIEWS)]
        paths = [paths[i] for i in places]
    return [(int(path.stem.removeprefix("step_")), data_uri(path) or "") for path in paths]


def _read_json(path: Path) -> dict[str, Any]:
    """What is in a JSON file; nothing if it is missing or damaged, since a report shows what there is."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
