"""A compiled list of terms: where they occur in folded text, and what of its tail may still become one.

Law: a pure function of the text. `find` returns a hit once nothing that may follow can change it, and a `hold`
before which every hit is known. Engine: daachorse, charwise; a second automaton over every proper prefix + SENTINEL
gives the live prefix without any support from the engine (docs/adr/0004).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daachorse import CharwiseDoubleArrayAhoCorasick as Automaton

from app import words
from app.text import SENTINEL, is_han, is_word

CONTEXT = 32
"""Folded characters of settled text that `find` may look back at: allow phrases start no further left."""

_SEGMENT = 3
"""Terms of at most this many Han characters are confirmed by word boundaries; longer ones do not collide by chance
(measured on ordinary text: none in a million characters), and confirming them would let a suffix hide them."""
_LEFT, _RIGHT = 8, 4
"""Folded characters around a candidate that the segmenter sees: a fixed window, so the verdict is a function of the text."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Term number `index` at folded `start:end`."""

    start: int
    end: int
    index: int


class Terms:
    """`terms`: folded, distinct, not empty. `allow[i]`: folded phrases that hold terms[i] and make it harmless."""

    def __init__(self, terms: Sequence[str], allow: Sequence[Sequence[str]] | None = None) -> None:
        self._terms = terms
        self._automaton = Automaton(list(terms)) if terms else None
        prefixes = {term[:n] for term in terms for n in range(1, len(term))}
        self._prefixes = Automaton([p + SENTINEL for p in prefixes]) if prefixes else None
        self._longest = max(map(len, terms), default=0)
        self._short = [len(t) <= _SEGMENT and all(map(is_han, t)) for t in terms]
        self._allow: dict[int, list[tuple[int, str]]] = {}
        for i, phrases in enumerate(allow or ()):
            if phrases:
                self._allow[i] = [(at, p) for p in phrases for at in _places(terms[i], p)]

    def __len__(self) -> int:
        return len(self._terms)

    def find(self, text: str, since: int, final: bool) -> tuple[list[Hit], int]:
        """Hits that start at or after `since`, and the hold. `text[:since]` is context; `final`: nothing follows."""
        size = len(text)
        if self._automaton is None:
            return [], size
        hold = size if final else self._live(text, since)
        hits: list[Hit] = []
        for start, end, index in self._automaton.find_overlapping(text[since:] if since else text):
            start, end = start + since, end + since
            verdict = self._confirm(text, start, end, index, final)
            if verdict is None:
                hold = min(hold, start)
            elif verdict:
                hits.append(Hit(start, end, index))
        return hits, hold

    def _live(self, text: str, since: int) -> int:
        """Start of the longest suffix that may still become a term."""
        size = len(text)
        if self._prefixes is None:
            return size
        base = max(since, size - self._longest + 1)
        best = size
        for start, _, _ in self._prefixes.find_overlapping(text[base:] + SENTINEL):
            start += base
            # In the middle of a Latin word no term can start: it would fail its left boundary.
            if start < best and not (start and is_word(text[start]) and is_word(text[start - 1])):
                best = start
        return best

    def _confirm(self, text: str, start: int, end: int, index: int, final: bool) -> bool | None:
        """Is it the term, and not a part of other words? None: what follows decides."""
        if start and is_word(text[start]) and is_word(text[start - 1]):
            return False
        pending = False
        if is_word(text[end - 1]):
            if end == len(text):
                pending = not final
            elif is_word(text[end]):
                return False
        for at, phrase in self._allow.get(index, ()):
            begin = start - at
            if begin < 0:
                continue
            if text.startswith(phrase, begin):
                return False
            if not final and len(text) < begin + len(phrase) and phrase.startswith(text[begin:]):
                pending = True
        if self._short[index] and not pending:
            left = start
            while left and start - left < _LEFT and is_han(text[left - 1]):
                left -= 1
            right = end
            while right < len(text) and right - end < _RIGHT and is_han(text[right]):
                right += 1
            if right == len(text) and right - end < _RIGHT and not final:
                return None
            if words.crosses(text[left:right], start - left, end - left):
                return False
        return None if pending else True


def _places(term: str, phrase: str) -> Iterable[int]:
    at = phrase.find(term)
    while at >= 0:
        yield at
        at = phrase.find(term, at + 1)
