"""Style accuracy: does a classifier see the style that was asked for?"""

from __future__ import annotations

from torch import Tensor

from distill3d.errors import ShapeError


def style_accuracy(log_probabilities: Tensor, style: int) -> float:
    """The share of pictures whose most probable class is the style.

    Args:
        log_probabilities: (B, classes); an "off-distribution" class, if there is one, counts as a wrong answer.
        style: place of the wanted class.
    Returns:
        In [0, 1]; chance is 1 / classes.
    Raises:
        ShapeError: if there is no such class.
    """
    if log_probabilities.ndim != 2 or not 0 <= style < log_probabilities.shape[1]:
        raise ShapeError(f"Class {style} is wanted of log-probabilities {tuple(log_probabilities.shape)}.")
    return float((log_probabilities.argmax(1) == style).double().mean())
