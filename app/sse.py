"""Server-sent events on bytes, both ways. Law: lines end at LF, CR or CRLF and nowhere else (WHATWG HTML 9.2.6).

U+2028, U+0085 and their kind are text: str.splitlines would cut a JSON string there. No I/O; bytes in, events out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event. `data`: the joined data lines, UTF-8 bytes; `name`: the event field, '' when absent."""

    data: bytes
    name: str = ""
    id: str = ""


class Run(NamedTuple):
    """Events that are alike but for one text each, which came one behind the other: those texts, and as JSON writes them (without
    quotes)."""

    texts: list[str]
    written: list[bytes]


Known = Callable[[bytes, int], tuple[Run, int] | None]
"""Of a buffer and a place in it where an event begins: a run that begins there, and where it ends; None where none does."""


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
        return [event for event in self.walk(chunk) if isinstance(event, Event)]

    def walk(self, chunk: bytes, known: Known | None = None) -> Iterator[Event | Run]:
        """The same, one by one, as they are asked for; and what `known` knows of the bytes that come next, in place of its events. Raises
        TooLarge."""
        if self._after_cr and chunk:
            # The CR already ended its line; an LF right behind it belongs to it.
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return
        self._after_cr = chunk[-1:] == b"\r"
        if b"\n" not in chunk and b"\r" not in chunk:
            # A long line is put together once, when it ends.
            self._rest += chunk
            self._check(len(self._rest))
            return
        buffer = bytes(self._rest) + chunk if self._rest else chunk
        if self._first:
            self._first = False
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        at = 0
        if not (self._data or self._name or self._id or self._size or b"\r" in buffer):
            # Nearly all events are a single data line, some with their name before it.
            while True:
                if known is not None and (found := known(buffer, at)) is not None:
                    run, at = found
                    yield run
                    continue
                end = buffer.find(b"\n\n", at)
                event = _plain(buffer[at:end]) if end >= 0 else None
                if event is None:
                    break
                self._check(end - at)
                at = end + 2
                yield event
        rest = buffer[at:]
        if b"\n" not in rest and b"\r" not in rest:
            self._rest = bytearray(rest)
            self._check(len(rest))
            return
        lines = _LINE_END.split(rest) if b"\r" in rest else rest.split(b"\n")
        self._rest = bytearray(lines.pop())
        for line in lines:
            if line:
                self._field(line)
            else:
                data, name, id = self._data, self._name, self._id
                self._data, self._name, self._size = [], b"", 0
                if data:
                    yield Event(b"\n".join(data), name.decode(errors="replace"), id.decode(errors="replace"))
        self._check(len(self._rest))

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


def _plain(block: bytes) -> Event | None:
    """The event of a block that is one data line, or its name and one; None where it is another."""
    name = b""
    if block.startswith(b"event: "):
        name, _, block = block[7:].partition(b"\n")
    if not block.startswith(b"data: ") or b"\n" in block:
        return None
    return Event(block[6:], name.decode(errors="replace"))


def write(data: bytes, name: str = "") -> bytes:
    """One event as bytes. `data` may hold line breaks: each line gets its own data field."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return head + b"data: " + data + b"\n\n"
