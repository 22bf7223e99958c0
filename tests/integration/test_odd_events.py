"""Answers and events that say things where nobody would look, in the two newer APIs and beside the older ones' texts: nothing
unscreened goes out, nothing crashes, and odd requests hide nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import orjson
import pytest

from app.demo import speech
from app.demo.speech import SIGNATURE, Answer
from app.streaming import Channel
from app.structured import Structured
from app.surrogate import NOTE
from tests import reading
from tests.conftest import WORD, Model, Running, chunk
from tests.reading import CHAT, MESSAGES, RESPONSES

ONE_GATEWAY = True

W = WORD
END = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    },
    {"type": "message_stop"},
]
TEXT = {"type": "text", "text": ""}


def ask(gateway: Running, route: str, stream: bool = True, **more: Any) -> str:
    """What the client reads, broken off or not, as text with every escape read."""
    api = next(api for api in speech.ALL if api.route == route)
    raw = b""
    with gateway.http.stream("POST", route, json=api.ask("说吧", stream=stream, **more)) as response:
        assert response.status_code in (200, 502), response.status_code
        try:
            for data in response.iter_raw():
                raw += data
        except httpx.RemoteProtocolError:
            pass
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n")]
    values = [orjson.loads(line) for line in lines if line[:1] == b"{"]
    return raw.decode() + "\n".join("\n".join(reading.strings(v)) for v in values)


def sends(model: Model, *events: Any) -> None:
    model.script.stream = [
        (f"event: {e['type']}\n".encode() if "type" in e else b"") + b"data: " + json.dumps(e).encode() + b"\n\n" for e in events
    ]  # fmt: skip


def start(**more: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
               "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip
    return {"type": "message_start", "message": message | more}


def opened(block: Any, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": block, **more}


def delta(value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": value, **more}


CLOSED: dict[str, Any] = {"type": "content_block_stop", "index": 0}
SAID = delta({"type": "text_delta", "text": "好"})
ODD_MESSAGES: dict[str, list[Any]] = {
    "a text for input": [start(), opened({"type": "tool_use", "id": "t", "name": "f", "input": W}), CLOSED, *END],
    "a list for input": [start(), opened({"type": "tool_use", "id": "t", "name": "f", "input": [W]}), CLOSED, *END],
    "input in a text": [start(), opened(TEXT | {"input": W}), CLOSED, *END],
    "a delta in a start": [start(), opened(TEXT, delta=W), SAID, CLOSED, *END],
    "a block in a stop": [start(), opened(TEXT), SAID, CLOSED | {"content_block": {"text": W}}, *END],
    "a block in a delta": [start(), opened(TEXT), SAID | {"content_block": [{"text": W}]}, CLOSED, *END],
    "a text beside a signature": [
        start(), opened({"type": "thinking", "thinking": "", "signature": ""}),
        delta({"type": "signature_delta", "signature": SIGNATURE, "text": W}), CLOSED, *END,
    ],
    "a text beside a citation": [
        start(), opened(TEXT), delta({"type": "citations_delta", "citation": {"type": "x", "cited_text": "好"}, "text": W}), CLOSED, *END,
    ],
    "a signature that is a text": [
        start(), opened({"type": "thinking", "thinking": "", "signature": ""}),
        delta({"type": "signature_delta", "signature": W}), CLOSED, *END,
    ],
    "an event nobody knows": [start(), {"type": "content_block_hint", "text": W}, opened(TEXT), SAID, CLOSED, *END],
    "a delta nobody knows": [start(), opened(TEXT), delta({"type": "hint_delta", "hint": W}), SAID, CLOSED, *END],
    "a stop string nobody asked for": [start(stop_sequence=W), opened(TEXT), SAID, CLOSED, *END],
    "content in the start": [start(content=[{"type": "text", "text": W}]), *END],
    "a number for usage": [start(usage=5), opened(TEXT), SAID, CLOSED, END[0] | {"usage": 5}, END[1]],
    "no index": [start(), {"type": "content_block_stop"}, *END],
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_MESSAGES)
def test_messages_say_nothing_that_was_not_screened(gateway: Running, model: Model, case: str) -> None:
    sends(model, *ODD_MESSAGES[case])
    got = ask(gateway, MESSAGES)
    assert not set(W) & set(got.split("这部分内容")[0]), got
    assert got


def responses(*events: Any, output: Any = ()) -> list[Any]:
    """A stream around `events`, and its last event with `output`."""
    empty = speech.Responses()._response("in_progress", [])
    done = speech.Responses()._response("completed", list(output), Answer("好"))
    return [{"type": "response.created", "response": empty}, *events, {"type": "response.completed", "response": done}]


MESSAGE: dict[str, Any] = {"type": "message", "id": "msg_0", "role": "assistant", "status": "completed", "content": []}
THOUGHT = {"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": "好", "logprobs": W}]}
ADDED: dict[str, Any] = {"type": "response.output_item.added", "output_index": 0, "item": MESSAGE}
PLACE = {"item_id": "msg_0", "output_index": 0, "content_index": 0}
TOLD = {"type": "response.output_text.delta", **PLACE, "delta": "好"}
BAD_PART = [{"type": "output_text", "text": W}]
BEGUN = {"type": "response.created", "response": speech.Responses()._response("in_progress", [])}
ECHO = {"instructions": W, "metadata": {W: W}, "text": {"format": {"type": W}}}
EARLY = {
    "type": "response.created",
    "response": speech.Responses()._response("in_progress", [MESSAGE | {"content": BAD_PART}]),
}
NOTED = {
    "type": "response.output_text.annotation.added",
    **PLACE,
    "annotation_index": 0,
    "annotation": {"type": "url_citation", "title": W},
}
FORGED = '{"type":"response.output_text.delta","delta":"' + W + '"}'
ODD_RESPONSES: dict[str, list[Any]] = {
    "a type that is a text": responses({"type": f"response.x_call.{W}", "output_index": 0}),
    "a type that writes an event": responses({"type": f"response.x_call.a\ndata: {FORGED}\n\nevent: b", "output_index": 0}),
    "log probabilities of a thought": responses(
        {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT}, output=[THOUGHT]
    ),
    "another text when done": responses(ADDED, TOLD, {"type": "response.output_text.done", **PLACE, "text": f"好{W}"}),
    "another text at the end": responses(ADDED, TOLD, output=[MESSAGE | {"content": BAD_PART}]),
    "a text only at the end": responses(output=[MESSAGE | {"content": BAD_PART}]),
    "instructions that are an echo": [BEGUN | {"response": BEGUN["response"] | ECHO}, *responses()[1:]],
    "output at the beginning": [EARLY, *responses()[1:]],
    "content that is no list, and a stop": responses(ADDED | {"item": MESSAGE | {"content": 5}}, TOLD | {"delta": W}),
    "an annotation": responses(ADDED, TOLD, NOTED),
    "obfuscation": responses(ADDED, TOLD | {"obfuscation": W}),
    "an error in words": [*responses(ADDED, TOLD)[:-1], {"type": "error", "code": "x", "message": W}],
    "a failure in words": [
        *responses(ADDED, TOLD)[:-1], {"type": "response.failed", "response": {"error": {"message": W}}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_RESPONSES)
def test_responses_say_nothing_that_was_not_screened(gateway: Running, model: Model, case: str) -> None:
    sends(model, *ODD_RESPONSES[case])
    got = ask(gateway, RESPONSES)
    assert not set(W) & set(got.split("这部分内容")[0]), got
    assert got


def test_plain_answers_of_odd_shapes_say_nothing_that_was_not_screened(gateway: Running, model: Model) -> None:
    message = speech.Messages().plain(Answer("好"))
    for content in (
        [{"type": "tool_use", "id": "t", "name": "f", "input": W}],
        [TEXT | {"input": [W]}],
        [TEXT | {"x": {"y": W}}],
    ):
        model.script.plain = (200, {}, orjson.dumps(message | {"content": content}))
        assert W not in ask(gateway, MESSAGES, stream=False)
    response = speech.Responses().plain(Answer("好"))
    for more in (
        {"output": [THOUGHT]},
        {"instructions": W},
        {"output": [MESSAGE | {"x": W}]},
        {"vendor": W},
        {"metadata": {"a": W}},
    ):
        model.script.plain = (200, {}, orjson.dumps(response | more))
        assert W not in ask(gateway, RESPONSES, stream=False)


def test_a_token_says_what_its_bytes_do(gateway: Running, model: Model) -> None:
    odd: list[Any] = [
        [{"token": W, "logprob": -1, "bytes": [111, 107]}], [{"token": "ok", "bytes": 10**20}], [{"token": "ok", "bytes": [999]}],
        [{"token": "ok", "logprob": W, "bytes": None, "x": W, "top_logprobs": [{"token": W}]}], [{"token": W}], W, 5, [W],
    ]  # fmt: skip
    for tokens in odd:
        choice = {
            "index": 0,
            "delta": {"content": "ok"},
            "finish_reason": None,
            "logprobs": {"content": tokens, "refusal": tokens},
        }
        sends(model, {"id": "1", "object": "chat.completion.chunk", "choices": [choice]})
        assert model.script.stream is not None
        model.script.stream += [chunk(0, {}, "stop"), speech.DONE]
        got = ask(gateway, CHAT, logprobs=True)
        assert "ok" in got and W not in got
        sends(model, *responses(ADDED, TOLD | {"delta": "ok", "logprobs": tokens}))
        assert W not in ask(gateway, RESPONSES, include=["message.output_text.logprobs"])


def test_a_name_over_two_calls_of_one_place_is_one_name(gateway: Running, model: Model) -> None:
    def named(id: str, name: str) -> bytes:
        return chunk(0, {"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": "{}"}}]})

    model.script.stream = [named("a", W[:3]), named("b", W[3:]), chunk(0, {}, "tool_calls"), speech.DONE]
    got = ask(gateway, CHAT)
    assert "content_filter" in got and W[3:] not in got
    model.script.stream = [named("a", "look_up"), named("b", "look_up"), chunk(0, {}, "tool_calls"), speech.DONE]
    assert ask(gateway, CHAT).count('"name":"look_up"') == 2


def test_a_term_split_over_two_parts_of_an_answer_flags(gateway: Running, model: Model) -> None:
    blocks = [opened(TEXT), delta({"type": "text_delta", "text": f"先说{W[:3]}"}), CLOSED]
    more = [e | {"index": 1} for e in (opened(TEXT), delta({"type": "text_delta", "text": f"{W[3:]}后文"}), CLOSED)]
    sends(model, start(), *blocks, *more, *END)
    assert '"action":"flag"' in ask(gateway, MESSAGES)
    whole = speech.Messages().plain(Answer("x")) | {
        "content": [{"type": "text", "text": t} for t in (f"先说{W[:3]}", f"{W[3:]}后文")]
    }
    model.script.plain = (200, {}, orjson.dumps(whole))
    assert '"action":"flag"' in ask(gateway, MESSAGES, stream=False)


@pytest.mark.parametrize("route", [RESPONSES, MESSAGES])
def test_an_answer_without_its_last_event_never_ends_cleanly(gateway: Running, model: Model, route: str) -> None:
    api = next(api for api in speech.ALL if api.route == route)
    whole = list(api.stream(list, Answer("好的。")))
    for tail in ([], [speech.DONE]):
        model.script.stream = [*whole[:-1], *tail]
        got = ask(gateway, route)
        assert "upstream_reset" in got and '"sluice"' not in got


def test_a_long_answer_whose_last_event_says_it_again_comes_through(gateway: Running, model: Model) -> None:
    text = "船夫把缆绳解开，慢慢向对岸划去。" * 30_000
    model.script.stream = list(
        speech.Responses().stream(lambda t: [t[i : i + 20_000] for i in range(0, len(t), 20_000)], Answer(text))
    )
    response = gateway.http.post(RESPONSES, json=speech.Responses().ask("说吧", stream=True))
    assert reading.of(RESPONSES, response).text() == text


# ---- requests


def test_no_name_below_what_is_free_hides_a_text(gateway: Running, model: Model) -> None:
    model.script.plain = (200, {}, orjson.dumps(speech.Messages().plain(Answer("好的。"))))
    gateway.block("examplebannedxyz")
    names = "summary user status format mode id type detail phase object model ttl include role tool_choice verbosity".split()
    values: list[Any] = [{name: "examplebannedxyz"} for name in names]
    values += [
        {"signature": "examplebannedxyz_" * 9},
        {"type": "base64", "data": "examplebannedxyz"},
        {"a": [{"id": "examplebannedxyz"}]},
    ]
    tail = [{"role": "user", "content": "说吧"}]
    for value in values:
        call = {"type": "tool_use", "id": "c", "name": "f", "input": value}
        shapes = [
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [value]}]},
        ]
        for shape in shapes:
            body = {"model": "m", "max_tokens": 9, "messages": [*tail, shape, *tail]}
            response = gateway.http.post(MESSAGES, json=body)
            sent = orjson.dumps(model.script.asked[-1]).decode() if response.json()["stop_reason"] != "refusal" else ""
            assert "examplebannedxyz" not in sent, (value, shape)
    document = {"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "c2F5"}}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    for part in (document, image):
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]}
        assert gateway.http.post(MESSAGES, json=body).json()["stop_reason"] == "end_turn"


def test_the_arguments_of_a_call_in_the_history_stay_json(gateway: Running, model: Model) -> None:
    def turns(arguments: str) -> list[Any]:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return [
            "说吧",
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "好"},
        ]

    for arguments, expected in (
        ('{"phone": "13800138000\\n"}', {"phone": "*" * 11 + "\n"}),
        (json.dumps({"q": W}), {"note": NOTE}),
        ('{"n": 13800138000}', {"note": NOTE}),
    ):  # fmt: skip
        for _ in range(2):  # found, then known
            assert gateway.chat(*turns(arguments)).status_code == 200
            sent = model.script.asked.pop()["messages"][1]["tool_calls"][0]["function"]["arguments"]
            assert json.loads(sent, strict=False) == expected


def test_many_small_parts_and_long_structured_texts_take_no_longer_than_their_length(gateway: Running) -> None:
    def asked(size: int) -> float:
        parts = [{"type": "text", "text": f"字{size}"} for _ in range(size)]
        began = time.perf_counter()
        assert gateway.chat({"role": "user", "content": parts}).status_code == 200
        return time.perf_counter() - began

    moderator, policy = gateway.gateway.moderator, gateway.gateway.moderator.policies.common
    from app.types import Scope

    def took(size: int) -> float:
        channel: Channel = Structured(moderator.detectors, policy, Scope("default", "answer"))
        text = '{"code": "' + "a = 1\\n" * size + '"}'
        began = time.perf_counter()
        for at in range(0, len(text), 2048):
            channel.push(text[at : at + 2048])
        channel.finish()
        return time.perf_counter() - began

    asked(100)
    assert asked(8000) < 60 * asked(800), "ten times as much, at a busy machine; it was quadratic"
    took(100)
    assert took(20_000) < 60 * took(2_000)


PICTURE = "iVBORw0KGgo" + "Ab3/vpn/x9+13800138000+" * 4000 + "A"


def test_a_picture_in_what_a_tool_answered_goes_on_as_it_is(gateway: Running, model: Model) -> None:
    gateway.block("vpn")
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE + "=" * (-len(PICTURE) % 4)}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image", "source": source}]}
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {"n": 1}}
    said = [{"role": "user", "content": "看"}, {"role": "assistant", "content": [call]}]
    body = {"model": "m", "max_tokens": 9, "messages": [*said, {"role": "user", "content": [result]}]}
    model.script.plain = (200, {}, orjson.dumps(speech.Messages().plain(Answer("好的。"))))
    assert gateway.http.post(MESSAGES, json=body).json()["stop_reason"] == "end_turn"
    assert model.script.asked.pop() == body
    url = f"data:image/png;base64,{source['data']}"
    for output in ([{"type": "input_image", "image_url": url}], {"type": "computer_screenshot", "image_url": url}):
        items = [{"role": "user", "content": "看"}, {"type": "computer_call_output", "call_id": "c", "output": output}]
        model.script.plain = (200, {}, orjson.dumps(speech.Responses().plain(Answer("好的。"))))
        assert gateway.http.post(RESPONSES, json={"model": "m", "input": items}).json()["status"] == "completed"
        assert model.script.asked.pop() == {"model": "m", "input": items, "store": False}


def test_a_number_in_a_call_of_the_history_is_screened_as_the_same_call_of_an_answer(
    gateway: Running, model: Model
) -> None:
    model.script.plain = (200, {}, orjson.dumps(speech.Messages().plain(Answer("好的。"))))
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {"phone": "13800138000", "n": 2}}
    turns = [
        {"role": "user", "content": "看"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": "再看"},
    ]
    for phone, sent in (("13800138000", {"phone": "*" * 11, "n": 2}), (13800138000, {"note": NOTE})):
        call["input"] = {"phone": phone, "n": 2}
        assert gateway.http.post(MESSAGES, json={"model": "m", "max_tokens": 9, "messages": turns}).status_code == 200
        assert model.script.asked.pop()["messages"][1]["content"][0]["input"] == sent


def test_a_turn_of_nothing_but_a_masked_thought_is_left_out(gateway: Running, model: Model) -> None:
    model.script.plain = (200, {}, orjson.dumps(speech.Messages().plain(Answer("好的。"))))
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "***", "signature": ""}]}
    turns = [{"role": "user", "content": "看"}, thought, {"role": "user", "content": "再看"}]
    assert gateway.http.post(MESSAGES, json={"model": "m", "max_tokens": 9, "messages": turns}).status_code == 200
    assert model.script.asked.pop()["messages"] == [turns[0], turns[2]]


def test_lists_whose_elements_bring_no_index_come_out_as_they_are(gateway: Running, model: Model) -> None:
    notes = [
        {"type": "url_citation", "url_citation": {"url": f"https://{n}.example/", "title": f"第{n}个"}}
        for n in range(2)
    ]
    details = [
        {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", "text": t} for t in ("先想", "一想。")
    ]
    deltas = [{"annotations": [note]} for note in notes] + [{"reasoning_details": [d]} for d in details]
    model.script.stream = [*(chunk(0, d) for d in ({"content": "好"}, *deltas)), chunk(0, {}, "stop"), speech.DONE]
    raw = gateway.http.post(CHAT, json=speech.Chat().ask("说吧", stream=True)).content
    seen = [c["delta"] for e in reading.read(CHAT, raw).events for c in e["choices"]]
    assert [a for d in seen for a in d.get("annotations", ())] == notes
    got = [r for d in seen for r in d.get("reasoning_details", ())]
    assert {r["format"] for r in got if "format" in r} == {"anthropic-claude-v1"}
    assert "".join(r.get("text", "") for r in got) == "先想一想。"


def test_what_was_done_stands_in_the_header_of_every_plain_answer(gateway: Running, model: Model) -> None:
    model.script.chat(W)
    assert gateway.chat("说吧").headers["x-sluice-action"] == "block"
    model.script.chat("好", W)
    answer = gateway.chat("说吧", n=2)
    assert answer.headers["x-sluice-action"] == "block" and answer.json()["choices"][0]["message"]["content"] == "好"


def test_text_that_stood_in_the_event_of_a_stop_keeps_its_order(gateway: Running, model: Model) -> None:
    call = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": json.dumps({"q": W}, ensure_ascii=False)}}]
    model.script.stream = [
        chunk(0, {"content": "甲"}), chunk(0, {"content": f"看看{W[:2]}", "tool_calls": call}), chunk(0, {}, "tool_calls"), speech.DONE,
    ]  # fmt: skip
    raw = gateway.http.post(CHAT, json=speech.Chat().ask("说吧", stream=True)).content
    got = reading.read(CHAT, raw)
    assert got.text() == f"甲看看{W[:2]}" and got.stopped()
