"""The terms' gradients side by side, as words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from distill3d.health import cosine, inner
from distill3d.training.trainer import Trainer


def gradient_table(trainer: Trainer, step: int, on_pixels: Mapping[str, float]) -> list[list[str]]:
    """One row per term that is due: weight, norm on the pixels and on the trained weights, cosines with the others.

    Args:
        on_pixels: norm of each term's gradient on the pictures of the subject that is shown.
    Returns:
        Rows of words, the titles first.
    """
    gradients = trainer.term_gradients(step)
    others = list(gradients) if len(gradients) > 1 else []
    rows = [["term", "weight", "norm on the pictures", "norm on the weights", *(f"cosine with {n}" for n in others)]]
    for name, gradient in gradients.items():
        weight = trainer.method.terms[name].weight
        rows.append(
            [
                name,
                f"{weight(step) if callable(weight) else weight:.4g}",
                f"{on_pixels[name]:.4g}" if on_pixels.get(name) else "-",
                f"{math.sqrt(inner(gradient, gradient)):.4g}",
                *("" if other == name else _word(cosine(gradient, gradients[other])) for other in others),
            ]
        )
    return rows


def _word(cosine: float) -> str:
    return "-" if math.isnan(cosine) else f"{cosine:+.3f}"
