"""Word boundaries in Chinese. Owns the one door to the segmenter.

rjieba is jieba's algorithm and dictionary in Rust: 4 to 8 µs for a window where jieba takes 60 to 160, in 10 MB and
without a cache file in /tmp. tests/unit/test_words.py holds it against jieba itself (docs/adr/0005).
"""

from __future__ import annotations

import rjieba


def crossed(window: str, start: int, end: int) -> tuple[bool, bool]:
    """Whether a word of `window` lies across the first, and across the second edge of [start, end).

    A word that contains the whole span does not cross it (杀人犯 contains 杀人), nor does one inside it.
    """
    first = second = False
    at = 0
    for word in rjieba.cut(window, False):
        here, at = at, at + len(word)
        first = first or here < start < at < end
        second = second or start < here < end < at
    return first, second


def crosses(window: str, start: int, end: int) -> bool:
    """True if a word of `window` lies across an edge of [start, end): then the characters there are no word of their own."""
    return any(crossed(window, start, end))


def singles(window: str, start: int, end: int) -> bool:
    """True if every character of [start, end) is a word by itself in `window`."""
    at = 0
    for word in rjieba.cut(window, False):
        here, at = at, at + len(word)
        if len(word) > 1 and here < end and at > start:
            return False
    return True


def is_word(text: str) -> bool:
    """True if `text` is in the dictionary as one word."""
    return len(text) > 1 and rjieba.cut(text, False) == [text]


def tags(text: str) -> list[tuple[str, str]]:
    """The words of `text`, names it does not know among them, with their parts of speech (jieba's: nr a person, ns a place)."""
    return [(word, tag) for word, tag in rjieba.tag(text, True)]
