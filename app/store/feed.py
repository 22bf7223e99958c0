"""A feed: short-lived values that one process tells and all processes come to know, soon and without being waited for.

Law: opaque bytes only (MACs). Telling never waits for the store; what cannot be told stays queued, bounded. A process
that starts reads what is still kept, so a restart forgets nothing that others know.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing

from app import retention
from app.errors import StoreError
from app.store.client import Store, ended

log = logging.getLogger("sluice.feed")

KEPT = retention.seconds("refusals")
"""Seconds a value is kept."""
ROOM = 16_384
_POLL = 0.5
_OVERLAP = 2_000_000
"""Microseconds read again each time: the store's clock may step back a little."""


class Feed:
    """`heard(value)` is called for every value of the feed, at least once."""

    def __init__(self, store: Store, name: str, heard: Callable[[bytes], None]) -> None:
        self._store, self._name, self._heard = store, name, heard
        self._waiting: deque[str] = deque(maxlen=ROOM)
        self._since = 0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def tell(self, value: bytes) -> None:
        """Queue a value for everybody."""
        self._waiting.append(base64.b64encode(value).decode())
        self._wake.set()

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._follow())]

    async def stop(self) -> None:
        await ended(*self._tasks)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._waiting)
            channel = self._store.key(f"{self._name}:changed")
            try:
                await self._store.call("feed_add", [self._name], [KEPT, ROOM, channel, *batch])
                for _ in batch:
                    self._waiting.popleft()
            except StoreError:
                self._wake.set()
                await asyncio.sleep(_POLL)

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._store.pushes(f"{self._name}:changed", _POLL * 4)) as pushes:
                    async for _ in pushes:
                        await self._read()
            except StoreError:
                await asyncio.sleep(_POLL)

    async def _read(self) -> None:
        flat = await self._store.run(
            "ZRANGEBYSCORE", self._store.key(self._name), f"({self._since - _OVERLAP}", "+inf", "WITHSCORES"
        )
        pairs = flat if flat and isinstance(flat[0], (tuple, list)) else list(zip(flat[::2], flat[1::2], strict=True))
        for value, score in pairs:
            self._since = max(self._since, int(float(score)))
            self._heard(base64.b64decode(value))
