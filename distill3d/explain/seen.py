"""The views of a term as pictures: reference, trained, and the gradient that the term puts on each pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distill3d.objectives.term import StepBatch, Term
from distill3d.renderer import Render, Stage
from distill3d.report.explained import Shown, Strip
from distill3d.report.heat import heat, signed, tint, top_of
from distill3d.report.pictures import enlarged, to_picture
from distill3d.training.groups import look
from distill3d.training.step import PixelGradients
from distill3d.training.trainer import Trainer
from distill3d.views import View


def as_shown(label: str, image: Tensor) -> Shown:
    """(3, H, W) in [-1, 1] with words under it."""
    return Shown(label, enlarged(to_picture(image)))


def view_strips(trainer: Trainer, batch: StepBatch, gradients: PixelGradients, term: Term, subject: int) -> list[Strip]:
    """Reference, trained, and for each kind of picture with a gradient its size and its direction, view by view."""
    views = {view: stage for view, stage in term.needs.views.items() if view in gradients}
    if not views:
        return []
    names = {view: view_name(view, batch, subject) for view in views}
    sides = {
        "Reference": {view: reference_view(trainer, batch, view, stage) for view, stage in views.items()},
        "Trained": {view: trained_view(trainer, batch, term, view, stage) for view, stage in views.items()},
    }
    strips = [
        Strip(title, [as_shown(names[view], render.stage(views[view])[subject, 0]) for view, render in renders.items()])
        for title, renders in sides.items()
    ]
    kinds = dict.fromkeys(kind for of_view in gradients.values() for kind in of_view)
    for kind in kinds:
        found = {names[v]: g[kind][subject, 0].float() for v, g in gradients.items() if kind in g}
        strips += gradient_strips(kind, found)
    return strips


def gradient_strips(kind: str, gradients: dict[str, Tensor]) -> list[Strip]:
    """|g| as heat, and the step that is wanted: -g, as a colour around grey, or blue and red for one channel.

    Args:
        kind: which picture of a render: "image", "raw", "opacity", "depth".
        gradients: (C, H, W) of each view, by the view's name.
    """
    sizes = {name: g.norm(dim=0) for name, g in gradients.items()}
    top, reach = top_of(*sizes.values()), top_of(*gradients.values())
    return [
        Strip(
            f"Gradient on {_called(kind)}: size",
            [Shown(f"{name}, norm {float(gradients[name].norm()):.3g}", heat(s, top)) for name, s in sizes.items()],
            note=f"|g|, black is 0, the brightest {top:.3g}",
        ),
        Strip(
            f"Gradient on {_called(kind)}: the step it asks for",
            [Shown(name, tint(-g, reach) if len(g) == 3 else signed(-g[0], reach)) for name, g in gradients.items()],
            note=f"-g, grey or white is 0, full colour {reach:.3g}",
        ),
    ]


def _called(kind: str) -> str:
    return {"raw": "the raw render", "image": "the picture"}.get(kind, kind)


def view_name(view: View, batch: StepBatch, subject: int) -> str:
    """As "main mirrored, yaw +12°, pitch -3°"."""
    camera = batch.cameras[view]
    yaw, pitch = (round(math.degrees(float(angle[subject, 0]))) for angle in (camera.yaw(), camera.pitch()))
    return f"{view.name}{' mirrored' if view.mirrored else ''}, yaw {yaw:+d}°, pitch {pitch:+d}°"


@torch.no_grad()
def reference_view(trainer: Trainer, batch: StepBatch, view: View, stage: Stage) -> Render:
    """What the step rendered of the reference, or would have, where no term read it."""
    if view in batch.reference.views:
        seen = batch.reference.views[view]
        if stage == "raw" or seen.image is not None:
            return seen
    return look(trainer.reference, batch.reference.scene, batch, [view], stage)[view]


@torch.no_grad()
def trained_view(trainer: Trainer, batch: StepBatch, term: Term, view: View, stage: Stage) -> Render:
    """What the step rendered; a view that the term gave a gradient without reading its values is rendered now."""
    if view not in term.needs.blind:
        return batch.trained.views[view]
    return look(trainer.renderer, batch.trained.scene, batch, [view], stage)[view]
