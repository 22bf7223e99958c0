"""`python -m tests.bench.scoring`: what the shipped scorer costs, by length, and per character of a stream by how long it already is.

Beside it in the same run: the engine without C, and folding, which every text is put through before. All categories together, one thread.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from time import perf_counter

from app import settings
from app.detectors import classifier
from app.detectors.classifier import Classifier
from app.grams import Grams
from app.text import fold
from app.types import Scope
from tests.bench.matching import Row, table
from tests.bench.material import prose, slices

_SCOPE = Scope("bench", "answer")
_SIZES = (60, 500, 5_000, 50_000)
_PIECE = 40


def _without_c(scorer: Classifier) -> Classifier:
    fast = scorer.grams
    assert fast is not None
    slow = Grams(fast.categories, fast._vocabulary, fast._weights, fast._scale, fast._bias, list(fast._floors))
    slow._look = slow._looked
    return Classifier(slow, scorer._loaded[1], scorer.version)


def _times(work: Callable[[str], object], texts: list[str]) -> list[float]:
    """Milliseconds of each."""
    for text in texts[:3]:
        work(text)
    taken = []
    for text in texts:
        began = perf_counter()
        work(text)
        taken.append(1000 * (perf_counter() - began))
    return taken


def by_length(text: str, scorer: Classifier) -> list[Row]:
    slow = _without_c(scorer)
    rows: list[Row] = []
    for size in _SIZES:
        texts = [fold(t) for t in slices(text, size, max(30, min(2_000, 2_000_000 // size)))]
        ours = _times(lambda t: scorer.score(t, None, _SCOPE), texts)
        plain = _times(lambda t: slow.score(t, None, _SCOPE), texts[:300])
        folding = _times(fold, texts)
        p50, p99 = statistics.median(ours), statistics.quantiles(ours, n=100)[98]
        rows.append(
            {
                "characters": f"{size:,}",
                "p50 ms": f"{p50:.4f}",
                "p99 ms": f"{p99:.4f}",
                "without C, times": f"{statistics.median(plain) / p50:.0f}",
                "of folding": f"{p50 / statistics.median(folding):.2f}",
            }
        )
    return rows


def by_place(text: str, scorer: Classifier) -> list[Row]:
    """Microseconds per character of pieces in a stream, after so many characters."""
    pieces = [fold(text[at : at + _PIECE]) for at in range(0, len(text) - _PIECE, _PIECE)]
    state, taken = None, []
    for piece in pieces:
        began = perf_counter()
        _, state = scorer.score(piece, state, _SCOPE)
        taken.append(1e6 * (perf_counter() - began) / _PIECE)
    places = (0, len(taken) // 4, len(taken) // 2, len(taken) - 500)
    return [
        {"after characters": f"{at * _PIECE:,}", "µs per character": f"{statistics.median(taken[at : at + 500]):.3f}"}
        for at in places
    ]


def main() -> int:
    text = prose(400_000)
    scorer = classifier.load(settings.packaged("models"))
    table("All categories together, one thread", by_length(text, scorer))
    table(f"In a stream, pieces of {_PIECE} characters", by_place(text, scorer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
