"""Learning rates: over the parameters, and over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.renderer import Renderer


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


def cosine_decay(lr: float, final: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """From `lr` at step 0 to `lr * final` at the last of `steps`, along half a cosine.

    Args:
        warmup: steps over which it first rises, evenly, from `lr / (warmup + 1)`; 0 for none.
    """

    def at(step: int) -> float:
        done = min(1.0, step / max(1, steps - 1))
        rising = min(1.0, (step + 1) / (warmup + 1))
        return rising * lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

    return at
