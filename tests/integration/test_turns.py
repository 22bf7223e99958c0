"""Conversations of several turns, in every API: what was refused stays in the history and refuses nothing, what is unchanged is not
screened anew, what is split over two messages is seen."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import orjson
import pytest

from app import metrics
from app.demo import speech
from app.demo.speech import Answer, Call
from app.surrogate import NOTE
from tests import reading
from tests.conftest import WORD, Model, Running, wait_for

ONE_GATEWAY = True

Make = Callable[..., Running]
TURNED = [speech.Chat(), speech.Responses(), speech.Messages()]
"""The APIs that have turns."""
LONG = "清晨的河面上浮着一层薄雾，船夫把缆绳解开，慢慢向对岸划去。" * 40


def says(model: Model, api: Any, answer: Answer) -> None:
    model.script.plain = (200, {}, orjson.dumps(api.plain(answer)))
    model.script.stream = list(api.stream(list, answer))


def ask(gateway: Running, api: Any, *said: Any, **more: Any) -> reading.Read:
    return reading.of(api.route, gateway.http.post(api.route, json=api.ask(*said, **more)))


def turns(api: Any, body: dict[str, Any]) -> list[Any]:
    """What the model was given to read of each turn."""
    return [m["content"] for m in body["input" if api.route == reading.RESPONSES else "messages"]]


def count(name: str) -> float:
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.render().decode().splitlines()
        if line.startswith(name) and not line.startswith("#")
    )


def test_a_refused_message_never_refuses_the_next_turn_in_any_api(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for n, api in enumerate(TURNED):
        for stream in (False, True):
            with subtests.test(route=api.route, stream=stream):
                says(model, api, Answer("好的。"))
                bad = f"第{n}{stream}次说{WORD}"
                model.script.asked.clear()
                refused = ask(gateway, api, bad, stream=stream)
                assert refused.stopped() and not model.script.asked
                got = ask(gateway, api, bad, refused.refusal(), "换个话题", stream=stream)
                assert (got.text(), got.sluice["action"]) == ("好的。", "pass")
                assert turns(api, model.script.asked[0])[0] == NOTE
                # A client that drops the refusal has no proof of it, and needs none.
                assert ask(gateway, api, bad, "嗯", "换个话题", stream=stream).text() == "好的。"
                # What is new is refused as ever.
                assert ask(gateway, api, bad, refused.refusal(), f"再说{WORD}", stream=stream).stopped()


def test_an_older_answer_that_is_now_stopped_and_a_call_in_the_history_refuse_nothing(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": f'{{"q": "{WORD}"}}'}}
    histories: list[tuple[Any, list[Any]]] = [
        (speech.Chat(), [
            {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "好"},
        ]),
        (speech.Responses(), [
            {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": f'{{"q": "{WORD}"}}'},
            {"type": "function_call_output", "call_id": "c1", "output": "好"},
        ]),
        (speech.Messages(), [
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": WORD, "signature": speech.SIGNATURE},
                {"type": "tool_use", "id": "c1", "name": "look_up", "input": {"q": WORD}},
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "好"}]},
        ]),
    ]  # fmt: skip
    for api, history in histories:
        with subtests.test(route=api.route):
            says(model, api, Answer("好的。"))
            model.script.asked.clear()
            body = api.ask("查一下", f"答案是{WORD}", "再查")
            name = "input" if api.route == reading.RESPONSES else "messages"
            body[name] = [*body[name][:2], *history]
            got = reading.of(api.route, gateway.http.post(api.route, json=body))
            assert (got.text(), got.sluice["action"]) == ("好的。", "pass")
            sent = orjson.dumps(model.script.asked[0]).decode()
            assert WORD not in sent and sent.count(NOTE) == (3 if api.route == reading.MESSAGES else 2)
            assert f'"thinking":"{NOTE}"' not in sent, "a changed thought fails the check of its signature"


def test_a_thought_that_was_masked_is_left_out_of_the_next_turn(gateway: Running, model: Model) -> None:
    api = speech.Messages()
    says(model, api, Answer("好的。", "电话13800138000", (Call("c1", "look_up", "{}"),)))
    content = gateway.http.post(api.route, json=api.ask("查一下")).json()["content"]
    assert content[0] == {"type": "thinking", "thinking": "电话" + "*" * 11, "signature": ""}
    body = api.ask("查一下") | {"messages": [
        {"role": "user", "content": "查一下"}, {"role": "assistant", "content": content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "好"}]},
    ]}  # fmt: skip
    assert gateway.http.post(api.route, json=body).status_code == 200
    assert [b["type"] for b in model.script.asked[-1]["messages"][1]["content"]] == ["text", "tool_use"]


def test_a_term_split_over_two_messages_of_one_person_flags_in_every_api(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for api in TURNED:
        with subtests.test(route=api.route):
            says(model, api, Answer("好的。"))
            got = ask(gateway, api, f"先说{WORD[:3]}", "嗯", f"{WORD[3:]}说完了")
            assert (got.text(), got.sluice["action"]) == ("好的。", "flag")
            wait_for(lambda id=got.sluice["decision"]: any(r["decision"] == id for r in gateway.journal()))  # type: ignore[misc]
            record = next(r for r in gateway.journal() if r["decision"] == got.sluice["decision"])
            (found,) = record["prompt"]["findings"]
            assert (found["technique"], found["start"], found["end"], found["action"]) == ("join", 2, 5, "flag")
            # Over three messages, each but a character or two.
            assert ask(gateway, api, WORD[:2], "嗯", WORD[2:4], "嗯", WORD[4:]).sluice["action"] == "flag"
            # What one person begins and another goes on with is nobody's.
            assert ask(gateway, api, f"先说{WORD[:3]}", WORD[3:], "换个话题").sluice["action"] == "pass"


def test_what_is_unchanged_since_an_earlier_turn_is_not_screened_anew_until_what_is_looked_for_changes(
    make_gateway: Make, model: Model
) -> None:
    gateway = make_gateway()
    api = speech.Chat()
    history = [f"{n}：{LONG}" for n in range(9)]
    ask(gateway, api, *history)
    before = count("sluice_known_characters_total")
    ask(gateway, api, *history, "好", "再说")
    wait_for(lambda: count("sluice_known_characters_total") - before >= sum(map(len, history)))
    # A live entry is in force at once, in old messages too; and no longer when it is gone.
    gateway.block("浮着一层薄雾", action="mask")
    got = ask(gateway, api, *history, "好", "再说")
    assert got.sluice["action"] == "mask"
    for _ in range(2):
        ask(gateway, api, *history, "好", "再说")
        sent = model.script.asked[-1]["messages"][0]["content"]
        assert sent == history[0].replace("浮着一层薄雾", "*" * 6)
    gateway.gateway.blocklist.load([])
    assert ask(gateway, api, *history, "好", "再说").sluice["action"] == "pass"
    assert model.script.asked[-1]["messages"][0]["content"] == history[0]


def test_one_text_means_different_things_to_two_apps_and_in_two_directions(make_gateway: Make, model: Model) -> None:
    digest = {
        "a": "sha256:" + sha256(b"key-a").hexdigest(),
        "b": "sha256:" + sha256(b"key-b").hexdigest(),
    }
    apps = "apps:\n" + "".join(f"  - {{id: {name}, keys: [{value}]}}\n" for name, value in digest.items())
    gateway = make_gateway("apps: {b: {categories: {illegal_acts: {prompt: pass}}}}", apps)
    text = "出售仿真枪支弹药"
    for _ in range(2):
        for key, action in (("key-a", "block"), ("key-b", "pass")):
            response = gateway.http.post(
                "/v1/chat/completions",
                json=speech.Chat().ask(text),
                headers={"Authorization": f"Bearer {key}"},
            )
            assert response.headers["x-sluice-action"] == action
    model.script.chat(text)
    response = gateway.http.post(
        "/v1/chat/completions", json=speech.Chat().ask("说吧"), headers={"Authorization": "Bearer key-b"}
    )
    assert response.json()["sluice"]["action"] == "block"


def test_state_on_the_models_server_is_refused_by_name_and_nothing_is_stored(gateway: Running, model: Model) -> None:
    api = speech.Responses()
    says(model, api, Answer("好的。"))
    for name, value in (
        ("previous_response_id", "resp_1"), ("conversation", "conv_1"), ("background", True), ("prompt", {"id": "p_1"}),
    ):  # fmt: skip
        error = gateway.http.post(api.route, json=api.ask("说吧") | {name: value}).json()["error"]
        assert error["param"] == name and error["code"] == "unsupported_parameter"
    error = gateway.http.post(api.route, json={"model": "m", "input": [{"type": "item_reference", "id": "x"}]}).json()
    assert error["error"]["param"] == "input[0]"
    assert not model.script.asked
    for given in ({}, {"store": True}, {"store": False}, {"background": False, "previous_response_id": None}):
        ask(gateway, api, "说吧", **given)
        assert model.script.asked[-1]["store"] is False


def test_the_journal_is_quiet_about_what_was_known(gateway: Running, model: Model) -> None:
    """A verdict that was kept is recorded as one that was found."""
    api = speech.Chat()
    says(model, api, Answer("好的。"))
    ids = [ask(gateway, api, "电话13800138000").sluice["decision"] for _ in range(3)]
    wait_for(lambda: {r["decision"] for r in gateway.journal()} >= set(ids))
    records = {r["decision"]: r["prompt"] for r in gateway.journal()}
    assert records[ids[0]] == records[ids[1]] == records[ids[2]]
    assert [f["rule"] for f in records[ids[0]]["findings"]] == ["pi.mobile"]
