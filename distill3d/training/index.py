"""state.json of a checkpoint: what it is, and whether its files are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distill3d.errors import WeightsError
from distill3d.files import sha256
from distill3d.training.snapshot import AVERAGED, WEIGHTS

INDEX = "state.json"
SCHEMA = 2  # 1 has no config, versions, average and mark


class NewerCheckpointError(WeightsError):
    """A checkpoint that is whole, but written by a newer distill3d."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int

    @property
    def weights(self) -> Path:
        """The tensors that are shown and published: the average, if there is one."""
        averaged = self.path / AVERAGED
        return averaged if averaged.is_file() else self.path / WEIGHTS


def read_index(checkpoint: Checkpoint) -> dict[str, Any]:
    """state.json, with the files that it names checked against their checksums.

    Raises:
        WeightsError: if something is missing or damaged, or was written by a newer distill3d.
    """
    try:
        return checked_index(checkpoint)
    except NewerCheckpointError:
        raise
    except WeightsError as error:
        run = checkpoint.path.parent.parent
        raise WeightsError(f"{error} `distill3d run --resume {run}` goes on from the newest whole one.") from error


def checked_index(checkpoint: Checkpoint) -> dict[str, Any]:
    """The same without what to do about it."""
    index = read_json(checkpoint)
    for name, expected in index["sha256"].items():
        file = checkpoint.path / name
        try:
            whole = sha256(file) == expected
        except OSError:
            whole = False
        if not whole:
            raise WeightsError(f"{file} is missing or damaged: its checksum is not the one in {INDEX}.")
    return index


def read_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """state.json with what older versions did not write filled in."""
    path = checkpoint.path / INDEX
    damaged = f"{path} is missing or damaged."
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        schema = int(index["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(damaged) from error
    if schema > SCHEMA:
        raise NewerCheckpointError(_written_by_newer(path, schema, index))
    try:
        return {
            "step": int(index["step"]),
            "skipped_in_a_row": int(index["skipped_in_a_row"]),
            "best": bool(index.get("best", False)),
            "config": index.get("config"),
            "versions": dict(index.get("versions") or {}),
            "sha256": {str(name): str(digest) for name, digest in index["sha256"].items()},
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(damaged) from error


def _written_by_newer(path: Path, schema: int, index: Mapping[str, Any]) -> str:
    versions = index.get("versions")
    by = versions.get("distill3d") if isinstance(versions, Mapping) else None
    return (
        f"{path} has version {schema}{f', of distill3d {by}' if by else ''}; this distill3d {version('distill3d')} "
        f"reads versions up to {SCHEMA}. Update distill3d to continue this run."
    )
