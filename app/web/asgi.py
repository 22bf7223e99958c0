"""The few plain-ASGI moves that the moderated routes need. Law: no framework between socket and screen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
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


LEFT = "sluice.left"
"""An extension of our own server: takes what is to be called when the client leaves, or None."""


class watching:
    """While the block runs, a client that leaves cancels it: the model is stopped at once. Raises Disconnected."""

    __slots__ = ("_left", "_receive", "_task", "_tell", "_watcher")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive, self._left = receive, False
        self._tell: Callable[[Callable[[], None] | None], None] | None = scope.get("extensions", {}).get(LEFT)
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        if self._tell is not None:
            self._tell(self._leave)
        else:
            self._watcher = asyncio.create_task(self._watch())

    async def __aexit__(self, what: type[BaseException] | None, e: BaseException | None, at: object) -> None:
        if self._tell is not None:
            self._tell(None)
        elif self._watcher is not None:
            self._watcher.cancel()
        if self._left and what is not None and issubclass(what, asyncio.CancelledError):
            self._task.uncancel()
            raise Disconnected from None

    def _leave(self) -> None:
        self._left = True
        self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()
