"""Anthropic messages. https://docs.anthropic.com/en/api/messages and /messages-streaming

An answer is one choice: a list of blocks, each opened, filled and closed by events of its own. A call's arguments are an object in
a plain answer and the text of one in a stream: here they are a text in both.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from app import sse, strictjson
from app.dialects import Delta, Events, Prompt, Said, Shown, Tokens, fields, put
from app.errors import RequestError
from app.types import Action, Origin, Path, Slot

_ORIGIN: dict[str, Origin] = {"user": "user", "assistant": "assistant", "system": "system"}
_KEEP = frozenset({"id", "type", "role", "stop_reason"})
_SHAPED = frozenset({"model", "content", "usage", "stop_sequence"})
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Type of a delta -> its field."""
_NO_USAGE = {"input_tokens": 0, "output_tokens": 0}


class Messages:
    """The dialect."""

    name = "anthropic_messages"
    route = "/v1/messages"

    def prompt(self, body: Any) -> Prompt:
        body = fields.request(body)
        messages = fields.required_list(body, "messages")
        stream = fields.field(body, "stream", bool, "true or false", False)
        system = body.get("system")
        slots: list[Slot] = []
        if system is not None:
            slots += fields.spoken(system, ("system",), system, (), ("text",), "system", len(messages), 0)
        messages[:] = [m for m in messages if not _emptied(m)]
        for i, message in enumerate(messages):
            slots += self._slots(message, i, len(messages) - 1 - i)
        slots += fields.rest(body, "messages", "system")
        # What is written for a thought takes the place of all that stands in its block: its own text comes last.
        slots.sort(key=lambda s: (1, -len(s.path)) if s.path[-1] == "thinking" else (0, 0))
        config = body.get("output_config")
        form = body.get("output_format") or (config.get("format") if isinstance(config, dict) else None)
        return Prompt(body, slots, body["model"], stream, structured=isinstance(form, dict))

    def _slots(self, message: Any, i: int, age: int) -> list[Slot]:
        at = f"messages[{i}]"
        if not isinstance(message, dict):
            raise RequestError(f"'{at}' must be an object", code="invalid_type", param=at)
        origin = _ORIGIN[fields.one_of(message.get("role"), _ORIGIN, f"{at}.role")]
        content = message.get("content")
        slots = fields.spoken(message, ("messages", i), content, ("content",), ("text",), origin, age, i + 1)
        # What a tool answered stands in a message of the user.
        results = {
            j for j, b in enumerate(content if isinstance(content, list) else ())
            if isinstance(b, dict) and str(b.get("type")).endswith("tool_result")
        }  # fmt: skip
        return [
            Slot(s.path, s.text, "tool", s.age, s.message) if len(s.path) > 3 and s.path[3] in results else s
            for s in slots
        ]

    def events(self, prompt: Prompt, said: Said) -> Events:
        return _Events(self, prompt, said)

    def message(self, message: dict[str, Any], prompt: Prompt) -> list[Any]:
        """The content of a message, what stands beside it cleaned. Raises UpstreamError."""
        if not fields.plain(message.get("model")):
            message["model"] = prompt.model
        usage = fields.counts(message.get("usage"))
        message["usage"] = usage if isinstance(usage, dict) else dict(_NO_USAGE)
        stop_at(message, prompt)
        fields.clean(message, _KEEP, _SHAPED, self.name)
        content = message.get("content")
        if not isinstance(content, list):
            raise fields.broken("the model's answer has no list of content")
        return content

    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]:
        found: list[Delta] = []
        for i, block in enumerate(self.message(body, prompt)):
            found += block_texts(block, ("content", i), i, prompt)
        return found

    def tokens(self, body: dict[str, Any]) -> list[tuple[int, str]]:
        return []

    def without_tokens(self, body: dict[str, Any], choice: int) -> None:
        pass

    def masked(self, body: dict[str, Any], delta: Delta) -> None:
        if delta.channel[-1] == "thinking":
            body["content"][delta.channel[1]]["signature"] = ""

    def stop(self, body: dict[str, Any], prompt: Prompt, choice: int, shown: Shown) -> None:
        body |= {"content": [{"type": "text", "text": shown.text}], "stop_reason": _word(shown), "stop_sequence": None}

    def refinish(self, body: dict[str, Any], shown: Shown) -> None:
        body |= {"stop_reason": _word(shown), "stop_sequence": None}

    def answer(self, prompt: Prompt, shown: Shown) -> dict[str, Any]:
        body = _message(prompt.model)
        self.stop(body, prompt, 0, shown)
        return body

    def rewrite(self, prompt: Prompt, slot: Slot, text: str) -> None:
        holder: Any = None
        block: Any = prompt.body
        for key in slot.path[:-1]:
            holder, block = block, block[key]
        if slot.path[-1] == "thinking" and holder is not None and block.get("type") == "thinking":
            # A changed thought fails the check of its signature.
            holder[slot.path[-2]] = {"type": "text", "text": text}
        else:
            put(prompt.body, slot.path, text)

    def error(self, message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
        kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
                429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error"}  # fmt: skip
        word = kind.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": word, "message": message, "code": code, "param": param}}


class _Events:
    done = b""
    repeats = False
    parts = True
    alike = True
    event_max = 1 << 20

    def __init__(self, dialect: Messages, prompt: Prompt, said: Said) -> None:
        self._dialect, self._prompt, self._said = dialect, prompt, said
        self._begun = False
        self._open: int | None = None
        self._blocks = 0
        self._citations: dict[int, int] = {}
        self._usage = {"output_tokens": 0}

    def texts(self, event: dict[str, Any]) -> list[Delta] | None:
        kind, index = event.get("type"), event.get("index")
        if kind in ("ping", "message_stop"):
            fields.clean(event, (), ("type",), self._dialect.name)
            return []
        if kind == "message_start" and isinstance(event.get("message"), dict):
            fields.clean(event, (), ("type", "message"), self._dialect.name)
            content = self._dialect.message(event["message"], self._prompt)
            if content:
                raise fields.broken("the model's message did not start empty")
            return []
        if kind == "message_delta" and isinstance(event.get("delta"), dict):
            fields.clean(event, (), ("type", "delta", "usage"), self._dialect.name)
            usage = fields.counts(event.get("usage"))
            event["usage"] = dict(self._usage) | (usage if isinstance(usage, dict) else {})
            stop_at(event["delta"], self._prompt)
            fields.clean(event["delta"], ("stop_reason",), ("stop_sequence",), self._dialect.name)
            return []
        if kind not in ("content_block_start", "content_block_delta", "content_block_stop"):
            return None
        if type(index) is not int or index < 0:
            raise fields.broken("the model sent a block without an index")
        shaped = {"content_block_start": ("type", "content_block"), "content_block_delta": ("type", "delta")}
        fields.clean(event, ("index",), shaped.get(str(kind), ("type",)), self._dialect.name)
        if kind == "content_block_start":
            return block_texts(event.get("content_block"), ("content_block",), index, self._prompt)
        if kind == "content_block_delta":
            return self._delta(event.get("delta"), index)
        return []

    def _delta(self, delta: Any, index: int) -> list[Delta] | None:
        if not isinstance(delta, dict):
            raise fields.broken("the model sent a delta that is no object")
        kind = delta.get("type")
        name = _DELTAS.get(str(kind))
        if name is not None:
            fields.clean(delta, (), ("type", name), self._dialect.name)
            text = delta.get(name)
            if not isinstance(text, str):
                raise fields.broken("the model sent a text that is no string")
            return [_delta(index, "input" if kind == "input_json_delta" else name, ("delta", name), text, self._prompt)]
        if kind == "signature_delta" and isinstance(delta.get("signature"), str):
            fields.clean(delta, (), ("type", "signature"), self._dialect.name)
            if fields.sealed("signature", delta["signature"], delta):
                return []
            return [Delta(0, ("content", index, "signature"), ("delta", "signature"), delta["signature"], True)]
        if kind == "citations_delta":
            fields.clean(delta, (), ("type", "citation"), self._dialect.name)
            place = self._citations[index] = self._citations.get(index, -1) + 1
            below = ("content", index, "citations", place)
            return [
                d._replace(whole=True) for d in fields.texts_below(delta.get("citation"), ("delta", "citation"), below)
            ]
        return None

    def failed(self, event: dict[str, Any]) -> bool:
        return event.get("type") == "error"

    def ended(self, event: dict[str, Any]) -> list[tuple[int, Path]]:
        kind = event["type"]
        if kind == "content_block_stop":
            return [(0, ("content", event["index"]))]
        if kind == "content_block_delta" and event["delta"].get("type") == "signature_delta":
            return [(0, ("content", event["index"], "thinking"))]
        if kind == "message_stop" or (kind == "message_delta" and event["delta"].get("stop_reason")):
            return [(0, ())]
        return []

    def last(self, event: dict[str, Any]) -> bool:
        return bool(event["type"] == "message_stop")

    def tokens(self, event: dict[str, Any]) -> list[Tokens]:
        return []

    def give(self, event: dict[str, Any], tokens: Tokens) -> None:
        raise AssertionError("this dialect has no log probabilities")

    def unfinish(self, event: dict[str, Any], choice: int) -> None:
        if event.get("type") == "message_delta":
            event["delta"]["stop_reason"] = None

    def refinish(self, event: dict[str, Any], shown: Shown) -> None:
        if event["type"] == "message_delta" and event["delta"].get("stop_reason"):
            event["delta"] |= {"stop_reason": _word(shown), "stop_sequence": None}

    def without(self, event: dict[str, Any], choices: Collection[int]) -> None:
        pass

    def tail(self, delta: Delta, text: str) -> dict[str, Any] | None:
        kind = {"text": "text_delta", "thinking": "thinking_delta", "input": "input_json_delta"}.get(
            str(delta.channel[-1])
        )
        if kind is None:
            return None
        return _block_delta(int(delta.channel[1]), kind, text)

    def silent(self, event: dict[str, Any], stopped: bool) -> bool:
        if event["type"] != "content_block_delta":
            # Where the choice was stopped, its ending opens and closes what it needs.
            return stopped
        delta = event["delta"]
        name = _DELTAS.get(delta["type"])
        return not delta[name] if name else stopped

    def sent(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "message_start":
            self._begun = True
            self._usage["output_tokens"] = event["message"]["usage"].get("output_tokens") or 0
        elif kind == "content_block_start":
            self._open, self._blocks = event["index"], max(self._blocks, event["index"] + 1)
        elif kind == "content_block_stop":
            self._open = None
        elif kind == "content_block_delta" and event["delta"]["type"] == "signature_delta":
            # Nobody signed a thought that was masked.
            masked = self._said.masked(("content", event["index"], "thinking"))
            event["delta"]["signature"] = "" if masked else event["delta"]["signature"]

    def ending(self, choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        if not self._begun:
            events.append({"type": "message_start", "message": _message(self._prompt.model)})
        if self._open is not None:
            events.append({"type": "content_block_stop", "index": self._open})
        at = self._blocks
        text = f"\n\n{shown.text}" if begun else shown.text
        return [
            *events,
            {"type": "content_block_start", "index": at, "content_block": {"type": "text", "text": ""}},
            _block_delta(at, "text_delta", text),
            {"type": "content_block_stop", "index": at},
            {"type": "message_delta", "delta": {"stop_reason": _word(shown), "stop_sequence": None}, "usage": dict(self._usage)},
            {"type": "message_stop"},
        ]  # fmt: skip

    def closing(self) -> dict[str, Any] | None:
        return None

    def write(self, event: dict[str, Any], decision: str) -> bytes:
        if event["type"] == "message_start":
            event["message"]["id"] = decision
        return sse.write(strictjson.dumps(event), event["type"])

    def error(self, message: str, code: str, status: int) -> bytes:
        return sse.write(strictjson.dumps(self._dialect.error(message, code, None, status)), "error")


def _emptied(message: Any) -> bool:
    """Take thoughts out of a message that were masked: they have lost their signature, and no model takes them back. True if
    nothing else was in it."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or not content:
        return False
    content[:] = [b for b in content if not (isinstance(b, dict) and b.get("signature") == "")]
    return not content


def block_texts(block: Any, path: Path, index: int, prompt: Prompt) -> list[Delta]:
    """The texts of one block of content, its input as the text of a JSON object. Raises UpstreamError."""
    if not isinstance(block, dict):
        raise fields.broken("the model sent a block that is no object")
    if not isinstance(block.get("signature", ""), (str, type(None))):
        raise fields.broken("the model sent a signature that is no string")
    found: list[Delta] = []
    given = block.get("input")
    if isinstance(given, (dict, list)) and given:
        found.append(fields.written(0, ("content", index, "input"), (*path, "input"), given))
        block = {k: v for k, v in block.items() if k != "input"}
    for delta in fields.texts_below(block, path, ("content", index)):
        name = delta.channel[2:]
        if name == ("text",):
            delta = delta._replace(visible=block.get("type") == "text", json=prompt.structured)
        elif name != ("thinking",):
            delta = delta._replace(whole=True)  # no event adds to it
        found.append(delta)
    return found


def _delta(index: int, name: str, path: Path, text: str, prompt: Prompt) -> Delta:
    json = name == "input" or (name == "text" and prompt.structured)
    return Delta(0, ("content", index, name), path, text, json=json, visible=name == "text")


def stop_at(part: dict[str, Any], prompt: Prompt) -> None:
    """Keep the stop string that the model met if it is one of the client's own."""
    asked = prompt.body.get("stop_sequences")
    if part.get("stop_sequence") is not None and part["stop_sequence"] not in (
        asked if isinstance(asked, list) else ()
    ):
        part["stop_sequence"] = None


def _word(shown: Shown) -> str:
    return "end_turn" if shown.action is Action.REPLACE else "refusal"


def _message(model: str) -> dict[str, Any]:
    return {
        "id": "", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": dict(_NO_USAGE),
    }  # fmt: skip


def _block_delta(index: int, kind: str, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, _DELTAS[kind]: text}}
