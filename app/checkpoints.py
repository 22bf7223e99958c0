"""Check points: where a text is looked at as a whole. Law: a function of the folded text alone, never of chunking or the clock.

One stands behind every sentence, and after so many characters where a sentence is longer. What judges whole texts is asked there
and nowhere else, so a streamed answer and a plain one are asked about the same texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

LEAST = 16
"""Folded characters between two check points at least: "Yes. No. Yes." is one question."""
PREFIX = 4096
"""Folded characters that a question shows at most: a text that is read from its beginning is judged better than its last sentence."""
WINDOW = 240
"""Folded characters that a scorer looks at together at most: the last piece alone, and it with those before it."""
_END = re.compile(r"[。!?;\n]|\.\s")


class Check(NamedTuple):
    """A question about a text. `text`: folded, up to the check point; `since`: the last check point in it; `at`: the check point
    in the whole text."""

    text: str
    since: int
    at: int


def points(text: str, since: int, every: int) -> Iterator[int]:
    """The check points of `text` behind `since`, itself one (or the beginning), that no further text can move."""
    at = since
    for sentence in _END.finditer(text, since):
        end = sentence.end()
        while end - at > every:
            at += every
            yield at
        if end - at >= LEAST:
            at = end
            yield at
    while len(text) - at >= every:
        at += every
        yield at


def pieces(text: str, every: int) -> list[str]:
    """All of folded `text`, from one check point to the next; its end is one."""
    ends = [*points(text, 0, every), len(text)]
    return [text[a:b] for a, b in pairwise([0, *ends]) if a < b]


def behind(sizes: Sequence[int], size: int) -> int:
    """How many of the pieces of these `sizes` lie too far back to be looked at together with one of `size` that follows them."""
    total, count = sum(sizes) + size, 0
    while count < len(sizes) and total > WINDOW:
        total -= sizes[count]
        count += 1
    return count
