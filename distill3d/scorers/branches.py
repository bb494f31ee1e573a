"""The branches of a prediction as batches for the networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiffusersCondition:
    """B text embeddings (B, L, D) and the control pictures (B, 3, H, W) by name."""

    embeddings: Tensor
    controls: Mapping[str, Tensor]


@dataclass(frozen=True)
class Stack:
    """What the networks are given for n branches of B pictures, one branch after the other."""

    names: tuple[str, ...]  # of the branches
    noisy: Tensor  # (n B, C, h, w)
    timestep: Tensor  # (n B,)
    text: Tensor  # (n B, L, D)
    controls: Mapping[str, Tensor]  # (n B, 3, H, W) each


def stacked(noisy: Tensor, timestep: Tensor, conditions: Mapping[str, DiffusersCondition], apart: bool) -> list[Stack]:
    """Branches that share their ControlNets in one batch, usually all of them; or each by itself, for less memory."""
    groups = [[name] for name in conditions] if apart else _by_controls(conditions)
    return [_stack(noisy, timestep, names, [conditions[name] for name in names]) for names in groups]


def _stack(noisy: Tensor, timestep: Tensor, names: Sequence[str], conditions: Sequence[DiffusersCondition]) -> Stack:
    n = len(names)
    text = torch.cat([condition.embeddings for condition in conditions])
    controls = {key: torch.cat([c.controls[key] for c in conditions]) for key in conditions[0].controls}
    return Stack(tuple(names), noisy.repeat(n, 1, 1, 1), timestep.repeat(n), text, controls)


def _by_controls(conditions: Mapping[str, DiffusersCondition]) -> list[list[str]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, condition in conditions.items():
        groups.setdefault(tuple(condition.controls), []).append(name)
    return list(groups.values())


def controls_of(stacks: Iterable[Stack]) -> list[str]:
    """Every control that one of them has, once."""
    return list(dict.fromkeys(name for stack in stacks for name in stack.controls))


def add_residuals(residuals: dict[str, Any], down: Sequence[Tensor], mid: Tensor) -> dict[str, Any]:
    """The UNet's arguments with one more ControlNet's residuals on top."""
    if residuals:
        down = [a + b for a, b in zip(residuals["down_block_additional_residuals"], down)]
        mid = residuals["mid_block_additional_residual"] + mid
    return {"down_block_additional_residuals": list(down), "mid_block_additional_residual": mid}
