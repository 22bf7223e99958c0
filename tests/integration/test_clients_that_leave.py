"""Clients that leave, stall or ask for floods: the model is stopped, memory stays bounded, nothing ends as if it were whole."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import psutil
import pytest

from app.demo import speech
from app.demo.speech import Answer
from tests import reading
from tests.conftest import Model, Running, wait_for

Make = Callable[..., Running]
FILL = "船夫把缆绳解开，慢慢向对岸划去。" * 200


def endless(api: Any, text: str, pause: float = 0.0) -> list[Any]:
    """The beginning of a stream, and then deltas for as long as anybody listens (at most some 60 MB)."""
    events = list(api.stream(lambda t: [t], Answer(text)))
    at = max(range(len(events)), key=lambda i: len(events[i]))
    said = next(i for i, e in enumerate(events) if text.encode() in e)
    return [*events[:said], *([events[said], pause] * 6000), *events[at + 1 :]]


def request(api: Any) -> bytes:
    body = orjson.dumps(api.ask("说吧", stream=True))
    head = (
        f"POST {api.route} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def received(response: httpx.Response) -> Iterator[bytes]:
    """What comes before the transfer breaks off; fails if it ends cleanly."""
    with pytest.raises(httpx.RemoteProtocolError):
        yield from response.iter_raw()


@pytest.mark.parametrize("api", speech.ALL, ids=lambda api: api.route)
def test_f11_a_client_that_leaves_frees_the_model_within_a_second(gateway: Running, model: Model, api: Any) -> None:
    model.script.stream = endless(api, "长长的话。", 0.02)
    model.script.disconnected.clear()
    client = socket.create_connection(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1])))
    client.sendall(request(api))
    assert b"200 OK" in client.recv(4096)
    client.close()
    left = time.monotonic()
    assert model.script.disconnected.wait(5)
    assert time.monotonic() - left < 1


def test_f28_a_client_that_reads_nothing_is_cut_off_and_costs_little(make_gateway: Make, model: Model) -> None:
    gateway = make_gateway(client_stall_timeout=1.0)
    api = speech.Chat()
    model.script.stream = endless(api, FILL)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1])))
    before = psutil.Process().memory_info().rss
    client.sendall(request(api))
    assert model.script.disconnected.wait(20)
    assert model.script.sent < 6000
    assert psutil.Process().memory_info().rss - before < 50 << 20
    # Cut off, not ended: what is left to read does not end as an answer does.
    got = b""
    try:
        while data := client.recv(1 << 16):
            got += data
    except ConnectionResetError:
        pass
    assert b"[DONE]" not in got and not got.endswith(b"0\r\n\r\n")
    wait_for(lambda: any(r["outcome"] == "disconnected" for r in gateway.journal()))


def test_a_client_that_reads_slowly_is_not_cut_off(make_gateway: Make, model: Model) -> None:
    gateway = make_gateway(client_stall_timeout=1.0)
    api = speech.Chat()
    model.script.stream = list(api.stream(lambda t: [t[i : i + 500] for i in range(0, len(t), 500)], Answer(FILL * 12)))
    with gateway.http.stream("POST", api.route, json=api.ask("说吧", stream=True)) as response:
        raw = b""
        for data in response.iter_raw(8192):
            raw += data
            time.sleep(0.01)
    assert reading.read(api.route, raw).text() == FILL * 12


@pytest.mark.parametrize("limit", ["answer_max_characters", "answer_max_seconds"])
def test_s14_an_answer_beyond_its_limits_ends_with_an_error_and_no_clean_end(
    make_gateway: Make, model: Model, limit: str, subtests: pytest.Subtests
) -> None:
    gateway = make_gateway(**{limit: 2000 if limit == "answer_max_characters" else 0.3})
    for api in speech.ALL:
        with subtests.test(route=api.route):
            model.script.stream = endless(api, "长长的话。", 0.001)
            model.script.disconnected.clear()
            with gateway.http.stream("POST", api.route, json=api.ask("说吧", stream=True)) as response:
                raw = b"".join(received(response))
            got = reading.read(api.route, raw)
            assert got.error == ("upstream_too_large" if limit == "answer_max_characters" else "upstream_too_long")
            assert not got.ended and not got.sluice
            assert model.script.disconnected.wait(3)
