"""Statistics of a measurement: against SciPy's, and by what must hold whatever the counts are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from app import figures

COUNTS = st.integers(1, 3000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))
# Few values, so that there are ties; both ends among them.
SCORE = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.7, 0.99, 1.0]) | st.floats(0, 1)
SCORES = st.lists(SCORE, min_size=1, max_size=60)


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=200, deadline=None)
def test_bounds_are_those_of_clopper_and_pearson(counts: tuple[int, int], confidence: float) -> None:
    hits, of = counts
    low = stats.beta.ppf(1 - confidence, hits, of - hits + 1) if hits else 0.0
    high = stats.beta.ppf(confidence, hits + 1, of - hits) if hits < of else 1.0
    assert figures.lower(hits, of, confidence) == pytest.approx(low, abs=1e-9)
    assert figures.upper(hits, of, confidence) == pytest.approx(high, abs=1e-9)


def test_bounds_of_a_very_long_bank_are_right_too() -> None:
    for hits in (1, 37_000, 99_999, 100_000):
        assert figures.lower(hits, 100_000) == pytest.approx(stats.beta.ppf(0.05, hits, 100_001 - hits), abs=1e-9)


@given(COUNTS)
@settings(deadline=None)
def test_a_share_lies_between_its_bounds_and_more_hits_move_both_up(counts: tuple[int, int]) -> None:
    hits, of = counts
    assert 0 <= figures.lower(hits, of) <= hits / of <= figures.upper(hits, of) <= 1
    if hits < of:
        assert figures.lower(hits, of) < figures.lower(hits + 1, of)
        assert figures.upper(hits, of) < figures.upper(hits + 1, of)


def test_a_bound_holds_in_as_many_of_a_hundred_banks_as_it_says() -> None:
    dice = np.random.default_rng(7)
    for share in (0.03, 0.5, 0.95):
        hits = dice.binomial(80, share, 4000)
        low = np.array([figures.lower(h, 80) for h in range(81)])
        assert (low[hits] <= share).mean() >= 0.94, share


@given(SCORES, SCORES)
@settings(deadline=None)
def test_auc_is_mann_and_whitney_s(violating: list[float], harmless: list[float]) -> None:
    u = stats.mannwhitneyu(violating, harmless).statistic
    assert figures.auc(violating, harmless) == pytest.approx(u / (len(violating) * len(harmless)))
    assert figures.auc(violating, harmless) == pytest.approx(1 - figures.auc(harmless, violating))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(found: int, missed: int, false: int) -> None:
    value = figures.f1(found, missed, false)
    if not found + missed + false:
        assert math.isnan(value)
    elif found:
        assert value == pytest.approx(stats.hmean([found / (found + missed), found / (found + false)]))
    else:
        assert value == 0


@given(st.lists(st.tuples(SCORE, st.booleans()), min_size=1, max_size=80))
def test_calibration_error_is_the_mean_distance_over_ten_bins(pairs: list[tuple[float, bool]]) -> None:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, violating in pairs:
        bins.setdefault(min(9, int(score * 10)), []).append((score, violating))
    wanted = sum(abs(sum(s for s, _ in b) - sum(v for _, v in b)) for b in bins.values()) / len(pairs)
    scores, labels = [s for s, _ in pairs], [v for _, v in pairs]
    assert figures.calibration_error(scores, labels) == pytest.approx(wanted, abs=1e-12)
    told = figures.calibration(scores, labels)
    assert sum(b.texts for b in told) == len(pairs)
    assert [b.score for b in told] == sorted(b.score for b in told)


def test_scores_that_say_how_many_are_violating_have_no_calibration_error() -> None:
    scores, labels = [0.25] * 40 + [0.75] * 40, ([True] + [False] * 3) * 10 + ([True] * 3 + [False]) * 10
    assert figures.calibration_error(scores, labels) == pytest.approx(0, abs=1e-12)
    assert figures.calibration_error(scores, [not v for v in labels]) == pytest.approx(0.5)


@given(st.lists(SCORE, max_size=80), st.integers(1, 30))
def test_a_histogram_counts_every_score_once(scores: list[float], bins: int) -> None:
    counts = figures.histogram(scores, bins)
    assert len(counts) == bins and sum(counts) == len(scores)
    assert counts[-1] >= sum(s == 1 for s in scores)


def test_of_nothing_nothing_is_said() -> None:
    assert math.isnan(figures.auc([], [0.5]))
    assert math.isnan(figures.lower(0, 0)) and math.isnan(figures.upper(0, 0))
    assert math.isnan(figures.calibration_error([], []))
    assert math.isnan(figures.quantile([], 0.5))
    assert math.isnan(figures.macro([math.nan]))
    assert figures.macro([0.5, math.nan, 1.0]) == 0.75
    assert figures.histogram([], 3) == [0, 0, 0]
