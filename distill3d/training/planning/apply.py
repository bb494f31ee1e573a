"""A plan put to work, and what of it a backbone and a scorer can do."""

from __future__ import annotations

from distill3d.renderer import Renderer, Thrifty
from distill3d.scorer import Economical, Economy, Scorer
from distill3d.training.planning.plan import OFFLOAD, SAVINGS, MemoryPlan

OF_SCORER = {"branches one by one", "encoder computed again", "decoder in slices", OFFLOAD.name}


def apply_plan(plan: MemoryPlan, renderer: Renderer, scorer: Scorer) -> None:
    """Set what lies in the backbone and in the scorer; `micro_batch` and `rerender` are the trainer's to be given.

    What one of them cannot do is left out: `not_offered` says what that is.
    """
    if plan.low_memory is not None and isinstance(renderer, Thrifty):
        renderer.low_memory = plan.low_memory
    if isinstance(scorer, Economical) and scorer.economy != plan.economy:
        scorer.economise(plan.economy)


def current_plan(renderer: Renderer, scorer: Scorer) -> MemoryPlan:
    """What is in effect without a planner: the backbone's defaults, and what both are set to."""
    return MemoryPlan(
        rerender=renderer.defaults.rerender,
        low_memory=renderer.low_memory if isinstance(renderer, Thrifty) else None,
        economy=scorer.economy if isinstance(scorer, Economical) else Economy(),
    )


def not_offered(renderer: Renderer, scorer: Scorer, *, batch: int) -> frozenset[str]:
    """Names of the savings that change nothing here."""
    missing = set()
    if batch == 1:
        missing.add("one subject at a time")
    if not isinstance(renderer, Thrifty):
        missing.add("rays computed again")
    if not isinstance(scorer, Economical):
        missing |= OF_SCORER
    return frozenset(missing & {saving.name for saving in SAVINGS})
