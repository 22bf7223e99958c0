"""A load generator: `connections` clients, each sending its next request when the last reply is whole and right."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools
import orjson

from tests.bench.model import TEXT


@dataclass
class Load:
    """What one run saw. Times in seconds; `first` is the time to the first text of a stream."""

    seconds: float = 0.0
    totals: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    wrong: int = 0

    @property
    def rate(self) -> float:
        return len(self.totals) / self.seconds


class _Client(asyncio.Protocol):
    """One keep-alive connection, as little work as possible."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.done: asyncio.Future[None] | None = None
        self._start()

    def _start(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body: list[bytes] = []
        self.first = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed"))

    def on_body(self, body: bytes) -> None:
        if not self.first and b'"content":"\xe6' in body:
            self.first = time.perf_counter()
        self.body.append(body)

    def on_message_complete(self) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(None)

    async def ask(self, request: bytes) -> bytes:
        self._start()
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self.done
        return b"".join(self.body)


def _text(body: bytes, stream: bool) -> str:
    if not stream:
        return str(orjson.loads(body)["choices"][0]["message"]["content"])
    events = [orjson.loads(e[6:]) for e in body.split(b"\n\n") if e and not e.endswith(b"[DONE]")]
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


async def run(url: str, stream: bool, connections: int, seconds: float) -> Load:
    """Load `url` (a base ending in /v1) for so long. Every reply is compared with what the model sent."""
    place = urlsplit(url)
    body = orjson.dumps(
        {"model": "bench", "stream": stream, "messages": [{"role": "user", "content": "请写一段春天的文字。"}]}
    )
    request = (
        b"POST %s/chat/completions HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (place.path.encode(), place.netloc.encode(), len(body), body)
    )
    load = Load()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    end = began + seconds

    async def client() -> None:
        _, connection = await loop.create_connection(_Client, place.hostname, place.port)
        while (started := time.perf_counter()) < end:
            reply = await connection.ask(request)
            load.totals.append(time.perf_counter() - started)
            if connection.first:
                load.firsts.append(connection.first - started)
            if len(load.totals) % 16 == 1 and _text(reply, stream) != TEXT:
                load.wrong += 1
        connection.transport.close()

    await asyncio.gather(*[client() for _ in range(connections)])
    load.seconds = time.perf_counter() - began
    return load
