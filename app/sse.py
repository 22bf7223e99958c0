"""Server-sent events on bytes, both ways. Law: lines end at LF, CR or CRLF and nowhere else (WHATWG HTML 9.2.6).

U+2028, U+0085 and their kind are text: str.splitlines would cut a JSON string there. No I/O; bytes in, events out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event. `data`: the joined data lines, UTF-8 bytes; `name`: the event field, '' when absent."""

    data: bytes
    name: str = ""
    id: str = ""


class TooLarge(ValueError):
    """An event passed `limit` bytes without ending."""


class Parser:
    """Incremental: feed(bytes) gives the events completed so far. An event without its blank line is never given."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self._rest = bytearray()  # of a line that has not ended
        self._after_cr = False
        self._limit = limit
        self._size = 0
        self._first = True
        self._data: list[bytes] = []
        self._name = self._id = b""

    @property
    def pending(self) -> bool:
        """True inside an unfinished event: a body that ends here was cut."""
        return bool(self._rest or self._data or self._name)

    def feed(self, chunk: bytes) -> list[Event]:
        """Raises TooLarge when an unfinished event outgrows the limit."""
        if self._after_cr and chunk:
            # The CR already ended its line; an LF right behind it belongs to it.
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk[-1:] == b"\r"
        if b"\n" not in chunk and b"\r" not in chunk:
            # A long line is put together once, when it ends.
            self._rest += chunk
            self._check(len(self._rest))
            return []
        buffer = bytes(self._rest) + chunk if self._rest else chunk
        if not (self._first or self._data or self._name or self._id or self._size or b"\r" in buffer):
            cut = buffer.rfind(b"\n\n") + 2
            if cut > 1 and b"\n" not in buffer[cut:] and (plain := _plain(buffer[: cut - 2], self._limit)):
                self._rest = bytearray(buffer[cut:])
                self._check(len(self._rest))
                return plain
        lines = _LINE_END.split(buffer) if b"\r" in buffer else buffer.split(b"\n")
        self._rest = bytearray(lines.pop())
        events: list[Event] = []
        for line in lines:
            if self._first:
                self._first = False
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line:
                self._field(line)
            else:
                if self._data:
                    events.append(
                        Event(
                            b"\n".join(self._data),
                            self._name.decode(errors="replace"),
                            self._id.decode(errors="replace"),
                        )
                    )
                    self._data = []
                self._name = b""
                self._size = 0
        self._check(len(self._rest))
        return events

    def _check(self, more: int) -> None:
        if self._size + more > self._limit:
            raise TooLarge(f"an event is larger than {self._limit} bytes")

    def _field(self, line: bytes) -> None:
        self._size += len(line)
        if self._size > self._limit:
            raise TooLarge(f"an event is larger than {self._limit} bytes")
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        # An empty name is a comment, `retry` is the browser's, anything else is to be ignored.


def _plain(buffer: bytes, limit: int) -> list[Event] | None:
    """The events of a buffer in which each is a single data line, as nearly all are; None where one is another."""
    events = []
    for block in buffer.split(b"\n\n"):
        if not block.startswith(b"data: ") or b"\n" in block or len(block) > limit:
            return None
        events.append(Event(block[6:]))
    return events


def write(data: bytes, name: str = "") -> bytes:
    """One event as bytes. `data` may hold line breaks: each line gets its own data field."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return head + b"data: " + data + b"\n\n"
