"""Near copies of passages: what of one stands in another text, edited, padded, in another script or another order.

Law: where a text shares RUN characters in a row with a passage (SPACED of a script that puts spaces between words), it is found,
from the first of them on; keyed and sealed, so that nothing here can be read, or compared character by character, without the key.

A gram is so many characters of folded, compacted text. A passage's grams begin at each of its characters, so that no run slips
between two of them. A gram is kept as the MAC of the whole, and as gates: keyed values of its first 1, 2, 4, 8 and 16 characters. A
stream is held from a place where the text so far may become a gram, and let go at the first gate that is shut. A gate is a sum of
values of single characters, which are remembered: most places of a text cost no MAC at all (docs/adr/0019).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from hashlib import shake_256
from typing import Any

import numpy as np

from app.passages import Memo, compact, mac, spread
from app.text import fold

RUN = 20
"""Compacted characters in a row that give a near copy away."""
SPACED = 24
"""The same where the first RUN of them are of scripts with spaces: 20 letters are three or four words, which chance repeats."""
LEAST = 40
"""Compacted characters a passage must have for its near copies to be found."""
VARIETY = 6
"""Different characters a gram must have to be evidence."""

_GATES = (1, 2, 4, 8, 16)
_BITS = 24
_MASK = (1 << _BITS) - 1
_STEP = 0x9E3779
_STEPS = tuple((n, np.uint32(pow(_STEP, n, 1 << 32))) for n in _GATES[:-1])
_RECORD = np.dtype([("whole", "<u8"), ("gates", "u1", (len(_GATES), _BITS // 8))])
_NONCE = 16
_SPARE = 6
"""A gate's table has 2 to the power of it bits for each gram, while it is smaller than all values: so often chance opens it."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Runs:
    """The grams of a passage, sealed under the key of `kid`: a nonce, then a record for each. `len`: how many."""

    kid: str
    sealed: bytes

    def __len__(self) -> int:
        return (len(self.sealed) - _NONCE) // _RECORD.itemsize


def grams(text: str) -> Iterator[str]:
    """The grams of original `text`, in order; by them it is said what stands in clean texts."""
    dense = compact(fold(text))
    lengths = ((at, _length(dense, at)) for at in range(len(dense) - RUN + 1))
    return (dense[at : at + n] for at, n in lengths if at + n <= len(dense))


def runs(passage: str, kid: str, key: bytes, clean: Container[str] = ()) -> Runs:
    """`passage`: original text; `clean`: grams of clean texts. Those, and grams of few different characters or of digits alone,
    are poor evidence and left out. A passage of fewer than LEAST letters and digits has none."""
    kept = [g for g in dict.fromkeys(grams(passage)) if len(set(g)) >= VARIETY and not g.isdigit() and g not in clean]
    if len(compact(fold(passage))) < LEAST:
        kept = []
    values = _values(key)
    raw = b"".join(sorted(mac(key, gram) + _gates(values, gram) for gram in kept))
    nonce = mac(key, raw.hex(), _NONCE)
    return Runs(kid, nonce + _sealed(raw, key, nonce))


def _length(dense: str, at: int) -> int:
    """Of a gram that begins with these RUN characters."""
    return RUN if max(dense[at : at + RUN]) >= "\u2e80" else SPACED


def _sealed(raw: bytes, key: bytes, nonce: bytes) -> bytes:
    """`raw` under a stream of the key; sealed again it is open. Of bare values of characters, which are few, whoever may file a
    report could make a code book for all others."""
    stream = shake_256(b"sluice/runs/1" + key + nonce).digest(len(raw))
    return (np.frombuffer(raw, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


def _values(key: bytes) -> Memo[int]:
    """Of a single character, a keyed number."""
    return Memo(lambda ch: int.from_bytes(mac(key, ch, _BITS // 8), "little"))


def _gates(values: Memo[int], gram: str) -> bytes:
    gate, made = 0, b""
    for n, ch in enumerate(gram[: _GATES[-1]], 1):
        gate = gate * _STEP + values[ch] & _MASK
        if n in _GATES:
            made += gate.to_bytes(_BITS // 8, "little")
    return made


class _Table:
    """The grams of one kid, and by number whose they are."""

    def __init__(self, key: bytes, records: Array, numbers: Array) -> None:
        self._key, self._values = key, _values(key)
        order = np.argsort(records["whole"], kind="stable")
        self._wholes = records["whole"][order].astype(np.uint64).data
        self._numbers = numbers[order].data
        gates = records["gates"] @ (1 << 8 * np.arange(_BITS // 8, dtype=np.uint32))
        # The tables of a few passages are small: one that is reported acts at once.
        self._mask = (1 << min(_BITS, len(records).bit_length() + _SPARE)) - 1
        self._gates = [_bits(column & self._mask, self._mask + 1) for column in gates.T]

    def places(self, dense: str) -> list[int]:
        """Where in `dense` as many characters as the last gate has stand with which a gram may begin."""
        if len(dense) < _GATES[-1]:
            return []
        gates = np.fromiter(map(self._values.__getitem__, dense), np.uint32, len(dense))
        for n, step in _STEPS:
            gates = gates[:-n] * step + gates[n:]
        gates &= self._mask
        found: list[int] = np.flatnonzero(self._gates[-1][gates >> 3] >> (gates & 7) & 1).tolist()
        return found

    def needed(self, start: str) -> int:
        """How many characters say more about a text that begins with these, fewer than the last gate has; 0: no gram begins so."""
        gate = n = 0
        for until, open_ in zip(_GATES, self._gates, strict=True):
            if until > len(start):
                return until
            for ch in start[n:until]:
                gate = gate * _STEP + self._values[ch] & self._mask
            if not open_[gate >> 3] >> (gate & 7) & 1:
                break
            n = until
        return 0

    def whose(self, gram: str) -> Iterator[int]:
        """By number, the passages that have it."""
        whole = int.from_bytes(mac(self._key, gram), "little")
        at = bisect_left(self._wholes, whole)
        while at < len(self._wholes) and self._wholes[at] == whole:
            yield self._numbers[at]
            at += 1


def _bits(values: Array, size: int) -> Array:
    table = np.zeros(size >> 3, np.uint8)
    np.bitwise_or.at(table, values >> 3, (1 << (values & 7)).astype(np.uint8))
    return table


class Copies:
    """The runs of many passages, by number, searched together."""

    def __init__(self, numbered: Iterable[tuple[int, Runs]], keys: dict[str, bytes]) -> None:
        parts: dict[str, list[tuple[int, Array]]] = {}
        for number, of in numbered:
            if (key := keys.get(of.kid)) is not None:  # the others are counted by the blocklist: a rotated-out key
                raw = _sealed(of.sealed[_NONCE:], key, of.sealed[:_NONCE])
                parts.setdefault(of.kid, []).append((number, np.frombuffer(raw, _RECORD)))
        self._tables = [
            _Table(
                keys[kid],
                np.concatenate([records for _, records in part]),
                np.repeat(np.array([n for n, _ in part], np.uint32), [len(records) for _, records in part]),
            )
            for kid, part in parts.items()
        ]

    def find(self, text: str, since: int, final: bool) -> tuple[list[tuple[int, int, int]], int, int]:
        """(start, end, number) of the grams in folded `text[since:]`, the hold, and the length at which the earliest open
        one can be decided (0: none is open)."""
        places, dense = spread(text, since)
        found: list[tuple[int, int, int]] = []
        hold, wake = len(text), 0
        for table in self._tables:
            at, needed = _follow(table, dense, places, found, final)
            if needed and places[at] <= hold:
                length = len(text) + at + needed - len(dense)
                wake = length if places[at] < hold else min(wake, length)
                hold = places[at]
        return found, hold, wake


def _follow(
    table: _Table, dense: str, places: list[int], found: list[tuple[int, int, int]], final: bool
) -> tuple[int, int]:
    """Find what is whole; where the first open gram begins, and how many characters from there on say more (0: none)."""
    for at in table.places(dense):
        n = _length(dense, at) if at + RUN <= len(dense) else RUN
        if at + n > len(dense):
            return at, 0 if final else n  # no gram that begins later can be whole
        found.extend((places[at], places[at + n - 1] + 1, number) for number in table.whose(dense[at : at + n]))
    for at in range(len(dense) if final else max(0, len(dense) - _GATES[-1] + 1), len(dense)):
        if needed := table.needed(dense[at:]):
            return at, needed
    return 0, 0
