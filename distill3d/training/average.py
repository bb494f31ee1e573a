"""A moving average of the trained weights: steadier than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


@torch.no_grad()
def follow(average: Mapping[str, Tensor], trained: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Move the average towards the weights: `average = d * average + (1 - d) * weights`.

    Early on d is (1 + step) / (10 + step), up to `decay`: an average that starts from the untouched weights would
    carry them along for 1 / (1 - decay) steps.
    """
    d = min(decay, (1 + step) / (10 + step))
    for name, parameter in trained.items():
        average[name].lerp_(parameter.detach(), 1 - d)


@contextmanager
@torch.no_grad()
def swapped(average: Mapping[str, Tensor] | None, trained: Mapping[str, Tensor]) -> Iterator[None]:
    """The average in the place of the weights inside, the weights back after; nothing for None."""
    if average is None:
        yield
        return
    kept = {name: parameter.detach().clone() for name, parameter in trained.items()}
    for name, parameter in trained.items():
        parameter.copy_(average[name])
    try:
        yield
    finally:
        for name, parameter in trained.items():
            parameter.copy_(kept[name])
