"""What can be said of the matched pairs as a set: how many, from how many templates, how many alike. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from app.text import fold
from app.training.sources import Pair

ALIKE = 0.6
"""Jaccard similarity of three-character runs from which on two texts of one side are near-duplicates (Broder 1997)."""


class PairSet(NamedTuple):
    """Of one category and language: pairs, the share of the largest template, the share of texts that nearly repeat another."""

    category: str
    lang: str
    pairs: int
    template: float
    alike: float


def described(pairs: Sequence[Pair]) -> list[PairSet]:
    sets: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        sets[pair.category, pair.lang].append(pair)
    return [
        PairSet(
            category, lang, len(rows),
            max(Counter(row.template for row in rows).values()) / len(rows),
            (_repeats([row.violating for row in rows]) + _repeats([row.harmless for row in rows])) / (2 * len(rows)),
        )
        for (category, lang), rows in sorted(sets.items())
    ]  # fmt: skip


def _repeats(texts: Sequence[str]) -> int:
    """Texts that nearly repeat one before them."""
    seen: list[set[str]] = []
    found = 0
    for text in texts:
        folded = "".join(fold(text).split())
        runs = {folded[i : i + 3] for i in range(max(1, len(folded) - 2))}
        found += any(len(runs & other) > ALIKE * len(runs | other) for other in seen)
        seen.append(runs)
    return found
