"""One connection to a server, HTTP/1.1 (RFC 9112): a request goes out in one write, its answer is read as it comes.

Law: nothing here waits without an end, and nothing grows without a bound; what nobody asked for ends the connection. Who it is connected
to, and what a broken one means, is decided above (app/outbound.py).
"""

from __future__ import annotations

import asyncio
import math
import select
from typing import Any, NamedTuple

import httptools

HEAD_MAX = 65_536
"""Bytes of an answer's line and headers, its interim answers' and its trailers' among them; also the most that may come between two
pieces of a body (extensions of chunks)."""
AHEAD = 256 << 10
"""Bytes that may wait to be taken before no more are read."""
_LINE = 32
"""Bytes that the line of an answer counts for: interim ones may have nothing else."""
_SOON = 0.001
"""Seconds that a timer may come too early."""
_BODILESS = (204, 304)
"""RFC 9110, 6.4.1."""


class Bounds(NamedTuple):
    """Seconds: until an answer's head, and from there to the first byte of its body; between two reads after that; and for which a
    connection that nobody uses is kept."""

    first: float
    idle: float
    kept: float


class Connection(asyncio.Protocol):
    """A connection and its one exchange at a time: `send`, then `answered` and `take`, with `await news()` where those have nothing yet;
    at the end `release`, or `abort` at any time. One task reads.

    `alive`: it is in there until it is lost. `spare`: it is in there while it waits for its next request.
    """

    __slots__ = (
        "_alive", "_beside", "_bodiless", "_bounds", "_busy", "_congested", "_deadline", "_ended", "_fault", "_head", "_interim", "_keep",
        "_limit", "_loop", "_parser", "_parts", "_paused", "_peek", "_progress", "_size", "_spare", "_tick", "_timer",
        "_transport", "_until_close", "_waiter", "headers", "heard", "status",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bounds: Bounds,
        alive: set[Connection],
        spare: dict[Connection, None],
    ) -> None:
        self._loop, self._bounds, self._alive, self._spare = loop, bounds, alive, spare
        # No deadline is nearer than this when it is set, so a timer that is under way never comes too late for it.
        self._tick = min(bounds)
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline, self._limit = math.inf, bounds.first
        self._fault: type[OSError] | None = None
        self._parts: list[bytes] = []
        self._size = self._head = self._beside = 0
        self._ended = True
        self._busy = self._keep = self._paused = self._congested = False
        self._bodiless = self._interim = self._until_close = self._progress = False
        self.status = 0
        """Of the answer; 0 until its head is whole."""
        self.headers: dict[str, str] = {}
        """By names in small letters; several of one name are joined (RFC 9110, 5.3)."""
        self.heard = False
        """Some byte of the answer came."""

    # ---- one exchange

    def send(self, data: bytes, *, bodiless: bool = False) -> None:
        """A whole request. `bodiless`: its answer has no body, whatever its headers say (HEAD). Raises ConnectionError."""
        if self._transport.is_closing():
            raise ConnectionError
        self.status, self.headers, self.heard = 0, {}, False
        self._busy, self._bodiless = True, bodiless
        self._ended = self._keep = self._interim = self._until_close = False
        self._head = self._beside = 0
        self._limit = self._bounds.first
        self._transport.write(data)
        self._watch(self._limit)

    def answered(self) -> bool:
        """The head is there. Raises TimeoutError, ConnectionError."""
        if not self.status and self._fault is not None:
            raise self._fault
        return self.status > 0

    def take(self) -> bytes | None:
        """All of the body that came since the last time; None: nothing did; b"": there will be no more. Raises TimeoutError,
        ConnectionError, after what came before the fault."""
        if parts := self._parts:
            part = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._size = 0
            if self._paused:
                self._resume()
            return part
        if self._ended:
            return b""
        if self._fault is not None:
            raise self._fault
        return None

    @property
    def over(self) -> bool:
        """All of the answer came, and was taken."""
        return self._ended and not self._parts

    def news(self) -> asyncio.Future[None]:
        """Done when there is more to know. Whoever waits may be cancelled."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def release(self) -> None:
        """The answer is over: wait for the next request, or close where there can be none."""
        if not self._keep or self._congested or self._transport.is_closing():
            self.abort()
            return
        self._busy = False
        self._spare[self] = None
        self._watch(self._bounds.kept)

    def abort(self) -> None:
        """Close at once: the server sees it, and stops. Harmless when repeated."""
        self._spare.pop(self, None)
        self._deadline = math.inf
        if self._transport is not None:
            self._transport.abort()

    def usable(self) -> bool:
        """Nothing came while it was spare, not even an end that the event loop has not seen yet."""
        return not self._transport.is_closing() and not self._peek.poll(0)

    # ---- time

    def _watch(self, seconds: float) -> None:
        """Something must come within so long. One timer serves the connection's whole life: it looks at the deadline when it fires."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick, self._look)

    def _look(self) -> None:
        self._timer = None
        left = self._deadline - self._loop.time()
        if left > _SOON:
            if left < math.inf:
                self._timer = self._loop.call_later(min(left, self._tick), self._look)
        else:
            self._fail(TimeoutError)

    # ---- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._peek = select.poll()
        self._peek.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._alive.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._alive.discard(self)
        self._spare.pop(self, None)
        self._keep, self._parser = False, None  # the parser holds us
        if not self._ended:
            if exc is None and self._until_close and self._fault is None:
                self._ended = True
            else:
                self._fault = self._fault or ConnectionError
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            # Nobody asked for it, and it would be taken for the next answer.
            self._keep = False
            if not self._busy:
                self.abort()
            return
        self.heard, self._progress = True, False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._keep = False
            if not self._ended:
                self._fail(ConnectionError)
                return
        if self._ended:
            self._deadline = math.inf
        elif self._size > AHEAD:
            self._paused, self._deadline = True, math.inf
            self._transport.pause_reading()
        elif self._progress:
            self._beside = 0
            self._watch(self._limit)
        else:
            self._beside += len(data)
            if self._beside > HEAD_MAX:
                self._fail(ConnectionError)
        self._wake()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        if self._busy and not self.status:
            # A large body is on its way at last.
            self._watch(self._bounds.first)

    def _resume(self) -> None:
        self._paused = False
        if not self._ended and not self._transport.is_closing():
            self._transport.resume_reading()
            self._watch(self._limit)

    def _fail(self, fault: type[OSError]) -> None:
        if not self._ended:
            self._fault = self._fault or fault
        self.abort()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ---- the parser's calls; what they raise is a parser's error

    def on_message_begin(self) -> None:
        if self._ended:
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self.status:
            return  # trailers tell nothing that anybody reads
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        before = self.headers.get(key)
        self.headers[key] = text if before is None else f"{before}, {text}"

    def on_headers_complete(self) -> None:
        self._progress = True
        self._count(_LINE)
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise ValueError  # another protocol, which nobody offered
            self._interim = True
            self.headers.clear()
            return
        coding = self.headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise ValueError  # a coding that nobody decodes
        self.status = status
        if self._bodiless or status in _BODILESS:
            self._ended = True
        else:
            # RFC 9112, 6.3 (8): its end is the connection's.
            self._until_close = coding is None and "content-length" not in self.headers

    def on_body(self, body: bytes) -> None:
        if self._ended:
            raise ValueError
        self._progress = True
        self._limit = self._bounds.idle
        self._parts.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            return
        self._ended, self._keep = True, self._parser.should_keep_alive()

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_MAX:
            raise ValueError
