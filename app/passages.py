"""Fingerprints of passages, and finding them again. Law: keyed, so that nothing here can be read back without the key.

A passage of folded, compacted text (letters and digits only) is kept as MACs of its prefixes: of 1 to GATE characters,
then at growing lengths up to the whole. A stream is held from a place where the text so far may be a passage, and let
go at the first prefix that differs. Compacting makes spaces, punctuation and line breaks irrelevant.

A passage is found here where it occurs whole (docs/adr/0007); near copies are a matter of copies.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from app.text import fold

GATE = 8
MIN = 12
"""Compacted characters a passage must have: shorter ones belong in a term."""
MAX = 20_000
_SHORT = 4
"""Compacted characters: MACs of so few are remembered."""
_SIZE = 8
_DENSE = re.compile(r"[^\W_]+")

V = TypeVar("V")


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


def spread(text: str, since: int) -> tuple[list[int], str]:
    """Where letters and digits stand in folded `text[since:]`, as indices of `text`, and they by themselves."""
    places: list[int] = []
    parts = []
    for found in _DENSE.finditer(text, since):
        places.extend(range(*found.span()))
        parts.append(found[0])
    return places, "".join(parts)


def mac(key: bytes, text: str, size: int = _SIZE) -> bytes:
    """`size` bytes."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=size).digest()


class Memo(dict[str, V]):
    """What `of` gives for a short text, remembered."""

    _ROOM = 1 << 17

    def __init__(self, of: Callable[[str], V]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, text: str) -> V:
        value = self._of(text)
        # Text made to fill it must not fill the memory: past this it is computed each time.
        if len(self) < self._ROOM:
            self[text] = value
        return value


def _lengths(total: int) -> list[int]:
    steps = list(range(1, GATE + 1))
    while steps[-1] < total:
        steps.append(min(total, steps[-1] + max(4, steps[-1] // 2)))
    return steps


def sized(passage: str) -> str:
    """A passage folded and compacted. Raises ValueError if it is too short or too long then."""
    text = compact(fold(passage))
    if not MIN <= len(text) <= MAX:
        raise ValueError(f"a passage must have {MIN} to {MAX} letters or digits, this one has {len(text)}")
    return text


def fingerprint(passage: str, kid: str, key: bytes) -> Fingerprint:
    """`passage`: original text. Raises ValueError for one that is too short or too long."""
    text = sized(passage)
    return Fingerprint(kid, tuple((n, mac(key, text[:n])) for n in _lengths(len(text))))


@dataclass(slots=True)
class _Node:
    """Reached by matching the marks so far: what it may become, and whose end it is."""

    next: dict[int, dict[bytes, _Node]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)


class _Starts:
    """Where passages of one key id may begin in a text: nearly all places are ruled out by their character, or by it and the next.
    `of`: the MAC of a short text; `root`: where all of them begin."""

    def __init__(self, root: _Node, of: Memo[bytes]) -> None:
        self._first, self._of = root.next.get(1, {}), of
        self._known: set[str] = set()
        self._nodes: dict[str, _Node] = {}
        self._shape: re.Pattern[str] | None = None
        self._second: Memo[_Node | None] = Memo(self._gone_on)

    def find(self, dense: str) -> list[tuple[int, _Node]]:
        """(place, what begins there)."""
        if fresh := set(dense).difference(self._known):
            self._meet(fresh)
        if self._shape is None:
            return []
        second, last = self._second, len(dense) - 1
        found = []
        for at in [m.start() for m in self._shape.finditer(dense)]:
            node = second[dense[at : at + 2]] if at < last else self._nodes[dense[at]]
            if node is not None:
                found.append((at, node))
        return found

    def _meet(self, fresh: set[str]) -> None:
        begin = {ch: node for ch in fresh if (node := self._first.get(self._of[ch])) is not None}
        self._known |= fresh
        if begin:
            self._nodes |= begin
            self._shape = re.compile(f"[{re.escape(''.join(self._nodes))}]")

    def _gone_on(self, pair: str) -> _Node | None:
        # No passage is as short, so that none ends here.
        return self._nodes[pair[0]].next.get(2, {}).get(self._of[pair])


class Passages:
    """Many fingerprints under one key id's key, searched together."""

    def __init__(self, prints: Iterable[Fingerprint], keys: dict[str, bytes]) -> None:
        self._keys = keys
        self._roots: dict[str, _Node] = {}
        self._short = {kid: Memo(partial(mac, key)) for kid, key in keys.items()}
        for i, p in enumerate(prints):
            node = self._roots.setdefault(p.kid, _Node())
            for n, of in p.marks:
                node = node.next.setdefault(n, {}).setdefault(of, _Node())
            node.ends.append(i)
        # Of a key that was rotated out nothing is found; the blocklist counts those.
        self._starts = {kid: _Starts(root, self._short[kid]) for kid, root in self._roots.items() if kid in keys}

    def find(self, text: str, since: int, final: bool) -> tuple[list[tuple[int, int, int]], int, int]:
        """(start, end, number) of the passages in folded `text[since:]`, the hold, and the length at which the
        earliest open one can be decided (0: none is open)."""
        dense = "".join(_DENSE.findall(text, since))
        found: list[tuple[int, int, int]] = []
        hold, wake = len(text), 0
        places: list[int] = []
        for kid, starts in self._starts.items():
            for at, node in starts.find(dense):
                places = places or spread(text, since)[0]
                needed = self._follow(kid, dense, at, node, places, found)
                if needed and not final and places[at] <= hold:
                    length = len(text) + needed - len(dense)
                    wake = length if places[at] < hold else min(wake, length)
                    hold = places[at]
        return found, hold, wake

    def _follow(
        self, kid: str, dense: str, at: int, node: _Node, places: list[int], found: list[tuple[int, int, int]]
    ) -> int:
        """Walk the prefixes that start at `at`; how many characters of `dense` it takes to go on, 0 if all are decided."""
        key, short = self._keys[kid], self._short[kid]
        needed = 0
        stack = [node]
        while stack:
            node = stack.pop()
            for n, nodes in node.next.items():
                if at + n > len(dense):
                    needed = min(needed or at + n, at + n)
                    continue
                start = dense[at : at + n]
                if (hit := nodes.get(short[start] if n <= _SHORT else mac(key, start))) is not None:
                    found.extend((places[at], places[at + n - 1] + 1, i) for i in hit.ends)
                    stack.append(hit)
        return needed
