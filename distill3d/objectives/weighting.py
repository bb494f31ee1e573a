"""w(t): how much a timestep counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill3d.errors import UnknownNameError
from distill3d.schedule import Schedule

Weighting = Callable[[Schedule, Tensor], Tensor]  # schedule, timestep (B,) to (B, 1, 1, 1)


def paper(schedule: Schedule, timestep: Tensor) -> Tensor:
    """sqrt(alpha_bar) / sigma: the printed equation of likelihood distillation.

    Almost all of its squared weight sits near t = 0, where a prediction is noise: draw t from 0.02 T upwards.
    """
    return schedule.signal(timestep) / schedule.noise(timestep)


def signal(schedule: Schedule, timestep: Tensor) -> Tensor:
    """sqrt(alpha_bar)."""
    return schedule.signal(timestep)


def sigma(schedule: Schedule, timestep: Tensor) -> Tensor:
    """sigma = sqrt(1 - alpha_bar)."""
    return schedule.noise(timestep)


def sigma_squared(schedule: Schedule, timestep: Tensor) -> Tensor:
    """sigma^2 = 1 - alpha_bar: DreamFusion's."""
    return schedule.noise(timestep) ** 2


def uniform(schedule: Schedule, timestep: Tensor) -> Tensor:
    """1."""
    return torch.ones_like(schedule.noise(timestep))


DDIM_STEPS = 50  # of the released script, with leading spacing and offset 1: t = 981, 961, ..., 1


def ddim_position(schedule: Schedule, timestep: Tensor) -> Tensor:
    """Place k of a timestep in the released script's list of 50 DDIM steps, the noisiest first."""
    spacing = len(schedule) // DDIM_STEPS
    return DDIM_STEPS - 1 - (timestep - 1) // spacing


def released(schedule: Schedule, timestep: Tensor) -> Tensor:
    """sqrt(alpha_bar[k]): the released script reads the schedule at the step's place k, not at its timestep."""
    return schedule.signal(ddim_position(schedule, timestep))


def released_sds(schedule: Schedule, timestep: Tensor) -> Tensor:
    """sqrt(1 - alpha_bar[k]): what the released script's SDS switch multiplies with."""
    return schedule.noise(ddim_position(schedule, timestep))


WEIGHTINGS: dict[str, Weighting] = {
    f.__name__: f for f in (paper, signal, sigma, sigma_squared, uniform, released, released_sds)
}


def weighting_of(name: str | Weighting) -> Weighting:
    """The weighting of that name; a callable is returned as it is."""
    if callable(name):
        return name
    if name not in WEIGHTINGS:
        raise UnknownNameError("weighting", name, WEIGHTINGS)
    return WEIGHTINGS[name]
