"""Every dialect on what real clients sent and what a model's server answered (tests/transcripts): what is read of a request is all
that a person could see, and after re-serialising, per-channel text and every forwarded field are equal to what the model
sent; framing and the bounds of deltas may differ.

Law: reads the transcripts by itself and takes no word from app/dialects.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import dialects
from tests.conftest import ROOT, Model, Running
from tests.reading import strings

ONE_GATEWAY = True
FOLDER = ROOT / "tests" / "transcripts"
DIALECTS = {d.name: d for d in dialects.shipped()}
FILES = sorted(FOLDER.glob("*.json"))
CASES = {"plain", "streamed", "structured", "parts", "error"}
"""What a dialect must have at least; and where it knows tools:"""
TOOLS = {"tool-stream", "tool-result", "structured-stream"}
TOOLLESS = {"openai_completions"}

EVERY = pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
Where = tuple[str | int, ...]


def _read(file: Path) -> tuple[dialects.Dialect, dict[str, Any]]:
    return DIALECTS[file.stem.split("-")[0]], json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_has_its_transcripts(name: str) -> None:
    there = {file.stem.split("-", 1)[1] for file in FILES if file.stem.split("-")[0] == name}
    assert there >= CASES | (set() if name in TOOLLESS else TOOLS), f"tests/transcripts/make.py writes none for {name}"


@EVERY
def test_every_transcript_is_of_a_dialect_and_of_one_answer(file: Path) -> None:
    _, kept = _read(file)
    assert set(kept) == {"request", "status", "stream", "answer"}
    assert (kept["stream"] is None) != (kept["answer"] is None)
    assert file.stat().st_size < 16_000


# ---- requests


def _seen(value: Any, where: Where = ()) -> Iterator[tuple[Where, str]]:
    """What of a request a person could have written or could read: a text that is no plain word."""
    if isinstance(value, str):
        if re.search(r"[^!-~]", value):
            yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _seen(inner, (*where, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _seen(inner, (*where, i))


@EVERY
def test_every_text_of_a_request_is_a_slot(file: Path) -> None:
    dialect, kept = _read(file)
    prompt = dialect.prompt(copy.deepcopy(kept["request"]))
    slots = {tuple(slot.path): slot.text for slot in prompt.slots}
    expected = dict(_seen(kept["request"]))
    assert expected
    for where, text in expected.items():
        # The arguments of a call are one text.
        found = [slots[where[:n]] for n in range(len(where), 0, -1) if where[:n] in slots]
        assert found and (found[0] == text or text in strings(json.loads(found[0]))), where
    assert prompt.model == kept["request"]["model"]
    assert prompt.stream is bool(kept["request"].get("stream"))
    assert prompt.structured is ("structured" in file.stem)


@EVERY
def test_the_origins_of_a_conversation_are_told_apart(file: Path) -> None:
    dialect, kept = _read(file)
    origins = {slot.text: slot.origin for slot in dialect.prompt(copy.deepcopy(kept["request"])).slots}
    expected = {
        "你是一位和气的助手。": "system", "杭州的天气怎样？": "user", "我来查。": "assistant", "杭州：多云，20 度": "tool",
    }  # fmt: skip
    for text in expected.keys() & origins.keys():
        assert origins[text] == expected[text]


# ---- answers


def _full(value: Any) -> Any:
    """Without the fields that say nothing."""
    if isinstance(value, dict):
        return {k: _full(v) for k, v in value.items() if v is not None}
    return [_full(v) for v in value] if isinstance(value, list) else value


def _body(body: dict[str, Any]) -> Any:
    """An answer without what is ours to say of it."""
    return _full({k: v for k, v in body.items() if k not in ("id", "sluice", "sequence_number")})


@EVERY
def test_an_answer_goes_through_the_gateway_as_it_came(file: Path, gateway: Running, model: Model) -> None:
    dialect, kept = _read(file)
    if kept["stream"] is not None:
        model.script.stream = [event.encode() + b"\n\n" for event in kept["stream"]]
    else:
        model.script.plain = (kept["status"], {}, json.dumps(kept["answer"]).encode())
    raw = json.dumps(kept["request"], ensure_ascii=False).encode()
    got = gateway.http.post(dialect.route, content=raw, headers={"content-type": "application/json"})
    assert got.status_code == kept["status"]
    (asked,) = model.script.asked
    assert asked == kept["request"] | ({"store": False} if dialect.name == "openai_responses" else {})
    if kept["status"] != 200:
        assert got.json()["error"] | kept["answer"]["error"] == got.json()["error"]
    elif kept["stream"] is None:
        assert _body(got.json()) == _body(kept["answer"])
        assert got.json()["id"] == got.headers["x-sluice-decision"]
    else:
        through = [event for event in got.text.split("\n\n") if event]
        assert _said(through) == _said(kept["stream"])
        assert _frame(through) == _frame(kept["stream"])
        assert _ends(through) == _ends(kept["stream"])


def _events(stream: list[str]) -> list[Any]:
    found = []
    for event in stream:
        lines = dict(line.split(": ", 1) for line in event.splitlines())
        data = lines["data"] if lines["data"] == "[DONE]" else json.loads(lines["data"])
        if "event" in lines:
            assert data["type"] == lines["event"]
        found.append(data)
    return found


def _ends(stream: list[str]) -> str:
    """The last event's name."""
    last = _events(stream)[-1]
    return last if last == "[DONE]" else last.get("type") or last["object"]


def _texts(event: Any) -> Iterator[tuple[Where, dict[str, Any], str]]:
    """(channel, where it stands, under which name) of every text that a client adds to what it has."""
    if event == "[DONE]":
        return
    for choice in event.get("choices", ()):
        at = choice["index"]
        if "text" in choice:
            yield (at, "text"), choice, "text"
        delta = choice.get("delta", {})
        for name in ("content", "reasoning_content"):
            if name in delta:
                yield (at, name), delta, name
        for c in delta.get("tool_calls", ()):
            yield (at, "call", c["index"]), c["function"], "arguments"
    kind = event.get("type", "")
    if kind.endswith(".delta"):
        place = [event[n] for n in ("output_index", "content_index", "summary_index") if n in event]
        yield (kind, *place), event, "delta"
    elif kind == "content_block_delta":
        for name in ("text", "thinking", "partial_json"):
            if name in event["delta"]:
                yield (event["index"], name), event["delta"], name


def _said(stream: list[str]) -> dict[Where, str]:
    """The text of each channel."""
    said: dict[Where, str] = {}
    for event in _events(stream):
        for channel, holder, name in _texts(event):
            said[channel] = said.get(channel, "") + (holder[name] or "")
    return {channel: text for channel, text in said.items() if text}


def _frame(stream: list[str]) -> list[Any]:
    """Every event in order, texts of channels apart, each once: what is told beside the texts."""
    frame: list[Any] = []
    for event in _events(stream):
        for _, holder, name in _texts(event):
            holder[name] = ""
        if event != "[DONE]":
            event = _body(event)
            for name in ("response", "message"):
                if name in event:
                    event[name] = _body(event[name])
        if event not in frame:
            frame.append(event)
    return frame
