"""OpenAI responses. https://platform.openai.com/docs/api-reference/responses and /responses-streaming

An answer is one choice: a list of items, most of them with parts. A stream says every text as deltas and then again, three times:
when its part, its item and the answer are done; each time it is what the client was given. Nothing is stored: what refers to
state on the model's server is text that nobody screened.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from typing import Any

from app import clock, sse, strictjson
from app.dialects import Delta, Events, Prompt, Said, Shown, Tokens, fields, openai, put
from app.errors import RequestError, UpstreamError
from app.types import Action, Origin, Path, Slot

_ORIGIN: dict[str, Origin] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SPOKEN = ("input_text", "output_text", "text")
_STATE = {
    "previous_response_id": "send the earlier turns in 'input'",
    "conversation": "send the earlier turns in 'input'",
    "background": "leave it out and wait for the answer, or stream it",
    "prompt": "send the stored prompt's own text in 'instructions' and 'input'",
}
"""What refers to state on the model's server -> the way out."""
_KEEP = frozenset({"id", "object", "created_at", "completed_at", "status", "service_tier", "truncation", "parallel_tool_calls",
    "temperature", "top_p", "max_output_tokens", "max_tool_calls", "store", "top_logprobs"})  # fmt: skip
_ECHO = (
    "instructions",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "metadata",
    "user",
    "prompt_cache_key",
    "safety_identifier",
)
"""Fields in which an answer says the request again: the client's own words, taken from its request."""
_SHAPED = frozenset({"model", "output", "usage", "error", "incomplete_details", *_ECHO})
_DELTAS: dict[str, Path] = {
    "output_text": ("content", "content_index", "text"),
    "refusal": ("content", "content_index", "refusal"),
    "reasoning_text": ("content", "content_index", "text"),
    "reasoning_summary_text": ("summary", "summary_index", "text"),
    "function_call_arguments": ("arguments",),
    "mcp_call_arguments": ("arguments",),
    "custom_tool_call_input": ("input",),
    "code_interpreter_call_code": ("code",),
}
"""Kind of a delta -> where its text stands below its item; the middle step is an index of the event's own."""
_PARTS = {"content_part": ("content", "content_index"), "reasoning_summary_part": ("summary", "summary_index")}
_PROGRESS = re.compile(
    r"(?:[a-z]+(?:_[a-z]+)*_call|mcp_list_tools)"
    r"\.(?:in_progress|searching|interpreting|generating|partial_image|completed|failed)\Z"
)
"""Events of how far a tool of the server is."""
_ANSWERS = ("created", "in_progress", "queued", "completed", "incomplete", "failed")
_PLACES = frozenset(
    {"output_index", "content_index", "summary_index", "annotation_index", "item_id", "sequence_number"}
)


class Responses:
    """The dialect."""

    name = "openai_responses"
    route = "/v1/responses"

    def prompt(self, body: Any) -> Prompt:
        body = fields.request(body)
        for name, way in _STATE.items():
            if body.get(name):
                raise RequestError(
                    f"'{name}' refers to what the model's server keeps, which cannot be screened here: {way}",
                    code="unsupported_parameter",
                    param=name,
                )
        body["store"] = False
        stream = fields.field(body, "stream", bool, "true or false", False)
        given = body.get("input")
        slots: list[Slot] = []
        instructions = body.get("instructions")
        if instructions is not None:
            age = len(given) if isinstance(given, list) else 1
            slots += fields.spoken(instructions, ("instructions",), instructions, (), _SPOKEN, "system", age, 0)
        if isinstance(given, list) and given:
            for i, item in enumerate(given):
                slots += self._slots(item, i, len(given) - 1 - i)
        elif isinstance(given, str) and given:
            slots.append(Slot(("input",), given, "user", 0, 1))
        else:
            raise RequestError(
                "'input' is required: a string or a list of items", code="missing_required_parameter", param="input"
            )
        slots += fields.rest(body, "input", "instructions")
        text = body.get("text")
        structured = fields.wants_json(text.get("format") if isinstance(text, dict) else None)
        include = body.get("include")
        tokens = isinstance(include, list) and "message.output_text.logprobs" in include
        return Prompt(body, slots, body["model"], stream, tokens=tokens, structured=structured)

    def _slots(self, item: Any, i: int, age: int) -> list[Slot]:
        at = f"input[{i}]"
        if not isinstance(item, dict):
            raise RequestError(f"'{at}' must be an object", code="invalid_type", param=at)
        kind = item.get("type", "message")
        if kind == "item_reference" or not isinstance(kind, str):
            raise RequestError(
                f"'{at}' refers to what the model's server keeps, which cannot be screened here: send the item itself",
                code="unsupported_value",
                param=at,
            )
        if kind == "message":
            origin = _ORIGIN[fields.one_of(item.get("role"), _ORIGIN, f"{at}.role")]
            content = item.get("content")
            return fields.spoken(item, ("input", i), content, ("content",), _SPOKEN, origin, age, i + 1)
        origin = "tool" if kind.endswith("output") else "assistant"
        return list(fields.leaves(item, ("input", i), origin, age))

    def events(self, prompt: Prompt, said: Said) -> Events:
        return _Events(self, prompt, said)

    def response(self, body: dict[str, Any], prompt: Prompt) -> list[Any]:
        """The output of a response, what stands beside it cleaned. Raises UpstreamError."""
        if not fields.plain(body.get("model")):
            body["model"] = prompt.model
        body["usage"] = fields.counts(body.get("usage"))
        body["error"] = None
        details = body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        body["incomplete_details"] = {"reason": reason} if reason and fields.plain(reason) else None
        for name in _ECHO:
            if name in body:
                body[name] = prompt.body[name] if name in prompt.body else _default(body[name])
        fields.clean(body, _KEEP, _SHAPED, self.name)
        output = body.get("output")
        if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
            raise fields.broken("the model's answer has no list of output")
        return output

    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]:
        if body.get("status") == "failed":
            raise UpstreamError("the model reported an error", code="upstream_error")
        found: list[Delta] = []
        for i, item in enumerate(self.response(body, prompt)):
            found += self.item(item, ("output", i), i, prompt)
        return found

    def item(self, item: Any, path: Path, index: int, prompt: Prompt) -> list[Delta]:
        """The texts of one item of the output. Raises UpstreamError."""
        if not isinstance(item, dict):
            raise fields.broken("the model sent an item that is no object")
        return self.below(item, path, ("output", index), prompt, visible=item.get("type") == "message")

    def below(self, value: Any, path: Path, channel: Path, prompt: Prompt, *, visible: bool) -> list[Delta]:
        """The texts below an item or a part; `visible`: it is (part of) a message."""
        found = []
        for delta in fields.texts_below(value, path, channel):
            if delta.channel[2:3] == ("content",) and delta.channel[4:5] == ("logprobs",):
                continue  # screened as what they are: the answer's own tokens
            if visible and delta.channel[2:3] == ("content",) and delta.channel[4:] == ("text",):
                delta = delta._replace(visible=True, json=prompt.structured)
            found.append(delta)
        return found

    def tokens(self, body: dict[str, Any]) -> list[tuple[int, str]]:
        return [(0, "\n".join(openai.runs(p["logprobs"]))) for p in _texts_of(body["output"]) if p.get("logprobs")]

    def without_tokens(self, body: dict[str, Any], choice: int) -> None:
        for part in _texts_of(body["output"]):
            part["logprobs"] = []

    def masked(self, body: dict[str, Any], delta: Delta) -> None:
        pass

    def stop(self, body: dict[str, Any], prompt: Prompt, choice: int, shown: Shown) -> None:
        body |= _end(shown) | {"output": [_said(shown.text, "msg_0", prompt)]}

    def refinish(self, body: dict[str, Any], shown: Shown) -> None:
        body |= _end(shown)

    def answer(self, prompt: Prompt, shown: Shown) -> dict[str, Any]:
        body = _response(prompt)
        self.stop(body, prompt, 0, shown)
        body["usage"] = {
            "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
        }  # fmt: skip
        return body

    def rewrite(self, prompt: Prompt, slot: Slot, text: str) -> None:
        put(prompt.body, slot.path, text)

    def error(self, message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
        return openai.error(message, code, param, status)


class _Events:
    done = b""
    repeats = parts = True
    alike = False
    event_max = 16 << 20  # its last event says the whole answer again

    def __init__(self, dialect: Responses, prompt: Prompt, said: Said) -> None:
        self._dialect, self._prompt, self._said = dialect, prompt, said
        self._response: dict[str, Any] | None = None
        self._items: dict[int, dict[str, Any]] = {}
        """What was announced of the output, texts apart: place -> item."""
        self._closed: set[int] = set()
        self._ids: dict[int, str] = {}
        self._number = 0
        self._annotations: dict[Path, int] = {}

    # ---- reading

    def texts(self, event: dict[str, Any]) -> list[Delta] | None:
        name = str(event.get("type")).removeprefix("response.")
        if name in _ANSWERS:
            return self._answer(event, name)
        event.pop("obfuscation", None)
        stem, _, step = name.rpartition(".")
        if stem in _DELTAS and step in ("delta", "done"):
            return self._text(event, stem, step)
        if stem == "output_item" and step in ("added", "done"):
            fields.clean(event, _PLACES, ("type", "item"), self._dialect.name)
            at = _at(event, "output_index")
            texts = self._dialect.item(event.get("item"), ("item",), at, self._prompt)
            return [self._snapshot(d, step) for d in texts]
        if stem in _PARTS and step in ("added", "done"):
            fields.clean(event, _PLACES, ("type", "part"), self._dialect.name)
            field, place = _PARTS[stem]
            channel = ("output", _at(event, "output_index"), field, _at(event, place))
            if not isinstance(event.get("part"), dict):
                raise fields.broken("the model sent a part that is no object")
            visible = event["part"].get("type") == "output_text"
            texts = self._dialect.below(event["part"], ("part",), channel, self._prompt, visible=visible)
            return [self._snapshot(d, step) for d in texts]
        if name == "output_text.annotation.added":
            fields.clean(event, _PLACES, ("type", "annotation"), self._dialect.name)
            part: Path = ("output", _at(event, "output_index"), "content", _at(event, "content_index"))
            number = self._annotations[part] = self._annotations.get(part, -1) + 1
            below_it = fields.texts_below(event.get("annotation"), ("annotation",), (*part, "annotations", number))
            return [d._replace(whole=True) for d in below_it]
        if _PROGRESS.match(name):
            # How far a tool of the server is: no text but perhaps an image.
            image = event.get("partial_image_b64")
            sealed = isinstance(image, str) and fields.sealed("partial_image_b64", image, event)
            shaped = ("type", "partial_image_b64") if sealed else ("type",)
            fields.clean(event, _PLACES | {"partial_image_index"}, shaped, self._dialect.name)
            return []
        return None

    def _answer(self, event: dict[str, Any], name: str) -> list[Delta]:
        fields.clean(event, _PLACES, ("type", "response"), self._dialect.name)
        response = event.get("response")
        if not isinstance(response, dict):
            raise fields.broken("the model sent an event without its response")
        output = self._dialect.response(response, self._prompt)
        if name in ("created", "in_progress", "queued"):
            response["output"] = []
            return []
        texts = [
            d
            for i, item in enumerate(output)
            for d in self._dialect.item(item, ("response", "output", i), i, self._prompt)
        ]
        return [d._replace(repeat=True) for d in texts]

    def _text(self, event: dict[str, Any], stem: str, step: str) -> list[Delta]:
        where = _DELTAS[stem]
        field = "delta" if step == "delta" else str(where[-1])
        fields.clean(event, _PLACES, ("type", "name", field, "logprobs"), self._dialect.name)
        at = _at(event, "output_index")
        below = where if len(where) == 1 else (where[0], _at(event, str(where[1])), where[2])
        text = event.get(field)
        if not isinstance(text, str):
            raise fields.broken("the model sent a text that is no string")
        json = where == ("arguments",) or (stem == "output_text" and self._prompt.structured)
        repeat = step == "done"
        found = [
            Delta(0, ("output", at, *below), (field,), text, json=json, visible=stem == "output_text", repeat=repeat)
        ]
        if isinstance(event.get("name"), str):
            found.append(Delta(0, ("output", at, "name"), ("name",), event["name"], whole=True, repeat=repeat))
        elif "name" in event:
            del event["name"]
        return found

    def _snapshot(self, delta: Delta, step: str) -> Delta:
        if step == "done":
            return delta._replace(repeat=True)
        grows = delta.channel[-1] in ("text", "refusal", "arguments", "input", "code")
        return delta if grows else delta._replace(whole=True)

    def failed(self, event: dict[str, Any]) -> bool:
        return event.get("type") in ("error", "response.failed")

    def ended(self, event: dict[str, Any]) -> list[tuple[int, Path]]:
        name = event["type"].removeprefix("response.")
        if name in ("completed", "incomplete"):
            return [(0, ())]
        stem, _, step = name.rpartition(".")
        if step != "done":
            return []
        if stem == "output_item":
            return [(0, ("output", event["output_index"]))]
        if stem in _PARTS:
            field, place = _PARTS[stem]
            return [(0, ("output", event["output_index"], field, event[place]))]
        return []

    def last(self, event: dict[str, Any]) -> bool:
        return event["type"] in ("response.completed", "response.incomplete")

    def tokens(self, event: dict[str, Any]) -> list[Tokens]:
        for holder in (event.get("item"), event.get("part"), event.get("response")):
            if isinstance(holder, dict):
                output = holder.get("output")
                for part in _texts_of([holder, *(output if isinstance(output, list) else ())]):
                    if "logprobs" in part:
                        part["logprobs"] = []
        if "logprobs" not in event:
            return []
        given, event["logprobs"] = event["logprobs"], []
        spoken = openai.spoken(given)
        if spoken is None or not event["type"].endswith(".delta"):
            return []
        return [Tokens(0, ("delta",), openai.bare(given), spoken)]

    def give(self, event: dict[str, Any], tokens: Tokens) -> None:
        event["logprobs"] = tokens.given

    def unfinish(self, event: dict[str, Any], choice: int) -> None:
        pass

    def refinish(self, event: dict[str, Any], shown: Shown) -> None:
        if self.last(event):
            event["response"] |= (end := _end(shown))
            event["type"] = f"response.{end['status']}"

    def without(self, event: dict[str, Any], choices: Collection[int]) -> None:
        pass

    # ---- writing

    def tail(self, delta: Delta, text: str) -> dict[str, Any] | None:
        at, below = int(delta.channel[1]), delta.channel[2:]
        item = self._items.get(at)
        if item is None:
            return None
        for stem, where in _DELTAS.items():
            if len(where) == len(below) and where[0] == below[0] and where[-1] == below[-1] and _fits(item, stem):
                event = {
                    "type": f"response.{stem}.delta",
                    "item_id": item.get("id", ""),
                    "output_index": at,
                    "delta": text,
                }
                if len(where) > 1:
                    event[str(where[1])] = below[1]
                if stem == "output_text":
                    event["logprobs"] = []
                return event
        return None

    def silent(self, event: dict[str, Any], stopped: bool) -> bool:
        if event["type"].endswith(".delta"):
            return not event["delta"]
        # Where the answer was stopped, its ending closes what was announced.
        return stopped

    def sent(self, event: dict[str, Any]) -> None:
        name = event["type"].removeprefix("response.")
        if name in ("created", "in_progress", "queued"):
            self._response = event["response"]
        elif name == "output_item.added":
            self._items[event["output_index"]] = copy.deepcopy(event["item"])
        elif name == "output_item.done":
            self._items[event["output_index"]] = event["item"]
            self._closed.add(event["output_index"])
        elif name in ("content_part.added", "reasoning_summary_part.added"):
            field, place = _PARTS[name.removesuffix(".added")]
            item = self._items.get(event["output_index"])
            if item is not None:
                there = item.get(field)
                there = item[field] = there if isinstance(there, list) else []
                there += [{} for _ in range(min(event[place], 1000) + 1 - len(there))]
                if event[place] < len(there):
                    there[event[place]] = copy.deepcopy(event["part"])

    def ending(self, choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        if self._response is None:
            self._response = _response(self._prompt)
            events.append({"type": "response.created", "response": dict(self._response)})
        for at, item in sorted(self._items.items()):
            if at not in self._closed:
                events += self._close(at, item)
        at = max(self._items, default=-1) + 1
        text = f"\n\n{shown.text}" if begun and not self._prompt.structured else shown.text
        item = _said(text, f"msg_{at}", self._prompt)
        (part,) = item["content"]
        field = "refusal" if self._prompt.structured else "text"
        stem = "response.refusal" if self._prompt.structured else "response.output_text"
        place = {"item_id": item["id"], "output_index": at, "content_index": 0}
        more: dict[str, Any] = {} if self._prompt.structured else {"logprobs": []}
        # A call that was cut short is no call: it stands in no list of what the model wants done.
        output = [
            i
            for _, i in sorted(self._items.items())
            if i.get("status") != "incomplete" or "content" in i or "summary" in i
        ]
        return [
            *events,
            {"type": "response.output_item.added", "output_index": at, "item": item | {"content": [], "status": "in_progress"}},
            {"type": "response.content_part.added", **place, "part": part | {field: ""}},
            {"type": f"{stem}.delta", **place, "delta": text, **more},
            {"type": f"{stem}.done", **place, field: text, **more},
            {"type": "response.content_part.done", **place, "part": dict(part)},
            {"type": "response.output_item.done", "output_index": at, "item": item},
            self._final(shown, [*output, item]),
        ]  # fmt: skip

    def _close(self, at: int, item: dict[str, Any]) -> list[dict[str, Any]]:
        """The events that close an item as the client has it."""
        item["status"] = "incomplete"
        events: list[dict[str, Any]] = []
        for field, place, kind in (
            ("content", "content_index", "content_part"),
            ("summary", "summary_index", "reasoning_summary_part"),
        ):
            parts = item.get(field)
            for i, part in enumerate(parts if isinstance(parts, list) else ()):
                if not isinstance(part, dict):
                    continue
                for name in ("text", "refusal"):
                    if name in part:
                        part[name] = said = self._said(("output", at, field, i, name))
                        # A client reads a text that is done as JSON where it asked for that: a cut one is none.
                        if (
                            name == "text"
                            and field == "content"
                            and item.get("type") == "message"
                            and not self._prompt.structured
                        ):
                            where = {"item_id": item.get("id", ""), "output_index": at, place: i}
                            events.append({"type": "response.output_text.done", **where, "text": said, "logprobs": []})
                events.append(
                    {
                        "type": f"response.{kind}.done",
                        "item_id": item.get("id", ""),
                        "output_index": at,
                        place: i,
                        "part": part,
                    }
                )
        if "content" not in item and "summary" not in item:
            return []
        return [*events, {"type": "response.output_item.done", "output_index": at, "item": item}]

    def _final(self, shown: Shown, output: list[Any]) -> dict[str, Any]:
        end = _end(shown)
        response = (self._response or _response(self._prompt)) | end | {"output": output, "usage": None}
        return {"type": f"response.{end['status']}", "response": response}

    def closing(self) -> dict[str, Any] | None:
        return None

    def write(self, event: dict[str, Any], decision: str) -> bytes:
        event["sequence_number"] = self._number
        self._number += 1
        if isinstance(event.get("response"), dict):
            event["response"]["id"] = decision
        return sse.write(strictjson.dumps(event), event["type"])

    def error(self, message: str, code: str, status: int) -> bytes:
        event = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": self._number}
        return sse.write(strictjson.dumps(event), "error")


def _at(event: dict[str, Any], name: str) -> int:
    at = event.get(name)
    if type(at) is not int or not 0 <= at < 10_000:
        raise fields.broken(f"the model sent an event without {name}")
    return at


def _fits(item: dict[str, Any], stem: str) -> bool:
    """Events of this kind tell of such an item."""
    kind = item.get("type")
    if stem.startswith("reasoning"):
        return kind == "reasoning"
    if stem == "mcp_call_arguments":
        return kind == "mcp_call"
    return stem != "output_text" or kind == "message"


def _texts_of(items: Any) -> list[dict[str, Any]]:
    """Every part that may hold log probabilities, of items or of parts themselves."""
    found = []
    for item in items:
        if isinstance(item, dict):
            content = item.get("content")
            found += [
                p
                for p in (item, *(content if isinstance(content, list) else ()))
                if isinstance(p, dict) and "logprobs" in p
            ]
    return found


def _default(value: Any) -> Any:
    """What the model's server filled in of a request: plain words and numbers only."""
    if isinstance(value, dict):
        return {k: _default(v) for k, v in value.items() if fields.plain(k)}
    if isinstance(value, list):
        return [_default(v) for v in value]
    return value if isinstance(value, (int, float)) or fields.plain(value) else None


def _end(shown: Shown) -> dict[str, Any]:
    if shown.action is Action.REPLACE:
        return {"status": "completed", "incomplete_details": None}
    return {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}


def _said(text: str, id: str, prompt: Prompt) -> dict[str, Any]:
    """A message that says what is shown; where JSON is wanted, as a refusal."""
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    if prompt.structured:
        part = {"type": "refusal", "refusal": text}
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [part]}


def _response(prompt: Prompt) -> dict[str, Any]:
    asked = {name: prompt.body[name] for name in _ECHO if name in prompt.body}
    return {
        "id": "", "object": "response", "created_at": int(clock.now()), "status": "in_progress", "error": None,
        "incomplete_details": None, "instructions": None, "model": prompt.model, "output": [], "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "temperature": None, "top_p": None, "metadata": {}, "store": False, "usage": None,
    } | asked  # fmt: skip
