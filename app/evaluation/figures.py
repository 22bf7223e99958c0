"""Statistics of a measurement. Law: pure; shares are in [0, 1]; what cannot be said of no texts is NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
BINS = 10


def auc(violating: ArrayLike, harmless: ArrayLike) -> float:
    """How often a violating text scores higher than a harmless one; ties count half (Mann and Whitney 1947)."""
    high, low = np.asarray(violating, float), np.sort(np.asarray(harmless, float))
    if not len(high) or not len(low):
        return math.nan
    below, up_to = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + up_to).sum() / (2 * len(high) * len(low)))


def f1(found: int, missed: int, false: int) -> float:
    """Of one class: harmonic mean of precision and recall."""
    return 2 * found / (2 * found + missed + false) if found + missed + false else math.nan


def calibration_error(scores: ArrayLike, violating: ArrayLike) -> float:
    """Mean distance between score and share of violating texts, over ten bins of equal width, weighted by their texts (Naeini et al.,
    AAAI 2015)."""
    p, y = np.asarray(scores, float), np.asarray(violating, float)
    if not len(p):
        return math.nan
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    return float(sum(abs(p[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())))


def lower(hits: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower bound of a share (Clopper and Pearson 1934): a smaller one would give so many hits too seldom."""
    if not of:
        return math.nan
    return 0.0 if not hits else _solve(lambda p: 1 - _at_most(hits - 1, of, p), 1 - confidence)


def upper(hits: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper bound of a share."""
    return 1 - lower(of - hits, of, confidence) if of else math.nan


def _at_most(hits: int, of: int, p: float) -> float:
    """The chance of at most so many hits."""
    if p <= 0 or p >= 1:
        return float(p <= 0 or hits >= of)
    terms = [
        math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * math.log(p) + (of - k) * math.log1p(-p)
        for k in range(hits + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, terms)))


def _solve(rising: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return low


def quantile(values: Sequence[float] | NDArray[np.float64], share: float) -> float:
    return float(np.quantile(np.asarray(values, float), share)) if len(values) else math.nan
