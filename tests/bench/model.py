"""A model that costs next to nothing: every answer is encoded once. Plain ASGI, run by uvicorn.

An answer is TOKENS deltas of Chinese text of CHARS characters each, clean under the shipped policy.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

TOKENS, CHARS = 64, 4
_SENTENCE = "春天来了，小区里的花都开了，孩子们在草地上跑来跑去，老人坐在长椅上聊天。"
TEXT = (_SENTENCE * 12)[: TOKENS * CHARS]

_HEAD = {"id": "up-1", "created": 1, "model": "bench"}


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps(_HEAD | {"object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"


_EVENTS = [
    _event({"role": "assistant", "content": ""}),
    *[_event({"content": TEXT[i : i + CHARS]}) for i in range(0, len(TEXT), CHARS)],
    _event({}, "stop"),
    b"data: [DONE]\n\n",
]
_MESSAGE = {"role": "assistant", "content": TEXT}
_PLAIN = orjson.dumps(
    _HEAD | {"object": "chat.completion", "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}]}
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    stream = b'"stream":true' in body
    kind = b"text/event-stream" if stream else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if not stream:
        await send({"type": "http.response.body", "body": _PLAIN})
        return
    for event in _EVENTS:
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})
