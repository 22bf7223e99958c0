"""Event streams on bytes: held against a plain reading of WHATWG HTML 9.2.6, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.sse import Event, Parser, TooLarge, write

PIECES = [
    b"data: a\n", b"data:b\r\n", b"data:  c\r", b"data\n", b"data:\n", b"data: d:e\n", b"event: x\n", b"event:\n", b"event: y\r",
    b"id: 1\n", b"id\n", b"id: a\0b\n", b": comment\n", b":\n", b"retry: 10\n", b"foo: bar\n", b"Data: no\n", b" data: no\n",
    b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"\r\r", b"data: [DONE]\n\n", "data: 示例\n".encode(), "data: 😀\r\n".encode(),
    "data: {\"a\":\"\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\"}\n\n".encode(), b"data: \xff\xe7\xa4\n", b"event: \xe7\n", b"\xef\xbb\xbf",
]  # fmt: skip
STREAMS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join),
    st.text("data: event id\r\n\n\n\r:\ufeff\u2028示😀\0", max_size=40).map(str.encode),
)


def reference(raw: bytes) -> list[Event]:
    """The specification, sentence by sentence, on a whole stream as text."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events: list[Event] = []
    data = kind = last_id = ""
    for line in text.split("\n")[:-1]:  # what has no line end is never processed
        if not line:
            if data:
                events.append(Event(data.removesuffix("\n").encode(), kind, last_id))
            data = kind = ""
            continue
        name, value = line.split(":", 1) if ":" in line else (line, "")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


def cut(raw: bytes, cuts: list[int]) -> list[bytes]:
    """`raw` in pieces, cut at these places."""
    places = sorted({0, len(raw), *(c % (len(raw) + 1) for c in cuts)})
    return [raw[a:b] for a, b in pairwise(places)]


def parse(*chunks: bytes) -> list[Event]:
    """The events of a stream, their data as decoded text would be."""
    parser = Parser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return [e._replace(data=e.data.decode("utf-8", "replace").encode()) for e in events]


@settings(max_examples=400, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 400), max_size=8))
@example(b"\xef\xbb\xbfdata: a\r\n\r\ndata: b\r\r", [1, 2, 11, 12, 13, 14, 23])
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [3])
def test_events_are_those_of_the_specification_however_the_bytes_are_cut(raw: bytes, cuts: list[int]) -> None:
    assert parse(*cut(raw, cuts)) == reference(raw)


@settings(max_examples=60, deadline=None)
@given(STREAMS)
def test_events_are_the_same_byte_by_byte(raw: bytes) -> None:
    assert parse(*(raw[i : i + 1] for i in range(len(raw)))) == parse(raw) == parse(b"", raw, b"")


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data: a\n\n", [Event(b"a")]),
        (b"data: a\r\rdata: b\r\n\r\n", [Event(b"a"), Event(b"b")]),
        (b"data: a\ndata: b\ndata\n\n", [Event(b"a\nb\n")]),
        (b"data:\n\n", [Event(b"")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
        (b": ping\n\ndata: a\n\n", [Event(b"a")]),
        (b"event: x\n\ndata: a\n\n", [Event(b"a")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [Event(b"a", "x"), Event(b"b")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [Event(b"a", "", "7"), Event(b"b", "", "7")]),
        ('data: {"a": "\u2028\u0085"}\n\n'.encode(), [Event('{"a": "\u2028\u0085"}'.encode())]),
        (b"data: a\n", []),
        (b"data: a", []),
    ],
)
def test_an_event_is_given_once_its_blank_line_is_there(raw: bytes, events: list[Event]) -> None:
    assert Parser().feed(raw) == events


def test_an_event_is_given_with_the_carriage_return_that_ends_it() -> None:
    """Waiting for a line feed that may never come would hold the last event of a stream."""
    parser = Parser()
    assert parser.feed(b"data: a\r\n\r") == [Event(b"a")]
    assert parser.feed(b"\ndata: b\r\n") == []
    assert parser.feed(b"\r") == [Event(b"b")]
    assert not parser.pending


@pytest.mark.parametrize("tail", [b"data: b", b"data: b\n", b"d", b"event: x\n", b"event: x\ndata", b"data:\r"])
def test_a_stream_that_ends_inside_an_event_is_pending(tail: bytes) -> None:
    parser = Parser()
    parser.feed(b"data: a\n\n" + tail)
    assert parser.pending


@pytest.mark.parametrize(
    "whole", [b"", b"data: a\n\n", b"data: a\r\n\r\n", b"data: a\r\r", b"data: a\n\n\n\n", b": ping\n\n"]
)
def test_a_stream_that_ends_between_events_is_not_pending(whole: bytes) -> None:
    parser = Parser()
    parser.feed(whole)
    assert not parser.pending


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text("a示 :\r\n\u2028\ufeff\0", max_size=12),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=8),
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read_back(events: list[tuple[str, str]]) -> None:
    raw = b"".join(write(data.encode(), name) for data, name in events)
    expected = [Event(data.replace("\r\n", "\n").replace("\r", "\n").encode(), name) for data, name in events]
    assert Parser().feed(raw) == expected == reference(raw)


@pytest.mark.parametrize(
    ("data", "name", "raw"),
    [
        (b"{}", "", b"data: {}\n\n"),
        (b"{}", "ping", b"event: ping\ndata: {}\n\n"),
        (b"", "", b"data: \n\n"),
        (b"a\nb\r\nc\rd", "", b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (b"a\n\ndata: b", "", b"data: a\ndata: \ndata: data: b\n\n"),
    ],
)
def test_no_data_can_end_its_event_early(data: bytes, name: str, raw: bytes) -> None:
    assert write(data, name) == raw
    assert len(Parser().feed(raw)) == 1


@settings(max_examples=150, deadline=None)
@given(
    STREAMS.filter(lambda raw: b"\xef\xbb\xbf" not in raw),
    st.lists(st.integers(0, 400), max_size=6),
    st.integers(1, 30),
)
def test_whether_an_event_is_too_large_does_not_depend_on_the_cut(raw: bytes, cuts: list[int], limit: int) -> None:
    def fits(*chunks: bytes) -> bool:
        parser = Parser(limit)
        try:
            for chunk in chunks:
                parser.feed(chunk)
        except TooLarge:
            return False
        return True

    assert fits(*cut(raw, cuts)) == fits(raw)


@pytest.mark.parametrize(
    "raw", [b"data: " + b"x" * 100, b"data: xx\n" * 20, b":" + b"x" * 100 + b"\n\n", b"x: y\n" * 50]
)
def test_an_event_that_outgrows_the_limit_is_refused(raw: bytes) -> None:
    with pytest.raises(TooLarge, match="larger than 64 bytes"):
        Parser(64).feed(raw)


def test_the_limit_is_of_one_event_not_of_the_stream() -> None:
    parser = Parser(64)
    assert sum(len(parser.feed(b"data: " + b"x" * 50 + b"\n\n")) for _ in range(100)) == 100
    assert sum(len(parser.feed(b": ping\n\n" * 10)) for _ in range(100)) == 0
