"""Wire formats under mutation: whatever a client or a model sends, nothing comes of it but an answer or an error that says so,
and no term on the list goes past the screen in any field."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
from collections.abc import Callable, Coroutine, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import policy, sse, strictjson
from app import settings as configuration
from app.apps import App
from app.detectors.blocklist import Blocklist
from app.detectors.patterns import Patterns
from app.dialects import Dialect, Key, Prompt, Shown, put, shipped
from app.demo import speech
from app.errors import RequestError, UpstreamError
from app.keys import Keys, Receipt, decision_id
from app.moderation import Moderator
from app.policy import Policy
from app.streaming import Channel
from app.structured import Structured
from app.types import Action, Scope, Slot
from app.web.exchange import Exchange
from app.web.stream import Stream
from tests.conftest import SECRET, WORD

REPLACED, MASKED = "替换示例用词语", "遮盖示例用词语"
TERMS = (WORD, REPLACED, MASKED)
"""On the list, to block, replace and mask; no field of what goes out may hold one."""
APIS = [(d, next(s for s in speech.ALL if s.route == d.route)) for d in shipped()]
IDS = [d.name for d, _ in APIS]

_T = TypeVar("_T")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_runner = asyncio.Runner()


def run(work: Coroutine[Any, Any, _T]) -> _T:
    return _runner.run(work)


@cache
def rules() -> Policy:
    return policy.load(configuration.read({}).policy).common


@cache
def moderator() -> Moderator:
    everywhere = {"app": "*", "directions": ["prompt", "answer"]}
    rows = [
        {"id": f"ent_{i}", "term": term, "category": "violence", "action": action, "scope": everywhere}
        for i, (term, action) in enumerate(zip(TERMS, ("block", "replace", "mask"), strict=True))
    ]
    blocklist = Blocklist()
    blocklist.load(rows)
    return Moderator(
        [blocklist, blocklist.passages, Patterns()], policy.load(configuration.read({}).policy), [blocklist]
    )


@cache
def keys() -> Keys:
    return Keys(SECRET)


def exchange() -> Exchange:
    x = Exchange(App("default", "default"), rules(), {}, 0.0)
    x.decision = decision_id()
    x.receipt = Receipt(keys(), x.decision, "default")
    return x


# ---- random JSON

_WORDS = (
    "", "a", "user", "assistant", "tool", "text", "stop", "message", "function_call", "tool_use", "thinking", "base64",
    "output_text", "input_text", "text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta",
    "content_block_delta", "response.output_text.delta", "response.output_text.done", "response.output_item.done",
    "response.content_part.added", "response.output_item.added", "response.completed", "message_delta", "message_start",
    "message_stop", "response.created", "response.output_text.annotation.added", "response.web_search_call.searching",
    "response.refusal.delta", "content_block_start", "content_block_stop", "error", "json_object", "json_schema",
    "data:text/plain;base64,5L2g", "data:image/png;base64,AAAA", "A" * 64, "\ud83d", "\udc4d", "\0", "\u2028", "两个字",
)  # fmt: skip
_FIELDS = (
    "content", "text", "role", "type", "index", "delta", "message", "choices", "name", "id", "tool_calls", "function",
    "arguments", "refusal", "reasoning_content", "logprobs", "finish_reason", "usage", "model", "error", "input", "output",
    "item", "part", "response", "output_index", "content_index", "summary_index", "annotations", "annotation", "summary", "code",
    "thinking", "signature", "citations", "citation", "partial_json", "content_block", "stop_reason", "stop_sequence", "n",
    "stream", "echo", "prompt", "messages", "system", "tools", "metadata", "response_format", "format", "output_config",
    "data", "url", "file_data", "encrypted_content", "result", "include", "status", "incomplete_details", "object", "top_logprobs",
    "bytes", "token", "tokens", "x", "两个字", "\ud83d", "a b", "",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 3, -1, 9_999, 10_000, 2**63, 2**70, 1.5, -0.0, 1e308, True, False, None)


def value(dice: random.Random, depth: int = 3) -> Any:
    """Any JSON value; now and then a term, or what begins one."""
    kind = dice.randrange(8 if depth else 5)
    if kind < 2:
        return dice.choice(_NUMBERS)
    if kind < 4:
        return dice.choice(_WORDS)
    if kind == 4:
        term = dice.choice(TERMS)
        at = dice.randint(1, len(term))
        return dice.choice((term, term[:at], term[at:], f"好{term}。"))
    if kind == 5:
        return [value(dice, depth - 1) for _ in range(dice.randrange(3))]
    return {dice.choice(_FIELDS): value(dice, depth - 1) for _ in range(dice.randrange(4))}


class Place(NamedTuple):
    """One value of a tree: what holds it, and under which key."""

    holder: Any
    key: Any


def nodes(tree: Any) -> Iterator[Place]:
    """Every value below `tree`."""
    for key, inner in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield Place(tree, key)
        if isinstance(inner, (dict, list)):
            yield from nodes(inner)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every string of `tree`, names of fields among them (at the path of what they name, and `...`)."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        for key, inner in tree.items():
            yield (*path, key, ...), key
            yield from leaves(inner, (*path, key))
    elif isinstance(tree, list):
        for i, inner in enumerate(tree):
            yield from leaves(inner, (*path, i))


def mutate(dice: random.Random, tree: Any) -> None:
    """Change one thing somewhere in a tree."""
    places = list(nodes(tree))
    if not places:
        return
    holder, key = dice.choice(places)
    way = dice.randrange(8)
    if way == 0:
        del holder[key]
    elif way == 1:
        holder[key] = value(dice)
    elif way == 2:
        other = dice.choice(places)
        holder[key] = copy.deepcopy(other.holder[other.key])
    elif way in (3, 4):
        texts = [p for p in places if isinstance(p.holder[p.key], str)]
        if texts:
            holder, key = dice.choice(texts)
            holder[key] = dice.choice(("{}", "好{}。", "{0}{0}")).format(dice.choice(TERMS))
    elif isinstance(holder, list):
        holder.insert(dice.randint(0, len(holder)), value(dice) if way == 5 else copy.deepcopy(holder[key]))
    elif way == 5:
        holder[dice.choice((*_FIELDS, dice.choice(TERMS)))] = value(dice)
    else:
        holder[dice.choice(_FIELDS)] = holder[key] if way == 6 else holder.pop(key)
        if way == 6:
            holder[key] = copy.deepcopy(holder[key])


def holds_term(text: str) -> bool:
    """As it stands, or as its escapes say."""
    said = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), text) if "\\u" in text else text
    return any(term in text or term in said for term in TERMS)


# ---- prompts


def check_prompt(dialect: Dialect, body: Any) -> bool:
    """What is refused is refused in words; what passes is screened whole, can be written over anywhere, and sent. True: it
    passed."""
    try:
        body = strictjson.loads(json.dumps(body, ensure_ascii=True).encode())
        prompt = dialect.prompt(body)
    except RequestError as e:
        assert e.message and not holds_term(e.message)
        return False
    strictjson.dumps(prompt.body)
    known = {(*s.path[:-1], str(s.path[-1]), ...) if isinstance(s.path[-1], Key) else s.path: s.text for s in prompt.slots}
    for path, text in leaves(prompt.body):
        if holds_term(text):
            assert known.get(path) == text, (path, text)
    for slot in prompt.slots:
        if isinstance(slot.path[-1], Key):
            continue
        if slot.origin == "assistant" and slot.age:
            dialect.note(prompt, slot, "[…]")
        else:
            put(prompt.body, slot.path, "***")
    assert not any(holds_term(text) for path, text in leaves(prompt.body) if path[-1] is not ...)
    strictjson.dumps(prompt.body)
    strictjson.dumps(dialect.answer(prompt, Shown(Action.BLOCK, "…")))
    return True


def asked(api: Any, dice: random.Random) -> dict[str, Any]:
    """A request as clients send it, with fields that change what the answer may be."""
    more: dict[str, Any] = {}
    if dice.random() < 0.3 and api.route.endswith("completions"):
        more |= {"n": dice.choice((1, 2, 3))}
    if dice.random() < 0.3 and api.route.endswith("completions"):
        more |= {"logprobs": True}
    if dice.random() < 0.2:
        more |= {
            "/v1/chat/completions": {"response_format": {"type": "json_object"}},
            "/v1/completions": {"response_format": {"type": "json_object"}},
            "/v1/responses": {"text": {"format": {"type": "json_schema", "schema": {}}}},
            "/v1/messages": {"output_config": {"format": {"type": "json_schema"}}},
        }[api.route]
    if dice.random() < 0.2:
        more |= {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}
    if dice.random() < 0.2 and api.route == "/v1/responses":
        more |= {"include": ["message.output_text.logprobs"]}
    if dice.random() < 0.2 and api.route == "/v1/messages":
        more |= {"stop_sequences": ["停"], "system": [{"type": "text", "text": "简短"}]}
    body: dict[str, Any] = api.ask(*("你好", "好的", "再说")[: dice.choice((1, 3))], **more)
    if dice.random() < 0.3:
        turn: dict[str, Any] = {
            "/v1/chat/completions": {
                "role": "assistant", "content": [{"type": "text", "text": "看"}], "refusal": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "/v1/responses": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc"},
            "/v1/messages": {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "想", "signature": speech.SIGNATURE},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"q": "问"}},
                ],
            },
        }.get(api.route, {})  # fmt: skip
        turns = body.get("messages", body.get("input"))
        if turn and isinstance(turns, list):
            turns.insert(dice.randrange(len(turns)), turn)
    return body


def prompts(dialect: Dialect, api: Any, dice: random.Random) -> bool:
    body = asked(api, dice)
    for _ in range(dice.randrange(4)):
        mutate(dice, body)
    return check_prompt(dialect, body)


def odd_prompts(dialect: Dialect, dice: random.Random) -> bool:
    body = value(dice, 5)
    if isinstance(body, dict) and dice.random() < 0.9:
        body |= {"model": "m"}
        field = dialect.route in ("/v1/responses",) and "input" or "messages"
        body[dice.choice((field, "prompt"))] = dice.choice(([value(dice, 4)], value(dice, 4)))
    return check_prompt(dialect, body)


# ---- plain answers


def answer(dice: random.Random, *, calls: bool, json_text: bool) -> speech.Answer:
    """What a model says; a term in one of three."""

    def text() -> str:
        said = [dice.choice(("今天天气很好。", "The cat sat. ", "👍🏽", "\n", "示例", "13800138000 ")) for _ in range(dice.randint(1, 3))]
        if dice.random() < 0.35:
            said.insert(dice.randint(0, len(said)), dice.choice(TERMS))
        return "".join(said)

    def arguments() -> str:
        return json.dumps({"q": text(), "n": [1, {"a": text()}]}, ensure_ascii=dice.random() < 0.5)

    made = [speech.Call(f"call_{i}", dice.choice(("look", "看")), arguments()) for i in range(dice.choice((0, 0, 1, 2)))]
    reasoning = text() if dice.random() < 0.3 and calls else ""
    return speech.Answer(arguments() if json_text else text(), reasoning, tuple(made) if calls else ())


def tokens(text: str) -> list[dict[str, Any]]:
    return [{"token": c, "logprob": -0.1, "bytes": list(c.encode("utf-8", "surrogatepass")), "top_logprobs": []} for c in text]


def _answers(dialect: Dialect, prompt: Prompt, dice: random.Random) -> list[speech.Answer]:
    calls = dialect.route != "/v1/completions"
    return [answer(dice, calls=calls, json_text=prompt.structured) for _ in range(prompt.choices)]


def _with_tokens(body: Any, dice: random.Random) -> None:
    """Log probabilities beside the texts, as a model's server puts them."""
    for choice in body.get("choices") or ():
        if "text" in choice:
            choice["logprobs"] = {"tokens": list(choice["text"] or ""), "token_logprobs": [-0.1], "text_offset": [0]}
        else:
            part = choice.get("message") or choice.get("delta") or {}
            choice["logprobs"] = {"content": tokens(part.get("content") or ""), "refusal": None}
    for item in body.get("output") or ():
        for part in item.get("content") or ():
            part["logprobs"] = tokens(part["text"])
    if body.get("type") == "response.output_text.delta":
        body["logprobs"] = tokens(body["delta"])


def plain(dialect: Dialect, api: Any, dice: random.Random, mutations: int) -> bool:
    """An answer as the straight path takes it, changed anywhere; True: it went out."""
    prompt = dialect.prompt(asked(api, dice))
    body = api.plain(*_answers(dialect, prompt, dice))
    if dice.random() < 0.4:
        _with_tokens(body, dice)
    for _ in range(mutations):
        mutate(dice, body)
    try:
        body = strictjson.loads_upstream(json.dumps(body).encode())
        if not isinstance(body, dict) or body.get("error"):
            return False
        return run(_judged(dialect, prompt, body))
    except UpstreamError as e:
        assert not holds_term(e.message)
        return False


async def _judged(dialect: Dialect, prompt: Prompt, body: dict[str, Any]) -> bool:
    x = exchange()
    texts = dialect.texts(body, prompt)
    judged = await moderator().judge([Slot(t.path, t.text, "assistant", json=t.json) for t in texts], x.scope, x.policy)
    stopped, masked = {}, set()
    for delta, verdict, text in zip(texts, judged.slot_verdicts, judged.delivered, strict=True):
        if verdict.action.stops:
            stopped[delta.choice] = verdict
        elif text != delta.text:
            put(body, delta.path, text)
            dialect.masked(body, delta)
            masked.add(delta.choice)
    for choice, said in dialect.tokens(body):
        found = await moderator().judge([Slot((), said, "assistant")], x.scope, x.policy)
        if not prompt.tokens or choice in masked or found.verdict.action > Action.PASS:
            dialect.without_tokens(body, choice)
    for choice, verdict in stopped.items():
        dialect.stop(body, choice, x.shown(verdict))
    for delta in dialect.texts(body, prompt):
        if delta.visible:
            at: Any = body
            for key in delta.path:
                at = at[key]
            assert isinstance(at, str)
            x.deliver(delta.choice, at)
    body["id"] = x.decision
    x.seal(body, judged.verdict.action)
    out = json.loads(strictjson.dumps(body))
    for path, text in leaves(out):
        assert not holds_term(text), (path, text)
    dialect.refinish(body, Shown(Action.BLOCK, ""))
    strictjson.dumps(body)
    return True


# ---- streams

_EXTRA: dict[str, list[dict[str, Any]]] = {
    "openai_chat": [
        {"choices": [{"index": 0, "delta": {"refusal": "不能"}}]},
        {"choices": [{"index": 0, "delta": {"audio": {"id": "a", "transcript": "听"}}}]},
        {"choices": [{"index": 0, "delta": {"annotations": [{"type": "url_citation", "url_citation": {"title": "题"}}]}}]},
        {"choices": [{"index": 0, "message": {"content": "整"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "z", "function": {"name": "看", "arguments": ""}}]}}]},
        {"choices": [{"index": 1, "delta": {"content": "二"}, "finish_reason": ""}]},
        {"choices": []},
    ],
    "openai_completions": [
        {"choices": [{"index": 0, "text": "续", "finish_reason": None}]},
        {"choices": [{"text": "一"}, {"index": 0, "text": "二"}]},
    ],
    "openai_responses": [
        {"type": "response.refusal.delta", "output_index": 0, "content_index": 1, "delta": "不能"},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "想"},
        {"type": "response.output_text.annotation.added", "output_index": 0, "content_index": 0, "annotation": {"title": "题"}},
        {"type": "response.custom_tool_call_input.delta", "output_index": 1, "delta": "入"},
        {"type": "response.custom_tool_call_input.done", "output_index": 1, "input": "入"},
        {"type": "response.code_interpreter_call_code.delta", "output_index": 1, "delta": "x = 1"},
        {"type": "response.image_generation_call.partial_image", "output_index": 1, "partial_image_b64": "A" * 64},
        {"type": "response.content_part.added", "output_index": 0, "content_index": 1, "part": {"type": "refusal", "refusal": "不"}},
        {"type": "response.incomplete", "response": {"output": [], "incomplete_details": {"reason": "max_output_tokens"}}},
        {"type": "response.failed", "response": {"output": []}},
        {"type": "response.output_item.added", "output_index": 2, "item": {"type": "custom_tool_call", "id": "c", "name": "看", "input": ""}},
    ],
    "anthropic_messages": [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"cited_text": "题"}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "短"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use", "id": "s", "name": "看", "input": {"q": "问"}}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "web_search_tool_result", "content": [{"title": "题"}]}},
        {"type": "content_block_start", "index": 3, "content_block": {"type": "redacted_thinking", "data": "A" * 64}},
        {"type": "content_block_start", "index": 4, "content_block": {"type": "text", "text": "始"}},
        {"type": "error", "error": {"message": "坏"}},
        {"type": "ping"},
    ],
}  # fmt: skip
"""Events that the usual answer does not have."""


def disturbed(dice: random.Random, events: list[Any], name: str) -> None:
    """Change one thing about a stream's events."""
    at = dice.randrange(len(events))
    way = dice.randrange(10)
    if way == 0:
        del events[at]
    elif way == 1:
        events.insert(dice.randint(0, len(events)), copy.deepcopy(events[at]))
    elif way == 2:
        other = dice.randrange(len(events))
        events[at], events[other] = events[other], events[at]
    elif way == 3:
        events.insert(at, copy.deepcopy(dice.choice(_EXTRA[name])))
        if dice.random() < 0.5:
            _plant(dice, events)
    elif way == 4:
        events.insert(at, value(dice))
    elif way in (5, 6):
        _plant(dice, events)
    elif isinstance(events[at], dict):
        mutate(dice, events[at])
    if not events:
        events.append("[DONE]")


def _plant(dice: random.Random, events: list[Any]) -> None:
    """Put a term in place of a string: whole, or cut over two events at the same place, others perhaps in between."""
    found = [
        (e, path) for e in events if isinstance(e, dict)
        for path, _ in leaves(e) if path[-1] is not ...
    ]  # fmt: skip
    if not found:
        return
    event, path = dice.choice(found)
    term = dice.choice(TERMS)
    if dice.random() < 0.4:
        _set(event, path, f"好{term}。")
        return
    at = dice.randint(1, len(term) - 1)
    second = copy.deepcopy(event)
    _set(event, path, term[:at])
    _set(second, path, term[at:])
    place = next(i for i, e in enumerate(events) if e is event)
    events.insert(dice.choice((place + 1, dice.randint(place + 1, len(events)))), second)


def _set(tree: Any, path: tuple[Any, ...], text: str) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = text


class Streamed(NamedTuple):
    """What a client got of a stream, how it ended, and what was sent."""

    events: list[Any]
    error: str
    sent: list[Any]


def streamed(dialect: Dialect, api: Any, dice: random.Random, mutations: int) -> Streamed:
    prompt = dialect.prompt(asked(api, dice))

    def cut(text: str) -> list[str]:
        places = sorted(dice.randint(0, len(text)) for _ in range(dice.randrange(6)))
        return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]

    raw = b"".join(api.stream(cut, *_answers(dialect, prompt, dice)))
    events = [e.data if e.data == b"[DONE]" else json.loads(e.data) for e in sse.Parser().feed(raw)]
    events = ["[DONE]" if isinstance(e, bytes) else e for e in events]
    if dice.random() < 0.4:
        for event in events:
            if isinstance(event, dict):
                _with_tokens(event, dice)
    for _ in range(mutations):
        disturbed(dice, events, dialect.name)
    return drive(dialect, prompt, events, dice)


def drive(dialect: Dialect, prompt: Prompt, events: list[Any], dice: random.Random) -> Streamed:
    """The events as bytes, in random reads, through a Stream."""
    raw = b"".join(sse.write(e.encode() if e == "[DONE]" else json.dumps(e).encode()) for e in events)
    places = sorted(dice.randint(0, len(raw)) for _ in range(dice.randrange(8)))
    chunks = [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True)]
    out, error = run(_fed(Stream(moderator(), dialect, x := exchange(), prompt), x, chunks))
    got = [e.data for e in sse.Parser().feed(out)]
    return Streamed([json.loads(e) for e in got if e != b"[DONE]"], error, events)


async def _fed(stream: Stream, x: Exchange, chunks: list[bytes]) -> tuple[bytes, str]:
    """What comes out, and the code of the error that ended it."""
    parser, out, error = sse.Parser(), b"", ""
    try:
        for chunk in chunks:
            out += await stream.feed(parser.feed(chunk))
            if stream.over:
                break
        if not stream.over and (parser.pending or not stream.complete):
            raise UpstreamError("the model's stream ended in the middle", code="upstream_reset")
        out += stream.close()
    except UpstreamError as e:
        error = e.code
        out += stream.error(e)
    stream.account()
    assert x.released <= x.screened
    return out, error


_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def joined(events: list[Any]) -> dict[Any, str]:
    """What a client has once it has put together, place by place, the strings that streams give in pieces."""
    found: dict[Any, list[str]] = {}
    for number, event in enumerate(events):
        kind = str(event.get("type", ""))
        for path, text in leaves(event):
            found.setdefault(_place(kind, event, path, number), []).append(text)
    return {place: "".join(texts) for place, texts in found.items()}


def _place(kind: str, event: Any, path: tuple[Any, ...], number: int) -> Any:
    again = kind.startswith("response.") and not kind.endswith((".delta", ".added"))
    if again or path[-1] is ... or kind in ("error", "message_start", "message_delta"):
        return (number, *path)  # said once, or anew
    own: list[Any] = []
    node = event
    for key in path:
        node = node[key]
        if isinstance(key, int):
            index = node.get("index") if isinstance(node, dict) else None
            at = 0 if own == ["choices"] else key
            own.append("*" if "logprobs" in path else index if type(index) is int else at)
        else:
            own.append(key)
    if kind.startswith("content_block"):
        name = {"partial_json": "input"}.get(own[-1], own[-1]) if len(own) == 2 else tuple(own[1:])
        return ("content", event.get("index"), name)
    if kind.startswith("response."):
        at = event.get("output_index")
        if own[0] == "item":
            return ("output", at, *own[1:])
        inner = ("summary", event.get("summary_index")) if "summary" in kind else ("content", event.get("content_index"))
        if own[0] == "part":
            return ("output", at, *inner, *own[1:])
        stem = kind.removeprefix("response.").removesuffix(".delta")
        if own == ["delta"] and stem.endswith(("_arguments", "_input", "_code")):
            return ("output", at, stem.rpartition("_")[2])
        if own == ["delta"]:
            return ("output", at, *inner, "refusal" if stem == "refusal" else "text")
        if own[0] == "annotation":
            return (number, *own)
        return (kind, at, *own)
    return tuple(own)


def check_stream(dialect: Dialect, api: Any, dice: random.Random, mutations: int) -> Streamed:
    out = streamed(dialect, api, dice, mutations)
    for place, text in joined(out.events).items():
        assert not holds_term(text), (place, text, out)
    return out


SMALL = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
DICE = st.randoms(use_true_random=False)
each_api = pytest.mark.parametrize(("dialect", "api"), APIS, ids=IDS)


@each_api
@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_prompts(dialect: Dialect, api: Any) -> None:
    N = int(__import__("os").environ.get("N", "5000"))
    import collections, traceback
    seen = collections.Counter()
    for name, f in (("odd", lambda d: odd_prompts(dialect, d)), ("prompts", lambda d: prompts(dialect, api, d)), ("plain", lambda d: plain(dialect, api, d, d.randrange(4))), ("stream", lambda d: check_stream(dialect, api, d, d.randrange(5)).error)):
        errs = {}
        for seed in range(N):
            try:
                seen[name, f(random.Random(seed))] += 1
            except Exception as e:
                tb = traceback.extract_tb(e.__traceback__)[-1]
                k = (type(e).__name__, tb.filename.rpartition("/")[2], tb.lineno)
                errs.setdefault(k, [0, seed, str(e)[:600]])[0] += 1
        for k, v in errs.items():
            print(name, k, v)
    print(seen)
