"""Limits: how much an app, or one user, may ask in a minute, and how much at once, over all replicas.

Law: no request waits for the store: what others used is learnt a few times a second, so between two looks all processes together may let
a little more pass than is allowed; while the store is down each counts for itself. Only numbers under names are told, for two minutes.
(A sliding window of two counters, as Cloudflare describes it.)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app import clock, metrics
from app.errors import RequestError, StoreError
from app.store.client import Store, ended

_WINDOW = 60
_PAUSE = 0.25
"""Seconds between two looks."""
_DEAD = 5.0
"""Seconds after which a process that says nothing uses nothing."""
_AFTER = 2.0
"""Seconds for which a name is looked after once it was asked for."""
_NAMES = 65_536
_AT_ONCE = 500
"""Names of one call."""


class Meter:
    """`run`: a name unique to this process's life."""

    def __init__(self, store: Store | None, run: str) -> None:
        self._store, self._run = store, run
        self._minute = 0
        self._fresh: Counter[str] = Counter()  # not told yet
        self._known: dict[
            str, tuple[int, int]
        ] = {}  # name -> used in the minute before, in this one, as far as was told
        self._inside: Counter[str] = Counter()
        self._others: dict[str, int] = {}
        self._told: frozenset[str] = frozenset()
        self._wanted: dict[str, float] = {}  # name -> until when it is looked after, having been asked for
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._store is not None:
            self._task = asyncio.create_task(self._share(self._store))

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)

    def take(self, name: str, per_minute: int) -> None:
        """Count one. Raises RequestError 429 beyond the limit; 0 is none."""
        if not per_minute:
            return
        now = clock.now()
        minute = int(now // _WINDOW)
        if minute != self._minute:
            self._turn(minute)
        before, used = self._known.get(name, (0, 0))
        used += self._fresh[name]
        self._wanted[name] = now + _AFTER
        into = now % _WINDOW / _WINDOW
        if before * (1 - into) + used >= per_minute:
            metrics.LIMITED.labels("rate").inc()
            raise RequestError(
                f"more than {per_minute} requests a minute (请求过于频繁); send it again later",
                code="rate_limit_exceeded", status=429, retry=max(1, int(_WINDOW - now % _WINDOW) if used >= per_minute else 1),
            )  # fmt: skip
        self._fresh[name] += 1

    def _turn(self, minute: int) -> None:
        """A new minute: what was used in the last one is the one before, in any other nothing."""
        last = minute == self._minute + 1
        names = {*self._known, *self._fresh} if last else set()
        self._known = {n: (self._known.get(n, (0, 0))[1] + self._fresh[n], 0) for n in list(names)[:_NAMES]}
        self._fresh, self._minute = Counter(), minute

    @contextmanager
    def inside(self, name: str, most: int) -> Iterator[None]:
        """One at work, while the block runs. Raises RequestError 429 where so many are; 0 is no limit."""
        if not most:
            yield
            return
        self._wanted[name] = clock.now() + _AFTER
        if self._inside[name] + self._others.get(name, 0) >= most:
            metrics.LIMITED.labels("concurrency").inc()
            raise RequestError(
                f"more than {most} requests at once (并发过多); send it again later",
                code="rate_limit_exceeded", status=429, retry=1,
            )  # fmt: skip
        self._inside[name] += 1
        try:
            yield
        finally:
            self._inside[name] -= 1
            if not self._inside[name]:
                del self._inside[name]

    async def _share(self, store: Store) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            if self._minute and (minute := int(clock.now() // _WINDOW)) != self._minute:
                self._turn(minute)
            # What was used, is at work, was at work, or was asked for and refused: the rest is as it was.
            names = sorted({*self._fresh, *self._wanted, *self._inside, *self._told})
            minute, fresh, self._fresh = self._minute, self._fresh, Counter()
            now = clock.now()
            self._wanted = {name: until for name, until in self._wanted.items() if until > now}
            self._told = frozenset(self._inside)
            for at in range(0, len(names), _AT_ONCE):
                try:
                    await self._tell(store, minute, names[at : at + _AT_ONCE], fresh)
                except StoreError:
                    # Whether it was counted is not known: rather too little than twice.
                    break

    async def _tell(self, store: Store, minute: int, names: list[str], fresh: Counter[str]) -> None:
        args: list[str | int] = [self._run, f"{clock.now():.3f}", int(_DEAD), 3 * _WINDOW]
        for name in names:
            args += [name, fresh[name], self._inside[name]]
        said = await store.call("meter", [f"meter:{minute - 1}", f"meter:{minute}", "meter:inside"], args)
        for name, before, used, others in zip(names, said[::3], said[1::3], said[2::3], strict=True):
            if minute == self._minute:
                self._known[name] = int(before), int(used)
            self._others[name] = int(others)
            if not int(others):
                del self._others[name]
