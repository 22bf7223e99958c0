"""Event streams, fuzzed: `python -m tests.fuzz.sse SECONDS`, or a file that was found."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["app"]):
    from app.sse import Event, Parser, TooLarge, write

from tests.contract.test_sse_fuzz import agrees, holds, pieces, read, reference
from tests.fuzz.guided import ROOT, Dice, fuzz


def check(data: bytes) -> None:
    """The first byte says what the rest is: dice for streams that were meant, or bytes of nobody's making behind 16 that say how they
    are cut."""
    way, rest = data[:1], data[1:]
    if way == b"m":
        holds(Dice(rest))
    elif way == b"a":
        agrees(Dice(rest))
    else:
        _raw(rest[16:], Dice(rest[:16]))


def _raw(raw: bytes, dice: Dice) -> None:
    chunks = pieces(raw, dice)
    events, _ = read(chunks)
    assert [e._replace(data=e.data.decode("utf-8", "replace").encode()) for e in events] == reference(raw), chunks
    written = b"".join(write(e.data, e.name) for e in events)
    again, pending = read(pieces(written, dice))
    assert [(e.data, e.name) for e in again] == [(e.data, e.name) for e in events], written
    assert not pending
    if not raw.startswith(b"\xef\xbb\xbf"):  # which counts until its line is whole
        limit = dice.randrange(64)
        assert _within(limit, [raw]) == _within(limit, chunks), (limit, chunks)


def _within(limit: int, chunks: list[bytes]) -> tuple[list[Event], bool]:
    """What is read until an event is too large, and whether one was: the same however it is cut."""
    parser, events = Parser(limit), []
    try:
        for chunk in chunks:
            for at in range(len(chunk)):
                events += parser.feed(chunk[at : at + 1]) if len(chunks) > 1 else []
            if len(chunks) == 1:
                events += parser.feed(chunk)
    except TooLarge:
        return [], True
    return events, False


if __name__ == "__main__":
    import json

    stored = [json.loads(file.read_bytes()) for file in sorted((ROOT / "tests" / "transcripts").glob("*.json"))]
    streams = ["\n\n".join(one["stream"] + [""]).encode() for one in stored if one["stream"]]
    seeds = [b"m" + bytes(range(64)), b"a" + bytes(range(64)), *(b"r" + bytes(16) + stream for stream in streams)]
    fuzz(
        "sse", check, seeds, (b"data:", b"data: ", b"event: ", b"id: ", b"\r\n", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b":")
    )
