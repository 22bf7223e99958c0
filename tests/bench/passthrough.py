"""The least a proxy of this stack can do: ASGI in, aiohttp out. The yardstick for Sluice.

BENCH_UPSTREAM: base of the model. BENCH_PARSE=1: every event and body is parsed and written again, as a gateway that
looks at texts must; else bytes go through as they come.
"""

from __future__ import annotations

import os
from typing import Any

import aiohttp
import orjson

_UPSTREAM = os.environ.get("BENCH_UPSTREAM", "")
_PARSE = os.environ.get("BENCH_PARSE") == "1"
_session: aiohttp.ClientSession | None = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    global _session
    if scope["type"] != "http":
        return
    if _session is None:
        _session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if _PARSE and body:
        body = orjson.dumps(orjson.loads(body))
    async with _session.request(scope["method"], _UPSTREAM + scope["path"], data=body) as reply:
        kind = reply.headers.get("content-type", "").encode()
        await send({"type": "http.response.start", "status": reply.status, "headers": [(b"content-type", kind)]})
        if not kind.startswith(b"text/event-stream"):
            raw = await reply.read()
            await send({"type": "http.response.body", "body": orjson.dumps(orjson.loads(raw)) if _PARSE else raw})
            return
        rest = b""
        async for chunk in reply.content.iter_any():
            if _PARSE:
                *events, rest = (rest + chunk).split(b"\n\n")
                chunk = b"".join(map(_again, events))
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _again(event: bytes) -> bytes:
    data = event.removeprefix(b"data: ")
    return event + b"\n\n" if data == b"[DONE]" else b"data: " + orjson.dumps(orjson.loads(data)) + b"\n\n"
