"""When the model fails: an honest error before the answer began, an error event and a broken transfer after; never a clean end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import httpx
import openai
import pytest

from app.demo.story import free_port
from tests.conftest import WORD, Model, Running, chunk, events, said, wait_for

ONE_GATEWAY = True

Make = Callable[..., Running]
DONE = b"data: [DONE]\n\n"
HELLO = [chunk(0, {"role": "assistant", "content": "你好，"}), chunk(0, {"content": "世界。"})]
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "你好"}]}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer that never began."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


def collect(parts: Iterable[Any], into: list[Any]) -> None:
    for part in parts:
        into.append(part)


def broken(gateway: Running, **body: Any) -> bytes:
    """What a client has of a stream when its transfer breaks off; fails if it ends cleanly."""
    got: list[bytes] = []
    with gateway.http.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True} | body) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            collect(response.iter_raw(), got)
    return b"".join(got)


def told(raw: bytes, code: str) -> None:
    """The last event is the error, and nothing claims an end."""
    *before, last = events(raw)
    assert last["error"]["code"] == code and last["error"]["message"]
    assert "[DONE]" not in before
    assert not any("sluice" in e or c.get("finish_reason") for e in before for c in e["choices"])


@contextmanager
def answering(raw: bytes | None) -> Iterator[str]:
    """A server that answers every connection with these bytes and closes it; None: accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while raw is not None:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(raw)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        listener.shutdown(socket.SHUT_RDWR)


def client(gateway: Running) -> Any:
    return openai.OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0).chat.completions


def test_a_model_that_does_not_listen_is_a_502(make_gateway: Make) -> None:
    gateway = make_gateway(upstream_url=f"http://127.0.0.1:{free_port()}/v1")
    for stream in (False, True):
        error = error_of(gateway.chat("你好", stream=stream), 502)
        assert error["code"] == "upstream_unreachable" and "127.0.0.1" not in error["message"]
        with pytest.raises(openai.InternalServerError):
            client(gateway).create(**ASK, stream=stream)
    assert error_of(gateway.http.get("/v1/models"), 502)["code"] == "upstream_unreachable"


def test_a_model_that_accepts_and_says_nothing_is_a_504(make_gateway: Make, model: Model) -> None:
    with answering(None) as url:
        gateway = make_gateway(upstream_url=url, upstream_first_token_timeout=0.2)
        for stream in (False, True):
            assert error_of(gateway.chat("你好", stream=stream), 504)["code"] == "upstream_timeout"
    model.script.stream = [3.0, *HELLO, DONE]  # a head, and no first event
    gateway = make_gateway(upstream_first_token_timeout=0.2)
    assert error_of(gateway.chat("你好", stream=True), 504)["code"] == "upstream_timeout"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"SSH-2.0-none\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)  # fmt: skip
def test_a_model_that_speaks_half_of_http_is_a_502(make_gateway: Make, raw: bytes) -> None:
    with answering(raw) as url:
        gateway = make_gateway(upstream_url=url)
        for stream in (False, True):
            assert error_of(gateway.chat("你好", stream=stream), 502)["code"].startswith("upstream_")


def test_an_error_of_the_model_keeps_its_status_words_and_retry_after(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    model.script.stream = None
    cases: list[tuple[int, dict[str, str], bytes, str, str]] = [
        (429, {"retry-after": "7"}, b'{"error": {"message": "slow down", "code": "rate"}}', "slow down", "rate"),
        (429, {}, b"<html>busy</html>", "the model answered with HTTP 429", "upstream_error"),
        (500, {}, b'{"error": {"message": "it broke"}}', "it broke", "upstream_error"),
        (500, {"retry-after": "1"}, b"", "the model answered with HTTP 500", "upstream_error"),
        (503, {}, b'{"error": "loading"}', "loading", "upstream_error"),
        (400, {}, b'{"error": {"message": "no", "code": "words in a code"}}', "no", "upstream_error"),
        (404, {}, b'{"detail": "other shape"}', "the model answered with HTTP 404", "upstream_error"),
        (500, {}, b"[]", "the model answered with HTTP 500", "upstream_error"),
        (302, {"location": "http://127.0.0.1:1/"}, b"", "the model answered with HTTP 302", "upstream_error"),
        (
            400,
            {},
            f'{{"error": {{"message": "{WORD}"}}}}'.encode(),
            "the model answered with HTTP 400",
            "upstream_error",
        ),
        (400, {}, f'{{"error": ["{WORD}"]}}'.encode(), "the model answered with HTTP 400", "upstream_error"),
    ]
    for (status, headers, body, words, code), stream in product(cases, (False, True)):
        with subtests.test(status=status, body=body, stream=stream):
            model.script.plain = (status, headers, body)
            response = gateway.chat("你好", stream=stream)
            error = error_of(response, status if status >= 400 else 502)
            assert (error["message"], error["code"]) == (words, code)
            assert response.headers.get("retry-after") == headers.get("retry-after")
            assert response.headers["x-sluice-decision"].startswith("slc_")
    model.script.plain = cases[0][:3]
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError, match="slow down"):
            client(gateway).create(**ASK, stream=stream)


def test_a_model_that_falls_silent_in_mid_stream_is_told_and_broken_off(make_gateway: Make, model: Model) -> None:
    gateway = make_gateway(upstream_idle_timeout=0.2)
    for start in ([b"".join(HELLO)], HELLO, [HELLO[0], 0.05, HELLO[1]]):
        model.script.stream, model.script.disconnected = [*start, 2.0, DONE], threading.Event()
        raw = broken(gateway)
        assert said(raw) == "你好，世界。"
        told(raw, "upstream_timeout")
        wait_for(model.script.disconnected.is_set)


def test_the_idle_limit_counts_silence_and_not_the_whole_answer(make_gateway: Make, model: Model) -> None:
    gateway = make_gateway(upstream_idle_timeout=0.5, upstream_first_token_timeout=0.5)
    model.script.stream = [p for c in "一二三四五六" for p in (chunk(0, {"content": c}), 0.12)]
    model.script.stream += [chunk(0, {}, "stop"), DONE]
    assert said(gateway.chat("你好", stream=True).content) == "一二三四五六"


WRONG: dict[str, tuple[list[Any], str]] = {
    "reset": (["reset"], "upstream_reset"),
    "nothing more": ([], "upstream_reset"),
    "an event cut in two": ([chunk(0, {}, "stop")[:30]], "upstream_reset"),
    "an event without its blank line": ([chunk(0, {}, "stop").rstrip()], "upstream_reset"),
    "an event that is not JSON": ([b"data: {broken\n\n", chunk(0, {}, "stop"), DONE], "upstream_protocol_error"),
    "an event that is a list": ([b"data: [1]\n\n", DONE], "upstream_error"),
    "an event without choices": ([b'data: {"text": "x"}\n\n', DONE], "upstream_protocol_error"),
    "choices that are no list": ([b'data: {"choices": {"a": 1}}\n\n', DONE], "upstream_protocol_error"),
    "a choice that is no object": ([b'data: {"choices": ["a"]}\n\n', DONE], "upstream_protocol_error"),
    "a choice nobody asked for": ([chunk(1, {"content": "x"}), DONE], "upstream_protocol_error"),
    "a choice below zero": ([chunk(-1, {"content": "x"}), DONE], "upstream_protocol_error"),
    "a delta that is text": ([chunk(0, "x"), DONE], "upstream_protocol_error"),  # type: ignore[arg-type]
    "an error in an event": ([f'data: {{"error": {{"message": "{WORD}"}}}}\n\n'.encode(), DONE], "upstream_error"),
    "HTML": ([b"<html>gateway time-out</html>\n\n"], "upstream_reset"),
    "a huge event": ([b"data: " + b"x" * (1 << 20), b"x" * 1000], "upstream_protocol_error"),
}


def test_a_stream_that_goes_wrong_in_the_middle_is_told_and_never_ends_cleanly(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for name, (rest, code) in WRONG.items():
        with subtests.test(name):
            model.script.stream = [*HELLO, 0.02, *rest]
            raw = broken(gateway)
            assert said(raw) == "你好，世界。" and WORD not in raw.decode()
            told(raw, code)
            wait_for(lambda: gateway.journal()[-1]["outcome"] == code)  # noqa: B023
            got: list[Any] = []
            with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
                collect(client(gateway).create(**ASK, stream=True), got)
            assert "".join(e.choices[0].delta.content for e in got) == "你好，世界。"
    model.script.stream = [*HELLO, chunk(1, {"content": "另一个"}), 0.02, chunk(0, {}, "stop")]
    *_, last = events(broken(gateway, n=2))
    assert last["error"]["code"] == "upstream_reset"
    model.script.chat("好的。")
    assert said(gateway.chat("你好", stream=True).content) == "好的。"


def test_a_stream_that_fails_before_its_first_text_is_a_plain_error(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for name, (rest, code) in WRONG.items():
        with subtests.test(name):
            model.script.stream = [b": hello\n\n", *rest]
            response = gateway.chat("你好", stream=True)
            assert error_of(response, 502)["code"] == code and WORD not in response.text


def test_a_stream_without_the_end_marker_whose_choices_all_ended_is_whole(gateway: Running, model: Model) -> None:
    model.script.stream = [*HELLO, chunk(0, {}, "stop")]
    raw = gateway.chat("你好", stream=True).content
    assert said(raw) == "你好，世界。" and events(raw)[-1]["sluice"]["action"] == "pass"


def test_an_answer_of_another_kind_than_was_asked_for_is_an_error(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for kind in ("text/html", "application/json", "text/plain; charset=utf-8", ""):
        with subtests.test(kind):
            model.script.stream_type, model.script.stream = kind, [f"<html>{WORD}</html>".encode()]
            response = gateway.chat("你好", stream=True)
            assert error_of(response, 502)["code"] == "upstream_protocol_error" and WORD not in response.text
    answer = '{"choices": [{"index": %s, "message": %s, "finish_reason": "stop"}]}'
    shapes = ("1", '{"content": "x"}'), ("-1", '{"content": "x"}'), ('"0"', '{"content": "x"}'), ("0", '"x"')
    for body in (
        "", "<html>busy</html>", '{"choices": [', "[]", '"text"', "null", "{}", '{"choices": null}', '{"choices": {}}',
        '{"choices": ["text"]}', '{"choices": []} more', "[" * 100_000, "\udcff", *(answer % shape for shape in shapes),
    ):  # fmt: skip
        with subtests.test(body=body[:60]):
            model.script.plain = (200, {}, body.encode(errors="surrogateescape"))
            assert error_of(gateway.chat("你好"), 502)["code"] == "upstream_protocol_error"
    model.script.plain = (200, {"content-encoding": "gzip"}, b"\x1f\x8b")
    assert error_of(gateway.chat("你好"), 502)["code"] == "upstream_protocol_error"


def test_a_client_that_leaves_stops_the_model_at_once(gateway: Running, model: Model) -> None:
    model.script.stream = [p for _ in range(2000) for p in (chunk(0, {"content": "一"}), 0.02)]
    with gateway.http.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as response:
        next(response.iter_raw())
    wait_for(model.script.disconnected.is_set, 3)
    wait_for(lambda: gateway.journal()[-1]["outcome"] == "disconnected")
    # And one that leaves before the first text.
    model.script.stream, model.script.disconnected = [30.0, DONE], threading.Event()
    with pytest.raises(httpx.ReadTimeout):
        gateway.http.post("/v1/chat/completions", json=ASK | {"stream": True}, timeout=0.3)
    wait_for(model.script.disconnected.is_set, 3)
