"""Event streams under random framings: whatever a server may do to its lines, the events that it meant are read, and no other."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.sse import Event, Parser, write

_BOM = b"\xef\xbb\xbf"
_TEXTS = (
    "", "", "a", "b:c", ":", " ", "  x", "\t", "data: no", "[DONE]", '{"a":"b"}', "示例", "👍🏽", "\ufeff", "\ufeffdata: a",
    "\u2028", "\u2029", "\u0085", "\x0b\x0c\x1c\x1d\x1e", "\0", "\\n", '"\u2028"', "é" * 9,
)  # fmt: skip
"""What a line may hold: nothing in it ends a line."""
_NAMES = ("message", "示例", "a b", ": x", "\u2028", "\ufeff", "response.output_text.delta")
_NOISE = (
    b":", b": ping", b":data: no", b"retry: 10", b"retry:x", b"foo: bar", b"foo", b"Data: no", b" data: no", b"data : no",
    b"\0", b"dat", b"data\0: no", b"\xef\xbb\xbfdata: no", b"id: a\0b", "\u2028data: no".encode(),
)  # fmt: skip
"""Lines that change nothing."""


class Framed(NamedTuple):
    """A stream: the events it means, and its bytes. `cut`: it ends inside an event that holds data."""

    events: list[Event]
    raw: bytes
    cut: bool


class _Writer:
    """Lines as bytes, each with an end of its own. An LF behind a CR would be part of it, so no empty line begins so."""

    def __init__(self, dice: random.Random) -> None:
        self._dice, self._lines = dice, [_BOM if dice.random() < 0.2 else b""]
        self._ends = dice.choice(((b"\n",), (b"\r\n",), (b"\r",), (b"\n", b"\r\n", b"\r")))

    def line(self, line: bytes) -> None:
        end = self._dice.choice(self._ends)
        if not line and end == b"\n" and self._lines[-1].endswith(b"\r"):
            end = b"\r"
        if len(self._lines) == 1 and not self._lines[0] and line.startswith(_BOM):
            line = b"foo"  # it would be the stream's
        self._lines.append(line + end)

    def field(self, name: bytes, value: bytes) -> None:
        """With or without the space behind the colon, or without the colon, where that says the same."""
        ways = [name + b": " + value]
        if not value.startswith(b" "):
            ways.append(name + b":" + value)
        if not value:
            ways.append(name)
        self.line(self._dice.choice(ways))

    def noise(self) -> None:
        while self._dice.random() < 0.25:
            self.line(self._dice.choice(_NOISE))

    @property
    def raw(self) -> bytes:
        return b"".join(self._lines)


def framed(dice: random.Random) -> Framed:
    """Random events, framed at random."""
    out, events, id = _Writer(dice), [], ""
    for _ in range(dice.randrange(5)):
        while dice.random() < 0.2:
            out.noise()
            if dice.random() < 0.3:
                out.field(b"event", b"without data")
            out.line(b"")
        data = [dice.choice(_TEXTS) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
        name = dice.choice(_NAMES) if dice.random() < 0.4 else ""
        fields = [(b"data", line.encode()) for line in data]
        if name or dice.random() < 0.1:
            fields.insert(dice.randint(0, len(fields)), (b"event", name.encode()))
            if dice.random() < 0.2:
                fields.insert(0, (b"event", b"an earlier one"))
        if dice.random() < 0.3:
            id = dice.choice(("", "1", " 2", "示例", "a:b"))
            fields.insert(dice.randint(0, len(fields)), (b"id", id.encode()))
        for field in fields:
            out.noise()
            out.field(*field)
        out.noise()
        out.line(b"")
        events.append(Event("\n".join(data).encode(), name, id))
    cut = dice.random() < 0.3
    raw = out.raw
    if cut:
        out.field(b"data", dice.choice(_TEXTS).encode())
        raw = out.raw
        if dice.random() < 0.5:
            raw = raw.rstrip(b"\r\n")
    return Framed(events, raw, cut)


def pieces(raw: bytes, dice: random.Random) -> list[bytes]:
    """The stream in the reads of a socket: whole, byte by byte, or cut anywhere."""
    way = dice.randrange(4)
    if way == 0:
        return [raw]
    if way == 1:
        return [raw[i : i + 1] for i in range(len(raw))]
    places = sorted(dice.randint(0, len(raw)) for _ in range(dice.randint(1, 6)))
    return [raw[a:b] for a, b in pairwise([0, *places, len(raw)])]


def reference(raw: bytes) -> list[Event]:
    """9.2.6 step by step: one character after the other, with the buffers that it names."""
    text = raw.decode("utf-8", "replace")
    if text[:1] == "\ufeff":
        text = text[1:]
    events, data, kind, last_id, line = [], "", "", "", ""
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character not in "\r\n":
            line += character
            continue
        if character == "\r" and text[at : at + 1] == "\n":
            at += 1
        if line == "":
            if data != "":
                events.append(Event((data[:-1] if data[-1] == "\n" else data).encode(), kind, last_id))
            data, kind = "", ""
        elif line[0] != ":":
            colon = line.find(":")
            field, value = (line, "") if colon < 0 else (line[:colon], line[colon + 1 :])
            if value[:1] == " ":
                value = value[1:]
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                last_id = value
        line = ""
    return events


def read(chunks: list[bytes]) -> tuple[list[Event], bool]:
    parser = Parser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events, parser.pending


def holds(dice: random.Random) -> None:
    """Write a stream at random, read it, and read it as the specification does."""
    stream = framed(dice)
    chunks = pieces(stream.raw, dice)
    events, pending = read(chunks)
    assert events == stream.events == reference(stream.raw), (stream.raw, chunks)
    assert pending == (stream.cut or stream.raw == _BOM), (stream.raw, chunks)
    written = b"".join(write(event.data, event.name) for event in stream.events)
    again, pending = read(pieces(written, dice))
    assert [e[:2] for e in again] == [e[:2] for e in stream.events], written
    assert not pending


def agrees(dice: random.Random) -> None:
    """Bytes that mean nothing are read as the specification reads them, and each event as soon as it is there."""
    alphabet = (
        b"data",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"event",
        b"id",
        b"\0",
        b"a",
        _BOM,
        b"\xe7",
        b"\xff",
        b"\xa4",
    )
    raw = b"".join(dice.choice(alphabet) for _ in range(dice.randrange(30)))
    parser, events, seen = Parser(), [], 0
    for chunk in pieces(raw, dice):
        events += parser.feed(chunk)
        seen += len(chunk)
        known = [e._replace(data=e.data.decode("utf-8", "replace").encode()) for e in events]
        assert known == reference(raw[:seen]), (raw, seen)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_events_are_read_as_they_were_meant_however_they_are_framed(dice: random.Random) -> None:
    holds(dice)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_any_bytes_are_read_as_the_specification_reads_them(dice: random.Random) -> None:
    agrees(dice)


def test_two_thousand_framings_are_read_as_they_were_meant() -> None:
    for seed in range(2000):
        holds(random.Random(seed))
        agrees(random.Random(seed))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_thousand_framings_are_read_as_they_were_meant() -> None:
    for seed in range(100_000):
        holds(random.Random(seed))
        agrees(random.Random(seed))
