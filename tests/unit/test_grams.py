"""Linear models over n-grams: two engines, one answer, however a text is put together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import grams, native
from app.grams import Grams
from app.text import fold

WORDS = (
    "今天的河面很静",
    "缆绳",
    "坏词",
    "the lamps came on",
    "bad word",
    "2026",
    "1380013",
    "!",
    "?",
    "，",
    "　",
    "ß",
    "é",
    "привет",
    "ひらがな",
    "🙂",
    "\n",
)
TEXT = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=30).map(
    lambda parts: fold("".join(parts))
)


def model(seed: int = 1, floors: tuple[float, ...] = (0.5, 0.6, 0.9), texts: tuple[str, ...] = WORDS) -> Grams:
    dice = np.random.default_rng(seed)
    words = np.unique(np.concatenate([grams.features(fold(text)) for text in texts]))
    weights = dice.integers(-127, 128, (len(words), len(floors)), dtype=np.int8)
    scale = dice.uniform(0.01, 0.05, len(floors)).astype(np.float32)
    return Grams([f"c{k}" for k in range(len(floors))], words, weights, scale, np.float32([0.3, -1, 0]), floors)


def slow(fast: Grams) -> Grams:
    """The same model on the engine without C."""
    other = Grams(fast.categories, fast._vocabulary, fast._weights, fast._scale, fast._bias, list(fast._floors))
    other._look = other._looked
    return other


def test_the_engine_in_c_is_there() -> None:
    assert native.grams is not None, "app/_grams.c was not compiled: scripts/install says why"


@given(TEXT, st.lists(TEXT, max_size=3))
@settings(max_examples=400, deadline=None)
def test_both_engines_give_the_same_sums_and_scores(text: str, earlier: list[str]) -> None:
    fast = model()
    other = slow(fast)
    before: tuple[grams.Piece, ...] = ()
    for piece in earlier:
        made, _ = fast.look(piece, before)
        assert made == other.look(piece, before)[0]
        before = (*before, made)
    assert fast.look(text, before) == other.look(text, before)


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_a_score_is_the_logistic_of_the_mean_weight_times_the_root_of_their_number(text: str) -> None:
    made = model()
    (n, sums), _ = made.look(text)
    found = grams.features(text)
    assert n == len(found)
    rows = [int(np.searchsorted(made._vocabulary, key)) for key in found]
    known = [
        row
        for row, key in zip(rows, found, strict=True)
        if row < len(made._vocabulary) and made._vocabulary[row] == key
    ]
    total = made._weights[known].astype(int).sum(0) if known else np.zeros(3)
    expected = 1 / (1 + np.exp(-(made._scale * total / np.sqrt(max(n, grams.SHORT)) + made._bias)))
    assert list(made.together([(n, sums)])) == pytest.approx(expected, rel=1e-5)


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_a_score_is_told_exactly_where_the_floor_is_reached(text: str) -> None:
    made = model()
    piece, told = made.look(text)
    scores = dict(zip(made.categories, made.together([piece]), strict=True))
    expected = {c for c, floor in zip(made.categories, (0.5, 0.6, 0.9), strict=True) if scores[c] >= floor and piece[0]}
    near = {c for c, floor in zip(made.categories, (0.5, 0.6, 0.9), strict=True) if abs(scores[c] - floor) < 1e-4}
    assert {s.category for s in told} ^ expected <= near


def test_what_separates_changes_nothing_and_what_counts_does() -> None:
    def keys(text: str) -> list[int]:
        return list(map(int, grams.features(fold(text))))

    assert keys("今天，天气") == keys("今 天 天气") == keys("今天\n天气") != keys("今天天气!")
    assert keys("call 13800138000 now") == keys("call 99999999 now") != keys("call 12 now")
    assert keys("Hello WORLD") == keys("hello   world") != keys("helloworld")
    assert keys("……，。") == []


def test_evidence_is_where_the_strongest_n_grams_stand() -> None:
    words = np.unique(grams.features("坏词很静"))
    weights = np.zeros((len(words), 1), np.int8)
    bad = {int(k) for k in grams.features("坏词")}
    weights[[int(k) in bad for k in words]] = 50
    weights[np.searchsorted(words, grams.keys(grams.tokens("坏词")[0])[1])] = 90
    made = Grams(["c0"], words, weights, np.float32([0.1]), np.float32([0]), [0.5])
    text = "今天的河面很静坏词很静"
    (start, end), *rest = made.evidence(text, "c0")
    assert text[start:end] == "坏词" and rest == []


def test_time_grows_with_the_length_alone() -> None:
    # Counted, not timed: the number of n-grams is three per token, whatever the text.
    for size in (10, 1000, 100_000):
        assert len(grams.features("河" * size)) == 3 * size - 3
