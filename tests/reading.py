"""An answer as its client reads it, whole or streamed, in each API: the text of every channel, how it ended, what Sluice says.

Law: independent of app/dialects, which writes it. A stream that its API would not write (a text outside its block, a repeat
that differs from what was said, anything behind the end) fails here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
ROUTES = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
FILTERED = {CHAT: "content_filter", COMPLETIONS: "content_filter", RESPONSES: "content_filter", MESSAGES: "refusal"}
"""How a blocked answer ends."""
CLEAN = {CHAT: "stop", COMPLETIONS: "stop", RESPONSES: "completed", MESSAGES: "end_turn"}
"""How any other answer without a call ends."""
REFUSAL, REFUSAL_EN = "这部分内容未能显示", "This content is not shown"
"""What is shown instead begins with one of them."""

ALWAYS = {"decision", "action", "receipt"}
"""What Sluice says of every answer."""

_KINDS = {
    "content": "text", "text": "text", "output_text": "text",
    "reasoning_content": "reasoning", "reasoning": "reasoning", "thinking": "reasoning",
    "reasoning_text": "reasoning", "reasoning_summary_text": "reasoning",
    "arguments": "arguments", "function_call_arguments": "arguments", "input": "arguments",
    "name": "name", "refusal": "refusal",
}  # fmt: skip


@dataclass
class Read:
    """What a client has. `texts`: channel -> text; a channel begins with the number of its choice, item or block."""

    route: str
    texts: dict[str, str] = field(default_factory=dict)
    endings: dict[int, str] = field(default_factory=dict)
    """Choice -> how it ended, in the API's word; responses say their reason, if they have one, else their status."""
    sluice: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: str = ""
    """Code of the error that broke it off."""
    ended: bool = False
    """The API's last word came."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The events of a stream, or the plain body."""

    def add(self, channel: str, text: Any) -> None:
        if isinstance(text, str):
            self.texts[channel] = self.texts.get(channel, "") + text

    def all(self, kind: str, choice: int = 0) -> list[str]:
        """The texts of one kind (text, reasoning, arguments, name, refusal), in their order."""
        mine = self.route in (RESPONSES, MESSAGES)
        return [t for c, t in self.texts.items() if _kind(c) == kind and (mine or c.split(".")[0] == str(choice))]

    def text(self, choice: int = 0) -> str:
        """The model's own text; what was shown instead is `refusal`."""
        said, shown = "".join(self.all("text", choice)), self.refusal(choice)
        return said.removesuffix(shown).removesuffix("\n\n") if shown else said

    def refusal(self, choice: int = 0) -> str:
        # Where JSON was asked for it stands in a field of its own.
        said = "".join(self.all("text", choice) + self.all("refusal", choice))
        return said[at:] if (at := max(map(said.rfind, (REFUSAL, REFUSAL_EN)))) >= 0 else ""

    def reasoning(self, choice: int = 0) -> str:
        return "".join(self.all("reasoning", choice))

    def arguments(self, choice: int = 0) -> str:
        return "".join(self.all("arguments", choice))

    @property
    def ending(self) -> str:
        return self.endings.get(0, "")

    def stopped(self, choice: int = 0) -> bool:
        """The choice ended as blocked, with words instead."""
        return self.endings.get(choice) == FILTERED[self.route] and bool(self.refusal(choice))

    def shows(self, word: str) -> str:
        """The characters of `word` that stand anywhere in the answer, what was shown instead apart."""
        shown = {self.refusal(c) for c in self.endings} - {""}
        found = set()
        for leaf in strings(self.events):
            for words in shown:
                leaf = leaf.replace(words, "")
            found |= set(leaf) & set(word)
        return "".join(sorted(found))


def of(route: str, response: httpx.Response) -> Read:
    """An answer with status 200, plain or streamed, that ended as it should."""
    assert response.status_code == 200, response.text
    streamed = response.headers["content-type"].startswith("text/event-stream")
    got = read(route, response.content) if streamed else plain(route, response.json())
    assert got.ended and not got.error, response.text
    said = set(got.sluice)
    assert ALWAYS <= said <= ALWAYS | {"label", "notices", "not_examined", "grounding", "guidance"}, response.text
    return got


def strings(value: Any) -> Iterator[str]:
    """Every string of a JSON value, names of fields among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


# ---- streams


def read(route: str, raw: bytes) -> Read:
    """A stream's body, whole or broken off behind an event."""
    got = Read(route)
    reader = {CHAT: _chat, COMPLETIONS: _completions, RESPONSES: _responses, MESSAGES: _messages}[route](got)
    assert not raw or raw.endswith(b"\n\n"), raw[-100:]
    for part in raw.decode().split("\n\n")[:-1]:
        fields = [line.split(": ", 1) for line in part.split("\n")]
        assert [name for name, _ in fields] in (["data"], ["event", "data"]), part
        data = fields[-1][1]
        assert not got.error and not (got.ended and route != CHAT and route != COMPLETIONS), f"behind the end: {part}"
        if data == "[DONE]":
            assert route in (CHAT, COMPLETIONS)
            got.ended = True
            continue
        event = orjson.loads(data)
        assert not got.ended and not got.sluice, f"behind the last event: {part}"
        assert (len(fields) == 1) == (route in (CHAT, COMPLETIONS)), part
        if len(fields) == 2:
            assert fields[0][1] == event["type"], part
        got.events.append(event)
        error = event if event.get("type") == "error" and route == RESPONSES else event.get("error")
        if error:
            assert error["code"] and error["message"]
            got.error = error["code"]
            continue
        reader.send(event)
        got.sluice = event.get("sluice") or {}
    reader.close()
    return got


def _pump(function: Any) -> Any:
    def start(got: Read) -> Any:
        made = function(got)
        next(made)
        return made

    return start


@_pump
def _chat(got: Read) -> Iterator[None]:
    while True:
        event: Any = yield
        got.usage = event.get("usage") or got.usage
        for choice in event["choices"]:
            at = choice.get("index") or 0  # some servers leave it out
            assert at not in got.endings, f"behind its end: {event}"
            _walk(got, str(at), choice["delta"])
            if choice.get("finish_reason"):
                got.endings[at] = choice["finish_reason"]


@_pump
def _completions(got: Read) -> Iterator[None]:
    while True:
        event: Any = yield
        got.usage = event.get("usage") or got.usage
        for choice in event["choices"]:
            at = choice.get("index") or 0
            assert at not in got.endings, f"behind its end: {event}"
            got.add(f"{at}.text", choice["text"])
            if choice.get("finish_reason"):
                got.endings[at] = choice["finish_reason"]


def _walk(got: Read, channel: str, value: Any) -> None:
    """Every text of a chat's delta or message."""
    if isinstance(value, str):
        got.add(channel, value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("role", "type", "id"):
                _walk(got, channel if name == "function" else f"{channel}.{name}", inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            at = inner.get("index", i) if isinstance(inner, dict) else i
            _walk(got, f"{channel}.{at}", inner)


@_pump
def _responses(got: Read) -> Iterator[None]:
    items: dict[int, dict[str, Any]] = {}
    closed: dict[int, dict[str, Any]] = {}
    number = 0
    while True:
        event: Any = yield
        assert event["sequence_number"] == number, event
        number += 1
        name = event["type"].removeprefix("response.")
        stem, _, step = name.rpartition(".")
        at = event.get("output_index")
        if name == "output_item.added":
            assert at not in items, event
            items[at] = event["item"]
            got.add(f"{at}.name", event["item"].get("name"))
        elif name == "output_item.done":
            assert at in items and at not in closed, event
            closed[at] = event["item"]
            _repeated(got, at, event["item"])
        elif stem in ("content_part", "reasoning_summary_part"):
            assert at in items and at not in closed, event
            if step == "done":
                part, place = event["part"], event.get("content_index", event.get("summary_index"))
                _same(got, at, _part_stem(stem, part), place, part.get("text", part.get("refusal", "")))
        elif step == "delta":
            assert at in items and at not in closed, event
            got.add(_channel(at, stem, event.get("content_index", event.get("summary_index"))), event["delta"])
        elif step == "done":
            said = event.get("text", event.get("arguments", event.get("refusal")))
            if isinstance(said, str):
                _same(got, at, stem, event.get("content_index", event.get("summary_index")), said)
        elif name in ("completed", "incomplete"):
            got.ended, got.usage = True, event["response"]["usage"]
            got.endings[0] = _status(event["response"])
            known = [closed[n] for n in sorted(closed)]
            assert [i.get("id") for i in event["response"]["output"]] == [i.get("id") for i in known], event
            for n, item in zip(sorted(closed), event["response"]["output"], strict=True):
                _repeated(got, n, item)
        else:
            assert name in ("created", "in_progress", "output_text.annotation.added"), event


def _status(response: dict[str, Any]) -> str:
    details = response.get("incomplete_details")
    return str(details["reason"] if details else response["status"])


def _channel(at: int, stem: str, place: int | None) -> str:
    return f"{at}.{stem}.{place}" if place else f"{at}.{stem}"


def _part_stem(stem: str, part: dict[str, Any]) -> str:
    if stem == "reasoning_summary_part":
        return "reasoning_summary_text"
    return {"refusal": "refusal", "reasoning_text": "reasoning_text"}.get(part["type"], "output_text")


def _same(got: Read, at: int, stem: str, place: int | None, said: str) -> None:
    channel = _channel(at, stem, place)
    assert got.texts.get(channel, "") == said, f"{channel}: {got.texts.get(channel)!r} was said, {said!r} is repeated"


def _repeated(got: Read, at: int, item: dict[str, Any]) -> None:
    """An item says again what was said of it."""
    for channel, text in _item(at, item):
        assert got.texts.get(channel, "") == text, f"{channel}: {got.texts.get(channel)!r} was said, {item} is repeated"


def _item(at: int, item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "arguments" in item:
        yield f"{at}.name", item["name"]
        yield f"{at}.function_call_arguments", item["arguments"]
    for i, part in enumerate(item.get("summary") or ()):
        yield _channel(at, "reasoning_summary_text", i), part["text"]
    for i, part in enumerate(item.get("content") or ()):
        yield _channel(at, _part_stem("content_part", part), i), part.get("text", part.get("refusal", ""))


@_pump
def _messages(got: Read) -> Iterator[None]:
    begun, opened, blocks = False, -1, 0
    fields = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
    while True:
        event: Any = yield
        kind = event["type"]
        if kind == "message_start":
            assert not begun and event["message"]["content"] == [], event
            begun = True
            continue
        assert begun, event
        if kind == "content_block_start":
            assert opened < 0 and event["index"] == blocks and not got.endings, event
            opened = event["index"]
            blocks += 1
            for name in ("text", "thinking", "name"):
                got.add(f"{opened}.{name}", event["content_block"].get(name))
        elif kind == "content_block_delta":
            assert event["index"] == opened, event
            delta = event["delta"]
            name = fields.get(delta["type"], "")
            if name:
                got.add(f"{opened}.{'input' if name == 'partial_json' else name}", delta[name])
        elif kind == "content_block_stop":
            assert event["index"] == opened, event
            opened = -1
        elif kind == "message_delta":
            assert opened < 0 and not got.endings, event
            got.usage = event["usage"]
            if event["delta"]["stop_reason"]:
                got.endings[0] = event["delta"]["stop_reason"]
        elif kind == "message_stop":
            assert got.endings, event
            got.ended = True
        else:
            assert kind == "ping", event


# ---- plain answers


def plain(route: str, body: dict[str, Any]) -> Read:
    """A plain answer, in the same channels as its stream."""
    got = Read(route, sluice=body.get("sluice") or {}, usage=body.get("usage"), ended=True, events=[body])
    if route in (CHAT, COMPLETIONS):
        for choice in body["choices"]:
            at = choice["index"]
            _walk(got, str(at), choice["message"] if route == CHAT else {"text": choice["text"]})
            got.endings[at] = choice["finish_reason"]
    elif route == RESPONSES:
        got.endings[0] = _status(body)
        for at, item in enumerate(body["output"]):
            for channel, text in _item(at, item):
                got.add(channel, text)
    else:
        got.endings[0] = body["stop_reason"]
        for at, block in enumerate(body["content"]):
            for name in ("text", "thinking", "name"):
                got.add(f"{at}.{name}", block.get(name))
            if "input" in block:
                got.add(f"{at}.input", orjson.dumps(block["input"]).decode())
    return got


def _kind(channel: str) -> str:
    steps = [step for step in channel.split(".") if not step.isdigit()]
    return "reasoning" if steps[0].startswith("reasoning_d") else _KINDS.get(steps[-1], "")
