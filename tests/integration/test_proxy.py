"""The straight path from outside: what goes to the model, what comes back, and what a refusal says, on both routes and in both modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import httpx
import openai
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.surrogate import NOTE
from tests.conftest import WORD, Model, Running, chunk, events, said, wait_for

ONE_GATEWAY = True

Make = Callable[..., Running]
CHAT, LEGACY = "/v1/chat/completions", "/v1/completions"
WAYS = list(product((CHAT, LEGACY), (False, True)))
DONE = b"data: [DONE]\n\n"


CLAUSE = {"zh": "第四条第（一）项", "en": "Article 4(1)"}


class Answer(NamedTuple):
    """What a client has: per choice the text and how it ended."""

    texts: list[str]
    ends: list[str | None]
    sluice: dict[str, Any]
    response: httpx.Response


def ask(gateway: Running, route: str, stream: bool, text: str = "你好", choices: int = 1, **body: Any) -> Answer:
    turn = {"messages": [{"role": "user", "content": text}], "n": choices} if route == CHAT else {"prompt": text}
    if route == LEGACY and not isinstance(body.get("prompt"), list):
        turn["n"] = choices  # of a list of prompts each has its own choice
    response = gateway.http.post(route, json={"model": "m", "stream": stream, **turn, **body})
    assert response.status_code == 200, response.text
    got = [e for e in events(response.content) if e != "[DONE]"] if stream else [response.json()]
    texts, ends = [""] * choices, [None] * choices
    for choice in (c for e in got for c in e["choices"]):
        part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        texts[choice["index"]] += part.get("content") or ""
        ends[choice["index"]] = choice["finish_reason"] or ends[choice["index"]]
    assert got[-1]["id"] == got[-1]["sluice"]["decision"] == response.headers["x-sluice-decision"]
    assert {e["id"] for e in got} == {got[-1]["id"]}
    return Answer(texts, ends, got[-1]["sluice"], response)


def recorded(gateway: Running, decision: str) -> dict[str, Any]:
    """The journal's record of a decision: written once the client has its answer."""
    wait_for(lambda: any(r["decision"] == decision for r in gateway.journal()))
    return next(r for r in gateway.journal() if r["decision"] == decision)


def answer(model: Model, route: str, *texts: str) -> None:
    """Let the model answer with these texts, one choice each."""
    model.script.chat(*texts)
    if route == LEGACY:
        envelope = {"id": "up", "object": "text_completion", "created": 1, "model": "m"}

        def choice(i: int, text: str, finish: str | None) -> dict[str, Any]:
            return {"index": i, "text": text, "logprobs": None, "finish_reason": finish}

        whole = [choice(i, t, "stop") for i, t in enumerate(texts)]
        model.script.plain = (200, {}, orjson.dumps(envelope | {"choices": whole}))
        pieces = [choice(i, c, None) for i, t in enumerate(texts) for c in t]
        pieces += [choice(i, "", "stop") for i in range(len(texts))]
        model.script.stream = [b"data: " + orjson.dumps(envelope | {"choices": [p]}) + b"\n\n" for p in pieces] + [DONE]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aa"}}
RICH: dict[str, Any] = {
    "model": "m", "temperature": 0.7, "top_p": 1, "max_tokens": 5, "seed": 9007199254740993, "stop": ["完", "\u2028"], "user": "u-1",
    "logit_bias": {"50256": -100}, "metadata": {"a.b": "值"}, "response_format": {"type": "json_object"}, "vendor": [None, True, 1e-9],
    "tools": [{"type": "function", "function": {"name": "find", "description": "查", "parameters": {"type": "object"}}}],
    "messages": [
        {"role": "system", "content": "简短。"}, {"role": "developer", "content": [{"type": "text", "text": "友好。"}]},
        {"role": "user", "content": [{"type": "text", "text": "看"}, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "结果"}, {"role": "user", "content": "👍🏽 e\u0301\x00", "name": "小明"},
    ],
}  # fmt: skip


def test_what_goes_upstream_equals_what_was_asked_in_every_field(gateway: Running, model: Model) -> None:
    head = {"authorization": "Bearer k", "openai-organization": "o", "x-forwarded-for": "1.2.3.4", "cookie": "a=b"}
    for stream in (False, True):
        gateway.http.post(CHAT, json=RICH | {"stream": stream}, headers=head).raise_for_status()
        assert model.script.asked[-1] == RICH | {"stream": stream}
        sent = model.script.headers[-1]
        assert (sent["authorization"], sent["openai-organization"]) == ("Bearer k", "o")
        assert not {"cookie", "x-forwarded-for", "user-agent"} & set(sent)


def test_a_clean_plain_answer_is_equal_in_every_field(gateway: Running, model: Model) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a": "值"}'}}]
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "甲", "reasoning_content": "想"}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": None, "tool_calls": calls}, "finish_reason": "tool_calls"},
    ]  # fmt: skip
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": {"cached": 0}}
    sent = {"id": "up", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    model.script.plain = (200, {}, orjson.dumps(sent))
    got = gateway.chat("你好", n=2).json()
    assert got.pop("sluice")["action"] == "pass" and got.pop("id") != sent.pop("id") and got == sent


def test_a_clean_stream_is_equal_per_channel(gateway: Running, model: Model) -> None:
    def call(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}

    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    end = orjson.dumps({"id": "up", "object": "chat.completion.chunk", "choices": [], "usage": usage})
    model.script.stream = [
        chunk(0, {"role": "assistant", "reasoning_content": "先想"}), chunk(0, {"reasoning_content": "一想。"}),
        chunk(0, {"content": "甲示例"}), chunk(1, {"role": "assistant", "content": "乙"}), chunk(1, call(name="find", arguments="")),
        chunk(1, call(arguments='{"a": "示')), chunk(1, call(arguments='例"}')), chunk(0, {"content": "违"}), chunk(0, {}, "length"),
        chunk(1, {}, "tool_calls"), b"data: " + end + b"\n\n", DONE,
    ]  # fmt: skip
    raw = gateway.chat("你好", stream=True, n=2, stream_options={"include_usage": True}).content
    assert (said(raw), said(raw, 1), said(raw, 0, "reasoning_content")) == ("甲示例违", "乙", "先想一想。")
    got = [e for e in events(raw) if e != "[DONE]"]
    calls = [t for e in got for c in e["choices"] for t in c["delta"].get("tool_calls", ())]
    assert "".join(t["function"].get("arguments", "") for t in calls) == '{"a": "示例"}'
    assert "".join(t["function"].get("name", "") for t in calls) == "find" and calls[0]["id"] == "c1"
    ends = {c["index"]: c["finish_reason"] for e in got for c in e["choices"] if c["finish_reason"]}
    assert ends == {0: "length", 1: "tool_calls"} and [e["usage"] for e in got if e.get("usage")] == [usage]
    assert events(raw)[-1] == "[DONE]" and [i for i, e in enumerate(got) if "sluice" in e] == [len(got) - 1]


TEXT = st.text(st.sampled_from("示例违禁短语 ，。a1\n👍\u200b\u2028"), max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["content", "reasoning_content"]), TEXT), max_size=8),
    st.booleans(),
)
def test_however_a_clean_stream_is_cut_nothing_of_it_is_lost(
    gateway: Running, model: Model, deltas: list[tuple[int, str, str]], finishes: bool
) -> None:
    gateway.block("没有的词语组合", WORD * 2)
    model.script.stream = [chunk(i, {channel: text}) for i, channel, text in deltas]
    if finishes:
        model.script.stream += [chunk(i, {}, "stop") for i in (0, 1)]
    model.script.stream.append(DONE)
    raw = gateway.chat("你好", stream=True, n=2).content
    for i, channel in product((0, 1), ("content", "reasoning_content")):
        assert said(raw, i, channel) == "".join(t for j, c, t in deltas if (j, c) == (i, channel))


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": WORD}}]}
PLACES: list[dict[str, Any]] = [
    *[{"messages": [{"role": r, "content": f"前{WORD}后"}, user("你好")]} for r in ("system", "developer", "user")],
    *[{"messages": [user("你好"), {"role": r, "content": WORD}]} for r in ("user", "assistant", "tool", "function", "system")],
    {"messages": [user([{"type": "text", "text": "你好"}, {"type": "text", "text": WORD}])]},
    {"messages": [user("你好"), {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": WORD}]}, user("好")]},
    {"messages": [user([{"type": "image_url", "image_url": {"url": f"https://example.com/{WORD}"}}])]},
    {"messages": [user([{"type": "vendor", "words": {"deep": [WORD]}}])]},
    {"messages": [user("你好", name=WORD)]}, {"messages": [user("你好"), CALL]}, {"messages": [user("你好", tool_call_id=WORD)]},
    tool(description=WORD), tool(name=WORD), tool(parameters={"properties": {"a": {"description": WORD}}}),
    tool(parameters={"enum": ["a", WORD]}), {"stop": WORD}, {"stop": ["a", WORD]}, {"metadata": {"a": WORD}}, {"metadata": {"data": WORD}},
    {"user": WORD}, {"prediction": {"type": "content", "content": WORD}}, {"vendor": [[{"a": WORD}]]}, {"model": f"m-{WORD}"},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"title": WORD}}}},
]  # fmt: skip


def test_a_blocked_term_anywhere_in_a_request_refuses_it(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    legacy = [
        {"prompt": ["你好", WORD]},
        *({name: WORD} for name in ("suffix", "stop", "user", "model")),
        {"vendor": {"a": WORD}},
    ]
    cases = [(CHAT, fields) for fields in PLACES] + [(LEGACY, fields) for fields in legacy]
    for n, ((route, fields), stream) in enumerate(product(cases, (False, True))):
        with subtests.test(route=route, fields=fields, stream=stream):
            # Each message is one that was never refused before.
            body = orjson.loads(orjson.dumps(fields).replace(WORD.encode(), f"第{n}次{WORD}".encode()))
            model.script.asked.clear()
            got = ask(gateway, route, stream, choices=len(fields["prompt"]) if "prompt" in fields else 1, **body)
            assert set(got.ends) == {"content_filter"} and got.sluice["action"] == "block" and not model.script.asked


def test_a_term_split_over_consecutive_messages_is_flagged_and_refuses_nothing(gateway: Running, model: Model) -> None:
    answered = gateway.chat(WORD[:3], WORD[3:])
    assert answered.json()["choices"][0]["message"]["content"] == "好的。"
    assert answered.headers["x-sluice-action"] == "flag" and len(model.script.asked) == 1
    (found,) = recorded(gateway, answered.json()["id"])["prompt"]["findings"]
    assert found["technique"] == "join" and found["action"] == "flag"
    # Whoever speaks in between, a person's next message follows on their last; what two persons say is never joined.
    assert gateway.chat(WORD[:3], {"role": "assistant", "content": "嗯"}, WORD[3:]).headers["x-sluice-action"] == "flag"
    assert gateway.chat(WORD[:3], {"role": "assistant", "content": WORD[3:]}).headers["x-sluice-action"] == "pass"


def test_a_refused_message_never_refuses_the_next_turn_on_any_gateway_with_the_key(
    make_gateway: Make, model: Model
) -> None:
    first, second = make_gateway(), make_gateway()
    stranger = make_gateway(secret_key="another secret of 32 bytes or more")
    for one in (first, second, stranger):
        one.block(WORD)
    for stream in (False, True):
        words = f"第{int(stream)}次说{WORD}"
        refused = ask(first, CHAT, stream, words)
        history = [user(words), {"role": "assistant", "content": refused.texts[0]}]
        for one in (first, second):
            model.script.asked.clear()
            got = one.chat(*history, "换个话题").json()
            assert got["choices"][0]["message"]["content"] == "好的。" and got["sluice"]["action"] == "pass"
            assert [m["content"] for m in model.script.asked[0]["messages"]] == [NOTE, refused.texts[0], "换个话题"]
            assert recorded(one, got["id"])["noted"] == 1
            # The same words again as the newest message are refused again, and others in the history too.
            assert one.chat(*history, words).json()["sluice"]["action"] == "block"
            assert one.chat(user(f"再{words}"), *history, "换个话题").json()["sluice"]["action"] == "block"
        assert stranger.chat(*history, "换个话题").json()["sluice"]["action"] == "block"


def test_an_older_answer_of_the_model_is_noted_upstream_and_refuses_nothing(gateway: Running, model: Model) -> None:
    old = {"role": "assistant", "content": f"前{WORD}后"}
    got = gateway.chat("你好", old, "继续").json()
    assert got["choices"][0]["message"]["content"] == "好的。" and got["sluice"]["action"] == "pass"
    assert [m["content"] for m in model.script.asked[0]["messages"]] == ["你好", NOTE, "继续"]


def test_a_refusal_names_category_clause_and_decision_in_the_person_s_language(gateway: Running, model: Model) -> None:
    gateway.block(WORD, "example_banned")
    said = (f"说{WORD}", "暴力", CLAUSE["zh"]), ("say example_banned", "Violence", CLAUSE["en"])
    for (route, stream), (text, name, clause) in product(WAYS, said):
        got = ask(gateway, route, stream, text, choices=2)
        assert got.ends == ["content_filter"] * 2 and len(set(got.texts)) == 1
        assert all(words in got.texts[0] for words in (name, clause, got.sluice["decision"]))
        assert got.response.headers["x-sluice-action"] == "block" and WORD not in got.texts[0]
    assert not model.script.asked


@pytest.mark.parametrize(
    ("action", "end"), [("block", "content_filter"), ("replace", "stop"), ("mask", "stop"), ("flag", "stop")]
)
def test_what_is_done_about_an_answer_is_the_same_on_every_way(
    gateway: Running, model: Model, subtests: pytest.Subtests, action: str, end: str
) -> None:
    gateway.block(WORD, action=action)
    for route, stream in WAYS:
        with subtests.test(route=route, stream=stream):
            answer(model, route, f"前{WORD}后", "另一个答案。", f"{WORD[:4]}")
            got = ask(gateway, route, stream, choices=3)
            assert got.ends == [end, "stop", "stop"] and got.texts[1:] == ["另一个答案。", WORD[:4]]
            assert got.sluice["action"] == action and got.response.headers["x-sluice-action"] in (action, "pass")
            if action in ("mask", "flag"):
                assert got.texts[0] == ("前" + "*" * len(WORD) + "后" if action == "mask" else f"前{WORD}后")
            else:
                start, _, refusal = got.texts[0].rpartition("\n\n")
                assert start == ("前" if stream else "") and "后" not in got.texts[0]
                assert got.sluice["decision"] in refusal and CLAUSE["zh"] in refusal
            assert recorded(gateway, got.sluice["decision"])["answer"]["action"] == action


def test_a_masked_prompt_reaches_the_model_masked(gateway: Running, model: Model) -> None:
    gateway.block(WORD, action="mask")
    for route, stream in WAYS:
        assert ask(gateway, route, stream, f"前{WORD}后").sluice["action"] == "mask"
        sent = model.script.asked[-1]
        assert (sent.get("prompt") or sent["messages"][0]["content"]) == "前******后"


def test_blocked_as_error_answers_400_in_the_dialect(make_gateway: Make, model: Model) -> None:
    gateway = make_gateway("blocked_as: error")
    gateway.block(WORD)
    client = openai.OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0).chat.completions
    model.script.chat(f"前{WORD}后")
    for text, stream in ((WORD, False), (WORD, True), ("你好", False)):
        with pytest.raises(openai.BadRequestError) as e:
            client.create(model="m", messages=[{"role": "user", "content": text}], stream=stream)
        assert e.value.code == "content_filter" and CLAUSE["zh"] in str(e.value) and WORD not in str(e.value)
        assert e.value.response.headers["x-sluice-decision"] in str(e.value)
    assert len(model.script.asked) == 1
    assert ask(gateway, CHAT, True).ends == ["content_filter"]  # a stream that has begun cannot become an error


def test_in_shadow_everything_is_delivered_and_recorded(make_gateway: Make, model: Model) -> None:
    gateway = make_gateway("shadow: [violence]")
    gateway.block(WORD)
    for route, stream in WAYS:
        answer(model, route, f"前{WORD}后")
        got = ask(gateway, route, stream, f"说{WORD}")
        assert got.texts == [f"前{WORD}后"] and got.ends == ["stop"] and got.sluice["action"] == "pass"
        record = recorded(gateway, got.sluice["decision"])
        for direction in ("prompt", "answer"):
            assert [(f["action"], f["shadow"]) for f in record[direction]["findings"]] == [("block", True)]


def hidden() -> Iterator[tuple[str, dict[str, Any]]]:
    """Places beside the text where a model's own words may stand."""
    token = {"token": WORD, "logprob": -1.0, "bytes": None, "top_logprobs": [{"token": WORD, "logprob": -1.0}]}
    yield "choice", {"logprobs": {"content": [token]}}
    yield "choice", {"vendor": WORD}
    yield "part", {"refusal": WORD}
    yield "part", {"audio": {"transcript": WORD}}
    yield "part", {"annotations": [{"url_citation": {"title": WORD}}]}
    yield "part", {"function_call": {"name": "f", "arguments": WORD}}
    yield "part", {"tool_calls": [{"index": 0, "id": "c", "function": {"name": WORD, "arguments": ""}}]}
    yield "top", {"error": {"message": WORD}}
    yield "top", {"vendor": {"a": WORD}}


def test_no_field_beside_the_text_carries_a_blocked_term_out(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for (where, fields), stream in product(hidden(), (False, True)):
        with subtests.test(fields=fields, stream=stream):
            part = {"role": "assistant", "content": "好"} | (fields if where == "part" else {})
            choice = {"index": 0, "delta" if stream else "message": part, "finish_reason": None if stream else "stop"}
            body = {
                "id": "up",
                "object": "o",
                "created": 1,
                "model": "m",
                "choices": [choice | (fields if where == "choice" else {})],
            }
            raw = orjson.dumps(body | (fields if where == "top" else {}))
            model.script.plain = (200, {}, raw)
            model.script.stream = [b"data: " + raw + b"\n\n", chunk(0, {}, "stop"), DONE]
            assert WORD not in gateway.chat("你好", stream=stream).text


def test_a_decision_is_told_to_whoever_holds_its_receipt_and_to_nobody_else(gateway: Running, model: Model) -> None:
    model.script.chat(f"前{WORD}后")
    seen = [ask(gateway, CHAT, stream, text).sluice for stream, text in product((False, True), ("你好", WORD))]
    for sluice in seen:
        recorded(gateway, sluice["decision"])
        where = f"/sluice/v1/decisions/{sluice['decision']}"
        got = gateway.http.get(where, headers={"authorization": f"Bearer {sluice['receipt']}"})
        assert got.status_code == 200 and set(got.json()) == {"decision", "action", "categories", "clause", "at"}
        assert got.json() | {"at": 0} == {
            "decision": sluice["decision"], "action": "block", "categories": ["violence"], "clause": "4(1) draft", "at": 0,
        }  # fmt: skip
        others = [s["receipt"] for s in seen if s is not sluice] + ["r1.0.1.-.x", sluice["receipt"][:-1], "词"]
        answers = [gateway.http.get(where, headers={"authorization": b"Bearer " + r.encode()}) for r in others]
        answers += [gateway.http.get(where)]
        for unknown in ("slc_" + "a" * 26, "slc_", "nothing", sluice["decision"][:-1] + "1"):
            path = f"/sluice/v1/decisions/{unknown}"
            answers.append(gateway.http.get(path, headers={"authorization": f"Bearer {sluice['receipt']}"}))
        assert {(a.status_code, a.content) for a in answers} == {(404, answers[0].content)}
