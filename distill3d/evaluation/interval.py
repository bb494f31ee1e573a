"""A mean and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom (any table of the distribution).
T_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
T_95_BEYOND = 2.0423  # of 30: a little wide for more


@dataclass(frozen=True)
class Interval:
    """Mean, and half the width of its 95 % interval; NaN where there is nothing to say."""

    mean: float
    half: float
    count: int
    low: float  # the smallest value
    high: float  # the largest


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values with its 95 % interval by Student's t; values that are not finite are left out.

    With three seeds the interval is 2.5 times the standard deviation on either side: it covers the mean of further
    seeds, not single ones.
    """
    finite = [float(v) for v in values if math.isfinite(v)]
    count = len(finite)
    if count == 0:
        return Interval(math.nan, math.nan, 0, math.nan, math.nan)
    mean = sum(finite) / count
    if count == 1:
        return Interval(mean, math.nan, 1, mean, mean)
    variance = sum((v - mean) ** 2 for v in finite) / (count - 1)
    quantile = T_95[count - 2] if count - 2 < len(T_95) else T_95_BEYOND
    return Interval(mean, quantile * math.sqrt(variance / count), count, min(finite), max(finite))
