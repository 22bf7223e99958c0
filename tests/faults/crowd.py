"""Ten thousand connections, from a process of their own: `model PORT` is a model whose streams fall silent after their first text, unless
they are asked to be busy; `clients URL N` opens so many idle streams and says how they fare.

Raw sockets, as little of anything as possible: what is measured is the gateway.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from typing import Any
from urllib.parse import urlsplit

import uvloop

DELTAS = 32
PAUSE = 0.02
"""Seconds between two deltas of a busy stream."""
TEXT = "春天来了，小区里的花都开了"


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    event = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = b"data: " + json.dumps(event | {"choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_FIRST = _HEAD + _chunk({"role": "assistant", "content": TEXT})
_NEXT = _chunk({"content": TEXT})
_LAST = _chunk({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class _Model(asyncio.Protocol):
    def __init__(self) -> None:
        self._got = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        if len(body) < length:
            return
        self._got = b""
        self._transport.write(_FIRST)
        if b"busy" in body:
            self._say(DELTAS)

    def _say(self, left: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_NEXT if left else _LAST)
        if left:
            asyncio.get_running_loop().call_later(PAUSE, self._say, left - 1)


async def model(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Model, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def request(word: str) -> bytes:
    """A streamed chat that says `word`."""
    asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": word}]}
    body = json.dumps(asked).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


class _Client(asyncio.Protocol):
    def __init__(self, counts: dict[str, int], told: asyncio.Event) -> None:
        self._counts, self._told, self._state = counts, told, "waiting"
        counts["waiting"] += 1

    def _become(self, state: str) -> None:
        self._counts[self._state] -= 1
        self._counts[state] += 1
        self._state = state
        self._told.set()

    def connection_made(self, transport: Any) -> None:
        transport.write(request("idle"))

    def data_received(self, data: bytes) -> None:
        if self._state == "waiting":
            self._become("refused" if b" 503 " in data[:20] else "open")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state != "refused":
            self._become("broken")


async def clients(url: str, number: int) -> None:
    """Tell counts as JSON lines: when all have been answered, and, after a line on stdin, once more."""
    place, loop = urlsplit(url), asyncio.get_running_loop()
    counts, told = {"waiting": 0, "open": 0, "refused": 0, "broken": 0}, asyncio.Event()

    async def connect() -> None:
        try:
            await loop.create_connection(lambda: _Client(counts, told), place.hostname, place.port)
        except OSError:
            counts["broken"] += 1

    for start in range(0, number, 100):
        await asyncio.gather(*[connect() for _ in range(min(100, number - start))])
    while counts["waiting"]:
        told.clear()
        await asyncio.wait_for(told.wait(), 60)
    print(json.dumps(counts), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    what, *rest = sys.argv[1:]
    uvloop.run(model(int(rest[0])) if what == "model" else clients(rest[0], int(rest[1])))
