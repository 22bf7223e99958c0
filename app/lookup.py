"""Looking up: patterns by automaton, numbers by key, many strings in one; and all of it as arrays, for another process.

Law: what `of` makes of `arrays` answers as the original did. Engine: daachorse, charwise; a second automaton over every proper
prefix + SENTINEL gives the live prefix without any support from the engine (docs/adr/0004).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from daachorse import CharwiseDoubleArrayAhoCorasick as Automaton

from app.text import SENTINEL

Array = np.ndarray[Any, np.dtype[Any]]


class Texts(Sequence[str]):
    """Many short strings in the memory of one, U+0000 between (no folded text holds it)."""

    def __init__(self, joined: str) -> None:
        self._joined = joined
        breaks = np.flatnonzero(np.frombuffer(joined.encode("utf-32-le"), np.uint32) == 0)
        self._ends = np.append(breaks, len(joined)).astype(np.uint32) if joined else breaks.astype(np.uint32)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return self._joined[int(self._ends[i - 1]) + 1 if i else 0 : int(self._ends[i])]


class Index:
    """Numbers by a key of two characters."""

    def __init__(self, owned: Iterable[tuple[str, int]]) -> None:
        pairs = sorted({(ord(key[0]) << 32 | ord(key[1]), number) for key, number in owned})
        self._keys = np.array([k for k, _ in pairs], np.uint64)
        self._numbers = np.array([n for _, n in pairs], np.int64)

    def __bool__(self) -> bool:
        return len(self._keys) > 0

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return (chr(key >> 32) + chr(key & 0xFFFFFFFF) for key in np.unique(self._keys).tolist())

    def get(self, key: str) -> list[int]:
        if len(key) != 2 or not len(self._keys):
            return []
        wanted = np.uint64(ord(key[0]) << 32 | ord(key[1]))
        first = int(self._keys.searchsorted(wanted))
        if first == len(self._keys) or self._keys[first] != wanted:
            return []
        found: list[int] = self._numbers[first : self._keys.searchsorted(wanted, "right")].tolist()
        return found

    def arrays(self) -> dict[str, Array]:
        return {"keys": self._keys, "numbers": self._numbers}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Index:
        made = cls(())
        made._keys, made._numbers = arrays["keys"], arrays["numbers"]
        return made


class Lookup:
    """Patterns with the numbers (0 or more, 63 bits) of those that own them, and the automata over them."""

    def __init__(self, owned: Iterable[tuple[str, int]], live: bool = True) -> None:
        owners: dict[str, int] = {}
        shared: dict[str, list[int]] = {}
        for pattern, owner in owned:
            known = owners.setdefault(pattern, owner)
            if known != owner:
                shared.setdefault(pattern, [known]).append(owner)
        # A pattern of several owners has -1 - the place of its row in _shared.
        self._shared = list(shared.values())
        for row, pattern in enumerate(shared):
            owners[pattern] = -1 - row
        self._owners = np.fromiter(owners.values(), np.int64, len(owners))
        self._automaton = Automaton(list(owners)) if owners else None
        self._longest = max(map(len, owners), default=0)
        prefixes = {p[:n] for p in owners for n in range(1, len(p))} if live else ()
        self._prefixes = Automaton([p + SENTINEL for p in prefixes]) if prefixes else None

    def arrays(self) -> dict[str, Array]:
        """What was built, for `of`."""
        return {
            "owners": self._owners,
            "shared": as_bytes(json.dumps(self._shared)),
            "longest": np.array([self._longest]),
            "automaton": np.frombuffer(self._automaton.serialize() if self._automaton else b"", np.uint8),
            "prefixes": np.frombuffer(self._prefixes.serialize() if self._prefixes else b"", np.uint8),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Lookup:
        made = cls(())
        made._owners, made._shared = arrays["owners"], json.loads(arrays["shared"].tobytes())
        made._longest = int(arrays["longest"][0])
        made._automaton = _restored(arrays["automaton"])
        made._prefixes = _restored(arrays["prefixes"])
        return made

    def __bool__(self) -> bool:
        return self._automaton is not None

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end, pattern) of every occurrence."""
        return self._automaton.find_overlapping(text) if self._automaton is not None else []

    def owners(self, number: int) -> Sequence[int]:
        owner = int(self._owners[number])
        return (owner,) if owner >= 0 else self._shared[-1 - owner]

    def live(self, text: str) -> list[int]:
        """Starts of the suffixes of `text` that may still become a pattern."""
        if self._prefixes is None:
            return []
        base = max(0, len(text) - self._longest + 1)
        tail = text[base:] if base else text
        return [start + base for start, _, _ in self._prefixes.find_overlapping(tail + SENTINEL)]


def as_bytes(text: str) -> Array:
    """`text` as an array."""
    return np.frombuffer(text.encode(), np.uint8)


def part_of(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    """The arrays of one part, by their names within it."""
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}


def _restored(array: Array) -> Automaton | None:
    return Automaton.deserialize(array.tobytes()) if array.size else None
