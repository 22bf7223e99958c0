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
from app.sse import Run

_MARK = "sluice.frame.8c1d5f20"
"""Stands for the text while a frame is made; no event holds it."""
_WINDOW = 1 << 16
"""Bytes looked at for a run at once."""


class Frame:
    """Made of the bytes of an event, around its text. `delta`: the text that it was made with."""

    __slots__ = ("_after", "_before", "_between", "_end", "_head", "_ours", "_start", "_tail", "delta")

    def __init__(self, head: bytes, tail: bytes, before: bytes, after: bytes, name: str, delta: Delta) -> None:
        self._head, self._tail, self._before, self._after = head, tail, before, after
        self._start = (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + head
        self._end = tail + b"\n\n"
        self._between, self._ours = self._end + self._start, after + before
        self.delta = delta

    def run(self, buffer: bytes, at: int) -> tuple[Run, int] | None:
        """The events of this frame that follow one another from `at` on, each with some text, and where they end."""
        if not buffer.startswith(self._start, at):
            return None
        first = at + len(self._start)
        raws = buffer[first : first + _WINDOW].split(self._between)
        # Behind the last one comes what is of no frame, on lines of its own.
        at_last = next((k for k, raw in enumerate(raws) if b"\n" in raw), len(raws) - 1)
        last, ended, _ = raws[at_last].partition(self._end)
        raws[at_last:] = [last] if ended else []
        run = _read(raws) if raws else None
        if run is None or not run.texts:
            return None
        count = len(run.texts)
        size = sum(map(len, raws[:count])) + len(self._start) + (count - 1) * len(self._between) + len(self._end)
        return run, at + size

    def write(self, text: str) -> bytes:
        """The event on the wire, with `text`."""
        return self._before + strictjson.dumps(text)[1:-1] + self._after

    def again(self, texts: list[bytes]) -> bytes:
        """Events on the wire, with texts of a run that are let go as they are."""
        return self._before + self._ours.join(texts) + self._after if texts else b""

    def event(self, text: str = "") -> dict[str, Any]:
        """The event itself, with `text`."""
        event: dict[str, Any] = orjson.loads(self._head + self._tail)
        put(event, self.delta.path, text)
        return event


def _read(raws: list[bytes]) -> Run:
    """The texts, up to one that is none or has nothing."""
    whole = b"".join(raws)
    if b'"' not in whole and b"\\" not in whole and all(raws):
        # Nothing in them ends a text, or hides that it goes on.
        try:
            return Run(orjson.loads(b'["' + b'","'.join(raws) + b'"]'), raws)
        except orjson.JSONDecodeError:
            pass
    texts: list[str] = []
    for raw in raws:
        try:
            text = orjson.loads(b'"' + raw + b'"')
        except orjson.JSONDecodeError:
            break
        if not text:
            break
        texts.append(text)
    return Run(texts, [strictjson.dumps(text)[1:-1] for text in texts])


def framed(
    raw: bytes,
    name: str,
    event: dict[str, Any],
    delta: Delta,
    write: Callable[[dict[str, Any]], bytes],
    silent: Callable[[dict[str, Any]], bool],
) -> Frame | None:
    """The frame of an event that has gone the whole way; None where it has none. `raw`: its bytes, `name` that of the
    event; `event`: what was left of it, `delta` its only text; `write`: how it is written; `silent`: true of one that need not go out."""
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
    return Frame(head, tail, before, after, name, delta) if mark and silent(marked) else None
