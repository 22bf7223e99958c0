"""Fingerprints of passages, and finding them again. Law: keyed, so that nothing here can be read back without the key.

A passage of folded, compacted text (letters and digits only) is kept as MACs of its prefixes: of 1 to GATE characters,
then at growing lengths up to the whole. A stream is held from a place where the text so far may be a passage, and let
go at the first prefix that differs. Compacting makes spaces, punctuation and line breaks irrelevant.

Today a passage is found where it occurs whole; near copies come with the cases that need them (docs/adr/0007).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.text import fold

GATE = 8
MIN = 12
"""Compacted characters a passage must have: shorter ones belong in a term."""
MAX = 20_000
_SIZE = 8


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`marks`: (length in compacted characters, MAC of that prefix), ascending; the last is the whole passage."""

    kid: str
    marks: tuple[tuple[int, bytes], ...]

    @property
    def length(self) -> int:
        return self.marks[-1][0]


def compact(folded: str) -> str:
    """Letters and digits only."""
    return "".join(filter(str.isalnum, folded))


def _mac(key: bytes, text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=_SIZE).digest()


def _lengths(total: int) -> list[int]:
    steps = list(range(1, GATE + 1))
    while steps[-1] < total:
        steps.append(min(total, steps[-1] + max(4, steps[-1] // 2)))
    return steps


def fingerprint(passage: str, kid: str, key: bytes) -> Fingerprint:
    """`passage`: original text. Raises ValueError if it is too short or too long once compacted."""
    text = compact(fold(passage))
    if not MIN <= len(text) <= MAX:
        raise ValueError(f"a passage must have {MIN} to {MAX} letters or digits, this one has {len(text)}")
    return Fingerprint(kid, tuple((n, _mac(key, text[:n])) for n in _lengths(len(text))))


@dataclass(slots=True)
class _Node:
    """Reached by matching the marks so far: what it may become, and whose end it is."""

    next: dict[int, dict[bytes, _Node]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)


class Passages:
    """Many fingerprints under one key id's key, searched together."""

    def __init__(self, prints: Iterable[Fingerprint], keys: dict[str, bytes]) -> None:
        self._keys = keys
        self._roots: dict[str, _Node] = {}
        self._first: dict[str, dict[str, _Node | None]] = {}  # kid -> character -> what may begin with it
        for i, p in enumerate(prints):
            node = self._roots.setdefault(p.kid, _Node())
            for n, mac in p.marks:
                node = node.next.setdefault(n, {}).setdefault(mac, _Node())
            node.ends.append(i)

    def find(self, text: str, since: int, final: bool) -> tuple[list[tuple[int, int, int]], int, int]:
        """(start, end, number) of the passages in folded `text[since:]`, the hold, and the length at which the
        earliest open one can be decided (0: none is open)."""
        places = [i for i in range(since, len(text)) if text[i].isalnum()]
        dense = "".join([text[i] for i in places])
        found: list[tuple[int, int, int]] = []
        hold, wake = len(text), 0
        for kid, root in self._roots.items():
            key = self._keys.get(kid)
            if key is None:
                continue  # counted by the blocklist: a rotated-out key
            first = root.next.get(1, {})
            known = self._first.setdefault(kid, {})
            for at, ch in enumerate(dense):
                if ch not in known:
                    known[ch] = first.get(_mac(key, ch))
                if (node := known[ch]) is None:
                    continue
                needed = self._follow(key, dense, at, node, places, found)
                if needed and not final and places[at] <= hold:
                    length = len(text) + needed - len(dense)
                    wake = length if places[at] < hold else min(wake, length)
                    hold = places[at]
        return found, hold, wake

    def _follow(
        self, key: bytes, dense: str, at: int, node: _Node, places: list[int], found: list[tuple[int, int, int]]
    ) -> int:
        """Walk the prefixes that start at `at`; how many characters of `dense` it takes to go on, 0 if all are decided."""
        needed = 0
        stack = [node]
        while stack:
            node = stack.pop()
            for n, nodes in node.next.items():
                if at + n > len(dense):
                    needed = min(needed or at + n, at + n)
                elif (hit := nodes.get(_mac(key, dense[at : at + n]))) is not None:
                    found.extend((places[at], places[at + n - 1] + 1, i) for i in hit.ends)
                    stack.append(hit)
        return needed
