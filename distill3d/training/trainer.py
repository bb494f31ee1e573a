"""The trained weights and what moves them: gradients, Adam, an average. What is in a step: `step.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from distill3d.draws import Draws
from distill3d.errors import DivergedError
from distill3d.methods import Method
from distill3d.objectives.term import StepBatch, Weighted
from distill3d.renderer import Renderer, Scene, frozen_copy
from distill3d.training.average import follow, swapped
from distill3d.training.rates import rate_groups
from distill3d.training.share import Alone, Share, StepLog
from distill3d.training.step import PixelGradients, Step

MAX_SKIPPED = 10  # steps in a row without a finite gradient that end a run


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
        self.raise_if_diverged()
        return log

    def gradients(self, *, stopping: Callable[[], bool] = lambda: False) -> StepLog:
        """Fill `.grad` of the trained weights, and say how that went."""
        log = self.own_gradients()
        self.sum_up(log, stopping=stopping)
        return log

    def own_gradients(self) -> StepLog:
        """This process's part of `gradients`; after `forget_gradients` it can be begun anew."""
        log = StepLog(self.step_number)
        chunks = _chunks(self.share.subjects(self.batch), self.micro_batch)
        self._remember([self._work(chunk, self.step_number).accumulate(log) for chunk in chunks])
        return log

    def sum_up(self, log: StepLog, *, stopping: Callable[[], bool] = lambda: False) -> None:
        """The rest of it: what all processes have, together; each step exactly once."""
        log.stopping = stopping()
        self.share.reduce(self.trained.values(), log)
        log.gradient_norm = _norm([p.grad for p in self.trained.values() if p.grad is not None])

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

    def raise_if_diverged(self) -> None:
        """Raise a DivergedError after ten steps in a row whose gradients were not finite."""
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise DivergedError(
                f"{MAX_SKIPPED} steps in a row were not finite, the last at step {self.step_number - 1}. The "
                "checkpoints written before are kept. Start anew with a smaller --lr or --set guidance_scale=..., into "
                "another --out."
            )

    @contextmanager
    def published_weights(self) -> Iterator[None]:
        """Inside, the renderer has the weights that are shown and published: the average, if there is one."""
        with swapped(self.averaged, self.trained):
            yield

    def loss(self, codes: Tensor | None = None) -> Tensor:
        """The whole step as one graph: slow and large, what `gradients` must agree with."""
        return self._work(tuple(range(self.batch)), self.step_number).loss(codes)

    def term_gradients(self, step: int) -> dict[str, dict[str, Tensor]]:
        """Each term's own gradient on the trained weights at that step's draws; nothing of the trainer changes.

        Of several processes, that of this one's subjects.
        """
        found = {}
        for name in self._due(step):
            with self._undisturbed():
                for chunk in _chunks(self.share.subjects(self.batch), self.micro_batch):
                    self._work(chunk, step, name).accumulate(StepLog(step))
                found[name] = {n: p.grad for n, p in self.trained.items() if p.grad is not None}
        return found

    def look_at(self, step: int, term: str) -> tuple[StepBatch, PixelGradients]:
        """What one term sees at that step's draws, and the gradient that it puts on each picture of each view."""
        with self._undisturbed():
            return self._work(self.share.subjects(self.batch), step, term).look_at_pixels()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Inside there are no gradients yet and no other processes."""
        kept, share = {name: p.grad for name, p in self.trained.items()}, self.share
        for parameter in self.trained.values():
            parameter.grad = None
        self.share = Alone(share.subjects(self.batch))
        try:
            yield
        finally:
            self.share = share
            for name, parameter in self.trained.items():
                parameter.grad = kept[name]

    def _due(self, step: int) -> dict[str, Weighted]:
        return {name: w for name, w in self.method.terms.items() if w.due(step)}

    def _work(self, places: tuple[int, ...], number: int, term: str | None = None) -> Step:
        """What a step does with the subjects at these places of the batch, for one term or all that are due."""
        due = self._due(number)
        return Step(
            self.renderer,
            self.reference,
            due if term is None else {term: due[term]},
            Draws(self.seed, number % self.method.replay if self.method.replay else number, places),
            number,
            self.batch,
            self.rerender,
            self.share,
            self._previous_of(places),
        )

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


def _norm(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    return float(torch.stack([g.square().sum().double().cpu() for g in gradients]).sum().sqrt())
