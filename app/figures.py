"""Statistics of a measurement. Law: pure; shares are in [0, 1]; what cannot be said of no texts is NaN."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

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


def macro(values: Iterable[float]) -> float:
    """The mean over classes, of those that have a figure."""
    known = [v for v in values if not math.isnan(v)]
    return math.fsum(known) / len(known) if known else math.nan


class Bin(NamedTuple):
    """Of texts whose scores lie together: the mean score, the share that is violating, how many they are."""

    score: float
    violating: float
    texts: int


def calibration(scores: ArrayLike, violating: ArrayLike) -> list[Bin]:
    """Ten bins of equal width, those that hold texts."""
    p, y = np.asarray(scores, float), np.asarray(violating, float)
    bins = _binned(p, BINS)
    return [
        Bin(float(p[bins == b].mean()), float(y[bins == b].mean()), int((bins == b).sum())) for b in np.unique(bins)
    ]


def calibration_error(scores: ArrayLike, violating: ArrayLike) -> float:
    """Mean distance between score and share of violating texts, over ten bins of equal width, weighted by their texts (Naeini et al.,
    AAAI 2015)."""
    bins = calibration(scores, violating)
    texts = sum(b.texts for b in bins)
    return math.fsum(abs(b.score - b.violating) * b.texts for b in bins) / texts if texts else math.nan


def histogram(scores: ArrayLike, bins: int) -> list[int]:
    """How many scores lie in each of so many bins of equal width."""
    return [int(n) for n in np.bincount(_binned(np.asarray(scores, float), bins), minlength=bins)]


def _binned(scores: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    return np.minimum((scores * bins).astype(np.intp), bins - 1)


def lower(hits: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower bound of a share (Clopper and Pearson 1934): a smaller one would give so many hits too seldom."""
    if not of:
        return math.nan
    if not hits:
        return 0.0
    # The logarithms of "so many of `of`", and of their odds, once for all that is tried.
    fewer = np.arange(hits)
    choices = np.concatenate([[0.0], np.cumsum(np.log((of - fewer[:-1]) / (fewer[:-1] + 1)))])
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        seldom = 1 - float(np.exp(choices + fewer * math.log(p) + (of - fewer) * math.log1p(-p)).sum())
        low, high = (p, high) if seldom < 1 - confidence else (low, p)
    return low


def upper(hits: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper bound of a share."""
    return 1 - lower(of - hits, of, confidence) if of else math.nan


def quantile(values: Sequence[float] | NDArray[np.float64], share: float) -> float:
    return float(np.quantile(np.asarray(values, float), share)) if len(values) else math.nan
