"""A TCP proxy before the store: a test makes it slow, sends it elsewhere, or has it swallow a reply to what the store has done."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """`delay`: seconds that every reply is late. `swallow`: replies to requests that hold these bytes never arrive, the connection
    breaks instead; `left`: so many times. `swallowed` counts them."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self.swallow: bytes | None = None
        self.left, self.swallowed = 0, 0
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def to(self, target: int) -> None:
        """Send whoever connects from now on to another port; who is connected is cut off."""
        self.target = target
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._cut)

    def lose(self, request: bytes, times: int) -> None:
        """Swallow the replies to the next so many requests of this kind."""
        self.swallow, self.left, self.swallowed = request, times, 0

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._over.wait()
        server.close()
        self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, up_writer}
        doomed = False

        async def ask() -> None:
            nonlocal doomed
            while data := await reader.read(1 << 20):
                if self.left and self.swallow is not None and self.swallow in data:
                    self.left -= 1
                    doomed = True
                up_writer.write(data)
                await up_writer.drain()

        async def answer() -> None:
            while data := await up_reader.read(1 << 20):
                if doomed:
                    self.swallowed += 1
                    return
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await task
        for end in (writer, up_writer):
            end.transport.abort()
            self._open.discard(end)


@contextmanager
def proxied(target: int) -> Iterator[Proxy]:
    """A proxy before a port of this machine."""
    proxy = Proxy(target)
    proxy._thread.start()
    assert proxy._started.wait(5)
    yield proxy
    assert proxy._loop is not None
    proxy._loop.call_soon_threadsafe(proxy._over.set)
    proxy._thread.join(5)
