"""Load: what one worker carries, and when it takes no more.

Law: who is turned away is turned away before anything of the request is read, is told when to come back, and is counted by reason. A
worker that is told to stop lets answers end for a while, then ends each with a last word; it never just vanishes. Reports, complaints
and the ops port are no part of this: they answer while chats are turned away.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import resource
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app import metrics
from app.errors import RequestError, UpstreamError

log = logging.getLogger("sluice.load")

_TICK = 0.1
_LATE = 0.5
"""Seconds that the loop is behind at every one of the last looks: a standing queue, not a burst (after CoDel, RFC 8289)."""
_LOOKS = 5
_FULL = 0.85
"""Share of the memory for exchanges beyond which only a few at a time are taken: what those under way still need must fit."""
_FEW = 4
_LEAST = 32 << 20
_GROWS = 3
"""How much more memory a body takes than it has bytes: as it came, as what it says, as what is looked at."""
_SMALL = 65_536
"""Bytes of a body that is none of those that memory is kept for."""
_OWN_FILES = 256
"""File descriptors of a worker's own: the store's pool, the journal, metrics, what a guard needs."""
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_NONE = 1 << 60
"""What stands there where nothing is limited is as large as this."""


def fit(files: int) -> int:
    """How many exchanges fit into so many file descriptors: each needs one to the client and one to the model."""
    return max(16, (files - _OWN_FILES) // 2)


def raised() -> int:
    """The file descriptors that this process may have, after asking for all it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 20)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def allotted(workers: int) -> int:
    """Bytes of memory that the container lets each worker have; 0 where nothing is limited."""
    for path in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            if (limit := int(Path(path).read_text())) < _NONE:
                # The parent and the store take a share too.
                return limit // (workers + 1)
    return 0


class Load:
    """`most`: exchanges at once; `memory`: bytes of resident memory, 0 for no limit."""

    def __init__(self, most: int, memory: int = 0) -> None:
        self._most, self._memory = most, memory
        self._running: set[asyncio.Task[None]] = set()
        self._brought = 0
        """Bytes of the bodies of those that run."""
        self._used = self._own = 0
        """Bytes of memory beyond its own, and its own."""
        self._lags: deque[float] = deque([0.0], maxlen=_LOOKS)
        self._cut = False
        self.draining = False

    # ---- who is let in

    def admit(self, size: int = 0) -> None:
        """Raises RequestError 503 where no more is taken. `size`: bytes of the body, as far as they are known."""
        if self.draining:
            raise _turned_away("draining", "this gateway is shutting down; send it again", "gateway_draining")
        reason = (
            "exchanges"
            if len(self._running) >= self._most
            else "memory"
            if len(self._running) >= _FEW and self._crowded(size)
            else "lag"
            if min(self._lags) > _LATE and len(self._lags) == _LOOKS
            else ""
        )
        if reason:
            raise _turned_away(reason, "this gateway is carrying all that it can; send it again", "overloaded")

    def _crowded(self, size: int) -> bool:
        """Would it, and what was let in already, take more memory than there is? What others have only promised to bring keeps out what is
        large alone: a few half-sent bodies must not shut out everybody's chats."""
        promised = self._brought if size > _SMALL else 0
        return bool(self._memory) and self._used + _GROWS * (promised + size) > _FULL * self._memory

    def _limit(self) -> None:
        """What the process has by itself is not to be shared out."""
        own = _resident()
        if self._memory and self._memory - own < _LEAST:
            log.error(
                "a worker's share of the memory is hardly more than it needs by itself: nothing is turned away for want of it",
                extra={"share": self._memory >> 20, "own": own >> 20},
            )
            self._memory = 0
        self._own, self._memory = own, max(0, self._memory - own)

    def exchange(self, size: int = 0) -> Served:
        """While one is served. Raises UpstreamError 503 where a shutdown ends it."""
        return Served(self, size)

    def begun(self, size: int) -> asyncio.Task[None]:
        """An exchange is served by this task."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self._brought += size
        return task

    def over(self, task: asyncio.Task[None], size: int) -> None:
        """It is served no more."""
        self._running.discard(task)
        self._brought -= size

    def ended(self, what: type[BaseException] | None) -> None:
        """Raises UpstreamError 503 where `what` ends an exchange because of a shutdown."""
        if what is None or not (self._cut and issubclass(what, asyncio.CancelledError)):
            return
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        raise UpstreamError(
            "this gateway is shutting down; send it again", code="gateway_draining", status=503
        ) from None

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Within an exchange, where its end has to be told in another way: the same, here."""
        try:
            yield
        except asyncio.CancelledError as e:
            self.ended(type(e))
            raise

    # ---- shutting down

    async def drain(self, seconds: float) -> None:
        """Take nothing more; return when the last exchange has ended, at the latest so many seconds from now and half of one."""
        self.draining = True
        await self._emptied(seconds)
        self._cut = True
        for task in list(self._running):
            task.cancel()
        await self._emptied(0.5)

    async def _emptied(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._running and loop.time() < end:
            await asyncio.sleep(0.02)

    # ---- how it goes

    async def watch(self) -> None:
        """Look at the loop and the memory, for as long as the process lives."""
        loop, looks = asyncio.get_running_loop(), 0
        if self._memory:
            self._limit()
        while True:
            due = loop.time() + _TICK
            await asyncio.sleep(_TICK)
            lag = max(0.0, loop.time() - due)
            self._lags.append(lag)
            metrics.LAG.set(lag)
            metrics.INFLIGHT.set(len(self._running))
            if self._memory:
                with contextlib.suppress(OSError):  # no descriptor left to look with: it is as it was
                    self._used = _resident() - self._own
                looks += 1
                if looks % 50 == 0 and self._crowded(0):
                    _give_back()


class Served:
    """An exchange, from its beginning to its end."""

    __slots__ = ("_load", "_size", "_task")

    def __init__(self, load: Load, size: int) -> None:
        self._load, self._size = load, size

    def __enter__(self) -> None:
        self._task = self._load.begun(self._size)

    def __exit__(self, what: type[BaseException] | None, e: BaseException | None, at: object) -> None:
        self._load.over(self._task, self._size)
        self._load.ended(what)


def _resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _turned_away(reason: str, message: str, code: str) -> RequestError:
    metrics.SHED.labels(reason).inc()
    return RequestError(f"{message} (服务繁忙，请稍后重试)", code=code, status=503, retry=1)


def _give_back() -> None:
    """Have the allocator return what it keeps for later (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
