"""The few plain-ASGI moves that the moderated routes need. Law: no framework between socket and screen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from app import strictjson
from app.errors import RequestError, UpstreamError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Disconnected(Exception):
    """The client left."""


def headers(scope: Scope) -> dict[str, str]:
    """Names lower-case. Of a repeated name the first counts: no two parts of the path may read different ones. Connection alone is one
    list over all its lines (RFC 9110, 5.2): what any of them names stays here."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, said = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {said}" if key == "connection" and key in found else found.get(key, said)
    return found


def peer(scope: Scope) -> str:
    """The address of whoever connected, '' where that is not known."""
    return scope["client"][0] if scope.get("client") else ""


def retry(e: RequestError) -> Headers:
    """The header that says when it may be sent again."""
    return [] if e.retry is None else [(b"retry-after", b"%d" % e.retry)]


def later(e: UpstreamError) -> Headers:
    """The header that says when to ask again, where we are who could not."""
    return [(b"retry-after", b"1")] if e.status == 503 else []


async def read_body(receive: Receive, head: dict[str, str], limit: int) -> bytes:
    """The whole body. Raises RequestError 413 or 415, or Disconnected."""
    encoding = head.get("content-encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise RequestError("send the body without content-encoding", code="unsupported_encoding", status=415)
    length = head.get("content-length", "")
    too_large = RequestError(f"the body is larger than {limit} bytes", code="body_too_large", status=413)
    if length.isdigit() and int(length) > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def respond(
    send: Send, status: int, body: bytes, extra: Iterable[tuple[bytes, bytes]] = (), kind: bytes = b"application/json"
) -> None:
    """A whole response."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *extra],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, value: Any, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
    await respond(send, status, strictjson.dumps(value), extra)


@asynccontextmanager
async def watching(receive: Receive) -> AsyncIterator[None]:
    """While the block runs, a client that leaves cancels it: the model is stopped at once. Raises Disconnected."""
    task = asyncio.current_task()
    assert task is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise Disconnected from None
    finally:
        watcher.cancel()
