"""Looking up: patterns by automaton, numbers by key, many strings in one; and all of it as arrays, for another process.

Law: what `of` makes of `arrays` answers as the original did.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from app.automaton import Array, Automaton, Engine, Hits, Live, Native
from app.text import CharTable


class Texts(Sequence[str]):
    """Many strings in two arrays: nothing to decode when a list is loaded."""

    def __init__(self, texts: Sequence[str]) -> None:
        codes = "".join(texts).encode("utf-32-le", "surrogatepass")
        self._take(np.frombuffer(codes, np.uint8), _sums(map(len, texts), len(texts)))

    def _take(self, codes: Array, ends: Array) -> None:
        self._codes, self._ends = codes.data, ends.data

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        codes = self._codes[4 * self._ends[i - 1] if i else 0 : 4 * self._ends[i]]
        return codecs.utf_32_le_decode(codes, "surrogatepass")[0]  # str() takes twice as long to find it

    def arrays(self) -> dict[str, Array]:
        """What it is made of, for `of`."""
        return {"codes": np.asarray(self._codes), "ends": np.asarray(self._ends)}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Texts:
        made = cls.__new__(cls)
        made._take(arrays["codes"], arrays["ends"])
        return made


class Index:
    """Numbers by a key of two characters."""

    def __init__(self, owned: Iterable[tuple[str, int]]) -> None:
        pairs = sorted({(ord(key[0]) << 32 | ord(key[1]), number) for key, number in owned})
        self._take(np.array([k for k, _ in pairs], np.int64), np.array([n for _, n in pairs], np.int64))

    def _take(self, keys: Array, numbers: Array) -> None:
        self._keys, self._numbers = keys.data, numbers.data

    def __bool__(self) -> bool:
        return len(self._keys) > 0

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return (chr(key >> 32) + chr(key & 0xFFFFFFFF) for key in np.unique(self._keys).tolist())

    def seconds(self) -> dict[str, str]:
        """Of each first character of the keys: the second ones."""
        keys = np.unique(self._keys)
        firsts, begins = np.unique(keys >> 32, return_index=True)
        others = (keys & 0xFFFFFFFF).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        ends = [*begins[1:].tolist(), len(keys)]
        return {chr(one): others[a:b] for one, a, b in zip(firsts.tolist(), begins.tolist(), ends, strict=False)}

    def get(self, key: str) -> list[int]:
        if len(key) != 2:
            return []
        wanted = ord(key[0]) << 32 | ord(key[1])
        first = bisect_left(self._keys, wanted)
        if first == len(self._keys) or self._keys[first] != wanted:
            return []
        return self._numbers[first : bisect_right(self._keys, wanted, first)].tolist()

    def arrays(self) -> dict[str, Array]:
        return {"keys": np.asarray(self._keys), "numbers": np.asarray(self._numbers)}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Index:
        made = cls.__new__(cls)
        made._take(arrays["keys"], arrays["numbers"])
        return made


class Lookup:
    """Patterns with the numbers (0 or more, 63 bits) of those that own them. `table`: the view of a text that they are in
    (None: the text as it is); `live`: whether `watch` is to be asked."""

    find: Callable[..., Hits]
    """find(text, since=0): every occurrence in text[since:]."""
    watch: Callable[..., tuple[Hits, Live | None]]
    """watch(text, since=0): the same, and what of the end may still become a pattern."""

    def __init__(self, owned: Iterable[tuple[str, int]], table: CharTable | None = None, live: bool = False) -> None:
        owners: dict[str, dict[int, None]] = {}
        for pattern, owner in owned:
            owners.setdefault(pattern, {})[owner] = None
        patterns = sorted(filter(None, owners))
        self._take(
            _sums((len(owners[p]) for p in patterns), len(patterns)),
            np.fromiter((n for p in patterns for n in owners[p]), np.int64),
            Automaton(patterns, table, live) if patterns else None,
        )

    def _take(self, ends: Array, owners: Array, engine: Engine | None) -> None:
        self._engine = engine
        self.find = engine.find if engine is not None else _found_nothing
        self.watch = engine.watch if engine is not None else _watched_nothing
        self._ends, self._owners = ends.data, owners.data

    def arrays(self) -> dict[str, Array]:
        """What was built, for `of`."""
        return {
            "ends": np.asarray(self._ends),
            "owners": np.asarray(self._owners),
            **(self._engine.arrays() if self._engine is not None else {}),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Array], table: CharTable | None = None) -> Lookup:
        made = cls.__new__(cls)
        engine = Automaton.of(arrays, table) if arrays["ends"].size else None
        made._take(arrays["ends"], arrays["owners"], engine)
        return made

    def __bool__(self) -> bool:
        return self._engine is not None

    @property
    def compiled(self) -> Any:
        """The automaton itself, where the engine is the one in C; None without patterns."""
        return self._engine.compiled if isinstance(self._engine, Native) else None

    def owners(self, number: int) -> list[int]:
        return self._owners[self._ends[number - 1] if number else 0 : self._ends[number]].tolist()


def _found_nothing(text: str, since: int = 0) -> Hits:
    return ()


def _watched_nothing(text: str, since: int = 0) -> tuple[Hits, Live | None]:
    return (), None


def _sums(numbers: Iterable[int], count: int) -> Array:
    """The sum up to and with each of `count` numbers."""
    return np.cumsum(np.fromiter(numbers, np.int64, count))


def as_bytes(text: str) -> Array:
    """`text` as an array."""
    return np.frombuffer(text.encode(), np.uint8)


def part_of(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    """The arrays of one part, by their names within it."""
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
