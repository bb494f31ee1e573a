"""One step: render, score, one backward through each scene. The only place that calls `backward`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.draws import Draws
from distill3d.errors import DivergedError
from distill3d.methods import Method
from distill3d.objectives.term import Needs, Side, StepBatch, Weighted
from distill3d.renderer import AnySize, Render, Renderer, Scene, Stage, example, frozen_copy
from distill3d.training.average import follow, swapped
from distill3d.training.groups import Group, OnDemand, linked_groups, mates
from distill3d.training.rates import rate_groups
from distill3d.training.share import Share, StepLog
from distill3d.views import View

MAX_SKIPPED = 10  # steps in a row without a finite gradient that end a run

PixelGradients = dict[View, dict[str, Tensor]]  # of each view, by the names of `Render.tensors`


class Trainer:
    """Trains `renderer` in place by a method's terms, against a frozen copy of itself.

    Knows terms, views and scenes; knows no method, backbone or scorer by name.

    Args:
        seed, batch: every random number is a function of seed, step, subject and name.
        rerender: render each view again for its backward, so that the graph of one view is alive at a time. False
            holds the graphs of a whole group of linked views, a view and its mirror in one call, and saves the second
            rendering.
        lr: the learning rate at each step.
        clip: the largest norm of a step's gradient; a larger one is scaled down. None for no limit.
        ema: decay of the moving average of the weights, `averaged`; 0 for none.
        share: this process's part of a step.
        micro_batch: subjects that are handled at a time; None for all.
    """

    def __init__(
        self,
        renderer: Renderer,
        method: Method,
        *,
        seed: int = 0,
        batch: int = 1,
        rerender: bool = True,
        lr: Callable[[int], float] = lambda step: 1e-4,
        clip: float | None = None,
        ema: float = 0.0,
        share: Share | None = None,
        micro_batch: int | None = None,
    ):
        self.renderer = renderer.requires_grad_(False)
        self.method, self.seed, self.batch, self.rerender, self.lr = method, seed, batch, rerender, lr
        self.clip, self.ema, self.share, self.micro_batch = clip, ema, share or Share(), micro_batch
        self.trained = renderer.trainable(method.trains)
        self.reference = frozen_copy(renderer, self.trained.values())
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self.averaged = {name: p.detach().clone() for name, p in self.trained.items()} if ema else None
        self.optimizer = torch.optim.Adam(rate_groups(renderer, self.trained), lr(0), betas=method.betas)
        self.step_number = 0
        self.skipped_in_a_row = 0
        self.previous: tuple[Scene, Scene] | None = None  # of this process's subjects

    def step(self, *, stopping: Callable[[], bool] = lambda: False) -> StepLog:
        """One optimiser step.

        Args:
            stopping: whether this process was asked to stop; the log says whether any process was.
        Raises:
            DivergedError: after ten steps in a row whose gradients were not finite.
        """
        log = self.gradients(stopping=stopping)
        self.apply(log)
        return log

    def gradients(self, *, stopping: Callable[[], bool] = lambda: False) -> StepLog:
        """Fill `.grad` of the trained weights, and say how that went."""
        log = StepLog(self.step_number)
        due = self._due(self.step_number)
        places = self.share.subjects(self.batch)
        done = [self._accumulate(chunk, self.step_number, due, log) for chunk in _chunks(places, self.micro_batch)]
        log.stopping = stopping()
        self.share.reduce(self.trained.values(), log)
        self._remember(done)
        log.gradient_norm = _norm([p.grad for p in self.trained.values() if p.grad is not None])
        return log

    def forget_gradients(self) -> None:
        """Drop what a step that was broken off has left; weights, moments and step are as before it."""
        self.optimizer.zero_grad(set_to_none=True)

    def apply(self, log: StepLog) -> None:
        """Adam, or nothing if the loss or a gradient is not finite."""
        log.skipped = not (math.isfinite(log.gradient_norm) and math.isfinite(log.loss))
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if log.skipped else 0
        if not log.skipped:
            self._clip(log.gradient_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr(self.step_number) * group["rate"]
            self.optimizer.step()
            if self.averaged is not None:
                follow(self.averaged, self.trained, self.ema, self.step_number)
        self.forget_gradients()
        self.step_number += 1
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise DivergedError(
                f"{MAX_SKIPPED} steps in a row were not finite, the last at step {log.step}. The checkpoints written "
                "before are kept. Start anew with a smaller --lr or --set guidance_scale=..., into another --out."
            )

    @contextmanager
    def published_weights(self) -> Iterator[None]:
        """Inside, the renderer has the weights that are shown and published: the average, if there is one."""
        with swapped(self.averaged, self.trained):
            yield

    def loss(self, codes: Tensor | None = None) -> Tensor:
        """The whole step as one graph: slow and large, what `gradients` must agree with."""
        due = self._due(self.step_number)
        everybody = tuple(range(self.batch))
        batch, needs = self._begin(everybody, self.step_number, due, self.renderer.scene, codes)
        for view, stage in needs.views.items():
            batch.trained.views[view] = self._look(self.renderer, batch.trained.scene, batch, [view], stage)[view]
        losses = [weighted.loss(batch, self.step_number) for weighted in due.values()]
        return torch.stack(losses).sum() / self.batch

    def term_gradients(self, step: int) -> dict[str, dict[str, Tensor]]:
        """Each term's own gradient on the trained weights at that step's draws; nothing of the trainer changes."""
        found = {}
        for name, weighted in self._due(step).items():
            with self._undisturbed():
                for chunk in _chunks(tuple(range(self.batch)), self.micro_batch):
                    self._accumulate(chunk, step, {name: weighted}, StepLog(step))
                found[name] = {n: p.grad for n, p in self.trained.items() if p.grad is not None}
        return found

    def look_at(self, step: int, term: str) -> tuple[StepBatch, PixelGradients]:
        """What one term sees at that step's draws, and the gradient that it puts on each picture of each view."""
        due = {term: self._due(step)[term]}
        with self._undisturbed():
            batch, needs = self._begin(tuple(range(self.batch)), step, due, self._leaves({}))
            (group,) = linked_groups(due)
            self._render_group(batch, group, needs)
            self._backward_terms(batch, group, due, StepLog(step))
            return batch, {view: _gradients(batch.trained.views[view]) for view in group.views}

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Inside there are no gradients yet and no other processes, nor a step before whose subjects others have."""
        kept, share, previous = {name: p.grad for name, p in self.trained.items()}, self.share, self.previous
        for parameter in self.trained.values():
            parameter.grad = None
        if len(share.subjects(self.batch)) < self.batch:
            self.previous = None
        self.share = Share()
        try:
            yield
        finally:
            self.share, self.previous = share, previous
            for name, parameter in self.trained.items():
                parameter.grad = kept[name]

    def _due(self, step: int) -> dict[str, Weighted]:
        return {name: w for name, w in self.method.terms.items() if w.due(step)}

    def _leaves(self, graph: dict[str, Tensor]) -> Callable[[Tensor], Scene]:
        """A scene that is cut off from its graph, which is left in `graph`."""

        def scene_of(codes: Tensor) -> Scene:
            graph.update(self.renderer.scene(codes))
            return {name: entry.detach().requires_grad_(entry.requires_grad) for name, entry in graph.items()}

        return scene_of

    def _accumulate(self, places: tuple[int, ...], step: int, due: Mapping[str, Weighted], log: StepLog) -> StepBatch:
        """Add to `.grad` what these terms say about these subjects."""
        graph: dict[str, Tensor] = {}
        batch, needs = self._begin(places, step, due, self._leaves(graph))
        for number, group in enumerate(linked_groups(due)):
            self._backward_group(batch, number, group, needs, due, log)
        _backward([(graph[name], leaf.grad) for name, leaf in batch.trained.scene.items() if leaf.grad is not None])
        return batch

    def _begin(
        self,
        places: tuple[int, ...],
        step: int,
        due: Mapping[str, Weighted],
        scene_of: Callable[[Tensor], Scene],
        codes: Tensor | None = None,
    ) -> tuple[StepBatch, Needs]:
        """Draw subjects and cameras, make the trained scene; the reference's scene and views when a term reads them."""
        needs = Needs()
        for weighted in due.values():
            needs = needs | weighted.term.needs
        draws = Draws(self.seed, step % self.method.replay if self.method.replay else step, places)
        if codes is None:
            codes = self.renderer.sample_codes(draws.scoped("subject"))
        trained = Side(scene_of(codes))
        like = example(trained.scene)
        cameras: dict[View, Cameras] = {
            view: view.cameras(draws).to(like) for view in {**needs.views, **needs.reference}
        }

        @torch.no_grad()
        def scene() -> Scene:
            return self.reference.scene(codes.detach())

        @torch.no_grad()
        def look(view: View) -> Render:
            return self._look(self.reference, reference.scene, batch, [view], needs.reference[view])[view]

        reference = Side(scene, OnDemand(look))
        batch = StepBatch(draws, codes, cameras, trained, reference, self._previous_of(places))
        return batch, needs

    def _look(
        self, renderer: Renderer, scene: Scene, batch: StepBatch, views: list[View], stage: Stage
    ) -> dict[View, Render]:
        """Views that differ in nothing but the mirror, in one call."""
        view = views[0]
        # Draws are keyed by the views' name, and every view of a call sees the same: a second rendering repeats the
        # first, a view alone is what it is beside its mirror.
        draws = batch.draws.scoped(f"render/{view.name}")
        cameras = Cameras.side_by_side([batch.cameras[v] for v in views])
        if stage == "raw" and view.size is not None and isinstance(renderer, AnySize):
            renders = renderer.render_raw(scene, cameras, min(view.size, renderer.raw_size), draws=draws)
        else:
            renders = renderer.render(scene, cameras, upto=stage, draws=draws)
        if len(views) == 1:
            return {view: renders}
        return {v: renders.map(lambda picture, i=i: picture[:, i : i + 1]) for i, v in enumerate(views)}  # type: ignore[misc]

    def _backward_group(
        self, batch: StepBatch, number: int, group: Group, needs: Needs, due: Mapping[str, Weighted], log: StepLog
    ) -> None:
        """Render the group's views, let its terms put gradients on the pixels, carry those on to the scene.

        Autograd holds the terms' graphs, then one view's render graph at a time, however many views there are.
        """
        kept = self._render_group(batch, group, needs)
        if self.share.scores(number):
            self._backward_terms(batch, group, due, log)
        pixels = {view: _gradients(batch.trained.views[view]) for view in group.views}
        for view in group.views:
            batch.trained.views[view] = batch.trained.views[view].map(Tensor.detach)
        wanted = self.share.exchange_gradients(number, pixels)
        own = [view for place, view in enumerate(group.views) if self.share.renders(place) and wanted[view]]
        for together in [[view] for view in own] if self.rerender else mates(own):
            if self.rerender:
                kept = self._look(self.renderer, batch.trained.scene, batch, together, needs.views[together[0]])
            _backward([end for view in together for end in _ends(kept.pop(view), wanted[view])])

    def _render_group(self, batch: StepBatch, group: Group, needs: Needs) -> dict[View, Render]:
        """Put leaves with the group's pictures into the batch; return the renders, with their graphs if kept.

        Where views are rendered again for their backward, one whose values no term reads is not rendered here: zeros
        stand for it.
        """
        own = [view for place, view in enumerate(group.views) if self.share.renders(place)]
        blind = needs.blind if self.rerender else frozenset()
        made: dict[View, Render | None] = dict.fromkeys(group.views)
        for together in [[view] for view in own] if self.rerender else mates(own):
            if together[0] not in blind:
                with torch.set_grad_enabled(not self.rerender):
                    made.update(
                        self._look(self.renderer, batch.trained.scene, batch, together, needs.views[together[0]])
                    )
        seen = self.share.exchange_renders({view: render for view, render in made.items() if view not in blind})
        for view in group.views:
            picture = seen[view] if view not in blind else seen[_mate(view, seen)].map(torch.zeros_like)
            batch.trained.views[view] = picture.map(lambda p: p.detach().requires_grad_())
        return {view: render for view, render in made.items() if render is not None}

    def _backward_terms(self, batch: StepBatch, group: Group, due: Mapping[str, Weighted], log: StepLog) -> None:
        losses = []
        part = len(batch.codes) / self.batch
        for name in group.terms:
            batch.figures = {}
            losses.append(due[name].loss(batch, log.step) / self.batch)
            log.loss += batch.figures["loss"] * part if "loss" in batch.figures else float(losses[-1].detach())
            for key, value in batch.figures.items():
                log.figures[f"{name}/{key}"] = log.figures.get(f"{name}/{key}", 0.0) + value * part
        losses = [loss for loss in losses if loss.requires_grad]
        if losses:
            torch.autograd.backward(losses)  # stops at the pixels and at the scene
        batch.memo.clear()  # no other group reads these views, so no prediction of theirs is wanted again

    def _clip(self, norm: float) -> None:
        if self.clip is not None and norm > self.clip:
            for parameter in self.trained.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.clip / norm)

    def _previous_of(self, places: tuple[int, ...]) -> tuple[Scene, Scene] | None:
        if self.previous is None:
            return None
        own = self.share.subjects(self.batch)
        if places == own:
            return self.previous
        rows = [own.index(place) for place in places]
        trained, reference = ({name: entry[rows] for name, entry in scene.items()} for scene in self.previous)
        return trained, reference

    def _remember(self, done: list[StepBatch]) -> None:
        if any(w.term.needs.previous for w in self.method.terms.values()):
            sides = ([batch.trained.scene for batch in done], [batch.reference.scene for batch in done])
            trained, reference = (
                {name: torch.cat([scene[name].detach() for scene in scenes]) for name in scenes[0]} for scenes in sides
            )
            self.previous = (trained, reference)


def _chunks(places: tuple[int, ...], size: int | None) -> Iterable[tuple[int, ...]]:
    step = size or max(1, len(places))
    return [places[i : i + step] for i in range(0, len(places), step)]


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


def _norm(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    return float(torch.stack([g.square().sum().double().cpu() for g in gradients]).sum().sqrt())
