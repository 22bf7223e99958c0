"""An exchange of our own server (app/web/protocol.py), on a real socket: what an ASGI app sends is what the client gets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.server import _uvicorn
from app.web import asgi

App = Callable[[Any, Any, Any], Awaitable[None]]
_GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


def _head(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def _body(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


@asynccontextmanager
async def _served(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    server = _uvicorn(app)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await task


def _asked(app: App, request: bytes = _GET, count: int = 1) -> bytes:
    """All that comes back for so many requests in a row; the last one closes."""

    async def run() -> bytes:
        async with _served(app) as (reader, writer):
            for _ in range(count - 1):
                writer.write(request)
            writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            return await asyncio.wait_for(reader.read(), 10)

    return asyncio.run(run())


def _of(*messages: dict[str, Any]) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def test_a_whole_answer_has_its_length_and_no_chunks() -> None:
    raw = _asked(_of(_head(200, (b"Content-Length", b"5")), _body(b"hello")))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert body == b"hello"
    assert b"\r\ncontent-length: 5\r\n" in head and b"chunked" not in head and b"connection: close" in head


def test_an_answer_in_parts_comes_in_chunks_and_ends() -> None:
    raw = _asked(_of(_head(), _body(b"one", True), _body(b"", True), _body(b"two")))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def test_answers_follow_one_another_on_a_connection() -> None:
    raw = _asked(_of(_head(200, (b"content-length", b"2")), _body(b"ok")), count=3)
    assert raw.count(b"HTTP/1.1 200 OK\r\n") == 3 and raw.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_ends_with_its_head(status: int) -> None:
    raw = _asked(_of(_head(status), _body(b"")))
    assert raw.endswith(b"\r\n\r\n") and b"chunked" not in raw


def test_head_gets_the_head_alone() -> None:
    raw = _asked(_of(_head(200, (b"content-length", b"5")), _body(b"hello")), _GET.replace(b"GET", b"HEAD"))
    assert raw.endswith(b"\r\n\r\n") and b"content-length: 5" in raw


def test_a_head_does_not_wait_for_a_body_that_takes_its_time() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(_head())
        await gate.wait()
        await send(_body(b"late"))

    async def run() -> bytes:
        async with _served(app) as (reader, writer):
            writer.write(_GET)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            gate.set()
            return head + await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)

    gate = asyncio.Event()
    assert asyncio.run(run()).endswith(b"4\r\nlate\r\n0\r\n\r\n")


@pytest.mark.parametrize("header", [(b"x-a", b"b\r\nset-cookie: c"), (b"x\n", b"a"), (b"x-a", b"\0")])
def test_a_header_that_would_be_two_lines_never_goes_out(header: tuple[bytes, bytes]) -> None:
    raw = _asked(_of(_head(200, header), _body(b"hello")))
    assert raw.startswith(b"HTTP/1.1 500") and b"set-cookie" not in raw


@pytest.mark.parametrize("body", [b"much longer", b"no"])
def test_a_body_of_another_length_than_was_said_breaks_off(body: bytes) -> None:
    raw = _asked(_of(_head(200, (b"content-length", b"5")), _body(body)))
    assert b"much longer" not in raw


@pytest.mark.parametrize("ours", [True, False])
def test_a_client_that_leaves_ends_what_is_done_for_it(ours: bool) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not ours:
            scope.pop("extensions")
        try:
            async with asgi.watching(scope, receive):
                await receive_all(receive)
                begun.set()
                await asyncio.sleep(30)
        except asgi.Disconnected:
            told.append("left")
            ended.set()

    async def receive_all(receive: Any) -> None:
        if ours:
            while (await receive()).get("more_body"):
                pass

    async def run() -> None:
        async with _served(app) as (_, writer):
            writer.write(_GET)
            await asyncio.wait_for(begun.wait(), 10)
            writer.close()
            await asyncio.wait_for(ended.wait(), 10)

    begun, ended = asyncio.Event(), asyncio.Event()
    asyncio.run(run())
    assert told == ["left"]
