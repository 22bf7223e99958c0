"""Patterns in a view of a text: where they occur, and what of the text's end may still become one.

Law: two engines, one answer. `_scan` (C, built at install) maps and matches in one pass and tells its state at the end; without
it daachorse searches what was mapped before, and a second automaton over every proper prefix + SENTINEL tells the live ones
(docs/adr/0004, 0013).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from daachorse import CharwiseDoubleArrayAhoCorasick

from app import native
from app.text import SENTINEL, CharTable

Array = np.ndarray[Any, np.dtype[Any]]
Places = tuple[int, ...]
Hits = Sequence[tuple[int, Places]]
"""(number of a pattern, the indices in the text of the characters that make it up)."""


class Live(NamedTuple):
    """`places`: of what may still become a pattern, longest first to begin; `starts`: where in them each begins, ascending."""

    places: Places
    starts: Places


_NOTHING: tuple[Hits, None] = ((), None)


class Native:
    """The engine in C."""

    name = "native"

    def __init__(self, patterns: Sequence[str], table: CharTable | None = None, live: bool = False) -> None:
        """`patterns`: distinct, not empty, sorted. `table`: the view of a text that they are in."""
        codes = np.frombuffer("".join(patterns).encode("utf-32-le", "surrogatepass"), np.uint32)
        counts = np.bincount(codes)
        # The commonest characters get the least numbers: their children lie close together.
        known = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        letters = np.zeros(len(counts), np.uint32)
        letters[known] = np.arange(1, len(known) + 1)
        ends = np.cumsum(np.fromiter(map(len, patterns), np.int64, len(patterns)))
        assert native.scan is not None
        states, depths, roots, outputs = native.scan.build(letters[codes].tobytes(), ends.tobytes(), len(known))
        self._take(
            {
                "states": np.frombuffer(states, np.int32),
                "depths": np.frombuffer(depths, np.uint16),
                "roots": np.frombuffer(roots, np.int32),
                "letters": letters,
                "outputs": np.frombuffer(outputs, np.int32),
            },
            table,
        )

    def _take(self, arrays: Mapping[str, Array], table: CharTable | None) -> None:
        assert native.scan is not None
        self._arrays = {name: arrays[name] for name in ("states", "depths", "roots", "letters", "outputs")}
        self.compiled = native.scan.Automaton(*self._arrays.values())
        self._scan = self.compiled.scan
        self._table, self._map = table, None if table is None else table.map

    def arrays(self) -> Mapping[str, Array]:
        return self._arrays

    @classmethod
    def of(cls, arrays: Mapping[str, Array], table: CharTable | None = None) -> Native:
        made = cls.__new__(cls)
        made._take(arrays, table)
        return made

    def find(self, text: str, since: int = 0) -> Hits:
        """Every occurrence in text[since:]."""
        found = self._scan(text, self._map, since, False)
        if found is False:
            found = self._again(text, since, False)
        return found or ()

    def watch(self, text: str, since: int = 0) -> tuple[Hits, Live | None]:
        """The same, and what of the end may still become a pattern."""
        found = self._scan(text, self._map, since, True)
        if found is False:
            found = self._again(text, since, True)
        if found is None:
            return _NOTHING
        hits, live = found
        return hits or (), live and Live(*live)

    def _again(self, text: str, since: int, live: bool) -> Any:
        """With the characters that the map did not know."""
        assert self._table is not None
        self._table.meet(text)
        return self._scan(text, self._map, since, live)


class Pure:
    """The engine for where nothing can be compiled."""

    name = "pure"

    def __init__(self, patterns: Sequence[str], table: CharTable | None = None, live: bool = False) -> None:
        """`patterns`: distinct, not empty. Without `live`, `watch` tells nothing of the end."""
        self._table = table
        self._patterns = CharwiseDoubleArrayAhoCorasick(list(patterns))
        prefixes = {p[:n] for p in patterns for n in range(1, len(p))} if live else ()
        self._prefixes = CharwiseDoubleArrayAhoCorasick([p + SENTINEL for p in prefixes]) if prefixes else None
        self._longest = max(map(len, patterns))

    def arrays(self) -> Mapping[str, Array]:
        kept = {"patterns": self._patterns, "prefixes": self._prefixes}
        return {name: np.frombuffer(one.serialize() if one else b"", np.uint8) for name, one in kept.items()} | {
            "longest": np.array([self._longest])
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Array], table: CharTable | None = None) -> Pure:
        made = cls.__new__(cls)
        made._table = table
        restore = CharwiseDoubleArrayAhoCorasick.deserialize
        made._patterns = restore(arrays["patterns"].tobytes())
        made._prefixes = restore(arrays["prefixes"].tobytes()) if arrays["prefixes"].size else None
        made._longest = int(arrays["longest"][0])
        return made

    def find(self, text: str, since: int = 0) -> Hits:
        return self._both(text, since, False)[0]

    def watch(self, text: str, since: int = 0) -> tuple[Hits, Live | None]:
        return self._both(text, since, True)

    def _both(self, text: str, since: int, live: bool) -> tuple[Hits, Live | None]:
        table = self._table
        rest = text[since:] if since else text
        shown = rest if table is None else table.apply(rest)
        found = self._patterns.find_overlapping(shown)
        tail = shown[max(0, len(shown) - self._longest + 1) :]
        alive = self._prefixes.find_overlapping(tail + SENTINEL) if live and self._prefixes else []
        if not found and not alive:
            return _NOTHING
        places = range(len(rest)) if table is None else table.places(rest)

        def at(start: int, end: int) -> Places:
            return tuple([i + since for i in places[start:end]])

        hits = [(number, at(start, end)) for start, end, number in found]
        if not alive:
            return hits, None
        starts = sorted(start for start, _, _ in alive)
        begin = len(shown) - len(tail) + starts[0]
        return hits, Live(at(begin, len(shown)), tuple([s - starts[0] for s in starts]))


Engine = Native | Pure
Automaton: type[Engine] = Native if native.scan is not None else Pure
"""The engine of this installation."""
