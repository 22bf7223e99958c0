"""The end of a text that more may follow: where in it the first term begins that is not complete.

Law: a pure function of the text, never further left than it must be, for it is what a stream holds back. Two engines, one
answer: `_scan` matches and looks at the end in one pass, and `Pure` says the same in Python (tests/unit/test_native.py).
"""

from __future__ import annotations

from app import native, views
from app.align import GAP, REPEATS
from app.automaton import Hits, Places
from app.lookup import Lookup
from app.text import is_word

_LEET = "".join(sorted(views.LEET))


class Native:
    """The engine in C."""

    def __init__(self, terms: Lookup, breaks: Lookup, run: int) -> None:
        """`terms`, with `live`, and `breaks` (forms.breaks): both of the skeleton. `run`: how many characters that are one a
        term begins with at most."""
        assert native.scan is not None
        self._look = None
        if terms.compiled is not None:
            skeleton = views.SKELETON.map
            self._look = native.scan.Ends(terms.compiled, breaks.compiled, skeleton, _LEET, GAP, REPEATS, run).look

    def look(self, text: str, since: int) -> tuple[Hits, int]:
        """Every occurrence in text[since:], and where what may still become a term begins: len(text) if nothing does."""
        if self._look is None:
            return (), len(text)
        return self._look(text, since) or self._again(text, since)

    def _again(self, text: str, since: int) -> tuple[Hits, int]:
        """With the characters that the map did not know."""
        assert self._look is not None
        views.SKELETON.meet(text)
        found: tuple[Hits, int] = self._look(text, since)
        return found


class Pure:
    """The engine for where nothing can be compiled."""

    def __init__(self, terms: Lookup, breaks: Lookup, run: int) -> None:
        self._terms, self._breaks, self._run = terms, breaks, run

    def look(self, text: str, since: int) -> tuple[Hits, int]:
        found, live = self._terms.watch(text, since)
        return found, len(text) if live is None else self._hold(text, *live)

    def _hold(self, text: str, places: Places, starts: Places) -> int:
        """Start of the longest suffix that may still become a term: no gap in it is wider than GAP, no run longer than REPEATS."""
        size = len(text)
        if size - places[0] == len(places) and text[places[0]] >= "\u2e80":
            return places[0]  # nothing between, and no word goes on into it
        # From the end back to the first gap that no match can span.
        reach, after, begin = len(places), size, -1
        while reach and size - places[0] > len(places):
            gap = text[places[reach - 1] + 1 : after]
            if len(gap) > GAP and _spans(gap):
                # What is too long a run to stand in a term may still end in the first characters of one.
                begin = _last_part(text, places[reach - 1], after)
                reach -= begin < after
                break
            reach -= 1
            after = places[reach]
        else:
            reach = 0
        for first in starts:
            if first < reach or self._shut(text, places, first):
                continue
            stop = places[first + 1] if first + 1 < len(places) else size
            begins = starts_in(text, begin if first == reach and begin >= 0 else places[first], stop)
            for start in (
                begins if is_word(text[begins[-1]]) or text[begins[-1]] in views.LEET else begins[-self._run :]
            ):
                # In the middle of a Latin word no term can start: it would fail its left boundary. A digit may stand for 二.
                if not (start and is_word(text[start - 1]) and (is_word(text[start]) or text[start] in views.LEET)) or (
                    text[start].isdecimal()
                ):
                    return start
        return size

    def _shut(self, text: str, places: Places, first: int) -> bool:
        """From places[first] on stand letters of which some touch, and then a space: no term goes on from there, but one that has
        a space or a mark of its own at it, or Han."""
        touch = False
        for k in range(first, len(places)):
            at = places[k]
            if not "a" <= text[at] <= "z":
                return False
            gap = text[at + 1 : places[k + 1] if k + 1 < len(places) else len(text)]
            if not gap:
                touch = touch or (k + 1 < len(places) and not self._breaks_off(text, places[first], at))
            elif (
                touch
                and all(map(views.is_noise, gap))
                and any(map(str.isspace, gap))
                and not self._breaks_off(text, places[first], at)
            ):
                return True
        return False

    def _breaks_off(self, text: str, start: int, last: int) -> bool:
        """What stands from `start` to `last` is the beginning of a term up to where it may be broken off."""
        part = text[start : last + 1]
        return any(found[0] == 0 and found[-1] == last - start for _, found in self._breaks.find(part))


Ends: type[Native | Pure] = Native if native.scan is not None else Pure
"""The engine of this installation."""


def starts_in(text: str, begin: int, stop: int) -> list[int]:
    """Places in text[begin:stop] where a match may begin: the first and the last characters of a run (and of its repeats
    beyond noise)."""
    if stop - begin <= 1:
        return [begin]
    return [i for i in range(begin, stop) if not views.is_noise(text[i])][-REPEATS - 1 :]


def _last_part(text: str, begin: int, stop: int) -> int:
    """From where on a match that begins in the run text[begin:stop] reaches to its end; `stop` if none does."""
    noise = 0
    for at in reversed(range(begin, stop)):
        noise = noise + 1 if views.is_noise(text[at]) else 0
        if noise > GAP:
            return at + noise
    return begin


def _spans(gap: str) -> bool:
    """No match reaches over `gap`: noise, and repeats of the character before it."""
    noise = repeats = 0
    for ch in gap:
        if views.is_noise(ch):
            noise += 1
        else:
            noise, repeats = 0, repeats + 1
        if noise > GAP or repeats > REPEATS:
            return True
    return False
