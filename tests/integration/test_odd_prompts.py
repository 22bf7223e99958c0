"""Requests of unusual shape: every text in them is screened or the request is refused by name; nothing is joined that was never spoken."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import metrics
from app.surrogate import NOTE
from app.types import Scan, Scope
from tests.conftest import WORD, Model, Running, chunk, events, said, wait_for

ONE_GATEWAY = True

Make = Callable[..., Running]
CHAT, LEGACY = "/v1/chat/completions", "/v1/completions"
HEAD, REST = WORD[:3], WORD[3:]


def user(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts], **fields}


def text(words: str, /, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **fields}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def audio(data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def refused(response: httpx.Response) -> bool:
    assert response.status_code == 200, response.text
    return bool(response.json()["choices"][0]["finish_reason"] == "content_filter")


def unread() -> float:
    """How many parts were passed unread and counted."""
    found = re.search(r'sluice_not_examined_total\{kind="binary"\} (\S+)', metrics.render().decode())
    return float(found.group(1)) if found else 0.0


# ---- bytes, and what only looks like them

NO_BYTES = [
    *(image(f"{start}{WORD}") for start in ("data: ", "data:", "data:,", "data:text/plain,", "data:text/plain;charset=utf-8,")),
    *(image(f"{start}{WORD}") for start in ("data:image/png;base64,", "data:image/png;base64,aGk= ", "DATA:;base64,", "\ndata:")),
    *(audio(words) for words in (WORD, f"aGk={WORD}", f"data:audio/wav;base64,{WORD}")),
    {"type": "image_url", "image_url": f"data: {WORD}"},
    {"type": "file", "file": {"file_data": f"data:text/plain,{WORD}", "filename": "a"}},
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": WORD}},
    {"type": "vendor", "data": WORD}, {"type": "vendor", "data": {"data": [WORD]}}, {"type": "vendor", "b64_json": WORD},
    {"type": "vendor", "url": {"url": WORD}}, {"type": "vendor", "data": "aGk=", "url": f"data:{WORD}"},
]  # fmt: skip


def test_what_only_looks_like_bytes_is_screened(gateway: Running, model: Model, subtests: pytest.Subtests) -> None:
    before = unread()
    for part in NO_BYTES:
        with subtests.test(part=part):
            assert refused(gateway.chat(user(text("看"), part)))
    for fields in ({"metadata": {"data": WORD}}, {"vendor": [{"input_audio": {"data": WORD}}]}, {"data": WORD}):
        with subtests.test(fields=fields):
            assert refused(gateway.chat("看", **fields))
            assert refused(gateway.http.post(LEGACY, json={"model": "m", "prompt": "看", **fields}))
    assert not model.script.asked
    assert unread() - before == 1  # the file whose name alone is text


def test_words_that_are_base64_letters_too_are_screened_where_no_sound_stands(gateway: Running, model: Model) -> None:
    gateway.block("examplebanned")
    for part in ({"type": "vendor", "data": "examplebanned"}, {"type": "vendor", "audio": {"data": "examplebanned"}}):
        assert refused(gateway.chat(user(part)))
    assert refused(gateway.chat("看", metadata={"data": "examplebanned"}, tools=[{"data": "a"}]))
    assert not model.script.asked


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=st.binary(max_size=300), kind=st.sampled_from(["image/png", "image/svg+xml", "audio/wav", "application/pdf"])
)
def test_true_images_sounds_and_files_reach_the_model_unchanged_and_are_counted(
    gateway: Running, model: Model, raw: bytes, kind: str
) -> None:
    coded = base64.b64encode(raw).decode()
    url = f"data:{kind};base64,{coded}"
    message = user(text("看"), image(url), audio(coded), {"type": "file", "file": {"file_data": url, "filename": "a"}})
    before = unread()
    assert gateway.chat(message).json()["sluice"]["action"] == "pass"
    assert model.script.asked.pop()["messages"] == [message]
    assert unread() - before == 3


# ---- what is joined, and what is not


def found(gateway: Running, response: httpx.Response) -> list[tuple[str, str]]:
    """(technique, action) of what the journal has about a prompt."""
    decision = response.headers["x-sluice-decision"]
    wait_for(lambda: any(r["decision"] == decision for r in gateway.journal()))
    record = next(r for r in gateway.journal() if r["decision"] == decision)
    return [(f["technique"], f["action"]) for f in record["prompt"]["findings"]]


SPLIT: dict[str, list[dict[str, Any]]] = {
    "parts": [user(text(HEAD), text(REST))],
    "a field": [user(text(HEAD, cache_control={"type": "short", "words": "一个旁注"}), text(REST))],
    "a picture": [user(text(HEAD, words="一个旁注"), image("https://example.com/a.png"), text(REST))],
    "a part of a vendor": [user(text(HEAD), {"type": "vendor", "words": ["一个旁注"]}, audio("aGk="), text(REST), name="小明")],
    "two messages": [user(text(HEAD), name="小明"), user(text(REST), vendor={"一个": "旁注"})],
    "two strings": [{"role": "user", "content": HEAD, "name": "小明", "a": "一个旁注"}, {"role": "user", "content": REST}],
    "a message before": [{"role": "user", "content": "你好"}, user(text("说" + HEAD, a="旁注")), user(text(REST + "吧"))],
}  # fmt: skip


def test_a_term_split_over_parts_is_flagged_whatever_stands_between(
    gateway: Running, subtests: pytest.Subtests
) -> None:
    for between, messages in SPLIT.items():
        with subtests.test(between):
            response = gateway.chat(*messages)
            assert not refused(response) and response.headers["x-sluice-action"] == "flag"
            assert found(gateway, response) == [("join", "flag")]


def test_fields_that_nobody_speaks_are_never_joined(gateway: Running, model: Model, subtests: pytest.Subtests) -> None:
    for fields in (
        {"metadata": {"a": HEAD, "b": REST}}, {"metadata": {"a": HEAD}, "vendor": {"b": REST}}, {"stop": [HEAD, REST]},
        {"tools": [{"function": {"name": "a", "description": HEAD}}, {"function": {"name": "b", "description": REST}}]},
        {"metadata": {HEAD: REST}}, {"vendor": HEAD, "words": REST},
    ):  # fmt: skip
        for route, turn in ((CHAT, {"messages": [user(text("你好"))]}), (LEGACY, {"prompt": "你好"})):
            with subtests.test(route=route, fields=fields):
                ask = {"model": "m", **turn, **fields}
                assert gateway.http.post(route, json=ask).headers["x-sluice-action"] == "pass"
                assert model.script.asked.pop() == ask
    for messages in (
        [user(text("你好"), name=HEAD), user(text(REST))], [user(text(HEAD), name=REST)],
        [user(text(HEAD), {"type": "vendor", "words": REST})], [user(text("你好", a=HEAD, b=REST))],
        [user(text(HEAD)), {"role": "assistant", "content": REST}],
    ):  # fmt: skip
        with subtests.test(messages=messages):
            assert gateway.chat(*messages).headers["x-sluice-action"] == "pass"
    with subtests.test("prompts of their own"):
        answer = gateway.http.post(LEGACY, json={"model": "m", "prompt": [HEAD, REST]})
        assert answer.headers["x-sluice-action"] == "pass"


def test_all_parts_that_refused_a_message_are_remembered(gateway: Running, model: Model) -> None:
    for n, stream in enumerate((False, True)):
        bad = user(text(f"第{n}句{WORD}"), text("无害的一句"), text(f"又{n}句{WORD}"), text(f"再{n}句{WORD}"))
        first = gateway.chat(bad, stream=stream)
        shown = said(first.content) if stream else first.json()["choices"][0]["message"]["content"]
        assert not model.script.asked
        answer = gateway.chat(bad, {"role": "assistant", "content": shown}, "换个话题").json()
        assert answer["choices"][0]["message"]["content"] == "好的。" and answer["sluice"]["action"] == "pass"
        sent = model.script.asked.pop()["messages"][0]["content"]
        assert [part["text"] for part in sent] == [NOTE, "无害的一句", NOTE, NOTE]


# ---- bounds


def test_what_one_request_asks_for_is_bounded(gateway: Running, model: Model) -> None:
    ask: dict[str, Any] = {"model": "m"}
    for n, prompts in ((128, 17), (2, 1025), (1, 2049)):
        response = gateway.http.post(LEGACY, json=ask | {"prompt": ["好"] * prompts, "n": n})
        assert response.status_code == 400 and response.json()["error"]["param"] == "prompt"
    for fields in ({"stop": ["好"] * 16384}, {"vendor": {f"词{i}": 1 for i in range(16384)}}):
        turn = {"messages": [{"role": "user", "content": "你好"}], **fields}
        response = gateway.http.post(CHAT, json=ask | turn)
        assert response.status_code == 400 and response.json()["error"]["code"] == "too_many_texts"
    assert not model.script.asked
    assert refused(gateway.http.post(LEGACY, json={"model": "m", "prompt": ["好"] * 15 + [WORD], "n": 128}))
    assert refused(gateway.chat("你好", stop=["好"] * 2000 + [WORD]))


# ---- credentials, failures, receipts


def test_with_the_operators_key_nothing_says_whose_account_the_client_has(make_gateway: Make, model: Model) -> None:
    whose = {
        "authorization": "Bearer client",
        "x-api-key": "client",
        "openai-organization": "org",
        "openai-project": "p",
    }
    other = {"openai-beta": "assistants=v2"}
    ask = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}
    for key, expected in ((None, whose | other), ("operator", {"authorization": "Bearer operator"} | other)):
        gateway = make_gateway(upstream_key=key)
        assert gateway.http.post(CHAT, json=ask, headers=whose | other).status_code == 200
        sent = model.script.headers.pop()
        assert {name: sent[name] for name in sent if name in whose | other} == expected


class Broken:
    """A detector that fails on a word of one direction."""

    name, version = "broken", "1"

    def __init__(self, direction: str) -> None:
        self.direction = direction

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        if scope.direction == self.direction and "坏" in text:
            raise RuntimeError("failed")
        return Scan([], len(text))


@pytest.mark.parametrize("action", ["pass", "flag", "block"])
@pytest.mark.parametrize("direction", ["prompt", "answer"])
def test_a_detector_that_fails_does_to_its_direction_what_policy_says(
    make_gateway: Make, model: Model, direction: str, action: str
) -> None:
    others = "block" if action != "block" else "pass"
    rules = {"prompt": others, "answer": others, direction: action}
    gateway = make_gateway(f"degraded: {{prompt: {rules['prompt']}, answer: {rules['answer']}}}")
    gateway.gateway.moderator.detectors.append(Broken(direction))
    model.script.chat("这是坏的。")
    for n, stream in product(range(2), (False, True)):
        response = gateway.chat(f"第{n}{stream}个坏的问题", stream=stream)
        last = response.json() if not stream else next(e for e in reversed(events(response.content)) if e != "[DONE]")
        words = last["choices"][0]["message"]["content"] if not stream else said(response.content)
        assert last["sluice"]["action"] == action
        assert (words == "这是坏的。") is (action != "block") and ("审核暂不可用" in words) is (action == "block")
        assert (last["choices"][0]["finish_reason"] == "content_filter") is (action == "block")
        wait_for(lambda: any(r["decision"] == last["id"] for r in gateway.journal()))  # noqa: B023
        record = next(r for r in gateway.journal() if r["decision"] == last["id"])
        assert {d: record[d]["degraded"] for d in rules} == {d: ["broken"] if d == direction else [] for d in rules}
        assert record[direction]["action"] == action
    assert bool(model.script.asked) is (direction == "answer" or action != "block")
    # A text that it does not fail on is none of its business.
    model.script.chat("好的。")
    assert gateway.chat("你好").json()["sluice"]["action"] == "pass"


def test_a_decision_can_be_read_as_soon_as_the_answer_is_there(gateway: Running, model: Model) -> None:
    for stream, (words, action) in product((False, True), (("你好", "pass"), (f"说{WORD}", "block"))):
        model.script.stream = [chunk(0, {"content": "好的。"}), chunk(0, {}, "stop"), b"data: [DONE]\n\n"]
        answer = gateway.chat(words, stream=stream)
        last = answer.json() if not stream else next(e for e in reversed(events(answer.content)) if e != "[DONE]")
        sluice = last["sluice"]
        where = f"/sluice/v1/decisions/{sluice['decision']}"
        got = gateway.http.get(where, headers={"authorization": f"Bearer {sluice['receipt']}"})
        assert got.status_code == 200 and got.json()["action"] == action


def test_text_wrapped_in_base64_is_refused_with_its_field(gateway: Running, model: Model) -> None:
    wrapped = base64.b64encode(WORD.encode()).decode()
    for kind in ("text/plain", "application/json", "text/html;charset=utf-8", ""):
        part = {"type": "file", "file": {"file_data": f"data:{kind};base64,{wrapped}"}}
        error = gateway.chat({"role": "user", "content": [part]}).json()["error"]
        assert error["param"] == "messages[0].content[0].file.file_data"
        assert "send text as text" in error["message"]
    assert not model.script.asked
