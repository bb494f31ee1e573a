"""licences.json of a run's folder: whose weights it was made with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill3d.errors import RunError
from distill3d.licences.part import EMBEDDED, Part
from distill3d.run_files import EVALUATION, FIGURES, LICENCES

PARTS = "parts"  # where evaluation.json has those that measured
JUDGES = Part("metric judges", EMBEDDED, "Apache-2.0")  # those that come with the package
NEED_NO_WEIGHTS = ("diversity", "rsa_base")  # the core's figures where there is no paired truth


def parts_to_json(parts: Iterable[Part]) -> str:
    """What `parts_of_run` reads."""
    return json.dumps(_rows(parts), indent=2) + "\n"


def with_parts(values: Mapping[str, Any], parts: Iterable[Part]) -> dict[str, Any]:
    """The values of an evaluation.json, with the parts that measured."""
    return {**values, PARTS: _rows(parts)}


def _rows(parts: Iterable[Part]) -> list[dict[str, str]]:
    return [asdict(part) for part in dict.fromkeys(parts)]


def parts_of_run(folder: Path) -> tuple[Part, ...]:
    """Whose weights a run was made with, and those that measured it; none of a run that did not note them.

    Raises:
        RunError: if a note is damaged.
    """
    path = folder / LICENCES
    if not path.is_file():
        return ()
    try:
        noted = _read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: it does not say whose weights the run was made with.") from error
    return noted + tuple(part for part in _measured_with(folder) if part not in noted)


def _read(values: Any) -> tuple[Part, ...]:
    """Its parts; in runs of before they had names, a licence for each role."""
    if isinstance(values, dict):
        values = [{"role": role, "name": "", "licence": licence} for role, licence in values.items()]
    parts = tuple(Part(row["role"], row["name"], row["licence"]) for row in values)
    if not all(isinstance(text, str) for part in parts for text in (part.role, part.name, part.licence)):
        raise TypeError("a part is said in words")
    return parts


def _measured_with(folder: Path) -> Iterable[Part]:
    """Whose weights an evaluation used; none if there is none that can be read."""
    path = folder / EVALUATION / FIGURES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ()
    if not isinstance(found, dict):
        return ()
    if PARTS not in found:
        return _measured_before_parts_were_noted(found)
    try:
        return _read(found[PARTS])
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: it does not say whose weights measured the run. Evaluate again.") from error


def _measured_before_parts_were_noted(found: Mapping[str, Any]) -> Iterable[Part]:
    """The embedded judges, or plugins' metrics, which did not say."""
    if found.get("rows"):
        yield JUDGES
    for name in found.get("metrics") or ():
        if name not in NEED_NO_WEIGHTS:
            yield Part(f"metric {name}", "", "unknown")
