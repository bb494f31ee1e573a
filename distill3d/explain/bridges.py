"""A bridge under the microscope: there is no noise to show, only where it starts, where it ends, what is between."""

from __future__ import annotations

import torch

from distill3d.explain.scores import control_pictures
from distill3d.explain.seen import as_shown
from distill3d.objectives.bridge import Bridge
from distill3d.objectives.term import StepBatch
from distill3d.report.explained import Shown, Strip
from distill3d.report.heat import tint, top_of


@torch.no_grad()
def bridge_strips(term: Bridge, batch: StepBatch, subject: int) -> tuple[dict[str, str], list[Strip]]:
    """Source, target, the trained picture, and the way from it to the target."""
    denoising = term.denoising
    layout, stage = denoising.layout, denoising.stage
    size = layout.tile(denoising.scorer.image_size)
    source, trained = (
        layout.join(side.tiles(layout.shown, stage, size))[subject] for side in (batch.reference, batch.trained)
    )
    target = term.target(batch)[subject]
    difference = target - trained
    top = top_of(difference)
    there, back = term.steps
    facts = {
        "flow": f"{there} steps to {term.top:.0%} of the schedule by the empty prompt, {back} back by the guided one",
        "guidance": ", ".join(f"{weight:+g} {name}" for name, weight in term.objective.table.items()),
        "mean absolute difference": f"{float((difference / 2).abs().mean()):.4f} of the range of colours",
        "gradient": "of an absolute difference: of one size wherever the two differ, only its sign is told",
    }
    pictures = [
        as_shown("source: the reference", source),
        as_shown("target: the other end of the bridge", target),
        as_shown("trained", trained),
        Shown(f"target - trained, full colour {top:.3g}", tint(difference, top)),
    ]
    return facts, [Strip("The bridge", pictures + control_pictures(denoising, batch, subject))]
