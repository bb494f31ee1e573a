"""One process's share of a step. Alone it does all of it; what several devices change is here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from distill3d.renderer import Render
from distill3d.views import View


@dataclass
class StepLog:
    """What one step reports."""

    step: int
    loss: float = 0.0
    gradient_norm: float = 0.0
    skipped: bool = False
    stopping: bool = False  # somebody asked, on any device
    figures: dict[str, float] = field(default_factory=dict)


class Share:
    """All of it: one process. `distill3d.training.distributed` has those of several."""

    rank = 0
    world = 1
    lockstep = False  # whether processes exchange something within a step, not only at its end

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def subjects(self, batch: int) -> tuple[int, ...]:
        """Places in the global batch of the subjects that are handled here."""
        return tuple(range(batch))

    def renders(self, place: int) -> bool:
        """Whether the view at that place of its group is rendered here."""
        return True

    def scores(self, group: int) -> bool:
        """Whether the terms of that group are computed here."""
        return True

    def exchange_renders(self, renders: Mapping[View, Render | None]) -> dict[View, Render]:
        """Every view's render; None stands for those that another process made."""
        return {view: render for view, render in renders.items() if render is not None}

    def exchange_gradients(
        self, group: int, gradients: Mapping[View, Mapping[str, Tensor]]
    ) -> Mapping[View, Mapping[str, Tensor]]:
        """The gradients on the pixels of each view, from the process that scored the group to all."""
        return gradients

    def reduce(self, parameters: Iterable[Tensor], log: StepLog) -> None:
        """Add up gradients, loss and wish to stop over all processes: the one collective of a step."""

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it; a collective of its own, for what does not come up in every step."""
        return wish

    def gather_subjects(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Entries (S, ...) of this process's subjects to those of the whole batch, in its order."""
        return dict(entries)


class Alone(Share):
    """Some of the subjects, and nobody else."""

    def __init__(self, places: tuple[int, ...]):
        self.places = places

    def subjects(self, batch: int) -> tuple[int, ...]:
        return self.places
