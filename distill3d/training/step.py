"""What a step does with some subjects: from their codes, over pictures and terms, to gradients on the weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.draws import Draws
from distill3d.objectives.term import Needs, Side, StepBatch, Weighted
from distill3d.renderer import Render, Renderer, Scene, Stage, example
from distill3d.training.groups import Group, OnDemand, linked_groups, look, mates
from distill3d.training.share import Share, StepLog
from distill3d.views import View

PixelGradients = dict[View, dict[str, Tensor]]  # of each view, by the names of `Render.tensors`


@dataclass
class Step:
    """The trained renderer and its frozen original, the terms that are due, and the draws of some subjects.

    Read `accumulate` first. The only place that calls `backward`.
    """

    renderer: Renderer
    reference: Renderer
    due: Mapping[str, Weighted]
    draws: Draws  # of the subjects that are handled here
    number: int  # which the terms' weights follow; a replayed step has the draws of another
    batch_size: int  # subjects of the whole step, here and elsewhere
    rerender: bool  # see `Trainer`
    share: Share
    previous: tuple[Scene, Scene] | None  # both scenes of the step before, of these subjects

    def accumulate(self, log: StepLog) -> StepBatch:
        """Add to `.grad` of the trained weights what the terms say."""
        graph: dict[str, Tensor] = {}
        batch = self.begin(self._leaves(graph))
        for number, group in enumerate(linked_groups(self.due)):
            self._backward_group(batch, number, group, log)
        _backward([(graph[name], leaf.grad) for name, leaf in batch.trained.scene.items() if leaf.grad is not None])
        return batch

    def loss(self, codes: Tensor | None = None) -> Tensor:
        """The same as one graph: slow and large, what `accumulate` must agree with."""
        batch = self.begin(self.renderer.scene, codes)
        for view, stage in self.needs.views.items():
            batch.trained.views[view] = self.look(self.renderer, batch.trained.scene, batch, [view], stage)[view]
        losses = [weighted.loss(batch, self.number) for weighted in self.due.values()]
        return torch.stack(losses).sum() / self.batch_size

    def look_at_pixels(self) -> tuple[StepBatch, PixelGradients]:
        """What the terms, which share views, see, and the gradients that they put on the pictures of each view."""
        batch = self.begin(self._leaves({}))
        (group,) = linked_groups(self.due)
        self._render_group(batch, group)
        self._backward_terms(batch, group, StepLog(self.number))
        return batch, {view: _gradients(batch.trained.views[view]) for view in group.views}

    @cached_property
    def needs(self) -> Needs:
        """What all terms together ask for."""
        needs = Needs()
        for weighted in self.due.values():
            needs = needs | weighted.term.needs
        return needs

    def begin(self, scene_of: Callable[[Tensor], Scene], codes: Tensor | None = None) -> StepBatch:
        """Draw subjects and cameras, make the trained scene; the reference's scene and views when a term reads them."""
        if codes is None:
            codes = self.renderer.sample_codes(self.draws.scoped("subject"))
        trained = Side(scene_of(codes))
        like = example(trained.scene)
        views = {**self.needs.views, **self.needs.reference}
        cameras: dict[View, Cameras] = {view: view.cameras(self.draws).to(like) for view in views}

        @torch.no_grad()
        def scene() -> Scene:
            return self.reference.scene(codes.detach())

        @torch.no_grad()
        def seen(view: View) -> Render:
            return self.look(self.reference, reference.scene, batch, [view], self.needs.reference[view])[view]

        reference = Side(scene, OnDemand(seen))
        batch = StepBatch(self.draws, codes, cameras, trained, reference, self.previous)
        return batch

    def look(
        self, renderer: Renderer, scene: Scene, batch: StepBatch, views: list[View], stage: Stage
    ) -> dict[View, Render]:
        """See `groups.look`."""
        return look(renderer, scene, batch, views, stage)

    def _leaves(self, graph: dict[str, Tensor]) -> Callable[[Tensor], Scene]:
        """A scene that is cut off from its graph, which is left in `graph`."""

        def scene_of(codes: Tensor) -> Scene:
            graph.update(self.renderer.scene(codes))
            return {name: entry.detach().requires_grad_(entry.requires_grad) for name, entry in graph.items()}

        return scene_of

    def _backward_group(self, batch: StepBatch, number: int, group: Group, log: StepLog) -> None:
        """Render the group's views, let its terms put gradients on the pixels, carry those on to the scene.

        Autograd holds the terms' graphs, then one view's render graph at a time, however many views there are.
        """
        kept = self._render_group(batch, group)
        if self.share.scores(number):
            self._backward_terms(batch, group, log)
        pixels = {view: _gradients(batch.trained.views[view]) for view in group.views}
        for view in group.views:
            batch.trained.views[view] = batch.trained.views[view].map(Tensor.detach)
        wanted = self.share.exchange_gradients(number, pixels)
        own = [view for place, view in enumerate(group.views) if self.share.renders(place) and wanted[view]]
        for together in [[view] for view in own] if self.rerender else mates(own):
            if self.rerender:
                kept = self._look_at_trained(batch, together)
            _backward([end for view in together for end in _ends(kept.pop(view), wanted[view])])

    def _render_group(self, batch: StepBatch, group: Group) -> dict[View, Render]:
        """Put leaves with the group's pictures into the batch; return the renders, with their graphs if kept.

        Where views are rendered again for their backward, one whose values no term reads is not rendered here: zeros
        stand for it.
        """
        own = [view for place, view in enumerate(group.views) if self.share.renders(place)]
        blind = self.needs.blind if self.rerender else frozenset()
        made: dict[View, Render | None] = dict.fromkeys(group.views)
        for together in [[view] for view in own] if self.rerender else mates(own):
            if together[0] not in blind:
                with torch.set_grad_enabled(not self.rerender):
                    made.update(self._look_at_trained(batch, together))
        seen = self.share.exchange_renders({view: render for view, render in made.items() if view not in blind})
        for view in group.views:
            picture = seen[view] if view not in blind else seen[_mate(view, seen)].map(torch.zeros_like)
            batch.trained.views[view] = picture.map(lambda p: p.detach().requires_grad_())
        return {view: render for view, render in made.items() if render is not None}

    def _backward_terms(self, batch: StepBatch, group: Group, log: StepLog) -> None:
        losses = []
        part = len(batch.codes) / self.batch_size
        for name in group.terms:
            batch.figures = {}
            losses.append(self.due[name].loss(batch, self.number) / self.batch_size)
            log.loss += batch.figures["loss"] * part if "loss" in batch.figures else float(losses[-1].detach())
            for key, value in batch.figures.items():
                log.figures[f"{name}/{key}"] = log.figures.get(f"{name}/{key}", 0.0) + value * part
        losses = [loss for loss in losses if loss.requires_grad]
        if losses:
            torch.autograd.backward(losses)  # stops at the pixels and at the scene
        batch.memo.clear()  # no other group reads these views, so no prediction of theirs is wanted again

    def _look_at_trained(self, batch: StepBatch, views: list[View]) -> dict[View, Render]:
        return self.look(self.renderer, batch.trained.scene, batch, views, self.needs.views[views[0]])


def _mate(view: View, seen: Collection[View]) -> View:
    """The view whose picture has the same sides: the one that this is the mirror image of."""
    return next(v for v in seen if mates([v, view]) == [[v, view]])


def _gradients(render: Render) -> dict[str, Tensor]:
    return {name: picture.grad for name, picture in render.tensors().items() if picture.grad is not None}


def _ends(render: Render, gradients: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(getattr(render, name), g) for name, g in gradients.items() if getattr(render, name).requires_grad]


def _backward(ends: list[tuple[Tensor, Tensor]]) -> None:
    """From tensors with their gradients; nothing for none, as when a step trains what these do not reach."""
    if ends:
        torch.autograd.backward([end for end, _ in ends], [gradient for _, gradient in ends])
