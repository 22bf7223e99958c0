"""Pinyin in Latin letters: which tokens of a text are syllables, and whether they are meant as such.

Law: a token is pinyin as a whole or not at all; toneless.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache, lru_cache

from app import native, views
from app.text import is_han, is_word

_LATIN = re.compile("(?:[a-z]{2,6}[1-5])+(?![a-z0-9])|[a-z][a-z'’]+")
"""Syllables with their tones, or letters."""
_TONED = re.compile("[a-z]+[1-5]")
_NEAR = 32
"""Characters beside two syllables that are looked at for English."""
ENGLISH = frozenset(["a", "ai", "an", "can", "e", "he", "me", "men", "o", "she", "you"])
"""Syllables that stand in Chinese text as words of their own."""
_LONE = frozenset(["m", "n", "ng", "hm", "hng", "r"])
"""Readings of interjections: no syllable of a word."""
_LONGEST = 24
"""Letters of a token of syllables at most."""


def _parse(token: str) -> tuple[str, ...] | None:
    """A Latin token as pinyin syllables, the longest first; None if it is none."""
    return _parsed(token) if len(token) <= _LONGEST else None


@lru_cache(1 << 14)
def _parsed(token: str) -> tuple[str, ...] | None:
    if token[-1].isdecimal():
        toned = tuple(_TONED.findall(token))
        return toned if all(views.syllable(name[:-1]) is not None for name in toned) else None
    token = token.replace("’", "'").rstrip("'")
    # From the end, so that a token of many readings costs no more than another.
    rest: list[tuple[str, ...] | None] = [None] * len(token) + [()]
    for at in reversed(range(len(token))):
        if token[at] == "'" and at:
            rest[at] = rest[at + 1]
            continue
        for size in range(min(6, len(token) - at), 0, -1):
            name, after = token[at : at + size], rest[at + size]
            if after is not None and name not in _LONE and views.syllable(name) is not None:
                rest[at] = name, *after
                break
    return rest[0]


def parsed(text: str) -> Iterable[tuple[int, int]]:
    """Where the tokens of `text` stand that are pinyin."""
    return (found.span() for found in _LATIN.finditer(text) if _parse(found[0]))


@cache
def tokens() -> Callable[[str], Iterable[tuple[int, int]] | None]:
    """`parsed` of this installation: in C (None where there are none), or the one above."""
    if native.views is None:
        return parsed
    return native.views.Syllables({name: name in _LONE for name in views.syllables()}).tokens


@lru_cache(1 << 14)
def _placed(token: str) -> tuple[tuple[str, int, int], ...]:
    """The syllables of a token: the private character of each, and where in the token it stands."""
    placed, at = [], 0
    for name in _parse(token) or ():
        at = token.index(name, at)
        placed.append((views.syllable(name.rstrip("12345")) or "", at, at + len(name)))
        at += len(name)
    return tuple(placed)


class Spelt:
    """A text with its Latin tokens that are pinyin as private characters, one for each syllable."""

    def __init__(self, text: str) -> None:
        made: list[str] = []
        self.syllables: list[int] = []  # where they are in self.text
        self.spans: list[tuple[int, int]] = []  # where each of them stands in the text
        at = size = 0
        for begin, end in tokens()(text) or ():
            made.append(text[at:begin])
            size += begin - at
            for private, start, stop in _placed(text[begin:end]):
                made.append(private)
                self.syllables.append(size)
                self.spans.append((begin + start, begin + stop))
                size += 1
            at = end
        made.append(text[at:])
        self.text = "".join(made) if at else text

    def span(self, i: int) -> tuple[int, int]:
        """Where character i of self.text stands in the text."""
        k = bisect_right(self.syllables, i) - 1
        if k < 0:
            return i, i + 1
        start, end = self.spans[k]
        past = i - self.syllables[k]
        return (start, end) if not past else (end + past - 1, end + past)


def beside(shown: str, i: int, step: int) -> int | None:
    """The next character that sounds, at most one of noise away."""
    for at in (i + step, i + 2 * step):
        if not 0 <= at < len(shown):
            return None
        code = ord(shown[at])
        if views.SOUND[code] is not None:
            return at
        if views.SKELETON[code] is not None:
            return None
    return None


def is_syllable(ch: str) -> bool:
    """True for a private character."""
    return "\ue000" <= ch <= "\ue7ff"


@lru_cache(1 << 13)
def sound(ch: str) -> str:
    """The private character that `ch` sounds like, or ''."""
    made = views.SOUND[ord(ch)]
    return chr(made) if isinstance(made, int) else ""


def whole_token(text: str, start: int, end: int) -> bool:
    """No letter or digit touches text[start:end]."""
    return not (start and is_word(text[start - 1])) and not (end < len(text) and is_word(text[end]))


_BESIDE = re.compile("[a-z]+")


def whole_words(text: str, start: int, end: int) -> bool:
    """Two syllables are whole tokens, and the three tokens on either side (up to Han text) are no English."""
    if not whole_token(text, start, end):
        return False
    before, after = text[max(0, start - _NEAR) : start], text[end : end + _NEAR]
    before = before[max((i + 1 for i, c in enumerate(before) if is_han(c)), default=0) :]
    after = after[: next((i for i, c in enumerate(after) if is_han(c)), len(after))]
    beside = [*_BESIDE.findall(before)[-3:], *_BESIDE.findall(after)[:3]]
    return all(_parse(token) is not None for token in beside)
