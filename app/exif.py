"""EXIF, as far as a label or a mark is concerned: the orientation, the user's comment, the thumbnail.

Law: an edit changes bytes where they stand and moves nothing, so that what else points into the block stays right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = b"Exif\0\0"
"""Stands before the block in a JPEG, and in other files by mistake."""

_ORIENTATION, _EXIF, _COMMENT = 0x0112, 0x8769, 0x9286
_ONE_BYTE = (1, 2, 7)
"""Types whose values are single bytes: BYTE, ASCII, UNDEFINED."""
_ENTRIES = 1000
"""Entries of a directory that are looked at."""
_CHARSETS = {b"ASCII\0\0\0": "utf-8", b"\0\0\0\0\0\0\0\0": "utf-8"}


class _Entry(NamedTuple):
    tag: int
    kind: int
    length: int
    place: int
    """Where its twelve bytes stand."""


class _Block:
    """Raises ValueError if it is no EXIF."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw.removeprefix(HEADER)
        self.order = {b"II*\0": "<", b"MM\0*": ">"}.get(self.raw[:4], "")
        if not self.order:
            raise ValueError("no EXIF")
        self.first = self._number("I", 4)

    def _number(self, form: str, at: int) -> int:
        try:
            return int(struct.unpack_from(self.order + form, self.raw, at)[0])
        except struct.error:
            raise ValueError("EXIF that is cut short") from None

    def entries(self, at: int) -> Iterator[_Entry]:
        """The entries of the directory at `at`."""
        for number in range(min(self._number("H", at), _ENTRIES)):
            place = at + 2 + 12 * number
            yield _Entry(self._number("H", place), self._number("H", place + 2), self._number("I", place + 4), place)

    def orientation(self) -> int:
        """1, as it is seen, to 8; 1 for what is none."""
        for entry in self.entries(self.first):
            if entry.tag == _ORIENTATION and entry.kind == 3:
                found = self._number("H", entry.place + 8)
                return found if 1 <= found <= 8 else 1
        return 1

    def comments(self) -> Iterator[tuple[_Entry, int, int]]:
        """The user's comments, with where each begins and ends."""
        first = list(self.entries(self.first))
        pointed = [self._number("I", e.place + 8) for e in first if e.tag == _EXIF]
        for entry in [*first, *(e for at in pointed[:1] for e in self.entries(at))]:
            if entry.tag == _COMMENT and entry.kind in _ONE_BYTE:
                start = self._number("I", entry.place + 8) if entry.length > 4 else entry.place + 8
                if start + entry.length > len(self.raw):
                    raise ValueError("EXIF that is cut short")
                yield entry, start, start + entry.length

    def text(self, start: int, end: int) -> str:
        """A comment in characters: eight bytes may name what it is written in."""
        charset, body = self.raw[start : start + 8], self.raw[start + 8 : end]
        if charset == b"UNICODE\0":
            return body.decode("utf-16-le" if self.order == "<" else "utf-16-be", "replace")
        encoding = _CHARSETS.get(charset)
        return body.decode(encoding, "replace") if encoding else self.raw[start:end].decode("utf-8", "replace")


def orientation(raw: bytes) -> int:
    """How the picture is turned to be seen, by EXIF's numbers; 1, not at all, if it cannot be told."""
    try:
        return _Block(raw).orientation()
    except ValueError:
        return 1


def comments(raw: bytes) -> list[str]:
    """What a user's comment holds; nothing if it cannot be read."""
    try:
        block = _Block(raw)
        return [block.text(start, end).strip("\0 ") for _, start, end in block.comments()]
    except ValueError:
        return []


def without(raw: bytes, word: str) -> bytes | None:
    """The block without comments that hold `word`, and without its thumbnail, which shows the picture as it was. None if it cannot be
    read."""
    try:
        block = _Block(raw)
        made = bytearray(block.raw)
        for entry, start, end in block.comments():
            if word in block.text(start, end):
                made[start:end] = bytes(end - start)
                struct.pack_into(block.order + "I", made, entry.place + 4, min(entry.length, 8))
        struct.pack_into(block.order + "I", made, block.first + 2 + 12 * block._number("H", block.first), 0)
    except (ValueError, struct.error):
        return None
    return bytes(made)
