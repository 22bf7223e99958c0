"""What fuzzing the answer and prompt paths has found, each kept as a case."""

from __future__ import annotations

import logging
import socket
from typing import Any

import httpx
import orjson
import pytest

from tests.conftest import WORD, Model, Running, chunk, events, said

ONE_GATEWAY = True

DONE = b"data: [DONE]\n\n"


def _call(arguments: str, id: str | None = None, name: str | None = None) -> bytes:
    function: dict[str, Any] = {"arguments": arguments} | ({"name": name} if name else {})
    return chunk(0, {"tool_calls": [{"index": 0, "function": function} | ({"id": id} if id else {})]})


def _arguments(response: httpx.Response) -> str:
    deltas = [c["delta"] for e in events(response.content) if e != "[DONE]" for c in e["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
    return "".join(call["function"].get("arguments") or "" for call in calls)


@pytest.mark.parametrize("named", [False, True], ids=["new ids", "new ids and names"])
def test_a_term_split_over_calls_that_share_an_index_does_not_go_out(
    gateway: Running, model: Model, named: bool
) -> None:
    pieces = [
        _call('{"q":"', "a", "f"),
        _call(WORD[:2], "b", "f" if named else None),
        _call(WORD[2:], "c", "f" if named else None),
    ]
    model.script.stream = [*pieces, chunk(0, {}, "tool_calls"), DONE]
    response = gateway.chat("说吧", stream=True)
    assert _arguments(response) == '{"q":"'
    assert "content_filter" in response.text


def test_several_whole_calls_on_one_index_come_out_whole(gateway: Running, model: Model) -> None:
    model.script.stream = [_call('{"n":1}', "a", "one"), _call('{"n":2}', "b", "two"), chunk(0, {}, "tool_calls"), DONE]
    response = gateway.chat("说吧", stream=True)
    assert _arguments(response) == '{"n":1}{"n":2}'
    names = [
        c["function"].get("name")
        for e in events(response.content)[:2]
        for ch in e["choices"]
        for c in ch["delta"]["tool_calls"]
    ]
    assert names == ["one", "two"]


def test_no_field_of_the_envelope_carries_text(gateway: Running, model: Model) -> None:
    for name in ("object", "created", "service_tier", "system_fingerprint", "model", "usage"):
        for value in (WORD, [WORD], {"a": WORD}, {WORD: 1}):
            model.script.stream = [
                chunk(0, {"content": "好的。"}, **{name: value}),
                chunk(0, {}, "stop", **{name: value}),
                DONE,
            ]
            streamed = gateway.chat("说吧", stream=True)
            assert said(streamed.content) == "好的。"
            assert WORD not in streamed.text, (name, value)


def test_text_in_the_names_of_a_request_is_screened(gateway: Running, model: Model) -> None:
    gateway.block("qvxword")
    for body in ({"qvxword": 1}, {"metadata": {"qvxword": 1}}):
        assert gateway.chat("你好", **body).json()["choices"][0]["finish_reason"] == "content_filter"
    assert not model.script.asked


def test_what_is_no_base64_is_screened(gateway: Running, model: Model) -> None:
    gateway.block("banned zzqx phrase")
    parts = (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,banned zzqx phrase"}},
        {"type": "input_audio", "input_audio": {"data": "banned zzqx phrase", "format": "wav"}},
    )
    for part in parts:
        answer = gateway.chat({"role": "user", "content": [part]}).json()
        assert "choices" not in answer or answer["choices"][0]["finish_reason"] == "content_filter"
    assert not model.script.asked


def test_the_rest_of_a_text_never_comes_before_its_beginning(gateway: Running, model: Model) -> None:
    model.script.stream = [chunk(0, {"name": f"看 {WORD[:1]}", "content": "好"}), chunk(0, {}, "stop"), DONE]
    assert said(gateway.chat("说吧", stream=True).content, channel="name") == f"看 {WORD[:1]}"


@pytest.mark.parametrize("falsy", [False, 0, ""])
def test_a_falsy_finish_reason_is_no_end(gateway: Running, model: Model, falsy: Any) -> None:
    model.script.stream = [*(chunk(0, {"content": c}, falsy) for c in "一二三"), chunk(0, {}, "stop"), DONE]
    assert said(gateway.chat("说吧", stream=True).content) == "一二三"


@pytest.mark.parametrize("odd", [b'{"choices":5}', b'{"choices":[{"index":[1]}]}', b'{"choices":[5]}'])
def test_an_odd_event_after_an_ending_is_an_error_and_no_crash(gateway: Running, model: Model, odd: bytes) -> None:
    model.script.stream = [chunk(0, {"content": "好"}), 0.1, chunk(0, {}, "stop"), b"data: " + odd + b"\n\n", DONE]
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.chat("说吧", stream=True)
    record = gateway.journal()[-1]
    assert record["outcome"] == "upstream_protocol_error"


def test_odd_log_probabilities_are_taken_out_or_kept_and_never_crash(gateway: Running, model: Model) -> None:
    for given in ({"content": [{"token": "a", "bytes": 5}]}, {"content": 5}, {"tokens": 5}, [1], 5, "x"):
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "好"},
            "finish_reason": "stop",
            "logprobs": given,
        }
        model.script.plain = (200, {}, orjson.dumps({"id": "u", "model": "m", "choices": [choice]}))
        assert gateway.chat("说吧", logprobs=True).json()["choices"][0]["message"]["content"] == "好"


def test_a_client_that_leaves_in_the_middle_of_a_report_is_no_error_of_ours(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    url = httpx.URL(gateway.url)
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(b"POST /sluice/v1/reports HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
        assert gateway.http.get("/sluice/v1/complaints").is_success  # the half of it has been read
    for _ in range(5):  # and that was all of it
        assert gateway.http.get("/sluice/v1/complaints").is_success
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_what_a_post_takes_and_how_it_may_be_refused_is_in_its_description(gateway: Running) -> None:
    document = gateway.gateway.api.openapi()
    posts = {
        path: methods["post"] for path, methods in document["paths"].items() if path != "/{path}" and "post" in methods
    }
    assert set(posts) >= {"/sluice/v1/reports", "/sluice/v1/complaints", "/sluice/v1/appeals"}
    for post in posts.values():
        schema = post["requestBody"]["content"]["application/json"]["schema"]
        assert schema["additionalProperties"] is False and "$ref" not in str(schema)
        assert {"400", "401", "404", "409", "413", "422", "429", "503"} <= set(post["responses"])
