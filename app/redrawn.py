"""Terms whose characters are drawn as others: where in a text they may stand.

Law: it only nominates. Two neighbours of a term that the text has, or has what looks like them, are a candidate. The text's
characters are looked up, not the term's written out: the ways to redraw a term are some hundreds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from app import views
from app.forms import PAIRS
from app.lookup import Index
from app.text import is_han


def anchors(terms: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(two neighbours of a term, its number << 1 | whether they are its last): the first or the last, what fewer look like;
    both where there are four characters, for one of them may be another altogether. None for a long list."""
    han = [i for i, term in enumerate(terms) if len(term) >= 2 and all(map(is_han, term))]
    for i in han if len(han) <= PAIRS else ():
        term = terms[i]
        head, tail = (sum(len(views.same_look(c)) for c in part) for part in (term[:2], term[-2:]))
        if len(term) >= 4 or head <= tail:
            yield term[:2], i << 1
        if len(term) >= 4 or head > tail:
            yield term[-2:], i << 1 | 1


class Redrawn:
    """`index`: of the anchors."""

    def __init__(self, index: Index) -> None:
        # What a text may have for the first of the two -> for the second, and whose they are.
        found: dict[str, list[tuple[str, list[int]]]] = {}
        for key in index:
            one, other = (ch + views.same_look(ch) for ch in key)
            owners = index.get(key)
            for ch in one:
                found.setdefault(ch, []).append((other, owners))
        # Most characters that follow are nobody's second: all of them in one string say so at once.
        self._firsts = {ch: ("".join(other for other, _ in rows), rows) for ch, rows in found.items()}

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """(place, owner) of every candidate in `text`, Han characters only."""
        none: tuple[str, list[tuple[str, list[int]]]] = ("", [])
        for at, (one, other) in enumerate(pairwise(text)):
            seconds, rows = self._firsts.get(one, none)
            if other in seconds:
                for alike, owners in rows:
                    if other in alike:
                        for owner in owners:
                            yield at, owner

    def __bool__(self) -> bool:
        return bool(self._firsts)
