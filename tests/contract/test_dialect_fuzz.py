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
from app.demo import speech
from app.detectors.blocklist import Blocklist
from app.detectors.patterns import Patterns
from app.dialects import Dialect, Key, Prompt, Shown, put, shipped
from app.errors import RequestError, UpstreamError
from app.keys import Keys, Receipt, decision_id
from app.moderation import Moderator
from app.policy import Policy
from app.streaming import Channel
from app.structured import Structured
from app.types import Action, Scope, Slot
from app.web.exchange import Exchange
from app.web.stream import Stream
from tests.driving import somebody
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
    x = Exchange(somebody(rules()), {}, 0.0)
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
    refused = ""
    try:
        prompt = dialect.prompt(strictjson.loads(json.dumps(body).encode()))
    except RequestError as e:
        refused = e.message
    if refused:
        assert not holds_term(refused)
        return False
    strictjson.dumps(prompt.body)
    known = {
        (*s.path[:-1], str(s.path[-1]), ...) if isinstance(s.path[-1], Key) else s.path: s.text for s in prompt.slots
    }
    for path, text in leaves(prompt.body):
        if holds_term(text):
            # The arguments of a call are one text.
            written = next(
                (known[path[:n]] for n in range(len(path)) if path[:n] in known and path[:n][-1] == "input"), ""
            )
            assert known.get(path) == text or json.dumps(text, ensure_ascii=False) in written, (path, text)
    for slot in prompt.slots:
        if isinstance(slot.path[-1], Key):
            continue
        if slot.origin == "assistant" and slot.age:
            dialect.rewrite(prompt, slot, "[…]")
        else:
            dialect.rewrite(prompt, slot, "***")
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


def odd_prompts(dialect: Dialect, api: Any, dice: random.Random) -> bool:
    body = value(dice, 5)
    if isinstance(body, dict) and dice.random() < 0.9:
        turn: Any = value(dice, 3)
        if isinstance(turn, dict):
            parts = [value(dice, 2) for _ in range(dice.randrange(3))]
            for part in parts:
                if isinstance(part, dict):
                    part["type"] = dice.choice(("text", "tool_result", "thinking", "image_url", "x"))
                    part.setdefault("text", "看")
            turn |= {"role": dice.choice(("user", "assistant")), "content": dice.choice(("看", parts))}
        field = {"/v1/responses": "input", "/v1/completions": "prompt"}.get(dialect.route, "messages")
        body |= {"model": "m", field: dice.choice(("看", [turn, turn], [turn], value(dice, 4)))}
        body.pop("stream", None)
        body.pop("n", None)
    return check_prompt(dialect, body)


# ---- plain answers


def answer(dice: random.Random, *, calls: bool, json_text: bool) -> speech.Answer:
    """What a model says; a term in one of three."""

    def text() -> str:
        said = [
            dice.choice(("今天天气很好。", "The cat sat. ", "👍🏽", "\n", "示例", "13800138000 "))
            for _ in range(dice.randint(1, 3))
        ]
        if dice.random() < 0.35:
            said.insert(dice.randint(0, len(said)), dice.choice(TERMS))
        return "".join(said)

    def arguments() -> str:
        return json.dumps({"q": text(), "n": [1, {"a": text()}]}, ensure_ascii=dice.random() < 0.5)

    made = [
        speech.Call(f"call_{i}", dice.choice(("look", "看")), arguments()) for i in range(dice.choice((0, 0, 1, 2)))
    ]
    reasoning = text() if dice.random() < 0.3 and calls else ""
    return speech.Answer(arguments() if json_text else text(), reasoning, tuple(made) if calls else ())


def tokens(text: str) -> list[dict[str, Any]]:
    return [
        {"token": c, "logprob": -0.1, "bytes": list(c.encode("utf-8", "surrogatepass")), "top_logprobs": []}
        for c in text
    ]


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
    except UpstreamError:
        return False


async def _judged(dialect: Dialect, prompt: Prompt, body: dict[str, Any]) -> bool:
    x = exchange()
    texts = dialect.texts(body, prompt)
    slots = [
        Slot(t.path, t.text, "assistant", message=0 if t.visible and prompt.choices == 1 else -1, json=t.json)
        for t in texts
    ]
    judged = await moderator().judge(slots, x.scope, x.policy, [t.choice for t in texts])
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
        dialect.stop(body, prompt, choice, x.shown(verdict))
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
        {"type": "response.output_item.added", "output_index": 2, "item": {"type": "custom_tool_call", "name": "看", "input": ""}},
    ],
    "anthropic_messages": [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"cited_text": "题"}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "短"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use", "name": "看", "input": {"q": "问"}}},
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
            _plant(dice, events, name)
    elif way == 4:
        events.insert(at, value(dice))
    elif way in (5, 6):
        _plant(dice, events, name)
    elif isinstance(events[at], dict):
        mutate(dice, events[at])
    if not events:
        events.append("[DONE]")


def _plant(dice: random.Random, events: list[Any], name: str) -> None:
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
    if dice.random() < 0.4:
        events.insert(place + 1, copy.deepcopy(dice.choice(_EXTRA[name])))


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
    got = [e.data for e in sse.Parser(16 << 20).feed(out)]
    return Streamed([json.loads(e) for e in got if e != b"[DONE]"], error, events)


async def _fed(stream: Stream, x: Exchange, chunks: list[bytes]) -> tuple[bytes, str]:
    """What comes out, and the code of the error that ended it."""
    parser, out, error = sse.Parser(stream.event_max), b"", ""
    try:
        for chunk in chunks:
            out += await stream.feed(parser.feed(chunk))
            if stream.failed is not None:
                raise stream.failed
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
            own.append("*" if "logprobs" in own else index if type(index) is int else at)
        else:
            own.append(key)
    if "citation" in own or "annotation" in own:
        return (number, *own)  # each is one of its own
    if kind.startswith("content_block"):
        name = {"partial_json": "input"}.get(own[-1], own[-1]) if len(own) == 2 else tuple(own[1:])
        return ("content", event.get("index"), name)
    if kind.startswith("response."):
        at = event.get("output_index")
        if own[0] == "item":
            return ("output", at, *own[1:])
        inner = (
            ("summary", event.get("summary_index")) if "summary" in kind else ("content", event.get("content_index"))
        )
        if own[0] == "part":
            return ("output", at, *inner, *own[1:])
        stem = kind.removeprefix("response.").removesuffix(".delta")
        if own == ["delta"] and stem.endswith(("_arguments", "_input", "_code")):
            return ("output", at, stem.rpartition("_")[2])
        if own == ["delta"]:
            return ("output", at, *inner, "refusal" if stem == "refusal" else "text")
        return (kind, at, *own)
    return tuple(own)


def check_stream(dialect: Dialect, api: Any, dice: random.Random, mutations: int) -> Streamed:
    out = streamed(dialect, api, dice, mutations)
    for place, text in joined(out.events).items():
        assert not holds_term(text), (place, text, out)
    return out


# ---- texts that are JSON

_BITS = (
    "{", "}", "[", "]", ":", ",", '"', '"', "\\", '\\"', "\\\\", "\\u4f60", "\\ud83d\\udc4d", "\\ud83d", "\\udc4d", "\\uD83D\\u0041",
    "\\u12", "\\u", "\\ud83", "\\x", "\\n", "\\/", "你", "👍", "\ud83d", "\udc4d", "a", "1", "null", " ", "\n", "\0", "\\u0000",
    '{"q":"', '"}', "好的。", "\\\\u4f60", "é", "e\u0301", "\\u0301",
)  # fmt: skip
_SAID = ("好", "👍🏽", "a", '"', "\\", "/", "\n", "\0", "示例", "é", " ", "{", "\\u793a", "今天天气很好。")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "/": "\\/", "\t": "\\t"}


def chunks(text: str, dice: random.Random) -> list[str]:
    places = sorted(dice.randint(0, len(text)) for _ in range(dice.randrange(9)))
    return (
        list(text)
        if dice.random() < 0.2
        else [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    )


def fed(pieces: list[str]) -> tuple[Channel, str]:
    """A structured channel that has taken the pieces, and what came out."""
    channel = moderator().channel(Scope("default", "answer"), rules(), json=True)
    assert isinstance(channel, Structured)
    return channel, "".join([channel.push(piece) for piece in pieces]) + channel.finish()


def paired(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def tree(dice: random.Random, depth: int = 3) -> Any:
    """A JSON value whose strings, names among them, say something that is found, or nothing."""
    kind = dice.randrange(6 if depth else 4)
    if kind == 0:
        return dice.choice((None, True, 1, -2.5, 13800138000))
    if kind < 4:
        return "".join(
            dice.choice((*_SAID, *_SAID, *TERMS, MASKED, MASKED, "13800138000")) for _ in range(dice.randrange(5))
        )
    if kind == 4:
        return [tree(dice, depth - 1) for _ in range(dice.randrange(4))]
    return {f"{tree(dice, 0)}{i}": tree(dice, depth - 1) for i in range(dice.randrange(3))}


def spelled(value: Any, dice: random.Random, often: float) -> str:
    """A JSON text of `value`, some characters of its strings escaped."""
    if isinstance(value, dict):
        inner = (f"{spelled(k, dice, often)}:{spelled(v, dice, often)}" for k, v in value.items())
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join(spelled(v, dice, often) for v in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    out = []
    for c in value:
        units = c.encode("utf-16-be")
        code = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
        if dice.random() < often:
            out.append(dice.choice((_SHORT.get(c, code), code, code.upper().replace("\\U", "\\u"))))
        else:
            out.append(_SHORT.get(c, code) if c in '"\\' or c < " " else c)
    return f'"{"".join(out)}"'


def unspelled(text: str) -> str:
    """What a JSON text, or a part of one, says."""
    short = {said: c for c, said in _SHORT.items()}
    said = re.sub(r"\\u[0-9a-fA-F]{4}|\\.", lambda m: short.get(m[0]) or chr(int(m[0][2:], 16)), text, flags=re.DOTALL)
    return paired(said)


def blurred(value: Any) -> Any:
    """`value` with its masks put in."""
    if isinstance(value, dict):
        return {blurred(k): blurred(v) for k, v in value.items()}
    if isinstance(value, list):
        return [blurred(v) for v in value]
    return value.replace(MASKED, "*" * len(MASKED)) if isinstance(value, str) else value


def shape(value: Any) -> Any:
    """`value` with its strings as their lengths."""
    if isinstance(value, dict):
        return [(len(k), shape(v)) for k, v in value.items()]
    if isinstance(value, list):
        return [shape(v) for v in value]
    return len(value) if isinstance(value, str) else type(value)


def check_unchanged(dice: random.Random) -> None:
    text = "".join(dice.choice(_BITS) for _ in range(dice.randrange(25)))
    channel, out = fed(chunks(text, dice))
    assert channel.findings == [] and channel.stopped is None
    assert out == paired(text)
    assert channel.masked is False


def check_structured(dice: random.Random) -> bool:
    """However a value is spelled and cut, the same is found in it, and what goes out is JSON unless it was stopped. True: it
    was masked and went out."""
    value = tree(dice)
    outcomes = []
    for often in (0.0, 0.3, 1.0):
        text = spelled(value, dice, often)
        whole, out = fed([text])
        for _ in range(2):
            pieces = chunks(text, dice)
            cut, again = fed(pieces)
            assert (again, cut.findings, cut.stopped) == (out, whole.findings, whole.stopped), pieces
        assert not whole.degraded
        said = unspelled(out)
        assert not any(term in said for term in TERMS), (text, out)
        if whole.stopped is None:
            assert shape(json.loads(out)) == shape(value), (text, out)
            if not any(f.category == "personal_information" for f in whole.findings):
                assert json.loads(out) == blurred(value), (text, out)
        else:
            assert len(out) < len(text)
        found = [(f.category, f.rule, f.action, f.technique, unspelled(text[f.start : f.end])) for f in whole.findings]
        outcomes.append((said, found, whole.stopped))
    assert outcomes[0] == outcomes[1] == outcomes[2], value
    return whole.masked and whole.stopped is None


# ---- the tests

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
DICE = st.randoms(use_true_random=False)
each_api = pytest.mark.parametrize(("dialect", "api"), APIS, ids=IDS)
Check = Callable[[Dialect, Any, random.Random], Any]
CHECKS: dict[str, Check] = {
    "any prompt": odd_prompts,
    "changed prompts": prompts,
    "plain answers": lambda dialect, api, dice: plain(dialect, api, dice, dice.randrange(5)),
    "streams": lambda dialect, api, dice: check_stream(dialect, api, dice, dice.randrange(6)),
}
each_check = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)


@each_api
@each_check
@FEW
@given(dice=DICE)
def test_nothing_comes_of_a_body_but_an_answer_or_an_error_that_says_so(
    dialect: Dialect, api: Any, check: Check, dice: random.Random
) -> None:
    check(dialect, api, dice)


@each_api
@each_check
def test_nothing_comes_of_hundreds_of_bodies_but_an_answer_or_an_error(
    dialect: Dialect, api: Any, check: Check
) -> None:
    for seed in range(150):
        check(dialect, api, random.Random(seed))


@each_api
@each_check
@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_comes_of_many_bodies_but_an_answer_or_an_error(dialect: Dialect, api: Any, check: Check) -> None:
    for seed in range(10_000):
        check(dialect, api, random.Random(seed))


@each_api
def test_an_unchanged_answer_goes_out(dialect: Dialect, api: Any) -> None:
    for seed in range(60):
        assert plain(dialect, api, random.Random(seed), 0)
        assert check_stream(dialect, api, random.Random(seed), 0).error == ""


@FEW
@given(DICE)
def test_a_json_text_with_nothing_in_it_goes_out_as_it_came(dice: random.Random) -> None:
    check_unchanged(dice)


@FEW
@given(DICE)
def test_what_is_found_in_a_json_text_is_what_it_says_and_what_goes_out_is_json(dice: random.Random) -> None:
    check_structured(dice)


def test_hundreds_of_json_texts_say_the_same_however_they_are_cut_and_escaped() -> None:
    masked = 0
    for seed in range(300):
        check_unchanged(random.Random(seed))
        masked += check_structured(random.Random(seed))
    assert masked > 20


@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_json_texts_say_the_same_however_they_are_cut_and_escaped() -> None:
    for seed in range(30_000):
        check_unchanged(random.Random(seed))
        check_structured(random.Random(seed))


# ---- what was found so


def _streamed(name: str, asked: dict[str, Any], *events: Any) -> Streamed:
    """What comes of these events of a model, each in a read of its own."""
    dialect, api = next((d, a) for d, a in APIS if d.name == name)
    out = drive(dialect, dialect.prompt(api.ask("说吧", **asked)), list(events), random.Random(0))
    for place, text in joined(out.events).items():
        assert not holds_term(text), (place, text)
    return out


def _plain(name: str, body: dict[str, Any], **asked: Any) -> bool:
    dialect, api = next((d, a) for d, a in APIS if d.name == name)
    try:
        return run(_judged(dialect, dialect.prompt(api.ask("说吧", **asked)), body))
    except UpstreamError:
        return False


def _chunk(delta: dict[str, Any], tokens: Any = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": tokens, "finish_reason": None, **more}]}


def _token(text: str, raw: bytes) -> dict[str, Any]:
    return {"token": text, "logprob": -0.1, "bytes": list(raw), "top_logprobs": []}


def test_a_token_says_what_its_bytes_say() -> None:
    found = {"content": [_token(WORD, b"ok")]}
    out = _streamed(
        "openai_chat", {"logprobs": True}, _chunk({"content": "ok"}, found), _chunk({}, finish_reason="stop"), "[DONE]"
    )
    assert out.events[0]["choices"][0]["logprobs"]["content"][0]["token"] == "ok"
    item = {"type": "message", "id": "m", "content": []}
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    place = {"output_index": 0, "content_index": 0, "item_id": "m"}
    delta = {"type": "response.output_text.delta", **place, "delta": "ok", "logprobs": found["content"]}
    end = {"type": "response.completed", "response": {"output": []}}
    out = _streamed("openai_responses", {"include": ["message.output_text.logprobs"]}, added, delta, end)
    assert out.events[1]["logprobs"][0]["token"] == "ok"


def test_tokens_with_a_gap_between_them_do_not_go_out() -> None:
    def event(text: str, *, tokens: bool = True) -> dict[str, Any]:
        return {"choices": [{"index": 0, "text": text, "logprobs": {"tokens": [text]} if tokens else None}]}

    events = [event(WORD[:2]), event("续", tokens=False), event(WORD[2:]), event(""), "[DONE]"]
    out = _streamed("openai_completions", {"logprobs": 1}, *events)
    assert "".join(e["choices"][0]["text"] for e in out.events) == f"{WORD[:2]}续{WORD[2:]}"


def test_the_tokens_of_a_choice_that_stands_twice_in_an_event_go_out_once() -> None:
    def event(*texts: str, tokens: bool = False) -> dict[str, Any]:
        return {"choices": [{"index": 0, "text": t, "logprobs": {"tokens": [t]} if tokens else None} for t in texts]}

    out = _streamed(
        "openai_completions", {"logprobs": 1}, event(WORD[:2], tokens=True), event("一", "二"), event(""), "[DONE]"
    )
    given = [t for e in out.events for c in e["choices"] for t in (c["logprobs"] or {}).get("tokens", ())]
    assert given.count(WORD[:2]) == 1


def test_tokens_of_a_text_behind_one_that_is_stopped_are_no_crash() -> None:
    delta = {"refusal": f"{WORD}。", "content": "好"}
    _streamed("openai_chat", {"logprobs": True}, _chunk(delta, {"content": [_token("好", "好".encode())]}), "[DONE]")


def test_no_other_text_of_a_chunk_stands_between_two_deltas() -> None:
    said = [_chunk({"content": WORD[:2]}), _chunk({"content": WORD[:2]}), _chunk({"content": WORD[2:]})]
    between = {"choices": [{"index": 0, "message": {"content": "整"}, "finish_reason": None}]}
    _streamed("openai_chat", {}, *said[:2], between, said[2], "[DONE]")
    _streamed("openai_chat", {}, *said[:2], _chunk({"content": ""}, message={"content": "整"}), said[2], "[DONE]")


def test_a_number_where_a_response_should_stand_is_no_crash() -> None:
    added = {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"type": "message", "content": []},
        "response": 1,
    }
    _streamed("openai_responses", {}, added)


@pytest.mark.parametrize("where", ["summary", "x"])
def test_log_probabilities_are_taken_for_such_only_where_they_are_taken_out(where: str) -> None:
    item = {"type": "reasoning", "id": "r", where: [{"logprobs": [{"token": WORD}]}]}
    _plain("openai_responses", {"status": "completed", "output": [copy.deepcopy(item)]})
    added = {"type": "response.output_item.added", "output_index": 0, "item": copy.deepcopy(item)}
    _streamed("openai_responses", {}, added, {"type": "response.completed", "response": {"output": [item]}})


def test_an_output_of_an_item_may_be_anything() -> None:
    done = {"type": "response.output_item.done", "output_index": 0, "item": {"type": "x", "output": 5}}
    _streamed("openai_responses", {}, done)


@pytest.mark.parametrize("given", [WORD, [WORD], [{"a": WORD}]])
def test_an_input_that_is_no_object_does_not_go_out_unread(given: Any) -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": given}
    _plain("anthropic_messages", {"content": [copy.deepcopy(block)]})
    _streamed("anthropic_messages", {}, {"type": "content_block_start", "index": 0, "content_block": block})


def test_no_field_beside_a_signature_or_a_citation_or_a_block_goes_out_unread() -> None:
    for delta in (
        {"type": "signature_delta", "signature": speech.SIGNATURE},
        {"type": "citations_delta", "citation": {}},
    ):
        for more in ({"x": WORD}, {"x": {WORD: 1}}):
            _streamed("anthropic_messages", {}, {"type": "content_block_delta", "index": 0, "delta": delta | more})
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    stop = {"type": "content_block_stop", "index": 0}
    out = _streamed("anthropic_messages", {}, start | {"delta": {"x": WORD}}, stop | {"content_block": {"x": WORD}})
    assert [e["type"] for e in out.events[:2]] == ["content_block_start", "content_block_stop"]


@pytest.mark.parametrize("usage", [5, "a", [1], {"output_tokens": {"x": 1}}])
def test_an_odd_usage_is_no_crash(usage: Any) -> None:
    start = {"type": "message_start", "message": {"content": [], "usage": usage}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    assert _streamed("anthropic_messages", {}, start, end, {"type": "message_stop"}).error == ""


def test_a_masked_thought_with_an_odd_signature_is_no_crash() -> None:
    _plain("anthropic_messages", {"content": [{"type": "thinking", "thinking": MASKED, "signature": {"x": MASKED}}]})


def test_a_note_for_a_thought_leaves_the_rest_of_it_in_place() -> None:
    thought = {"type": "thinking", "thinking": WORD, "signature": "短", "x": [{"type": "thinking", "thinking": "想"}]}
    turns = [{"role": "assistant", "content": [thought]}, {"role": "user", "content": "再说"}]
    assert check_prompt(next(d for d, _ in APIS if d.name == "anthropic_messages"), {"model": "m", "messages": turns})


def test_only_a_thought_is_taken_for_one() -> None:
    dialect = next(d for d, _ in APIS if d.name == "anthropic_messages")
    used = {"type": "tool_use", "id": "t", "name": "think", "input": {"thinking": MASKED, "depth": 1}}
    turns = [{"role": "assistant", "content": [used]}, {"role": "user", "content": "再说"}]
    body = {"model": "m", "messages": turns, "thinking": MASKED, "metadata": {"thinking": MASKED}}
    prompt = dialect.prompt(body)
    for slot in prompt.slots:
        if slot.path[-1] == "thinking":
            dialect.rewrite(prompt, slot, "***")
        elif slot.path[-1] == "input":
            dialect.rewrite(prompt, slot, slot.text.replace(MASKED, "***"))
    assert prompt.body["thinking"] == "***"
    assert prompt.body["metadata"] == {"thinking": "***"}
    assert used["input"] == {"thinking": "***", "depth": 1}
