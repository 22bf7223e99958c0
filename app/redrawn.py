"""Terms whose characters are drawn as others: where in a text they may stand.

Law: it only nominates. Two neighbours of a term that the text has, or has what looks like them, are a candidate. The text's
characters are looked up, not the term's written out: the ways to redraw a term are some hundreds. Two engines (app/_views.c and
the one here), one answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from app import native, views
from app.align import PARTICLES, SHORT
from app.automaton import Hits
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


class _Owner(NamedTuple):
    """Term `number`, which begins `begin` from its anchor; `rest`: by its other characters' places, what may stand there."""

    number: int
    begin: int
    term: str
    rest: tuple[tuple[int, frozenset[str]], ...]

    def may_be(self, text: str, begin: int) -> bool:
        """At most one of four or more characters is another altogether, and not all are as they are: what align.weak asks
        first, for less."""
        if begin + len(self.term) > len(text):
            return False
        unlike = len(self.term) <= SHORT
        for at, alike in self.rest:
            if text[begin + at] not in alike:
                if unlike:
                    return False
                unlike = True
        return not text.startswith(self.term, begin) and (
            len(self.term) > SHORT or _promising(text[begin : begin + len(self.term)], self.term)
        )


def _promising(surface: str, term: str) -> bool:
    """Of a short term: no character that stands beside any other is in it, and of two enough speaks for those that are redrawn."""
    redrawn = [(ch, want) for ch, want in zip(surface, term, strict=True) if ch != want]
    if not PARTICLES.isdisjoint(surface if len(term) == 2 else [ch for ch, _ in redrawn]):
        return False
    speaks = [_speaks(ch, want) for ch, want in redrawn]
    enough = sum(one & _EVIDENCE for one in speaks) >= 2 * len(redrawn)
    return (
        len(term) > 2
        or enough
        or any(one & _STYLED for one in speaks)
        or (len(redrawn) == 1 and speaks[0] & _SHAPED > 0)
    )


_EVIDENCE, _SHAPED, _STYLED = 7, 8, 16


def _speaks(ch: str, want: str) -> int:
    """For `ch` being drawn for `want`: how much (views.looks_like), that it has its shape, that it may be the same in another
    style (which is align's to say)."""
    styled = views.SKELETON[ord(ch)] == views.SKELETON[ord(want)]
    return views.looks_like(ch, want) | _SHAPED * views.same_shape(ch, want) | _STYLED * styled


def _owner(term: str, number: int) -> _Owner:
    last = number & 1
    rest = range(len(term) - 2) if last else range(2, len(term))
    return _Owner(number >> 1, 2 - len(term) if last else 0, term, tuple([(at, _alike_set(term[at])) for at in rest]))


def _drawn(ch: str) -> str:
    """What a text may have for `ch` of an anchor."""
    return ch + views.same_look(ch)


def _alike(ch: str) -> str:
    """What it may have for another character of a term."""
    return _drawn(ch) + views.same_sound(ch)


@lru_cache(1 << 13)
def _weighed(want: str) -> bytes:
    return bytes([_speaks(ch, want) for ch in _drawn(want)])


@lru_cache(1 << 13)
def _alike_set(ch: str) -> frozenset[str]:
    return frozenset(_alike(ch))


@lru_cache(1 << 13)
def _either(ch: str) -> tuple[str, np.ndarray[tuple[int], np.dtype[np.uint32]]]:
    """What a text may have for `ch`, and its codes."""
    alike = _drawn(ch)
    return alike, _codes(alike)


class Native:
    """The engine in C."""

    def __init__(self, index: Index, terms: Sequence[str]) -> None:
        """`index`: of the anchors; `terms`: those they are of."""
        assert native.views is not None
        sets: dict[tuple[str, bytes], int] = {}

        def number(alike: str, speaks: bytes = b"") -> int:
            return sets.setdefault((alike, speaks or bytes(len(alike))), len(sets))

        particles = number("".join(PARTICLES))
        rest = cache(lambda ch: number(_alike(ch)))
        keys = []
        for key in index:
            owners = []
            for n in index.get(key):
                term = terms[n >> 1]
                begin = 2 - len(term) if n & 1 else 0
                if len(term) == 2:
                    asked = [number(_drawn(ch), _weighed(ch)) for ch in term]
                else:
                    asked = [-1 if 0 <= at + begin < 2 else rest(ch) for at, ch in enumerate(term)]
                owners.append((n >> 1, begin, term, tuple(asked)))
            keys.append((_drawn(key[0]), number(_drawn(key[1])), tuple(owners)))
        self._find = native.views.Drawn(views.SHAPE.codes, tuple(sets), tuple(keys), particles).find
        self._any = bool(keys)

    def find(self, text: str) -> Hits:
        """(number, the places of its characters) of every term that may stand redrawn among the Han characters of `text`."""
        found = self._find(text, SHORT)
        if found is False:
            views.SHAPE.meet(text)
            found = self._find(text, SHORT)
        return found or ()

    def __bool__(self) -> bool:
        return self._any


class Pure:
    """The engine for where nothing can be compiled."""

    def __init__(self, index: Index, terms: Sequence[str]) -> None:
        # What a text may have for the first of the two -> for the second, and whose they are.
        self._firsts: dict[str, list[tuple[str, list[_Owner]]]] = {}
        hashes = []
        for key in index:
            (one, ones), (other, others) = map(_either, key)
            owners = [_owner(terms[n >> 1], n) for n in index.get(key)]
            for ch in one:
                self._firsts.setdefault(ch, []).append((other, owners))
            hashes.append((ones[:, None] * _ONE + others * _OTHER).ravel())
        # Most pairs of a text are nobody's, and one look at a table for the whole text says which.
        size = 1 << max(10, (sum(map(len, hashes)) * _SPARSE).bit_length())
        self._mask = np.uint32(size - 1)
        self._some = np.zeros(size, bool)
        if hashes:
            self._some[np.concatenate(hashes) & self._mask] = True

    def find(self, text: str) -> Hits:
        way = views.SHAPE.places(text)
        found = self._found("".join([text[i] for i in way]))
        return [(owner.number, tuple(way[begin : begin + len(owner.term)])) for begin, owner in found]

    def _found(self, text: str) -> Iterator[tuple[int, _Owner]]:
        """(where it would begin, whose it is), Han characters only."""
        codes = _codes(text)
        pairs = self._some[(codes[:-1] * _ONE + codes[1:] * _OTHER) & self._mask]
        for at in np.flatnonzero(pairs).tolist():
            other = text[at + 1]
            for alike, owners in self._firsts.get(text[at], ()):
                if other in alike:
                    for owner in owners:
                        begin = at + owner.begin
                        if begin >= 0 and owner.may_be(text, begin):
                            yield begin, owner

    def __bool__(self) -> bool:
        return bool(self._firsts)


_ONE, _OTHER = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)
_SPARSE = 16
"""Places of the table for a pair."""


def _codes(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


Redrawn: type[Native | Pure] = Native if native.views is not None else Pure
"""The engine of this installation."""
