"""Keyed traces of delivered answers, for apps that ask for them (policy: reports.deliveries).

Law: opt-in; kept for KEPT days at most; only MACs and counts, under a key of their own, never joined to a subject, a decision or a time
finer than a day. They say two things of a passage that somebody reports: that it was delivered, though no receipt is at hand, and about
how often. What cannot be written is dropped and counted; no answer waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

from app import clock, metrics, retention
from app.clean import RUN, hashes
from app.errors import StoreError
from app.keys import Keys
from app.passages import compact
from app.store.client import Store, ended
from app.text import fold

log = logging.getLogger("sluice.deliveries")

KEPT = retention.seconds("deliveries") // retention.DAY
"""Days."""
_EVERY = 4
"""One run of letters in so many leaves a trace: a passage of 40 letters has none once in a thousand."""
_MOST = 128
"""Traces of one answer."""
_ROOM = 50_000
"""Traces that wait to be written."""
_PAUSE = 0.5
"""Seconds between two writes."""


class Deliveries:
    """`store`: None keeps nothing."""

    def __init__(self, store: Store | None, keys: Keys) -> None:
        self._store, self._keys = store, keys
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._store is not None:
            self._task = asyncio.create_task(self._write(self._store))

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)

    def delivered(self, app: str, text: str) -> None:
        """Remember that `text` was delivered. Never waits."""
        if self._store is None:
            return
        marks = self._marks(app, text, _MOST, self._keys.kid)
        if len(self._waiting) + len(marks) > _ROOM:
            metrics.DELIVERIES_DROPPED.inc(len(marks))
            return
        day = _day(0)
        self._waiting.update((f"deliveries:{app}:{day}", mark) for mark in marks)

    async def count(self, app: str, passage: str) -> int | None:
        """About how often `passage` was delivered in the last days; None where its traces do not show that it was. Raises StoreError."""
        if self._store is None:
            return None
        under = [self._marks(app, passage, _MOST * 8, kid) for kid in self._keys.kids]
        if not under[0]:
            return None
        days = [self._store.key(f"deliveries:{app}:{_day(back)}") for back in range(KEPT)]
        found = await asyncio.gather(*(self._store.run("HMGET", day, *marks) for day in days for marks in under))
        total = [sum(int(n or 0) for n in mark) for mark in zip(*found, strict=True)]
        if sum(n > 0 for n in total) < 0.8 * len(total):
            return None
        return min(n for n in total if n)

    def _marks(self, app: str, text: str, most: int, kid: str) -> list[str]:
        dense = compact(fold(text))
        chosen = [at for at, h in enumerate(hashes(dense)) if (int(h) >> 32) % _EVERY == 0][:most]
        runs = dict.fromkeys(dense[at : at + RUN] for at in chosen)
        return [self._keys.mac("delivery", app, run, kid=kid)[:8].hex() for run in runs]

    async def _write(self, store: Store) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            waiting, self._waiting = self._waiting, Counter()
            counts = list(waiting.items())
            for at in range(0, len(counts), 500):
                part = counts[at : at + 500]
                names = sorted({name for (name, _), _ in part})
                args: list[str | int] = [(KEPT - 1) * 86400]
                for (name, mark), n in part:
                    args += [names.index(name) + 1, mark, n]
                try:
                    await store.call("count", names, args)
                except StoreError as e:
                    metrics.DELIVERIES_DROPPED.inc(len(part))
                    log.error("traces of answers not kept", extra={"error": type(e).__name__, "dropped": len(part)})


def _day(back: int) -> str:
    return (datetime.fromtimestamp(clock.now(), UTC) - timedelta(days=back)).strftime("%Y%m%d")
