"""One step: render, score, one backward through each scene. The only place that calls `backward`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.draws import Draws
from distill3d.errors import ConfigError, DivergedError
from distill3d.methods import Method
from distill3d.objectives.term import Side, StepBatch, Weighted, furthest
from distill3d.renderer import AnySize, Render, Renderer, Scene, Stage, example, frozen_copy
from distill3d.views import View

MAX_SKIPPED = 10  # steps in a row without a finite gradient that end a run


@dataclass
class Group:
    """Terms that share views, and those views: handled together, one group after the other."""

    views: dict[View, None]  # an ordered set: the order of a set of Views would change with PYTHONHASHSEED
    terms: list[str]


def linked_groups(terms: Mapping[str, Weighted]) -> list[Group]:
    """Group the terms so that no two groups share a view."""
    groups: list[Group] = []
    for name, weighted in terms.items():
        merged = Group(dict.fromkeys(weighted.term.needs.views), [name])
        for group in [g for g in groups if g.views.keys() & merged.views.keys()]:
            groups.remove(group)
            merged = Group(group.views | merged.views, group.terms + merged.terms)
        groups.append(merged)
    return groups


class OnDemand(dict[View, Render]):
    """Renders of views, each made when it is first read."""

    def __init__(self, look: Callable[[View], Render]):
        super().__init__()
        self.look = look

    def __missing__(self, view: View) -> Render:
        return self.setdefault(view, self.look(view))


@dataclass
class StepLog:
    """What one step reports."""

    step: int
    loss: float
    gradient_norm: float
    skipped: bool
    figures: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains `renderer` in place by a method's terms, against a frozen copy of itself.

    Knows terms, views and scenes; knows no method, backbone or scorer by name.

    Args:
        seed, batch: every random number is a function of seed, step, subject and name.
        rerender: render each view again for its backward, so that the graph of one view is alive at a time. False
            holds the graphs of a whole group of linked views and saves the second rendering.
        lr: the learning rate at each step.
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
    ):
        self.renderer = renderer.requires_grad_(False)
        self.method, self.seed, self.batch, self.rerender, self.lr = method, seed, batch, rerender, lr
        self.trained = renderer.trainable(method.trains)
        self.reference = frozen_copy(renderer, self.trained.values())
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.Adam(rate_groups(renderer, self.trained), lr(0), betas=method.betas)
        self.step_number = 0
        self.skipped_in_a_row = 0
        self.previous: tuple[Scene, Scene] | None = None

    def step(self) -> StepLog:
        """One optimiser step.

        Raises:
            DivergedError: after ten steps in a row whose gradients were not finite.
        """
        log = self.gradients()
        self.apply(log)
        return log

    def gradients(self) -> StepLog:
        """Fill `.grad` of the trained weights, and say how that went."""
        graph: dict[str, Tensor] = {}

        def leaves(codes: Tensor) -> Scene:
            graph.update(self.renderer.scene(codes))
            return {name: entry.detach().requires_grad_(entry.requires_grad) for name, entry in graph.items()}

        batch, stages = self._begin(leaves)
        log = StepLog(self.step_number, 0.0, 0.0, False)
        for group in linked_groups(self._due()):
            self._backward_group(batch, group, stages, log)
        self._backward_scene(graph, batch.trained.scene)
        self._remember(batch)
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        log.gradient_norm = _norm(gradients)
        return log

    def apply(self, log: StepLog) -> None:
        """Adam, or nothing if the loss or a gradient is not finite."""
        log.skipped = not (math.isfinite(log.gradient_norm) and math.isfinite(log.loss))
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if log.skipped else 0
        if not log.skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr(self.step_number) * group["rate"]
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise DivergedError(
                f"{MAX_SKIPPED} steps in a row were not finite, the last at step {log.step}. The checkpoints written "
                "before are kept. Start anew with a smaller --lr or --set guidance_scale=..., into another --out."
            )

    def loss(self, codes: Tensor | None = None) -> Tensor:
        """The whole step as one graph: slow and large, what `gradients` must agree with."""
        batch, stages = self._begin(self.renderer.scene, codes)
        for view, stage in stages.items():
            batch.trained.views[view] = self._look(self.renderer, batch.trained.scene, batch, view, stage)
        losses = [weighted.loss(batch, self.step_number) for weighted in self._due().values()]
        return torch.stack(losses).sum() / self.batch

    def _due(self) -> dict[str, Weighted]:
        return {name: w for name, w in self.method.terms.items() if w.due(self.step_number)}

    def _look(self, renderer: Renderer, scene: Scene, batch: StepBatch, view: View, stage: Stage) -> Render:
        # Draws are keyed by the view's name: a second rendering repeats the first.
        draws = batch.draws.scoped(f"render/{view.name}")
        if stage == "raw" and view.size is not None and isinstance(renderer, AnySize):
            return renderer.render_raw(scene, batch.cameras[view], min(view.size, renderer.raw_size), draws=draws)
        return renderer.render(scene, batch.cameras[view], upto=stage, draws=draws)

    def _begin(
        self, scene_of: Callable[[Tensor], Scene], codes: Tensor | None = None
    ) -> tuple[StepBatch, dict[View, Stage]]:
        """Draw subjects and cameras, make the trained scene; the reference's scene and views when a term reads them."""
        terms = [w.term for w in self._due().values()]
        stages = furthest([term.needs.views for term in terms])
        seen = furthest([term.needs.reference for term in terms])
        step = self.step_number % self.method.replay if self.method.replay else self.step_number
        draws = Draws(self.seed, step, tuple(range(self.batch)))
        if codes is None:
            codes = self.renderer.sample_codes(draws.scoped("subject"))
        trained = Side(scene_of(codes))
        like = example(trained.scene)
        cameras: dict[View, Cameras] = {view: view.cameras(draws).to(like) for view in {**stages, **seen}}

        @torch.no_grad()
        def scene() -> Scene:
            return self.reference.scene(codes.detach())

        @torch.no_grad()
        def look(view: View) -> Render:
            return self._look(self.reference, reference.scene, batch, view, seen[view])

        reference = Side(scene, OnDemand(look))
        batch = StepBatch(draws, codes, cameras, trained, reference, self.previous)
        return batch, stages

    def _backward_group(self, batch: StepBatch, group: Group, stages: Mapping[View, Stage], log: StepLog) -> None:
        """Render the group's views, let its terms put gradients on the pixels, carry those on to the scene.

        Autograd holds the terms' graphs, then one view's render graph at a time, however many views there are.
        """
        scene, kept = batch.trained.scene, {}
        for view in group.views:
            with torch.set_grad_enabled(not self.rerender):
                kept[view] = self._look(self.renderer, scene, batch, view, stages[view])
            batch.trained.views[view] = kept[view].map(lambda picture: picture.detach().requires_grad_())
        self._backward_terms(batch, group, log)
        for view in group.views:
            pixels = batch.trained.views[view]
            wanted = {name: p.grad for name, p in pixels.tensors().items() if p.grad is not None}
            batch.trained.views[view] = pixels.map(Tensor.detach)
            if not wanted:
                continue
            render = self._look(self.renderer, scene, batch, view, stages[view]) if self.rerender else kept.pop(view)
            ends = [(getattr(render, name), gradient) for name, gradient in wanted.items()]
            _backward([end for end in ends if end[0].requires_grad])

    def _backward_terms(self, batch: StepBatch, group: Group, log: StepLog) -> None:
        losses = []
        for name in group.terms:
            batch.figures = {}
            losses.append(self.method.terms[name].loss(batch, self.step_number) / self.batch)
            log.loss += batch.figures.get("loss", float(losses[-1].detach()))
            log.figures.update({f"{name}/{key}": value for key, value in batch.figures.items()})
        losses = [loss for loss in losses if loss.requires_grad]
        if losses:
            torch.autograd.backward(losses)  # stops at the pixels and at the scene
        batch.memo.clear()  # no other group reads these views, so no prediction of theirs is wanted again

    @staticmethod
    def _backward_scene(graph: Scene, leaves: Scene) -> None:
        _backward([(graph[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None])

    def _remember(self, batch: StepBatch) -> None:
        if any(w.term.needs.previous for w in self.method.terms.values()):
            trained, reference = (
                {name: entry.detach() for name, entry in side.scene.items()}
                for side in (batch.trained, batch.reference)
            )
            self.previous = (trained, reference)


def _backward(ends: list[tuple[Tensor, Tensor]]) -> None:
    """From tensors with their gradients; nothing for none, as when a step trains what these do not reach."""
    if ends:
        torch.autograd.backward([end for end, _ in ends], [gradient for _, gradient in ends])


def _norm(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    return float(torch.stack([g.square().sum().double().cpu() for g in gradients]).sum().sqrt())


def rate_groups(renderer: Renderer, trained: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Adam's groups of parameters: one for each factor of the learning rate, in order of first appearance.

    Raises:
        ConfigError: for a factor that is not a positive number.
    """
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in trained.items():
        rate = renderer.rate(name)
        if not 0 < rate < math.inf:
            raise ConfigError(f"The rate of {name} must be a positive number, got {rate!r}.")
        groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "rate": rate} for rate, parameters in groups.items()]


def cosine_decay(lr: float, final: float, steps: int) -> Callable[[int], float]:
    """From `lr` at step 0 to `lr * final` at the last of `steps`, along half a cosine."""

    def at(step: int) -> float:
        done = min(1.0, step / max(1, steps - 1))
        return lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    return at
