"""Linear models over the n-grams of folded text: one table of n-grams, one weight per n-gram and category.

Law: a pure function of the text; linear in its length; what is summed are whole numbers, so however a text is put together
from pieces the result is the same, and the engine in C (app/_grams.c) and the one here agree to the last bit.

A token is a Han character (or one of another script without spaces), a word of letters, or a run of digits by its length; `!`
and `?` are tokens, all else separates. Features are the n-grams of one to three tokens; x = counts / sqrt(n), n the number of
n-grams, but at least SHORT; the score of category k is sigmoid(scale[k] * sum(weights[k]) / sqrt(n) + bias[k]) (logistic
regression; docs/adr/0016).
The vocabulary is kept as hashes: no word of a training set can be read out of a model file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app import native

ORDERS = 3
SHORT = 24
"""n-grams that a text counts as having at least: three words are no ground for a high score."""
_BASIS, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_LONGEST = 8  # digits that make a difference
_TOKEN = re.compile("[a-z\u00c0-\u1fff]+|[0-9]+|[!?\u2e80-\u2fff\u3040-\u30fa\u30fc-\U0010ffff]")

Piece = tuple[int, bytes]
"""What a piece of text comes to: the number of its n-grams, and their summed weights as 32-bit integers."""


class Score(NamedTuple):
    """Of one category, the probability."""

    category: str
    value: float


def tokens(text: str) -> tuple[NDArray[np.uint32], list[tuple[int, int]]]:
    """Hashes of the tokens of folded `text`, and where they stand."""
    hashes, spans = [], []
    for found in _TOKEN.finditer(text):
        token = found.group()
        codes = [min(len(token), _LONGEST)] if token[0].isdecimal() and token[0].isascii() else map(ord, token)
        h = 2166136261
        for code in codes:
            h = (h ^ code) * 16777619 & 0xFFFFFFFF
        hashes.append(h or 1)
        spans.append(found.span())
    return np.array(hashes, np.uint32), spans


def _mixed(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """MurmurHash3's finaliser (Appleby, public domain)."""
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return h ^ h >> np.uint32(16)


def keys(hashes: NDArray[np.uint32]) -> list[NDArray[np.uint32]]:
    """The keys of all n-grams, by order; the i-th of an order begins at token i."""
    made = []
    run = hashes
    for order in range(1, ORDERS + 1):
        if len(hashes) < order:
            break
        if order > 1:
            run = run[:-1] * _PRIME + hashes[order - 1 :]
        made.append(_mixed(run + np.uint32(order)))
    return made


def features(text: str) -> NDArray[np.uint32]:
    """The keys of all n-grams of folded `text`, as often as they occur."""
    made = keys(tokens(text)[0])
    return np.concatenate(made) if made else np.zeros(0, np.uint32)


class Grams:
    """`vocabulary`: sorted keys [v]. `weights`: int8 [v, k]. `scale`, `bias`: float32 [k]. `floors`: probabilities [k] from which a
    score is told."""

    def __init__(
        self,
        categories: Sequence[str],
        vocabulary: NDArray[np.uint32],
        weights: NDArray[np.int8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        floors: Sequence[float],
    ) -> None:
        self.categories = list(categories)
        self._vocabulary, self._weights, self._scale, self._bias = vocabulary, weights, scale, bias
        logits = [math.log(f / (1 - f)) if 0 < f < 1 else math.inf for f in floors]
        # A score is told where sum >= limit * sqrt(n); the bias is part of the limit.
        self._limits = np.ascontiguousarray((np.array(logits) - bias) / scale, np.float32)
        self._floors = np.array(floors)
        self._look = native.grams.Table(vocabulary, weights, self._limits).look if native.grams else self._looked

    def look(self, text: str, before: tuple[Piece, ...] = ()) -> tuple[Piece, list[Score]]:
        """What folded `text` comes to, and the categories whose floor it reaches alone or with the pieces `before` it."""
        n, sums, hot = self._look(text, before)
        return (n, sums), self._told(n, sums, before) if hot else []

    def together(self, pieces: Sequence[Piece]) -> NDArray[np.float64]:
        """The probability of every category for these pieces as one text, in the order of `categories`."""
        n, sums = _together(0, np.zeros(len(self.categories), np.int32), pieces)
        return self._probability(n, sums)

    def evidence(self, text: str, category: str, most: int = 3) -> list[tuple[int, int]]:
        """Where the n-grams of folded `text` stand that speak most for `category`: (start, end), strongest first, none within another."""
        hashes, spans = tokens(text)
        column = self.categories.index(category)
        found = []
        for order, made in enumerate(keys(hashes), 1):
            for at, row in zip(*self._rows(made), strict=True):
                weight = int(self._weights[row, column])
                if weight > 0:
                    found.append((weight, spans[at][0], spans[at + order - 1][1]))
        best: list[tuple[int, int]] = []
        for _, start, end in sorted(found, key=lambda f: (-f[0], f[1], f[2])):
            if len(best) < most and not any(start < e and s < end for s, e in best):
                best.append((start, end))
        return best

    def _rows(self, wanted: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(which of the wanted keys are in the vocabulary, their rows)."""
        rows = np.minimum(np.searchsorted(self._vocabulary, wanted), len(self._vocabulary) - 1)
        known = np.flatnonzero(self._vocabulary[rows] == wanted)
        return known, rows[known]

    def _looked(self, text: str, before: tuple[Piece, ...]) -> tuple[int, bytes, bool]:
        made = features(text)
        sums = self._weights[self._rows(made)[1]].sum(0, np.int32)
        n = len(made)
        over = bool(n) and any(
            bool((total.astype(np.float32) >= self._limits * np.sqrt(np.float32(max(count, SHORT)))).any())
            for count, total in ((n, sums), _together(n, sums, before))
        )
        return n, sums.tobytes(), over

    def _told(self, n: int, sums: bytes, before: tuple[Piece, ...]) -> list[Score]:
        alone = np.frombuffer(sums, np.int32)
        windows = [self._probability(n, alone)]
        if before:
            windows.append(self._probability(*_together(n, alone, before)))
        best = np.max(windows, 0)
        return [Score(self.categories[k], float(best[k])) for k in np.flatnonzero(best >= self._floors - 1e-6)]

    def _probability(self, n: int, sums: NDArray[np.int32]) -> NDArray[np.float64]:
        logits = self._scale * (sums / math.sqrt(max(n, SHORT))) + self._bias
        return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


def _together(n: int, sums: NDArray[np.int32], before: Sequence[Piece]) -> tuple[int, NDArray[np.int32]]:
    for count, more in before:
        n, sums = n + count, sums + np.frombuffer(more, np.int32)
    return n, sums
