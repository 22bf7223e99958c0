"""A frame: what is the same in events of a stream that differ in one text alone. Most deltas of an answer are such events.

Law: an event is told by its bytes to have the shape of one that was parsed, checked and found to need no change, with another text in its
place; the text is parsed, and written anew. Whatever is not told so takes the whole way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from app import strictjson
from app.dialects import Delta, put

_MARK = "sluice.frame.8c1d5f20"
"""Stands for the text while a frame is made; no event holds it."""


class Frame:
    """Made of the bytes of an event, around its text. `delta`: the text that it was made with."""

    __slots__ = ("_after", "_before", "_head", "_least", "_tail", "delta")

    def __init__(self, head: bytes, tail: bytes, before: bytes, after: bytes, delta: Delta) -> None:
        self._head, self._tail, self._before, self._after = head, tail, before, after
        self._least = len(head) + len(tail)
        self.delta = delta

    def text(self, data: bytes) -> str:
        """The text of an event of this frame; '' where it is none, or has no text."""
        if len(data) <= self._least or not (data.startswith(self._head) and data.endswith(self._tail)):
            return ""
        try:
            # With its quotes: what holds one that is not escaped is no single text.
            text = orjson.loads(data[len(self._head) - 1 : len(data) - len(self._tail) + 1])
        except orjson.JSONDecodeError:
            return ""
        return text if isinstance(text, str) else ""

    def write(self, text: str) -> bytes:
        """The event on the wire, with `text`."""
        return self._before + strictjson.dumps(text)[1:-1] + self._after

    def event(self, text: str = "") -> dict[str, Any]:
        """The event itself, with `text`."""
        event: dict[str, Any] = orjson.loads(self._head + self._tail)
        put(event, self.delta.path, text)
        return event


def framed(
    raw: bytes,
    event: dict[str, Any],
    delta: Delta,
    write: Callable[[dict[str, Any]], bytes],
    silent: Callable[[dict[str, Any]], bool],
) -> Frame | None:
    """The frame of an event that has gone the whole way; None where it has none. `raw`: its bytes; `event`: what was left of it,
    `delta` its only text; `write`: how it is written; `silent`: true of one that need not go out."""
    try:
        quoted = orjson.dumps(delta.text)
        if raw.count(quoted) != 1:
            return None
        at = raw.index(quoted) + 1
        head, tail = raw[:at], raw[at + len(quoted) - 2 :]
        marked = orjson.loads(head + _MARK.encode() + tail)
        left = orjson.loads(orjson.dumps(event))
        put(left, delta.path, _MARK)
        # Nothing was dropped or changed, and the text is where its path says.
        if marked != left:
            return None
        before, mark, after = write(left).partition(_MARK.encode())
        put(marked, delta.path, "")
    except (orjson.JSONDecodeError, TypeError):
        return None  # a lone surrogate, or a number that only the whole way can read
    return Frame(head, tail, before, after, delta) if mark and silent(marked) else None
