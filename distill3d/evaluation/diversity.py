"""Diversity: are the subjects still as different as they were?"""

from __future__ import annotations

import math

from torch import Tensor

from distill3d.evaluation.pairwise import upper


def diversity_ratio(distances: Tensor, base: Tensor) -> float:
    """Mean pairwise distance divided by that of the untouched subjects.

    Args:
        distances, base: (S, S), as `pairwise_distances` gives them.
    Returns:
        0 where every subject became the same picture, 1 where they differ as much as before; a style that exaggerates
        can exceed 1. NaN if the untouched subjects are all equal.
    """
    before = float(upper(base).mean())
    return float(upper(distances).mean()) / before if before > 0 else math.nan
