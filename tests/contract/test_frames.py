"""Events that differ in one text alone take a short way (app/web/frame.py): the client can tell only by the time it takes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import policy, sse
from app.demo import speech
from app.demo.speech import Answer
from app.detectors.patterns import Patterns
from app.dialects import Delta
from app.dialects.openai_chat import Chat
from app.sse import Run
from app.web.frame import Frame, framed
from app.web.stream import Stream
from tests import reading
from tests.contract.test_evasion_streams import lexicon
from tests.driving import Path
from tests.texts import answer, cut


@cache
def path() -> Path:
    return Path(policy.parse(b"").common, [lexicon(), Patterns()], [lexicon()])


def _read(api: Any, given: Answer, pieces: list[str], size: int) -> tuple[reading.Read, Any]:
    out, x = path().streamed(api, [given], lambda text: pieces if text == given.text else [text], size)
    return reading.read(api.route, out), x


def _texts(read: reading.Read) -> dict[str, str]:
    """Without the decision id that a refusal shows."""
    return {at: text.replace(read.sluice["decision"], "") for at, text in read.texts.items()}


@pytest.mark.parametrize("api", speech.ALL, ids=lambda api: api.route)
def test_what_a_client_reads_does_not_depend_on_how_many_events_come_at_once(api: Any) -> None:
    dice = random.Random(8)
    for _ in range(120):
        given = Answer(answer(dice))
        pieces = cut(given.text, dice)
        one, x = _read(api, given, pieces, 0)
        for size in (1 << 20, 700, 90):
            many, y = _read(api, given, pieces, size)
            assert (_texts(many), many.endings, many.sluice["action"]) == (
                _texts(one), one.endings, one.sluice["action"],
            )  # fmt: skip
            assert [f.public() for f in y.answer.findings] == [f.public() for f in x.answer.findings]
            assert y.released == x.released <= y.screened


def test_each_event_of_many_that_come_at_once_keeps_its_own_text() -> None:
    pieces = [f"第{n}句话说的是天气。" for n in range(60)]
    read, _ = _read(speech.ALL[0], Answer("".join(pieces)), pieces, 1 << 20)
    said = [e["choices"][0]["delta"].get("content") for e in read.events if e["choices"]]
    assert [text for text in said if text] == pieces


class _Told(Path):
    """What went out up to where the stream failed, and why."""

    async def _run(self, stream: Stream, raw: Iterable[bytes]) -> bytes:
        parser = sse.Parser(stream.event_max)
        out = b"".join([await stream.feed(parser.walk(chunk, stream.known)) for chunk in raw])
        assert stream.failed is not None
        return out + stream.failed.code.encode()


@pytest.mark.parametrize("first", [1, 3], ids=["the whole way", "a frame"])
def test_what_came_before_an_event_that_is_too_large_goes_out(first: int) -> None:
    told = _Told(policy.parse(b"").common, [lexicon()])
    events = [*[_raw("今天天气很好。")] * first, b"x" * (1 << 20)]
    out, _ = told.run(speech.ALL[0], [b"".join(b"data: " + e + b"\n\n" for e in events)])
    assert out.decode().count("今天天气很好。") == first
    assert out.endswith(b"upstream_protocol_error")


# ---- what is of a frame, and what is not

_FIELDS: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def _raw(text: str, **more: Any) -> bytes:
    return orjson.dumps(_FIELDS | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} | more)


def _frame(raw: bytes) -> Frame | None:
    dialect = Chat()
    prompt = dialect.prompt({"model": "m", "messages": [{"role": "user", "content": "说吧"}], "stream": True})
    events = dialect.events(prompt, lambda channel: "")  # type: ignore[arg-type]
    event = orjson.loads(raw)
    (delta,) = events.texts(event) or [Delta(0, (), (), "")]
    return framed(raw, "", event, delta, lambda e: events.write(e, "slc_x"), lambda e: events.silent(e, False))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_an_event_of_the_frame_gives_its_text_and_is_written_as_the_whole_way_writes_it(text: str) -> None:
    frame = _frame(_raw("先说一句"))
    assert frame is not None
    sent = b"data: " + _raw(text) + b"\n\n"
    assert frame.run(b"data: [DONE]\n\n" + sent + sent + b"data: [DONE]\n\n", 14) == (
        Run([text, text], [orjson.dumps(text)[1:-1]] * 2), 14 + 2 * len(sent),
    )  # fmt: skip
    whole = _raw(text).replace(b"chatcmpl-1", b"slc_x")
    assert frame.write(text) == b"data: " + whole + b"\n\n"
    assert frame.event(text) == orjson.loads(_raw(text))


def _others() -> Iterator[tuple[str, bytes]]:
    plain = _raw("好的")
    yield "another field", _raw("好的", service_tier="x")
    yield "another time", plain.replace(b'"created":1', b'"created":2')
    yield "an ending", plain.replace(b"null", b'"stop"')
    yield "two texts", plain.replace("好的".encode(), b'a","refusal":"b')
    yield "a quote that closes", plain.replace("好的".encode(), b'a"b')
    yield "a backslash at the end", plain.replace("好的".encode(), b"a\\")
    yield "a line break", plain.replace("好的".encode(), b"a\nb")
    yield "half a character", plain.replace("好的".encode(), "好".encode()[:2])
    yield "a lone surrogate", plain.replace("好的".encode(), b"\\ud83d")
    yield "no text", _raw("")
    yield "nothing", b""
    yield "only the beginning", plain[:80]


@pytest.mark.parametrize(("why", "raw"), list(_others()), ids=[why for why, _ in _others()])
def test_any_other_event_takes_the_whole_way(why: str, raw: bytes) -> None:
    frame = _frame(_raw("先说一句"))
    assert frame is not None
    good = b"data: " + _raw("好的") + b"\n\n"
    assert frame.run(b"data: " + raw + b"\n\n" + good, 0) is None
    run, end = frame.run(good + b"data: " + raw + b"\n\n" + good, 0) or (None, 0)
    assert run is not None and run.texts == ["好的"] and end == len(good)


@pytest.mark.parametrize(
    "raw",
    [
        _raw("m"),  # the model's name is the same text
        _raw("说吧", secret="words of nobody's"),  # a field that is dropped
        _raw("\u597d\u7684").replace("好的".encode(), b"\\u597d\\u7684"),  # written another way
    ],
    ids=["the text stands twice", "a field is dropped", "it is escaped"],
)
def test_an_event_that_is_changed_or_not_understood_makes_no_frame(raw: bytes) -> None:
    assert _frame(raw) is None
