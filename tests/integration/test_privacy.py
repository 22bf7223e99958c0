"""A canary in every place a person's words can stand: no log line, file, metric or error message ever holds it."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app import logs, metrics
from app.types import Scan, Scope
from tests.conftest import WORD, Model, Running, chunk, wait_for

Make = Callable[..., Running]
CANARY = "canary7f3a"
TEXT = f"{CANARY}{WORD}{CANARY}"
HEADERS = {
    "authorization": f"Bearer {CANARY}", "x-api-key": CANARY, "user-agent": CANARY, "cookie": CANARY, "x-user": CANARY,
    "openai-organization": CANARY, f"x-{CANARY}": "1", "referer": f"https://example.com/{CANARY}", "x-forwarded-for": CANARY,
}  # fmt: skip


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything any logger says, as the gateway's own formatter writes it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.setup("DEBUG")
    stream = io.StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    # The test's own client is not the gateway.
    for name in ("httpx", "httpcore", "openai"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


class Chatty:
    """A detector that fails and quotes what it choked on, as libraries do."""

    name, version = "chatty", "1"

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        if CANARY in text:
            try:
                raise KeyError(text)
            except KeyError as e:
                raise ValueError(f"cannot read {text!r}") from e
        return Scan([], len(text))


def nowhere(gateway: Running, logged: io.StringIO, records: int = 1) -> None:
    """Logs, files and metrics hold no canary; `records` decisions were journalled."""
    wait_for(lambda: len(gateway.journal()) >= records)
    assert CANARY not in logged.getvalue()
    assert CANARY not in metrics.render().decode()
    for file in gateway.gateway.settings.data_dir.rglob("*"):
        assert CANARY not in file.name
        if file.is_file():
            assert CANARY.encode() not in file.read_bytes(), file


def ask(gateway: Running, text: str = TEXT, **body: Any) -> bytes:
    turn = {"model": "m", "messages": [{"role": "user", "content": text}], **body}
    try:
        return gateway.http.post("/v1/chat/completions", json=turn, headers=HEADERS, params={"q": CANARY}).content
    except Exception as e:  # a broken transfer is an answer too
        return repr(e).encode()


@pytest.mark.parametrize("action", ["flag", "mask", "replace", "block"])
def test_a_prompt_and_an_answer_leave_no_trace_whatever_is_done_about_them(
    gateway: Running, model: Model, logged: io.StringIO, action: str
) -> None:
    gateway.block(WORD, action=action)
    model.script.chat(TEXT)
    for stream in (False, True):
        ask(gateway, stream=stream)
        ask(gateway, "你好", stream=stream, metadata={"a": CANARY}, user=CANARY, tools=[{"description": CANARY}])
        gateway.http.post("/v1/completions", json={"model": CANARY, "prompt": TEXT, "stream": stream}, headers=HEADERS)
    gateway.http.post("/v1/moderations", json={"input": [TEXT, CANARY]}, headers=HEADERS)
    nowhere(gateway, logged, 6)


def test_a_body_that_is_refused_leaves_no_trace_and_is_not_quoted_back(gateway: Running, logged: io.StringIO) -> None:
    turn = '{"model": "m", "messages": [{"role": "user", "content": "a"}]'
    for route in ("/v1/chat/completions", "/v1/completions", "/v1/moderations"):
        for raw in (
            CANARY, f'{{"{CANARY}', f'{{"model": "{CANARY}", "messages": {CANARY}}}', f'["{CANARY}"]', f'"{CANARY}"',
            f'{{"input": {{"{CANARY}": 1}}}}', f'{turn}, "n": "{CANARY}"}}', f'{turn}, "stream": "{CANARY}"}}',
            f'{{"model": "m", "messages": [{{"role": "{CANARY}"}}]}}', f'{{"model": "m", "prompt": {{"{CANARY}": 1}}}}',
            f'{{"model": "m", "messages": [{{"role": "user", "content": [{{"type": 1, "text": "{CANARY}"}}]}}]}}',
            f'{turn}, "{CANARY} with spaces": 1}}', f'{{"{CANARY} x": 1, "{CANARY} x": 2}}', f'{CANARY}\udcff',
        ):  # fmt: skip
            response = gateway.http.post(route, content=raw.encode(errors="surrogateescape"), headers=HEADERS)
            assert 400 <= response.status_code < 500 and CANARY not in response.text, raw
    nowhere(gateway, logged, 0)


def test_a_failing_model_leaves_no_trace_of_what_it_said(gateway: Running, model: Model, logged: io.StringIO) -> None:
    secret = f"{CANARY} {WORD}"
    for status in (200, 400, 429, 500):
        for body in (
            f'{{"error": {{"message": "{secret}", "code": "{CANARY} x"}}}}',
            f"<html>{secret}",
            f'{{"{secret}": 1}}',
        ):
            model.script.plain, model.script.stream = (status, {"x-said": CANARY}, body.encode()), None
            assert CANARY.encode() not in ask(gateway, "你好") + ask(gateway, "你好", stream=True)
    for rest in (
        ["reset"],
        [f"data: {secret}\n\n".encode()],
        [f'data: {{"error": "{secret}"}}\n\n'.encode()],
        [f"{secret}\n\n".encode()],
    ):
        for start in ([], [chunk(0, {"content": "你好"}), 0.02]):
            model.script.stream = [*start, *rest]
            assert CANARY.encode() not in ask(gateway, "你好", stream=True)
    nowhere(gateway, logged, 32)


def test_a_detector_that_quotes_the_text_in_its_failure_leaves_no_trace(
    gateway: Running, model: Model, logged: io.StringIO
) -> None:
    gateway.gateway.moderator.detectors.append(Chatty())
    model.script.chat(TEXT)
    for stream in (False, True):
        assert CANARY.encode() not in ask(gateway, "你好", stream=stream)
        ask(gateway, CANARY, stream=stream)
    assert CANARY not in gateway.http.post("/v1/moderations", json={"input": CANARY}).text
    nowhere(gateway, logged, 4)
    assert '"detector failed"' in logged.getvalue() and "ValueError" in logged.getvalue()
    assert {"chatty"} == {name for r in gateway.journal() for d in ("prompt", "answer") for name in r[d]["degraded"]}


def test_a_failure_nobody_foresaw_is_logged_without_the_words_it_quotes(logged: io.StringIO) -> None:
    for name in ("sluice.proxy", "uvicorn.error", "asyncio"):
        try:
            Chatty().scan(CANARY, 0, True, Scope("default", "prompt"))
        except ValueError:
            logging.getLogger(name).exception("Exception in ASGI application\n")
    lines = logged.getvalue().splitlines()
    assert len(lines) == 3 and all("ValueError" in line and "test_privacy.py" in line for line in lines)
    assert CANARY not in logged.getvalue()


def test_the_name_of_a_user_in_a_trusted_header_is_nowhere(make_gateway: Make, logged: io.StringIO) -> None:
    gateway = make_gateway(apps="apps: [{id: shop, trusted_headers: {subject: x-user}}]")
    gateway.block(WORD)
    ask(gateway)
    nowhere(gateway, logged)


def test_what_is_no_http_at_all_is_not_logged(gateway: Running, logged: io.StringIO) -> None:
    port = int(gateway.url.rpartition(":")[2])
    for raw in (
        CANARY,
        f"GET /{CANARY}",
        f"POST /{CANARY} HTTP/9.9\r\n{CANARY}\r\n\r\n",
        f"{CANARY} / HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.sendall(raw.encode())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 12):
                pass
    gateway.http.get(f"/v1/{CANARY}?{CANARY}", headers=HEADERS)
    nowhere(gateway, logged, 0)
