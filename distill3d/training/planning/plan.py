"""Ways to compute one and the same step that need less and less memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from distill3d.scorer import Economy


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How a step is computed. All but `fast` and `precision` give the same gradient up to rounding."""

    micro_batch: int | None = None  # subjects at a time; None for all of a step's
    rerender: bool = False  # render each view again for its backward; see `Trainer`
    low_memory: bool | None = None  # the backbone keeps no ray and computes them twice, if it can; None: as it is
    economy: Economy = field(default_factory=Economy)  # of the scorer
    precision: str | None = None  # of the scorer's networks; None: as it was loaded
    fast: bool = False  # a tiny autoencoder in the scorer: another gradient, so nobody gets it without asking


@dataclass(frozen=True)
class Saving:
    """A step down the ladder: what it is called, whether a plan has it, and the plan with it."""

    name: str
    taken: Callable[[MemoryPlan], bool]
    take: Callable[[MemoryPlan], MemoryPlan]


def _of_economy(field: str, name: str) -> Saving:
    return Saving(
        name,
        lambda plan: getattr(plan.economy, field),
        lambda plan: replace(plan, economy=replace(plan.economy, **{field: True})),
    )


ONE_AT_A_TIME = Saving(
    "one subject at a time", lambda plan: plan.micro_batch == 1, lambda plan: replace(plan, micro_batch=1)
)
FAST = Saving("tiny autoencoder", lambda plan: plan.fast, lambda plan: replace(plan, fast=True))
OFFLOAD = _of_economy("offload", "networks wait on the host")
SAVINGS = (  # the order in which they are taken: what costs least for what it saves comes first
    ONE_AT_A_TIME,
    Saving("views rendered again", lambda plan: plan.rerender, lambda plan: replace(plan, rerender=True)),
    Saving("rays computed again", lambda plan: bool(plan.low_memory), lambda plan: replace(plan, low_memory=True)),
    _of_economy("branches_apart", "branches one by one"),
    _of_economy("recompute_encoder", "encoder computed again"),
    _of_economy("sliced_decoder", "decoder in slices"),
    OFFLOAD,
)


def next_smaller(plan: MemoryPlan, *, batch: int = 1, without: Collection[str] = frozenset()) -> MemoryPlan | None:
    """The same with one more saving, or None if it has all that leave the gradient as it is.

    Args:
        batch: subjects of a step; with one there is nothing to split.
        without: names of savings that would change nothing, see `apply.not_offered`.
    """
    for saving in SAVINGS:
        useless = saving.name in without or (saving is ONE_AT_A_TIME and batch == 1)
        if not saving.taken(plan) and not useless:
            return saving.take(plan)
    return None


def ladder(
    start: MemoryPlan | None = None, *, batch: int = 1, without: Collection[str] = frozenset()
) -> tuple[MemoryPlan, ...]:
    """From a plan (None: the one with no saving) to the smallest with the same gradient."""
    plan: MemoryPlan | None = start or MemoryPlan(low_memory=False)
    rungs = []
    while plan is not None:
        rungs.append(plan)
        plan = next_smaller(plan, batch=batch, without=without)
    return tuple(rungs)


LADDER = ladder(batch=2)


def last_saving(plan: MemoryPlan) -> str:
    """What the plan has beyond the rung above it."""
    names = [saving.name for saving in (*SAVINGS, FAST) if saving.taken(plan)]
    return names[-1] if names else "everything kept"
