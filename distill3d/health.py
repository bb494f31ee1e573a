"""Whether a run is well: are its subjects still different, still the same people, and does a step follow a signal?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, Protocol

import torch
from torch import Tensor

from distill3d.cameras import orbit
from distill3d.errors import ConfigError
from distill3d.evaluation.diversity import diversity_ratio
from distill3d.evaluation.pairwise import pairwise_distances, upper
from distill3d.evaluation.rsa import rsa
from distill3d.renderer import Renderer, example
from distill3d.scorer import Scorer
from distill3d.views import resize

COLLAPSE = 0.4  # of `kept`, below which a run counts as collapsed; docs/health.md has what decided it
SEEDS = tuple(range(100, 108))  # known by these numbers to `codes_of_seeds`; no step trains on them


@dataclass(frozen=True)
class TermHealth:
    """What one term does to the trained weights."""

    norm: float  # root mean square, over the draws, of the norm of its gradient
    snr: float  # norm of the mean gradient by the norm of one draw's deviation; inf without noise, NaN without gradient
    cosines: Mapping[str, float] = field(default_factory=dict)  # with the other terms' gradients at the same draws


@dataclass(frozen=True)
class Health:
    """Eight held-out subjects from the front, stylised against original, in the scorer's latents."""

    step: int
    diversity: float  # mean pairwise distance by that of the originals: 1 untouched, 0 all alike
    identity: float  # correlation of the pairwise distances with those of the originals, in [-1, 1]
    change: float  # mean distance from the own original, by the originals' mean pairwise distance: 0 untouched
    kept: float  # share of the originals' differences that is still there: 1 untouched, 0 a mean head or other people
    finite: bool = True  # whether the pictures are
    terms: Mapping[str, TermHealth] = field(default_factory=dict)  # of `probe`, where it was asked

    def to_json(self) -> str:
        """One line, with null for what is not finite: JSON has no NaN; it also says whether that is a collapse."""
        return json.dumps(_plain({**asdict(self), "collapsed": collapsed(self), "collapse_below": COLLAPSE}))


def collapsed(health: Health) -> bool:
    """Whether the subjects' own differences are all but gone; never where the originals are all equal.

    Not their diversity: in an over-driven run, heads that are nobody's differ by the noise that covers them.
    """
    return health.kept < COLLAPSE


def kept_differences(now: Tensor, before: Tensor) -> float:
    """How much of the originals' differences is left: sum of <d_ij, d0_ij> by sum of <d0_ij, d0_ij> over pairs i < j.

    With d_ij = now_i - now_j: the slope of the pairwise differences on those of the originals. What a style adds to all
    alike cancels; differences of another kind count nothing.

    Args:
        now, before: (S, ...) of the same S subjects in the same order.
    Returns:
        1 for no change, 0 where all became equal; NaN if the originals are all equal.
    """
    # Over all pairs, a sum of <x_i - x_j, y_i - y_j> is S times that of <x_i - mean, y_i - mean>.
    x, y = ((t.double() - t.double().mean(0)).flatten() for t in (now, before))
    norm = float(y @ y)
    return float(x @ y) / norm if norm > 0 else math.nan


class HealthCheck:
    """Compares a renderer under training with its frozen original; what the original looks like is computed once.

    Args:
        reference, trained: the two renderers; `trained` is looked at as it is at each check.
        scorer: encodes the pictures; its other networks are not used.
        seeds: subjects, at least three: two have one distance, and one has no correlation.
    """

    def __init__(self, reference: Renderer, trained: Renderer, scorer: Scorer, seeds: Sequence[int] = SEEDS):
        if len(set(seeds)) < 3:
            raise ConfigError(f"A health check compares at least three subjects, got the seeds {tuple(seeds)}.")
        self.reference, self.trained, self.scorer, self.seeds = reference, trained, scorer, tuple(seeds)

    def check(self, step: int) -> Health:
        """How the trained renderer is after `step` steps."""
        before, now = self._before, self._latents(self.trained)
        base, distances = pairwise_distances(before), pairwise_distances(now)
        moved, spread = float((now - before).square().flatten(1).mean(1).sqrt().mean()), float(upper(base).mean())
        return Health(
            step=step,
            diversity=diversity_ratio(distances, base),
            identity=rsa(distances, base),
            change=moved / spread if spread > 0 else math.nan,
            kept=kept_differences(now, before),
            finite=bool(now.isfinite().all()),
        )

    @cached_property
    def _before(self) -> Tensor:
        return self._latents(self.reference)

    @torch.no_grad()
    def _latents(self, renderer: Renderer) -> Tensor:
        """(S, C, h, w) on the CPU; one subject at a time, so memory does not grow with their number."""
        return torch.cat([self._latents_of(renderer, seed) for seed in self.seeds])

    def _latents_of(self, renderer: Renderer, seed: int) -> Tensor:
        scene = renderer.scene(renderer.codes_of_seeds([seed]))
        front, stage = renderer.defaults.front, renderer.defaults.stage
        zero = torch.zeros(1, 1)
        cameras = orbit(zero, zero, front.radius, front.focal).to(example(scene))
        picture = renderer.render(scene, cameras, upto=stage).stage(stage)[:, 0]
        return self.scorer.encode(resize(picture.float(), self.scorer.image_size)).float().cpu()


class HasTermGradients(Protocol):
    """What `probe` needs of a trainer."""

    step_number: int
    method: Any

    def term_gradients(self, step: int) -> Mapping[str, Mapping[str, Tensor]]:
        """Of each term that is due at `step`, its gradient on the trained weights; the trainer stays as it was."""


def probe(trainer: HasTermGradients, draws: int = 2) -> dict[str, TermHealth]:
    """Look at each term's gradient at several independent draws of subject, camera and noise.

    With g_i the gradient at draw i, the unbiased estimates are signal^2 = mean of <g_i, g_j> over pairs i < j, and
    noise^2 = mean of |g_i - g_j|^2 / 2; the ratio of their roots is 1 where a step is as much noise as signal. Two
    draws give a rough number: read it over many checks.

    Args:
        draws: how many, at least 2; each costs one step without the optimiser.
    """
    if draws < 2:
        raise ConfigError(f"A signal-to-noise ratio takes at least 2 draws, got {draws}.")
    sums: dict[str, _Sum] = {}
    for step in _steps_with_all_terms(trainer, draws):
        gradients = trainer.term_gradients(step)
        for name, gradient in gradients.items():
            sums.setdefault(name, _Sum()).add(gradient)
        for a, b in combinations(gradients, 2):
            angle = cosine(gradients[a], gradients[b])
            sums[a].cosines.setdefault(b, []).append(angle)
            sums[b].cosines.setdefault(a, []).append(angle)
    return {name: each.health() for name, each in sums.items()}


def _steps_with_all_terms(trainer: HasTermGradients, draws: int) -> Iterator[int]:
    """The next step numbers at which every term is due: other numbers are other draws."""
    period = math.lcm(*(weighted.every for weighted in trainer.method.terms.values()))
    first = -(-trainer.step_number // period)
    return (period * (first + i) for i in range(draws))


class _Sum:
    """The draws of one term, added up as they come: their number does not change the memory."""

    def __init__(self) -> None:
        self.total: dict[str, Tensor] = {}
        self.squares = 0.0
        self.draws = 0
        self.cosines: dict[str, list[float]] = {}

    def add(self, gradient: Mapping[str, Tensor]) -> None:
        for name, tensor in gradient.items():
            self.total[name] = self.total[name] + tensor if name in self.total else tensor.detach().clone()
        self.squares += inner(gradient, gradient)
        self.draws += 1

    def health(self) -> TermHealth:
        n, of_sum = self.draws, inner(self.total, self.total)
        cosines = {name: sum(values) / len(values) for name, values in self.cosines.items()}
        norm = math.sqrt(self.squares / n)
        return TermHealth(norm, math.nan if n < 2 else _ratio(n, self.squares, of_sum), cosines)


def _ratio(n: int, squares: float, of_sum: float) -> float:
    """Root of signal^2 / noise^2, from the sum of |g_i|^2 and |sum of g_i|^2."""
    signal = max(0.0, (of_sum - squares) / (n * (n - 1)))
    noise = (squares - of_sum / n) / (n - 1)
    if noise <= 1e-14 * squares:  # what rounding leaves of equal draws
        return math.inf if signal > 0 else math.nan
    return math.sqrt(signal / noise)


def inner(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """<a, b> over all tensors that both have, summed in float64."""
    return sum(float((tensor.double() * b[name].double()).sum()) for name, tensor in a.items() if name in b)


def cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Of the angle between two gradients; NaN if one of them is 0."""
    length = math.sqrt(inner(a, a) * inner(b, b))
    return inner(a, b) / length if length > 0 else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
