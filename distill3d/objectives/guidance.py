"""Guidance: which mixture of the branches' noise predictions a score follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from distill3d.errors import ConfigError

Table = Mapping[str, float]  # branch name to coefficient; sum 1 is a full prediction, sum 0 a direction only
ScoreName = Literal["full", "conditional", "guidance"]


def guidance_table(score: ScoreName | Table, guidance_scale: float) -> Table:
    """A coefficient for each branch.

    Args:
        score: "full" is the guided prediction empty + s (prompt - empty); "conditional" the prompt's alone;
            "guidance" the difference s (prompt - empty), a classifier's score; or a table of one's own.
        guidance_scale: s; 1 makes "full" the conditional prediction.
    """
    if not isinstance(score, str):
        return score
    tables: dict[str, Table] = {
        "full": {"prompt": guidance_scale, "empty": 1 - guidance_scale},
        "conditional": {"prompt": 1.0},
        "guidance": {"prompt": guidance_scale, "empty": -guidance_scale},
    }
    if score not in tables:
        raise ConfigError(f"score must be one of {', '.join(map(repr, tables))} or a table, got {score!r}.")
    return tables[score]


def guide(branches: Mapping[str, Tensor], table: Table, origin: str = "empty") -> tuple[Tensor, Tensor]:
    """Split the guided prediction into (rest, direction), whose sum it is.

    The direction is measured from the `origin` branch: what remains is an ordinary prediction, mostly white noise,
    on which rank weighting would only mix channels. Without that branch all is direction.
    """
    missing = set(table) - set(branches)
    if missing:
        raise ConfigError(f"The guidance table names branches that were not predicted: {', '.join(sorted(missing))}.")
    start = branches.get(origin)
    if start is None:
        direction = torch.stack([c * branches[name] for name, c in table.items()]).sum(0)
        return torch.zeros_like(direction), direction
    direction = torch.stack([c * (branches[name] - start) for name, c in table.items()]).sum(0)
    return sum(table.values()) * start, direction
