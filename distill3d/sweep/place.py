"""The folder of a sweep: a folder for each run, and under .sweep what the sweep and its workers tell each other."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from distill3d.config import DistillConfig
from distill3d.errors import RunError
from distill3d.files import storing, write_text

CONFIG, STATE, METRICS, EVALUATION = "config.json", "run.json", "metrics.jsonl", Path("evaluation/evaluation.json")
SHOWN = ("sheet.png", "turntable.webp", "report.html")  # what a finished run has made last
ENDED = ("finished", "halted")  # what run.json says of a run that is not to go on


@dataclass(frozen=True)
class Job:
    """What a worker has to do."""

    config: DistillConfig
    evaluate: bool
    cache: Path | None  # where true pictures are kept


@dataclass(frozen=True)
class Place:
    """Where everything of a sweep lies."""

    out: Path

    def run(self, name: str) -> Path:
        return self.out / name

    def job(self, name: str) -> Path:
        return self.out / ".sweep" / f"{name}.job.json"

    def log(self, name: str) -> Path:
        """What its workers printed."""
        return self.out / ".sweep" / f"{name}.log"

    def journal(self, name: str) -> Path:
        """A line for each start and end of a worker."""
        return self.out / ".sweep" / f"{name}.jsonl"

    def lock(self, name: str) -> Path:
        """Held by the worker that is at this run."""
        return self.out / ".sweep" / f"{name}.lock"

    def write_job(self, name: str, job: Job) -> None:
        values = {
            "config": json.loads(job.config.to_json()),
            "evaluate": job.evaluate,
            "cache": None if job.cache is None else str(job.cache),
        }
        write_text(self.job(name), json.dumps(values, indent=2) + "\n")

    def read_job(self, name: str) -> Job:
        values = json.loads(self.job(name).read_text(encoding="utf-8"))
        cache = None if values["cache"] is None else Path(values["cache"])
        return Job(DistillConfig.from_json(json.dumps(values["config"])), values["evaluate"], cache)

    def note(self, name: str, event: str, **details: Any) -> None:
        """Add a line to a run's journal."""
        line = {"event": event, "time": round(time.time(), 3), "pid": os.getpid(), **details}
        with storing(self.journal(name)), self.journal(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The journal, oldest first."""
        return read_lines(self.journal(name))

    def last_event(self, name: str) -> dict[str, Any]:
        """The journal's last line; empty if there is none."""
        return (self.events(name) or [{}])[-1]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; one cut short by a kill is left out."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines


def read_state(path: Path) -> dict[str, Any]:
    """A JSON file of a run; nothing if it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def status(folder: Path) -> str | None:
    """What run.json says, once the run has shown what came out of it; else None."""
    said = read_state(folder / STATE).get("status")
    shown = said not in ENDED or all((folder / name).is_file() for name in SHOWN)
    return said if isinstance(said, str) and shown else None


def is_done(folder: Path, evaluate: bool) -> bool:
    """Whether there is nothing left to do."""
    return status(folder) in ENDED and (not evaluate or (folder / EVALUATION).is_file())


def last_step(folder: Path) -> int:
    """How many steps a run has taken, by the end of its metrics."""
    path = folder / METRICS
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            tail = file.read().decode(errors="replace").splitlines()
    except OSError:
        return 0
    for line in reversed(tail):
        try:
            return int(json.loads(line)["step"]) + 1
        except (ValueError, KeyError, TypeError):
            continue  # cut short by a kill
    return 0


def refuse_changed(place: Place, name: str, config: DistillConfig) -> None:
    """Refuse to go on with a run that was begun with other settings.

    Raises:
        RunError: with each setting as it was and as it is now.
    """
    from distill3d.training.checkpoint import config_difference

    folder = place.run(name)
    if not (folder / CONFIG).is_file():
        return  # not begun: nothing would be mixed
    planned = read_state(place.job(name)).get("config")
    if planned is not None:
        before = DistillConfig.from_json(json.dumps(planned))
    else:  # no sweep made the run: what is not given now was filled in then
        before = DistillConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
        config = replace(before, **{f.name: v for f in fields(config) if _given(v := getattr(config, f.name))})
    if changed := config_difference(before, config):
        raise RunError(
            f"{folder} was begun with other settings: {'; '.join(changed)}. "
            "Take the change back, or give the sweep another folder with `out`."
        )


def _given(value: Any) -> bool:
    return value is not None and value != {}
