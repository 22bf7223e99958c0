"""The journal: one record per decision, JSON lines, a file per worker and day.

Law: ids, categories, offsets, counts and versions; never text, never a subject. Writing never delays a client: records
wait in memory (bounded) and a thread writes them every second. What cannot be written is dropped and counted.
Stated loss on SIGKILL: at most one second of records and `_SHIP` seconds of counters (a journal file has them still).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from app import clock, metrics, retention
from app.errors import StoreError
from app.keys import decision_time
from app.store import sweeps
from app.store.client import Store, ended

log = logging.getLogger("sluice.journal")

KEEP_DAYS = retention.seconds("journal") // retention.DAY
"""Six months and a week."""
_ROOM = 100_000
_SHIP = 5
"""Seconds between shipments of the hourly counters to the store."""
_LINE = 1200
"""Bytes of a record, about: how far back the last ones are looked for."""
COUNTERS_KEPT = retention.seconds("counters")
FIRST_MS = (50, 100, 250, 500, 1000, 2000, 5000, 10_000, 30_000)
"""Milliseconds until the first text of an answer, the model's own time with it: an answer counts at the first bound it keeps."""
HELD_MS = (0, 1, 5, 20, 50, 100, 250, 1000, 5000)
"""Milliseconds that the texts of an answer were held."""
_DEGRADED = "degraded:"
"""Before the number of a minute of the hour in which a detector failed or was late."""


def _counted(entry: dict[str, Any], now: float) -> Iterator[str]:
    """The names under which a record counts. `blocked.-`: stopped because moderation was not available, for no category."""
    prompt, answer = entry["prompt"], entry["answer"]
    yield from _usual(
        prompt["action"], answer["action"], (entry.get("identity") or _NOBODY).get("class", "none"), entry.get("label")
    )
    yield from {
        f"blocked.{side.get('category') or '-'}" for side in (prompt, answer) if side["action"] in ("replace", "block")
    }
    for kind in entry.get("notices") or ():
        yield f"notice.{kind}"
    if prompt.get("degraded") or answer.get("degraded"):
        yield f"{_DEGRADED}{int(now // 60 % 60)}"


_NOBODY: dict[str, str] = {}


@lru_cache(256)
def _usual(prompt: str, answer: str, identity: str, label: str | None) -> tuple[str, ...]:
    named = ("total", f"prompt.{prompt}", f"answer.{answer}", f"identity.{identity}")
    return (*named, f"label.{label}") if label else named


def _measured(entry: dict[str, Any]) -> Iterator[str]:
    """What a record says about how well the service ran."""
    for direction in ("prompt", "answer"):
        for name in entry[direction].get("degraded", ()):
            yield f"degraded.{name}"
    if (first := entry.get("first_ms")) is not None:
        yield _bound("first_ms", first, FIRST_MS)
    if (held := entry.get("held_ms")) is not None and entry["screened"]:
        yield _bound("held_ms", held, HELD_MS)


def _bound(name: str, value: float, bounds: tuple[int, ...]) -> str:
    at = bisect_left(bounds, value)
    return f"{name}.{bounds[at] if at < len(bounds) else 'more'}"


@lru_cache(4)
def _hour(at: int) -> str:
    """Its name, by the hours since the epoch."""
    return datetime.fromtimestamp(at * 3600, UTC).strftime("%Y-%m-%dT%H")


class Journal:
    """`folder`: where the files lie, 0700. `run`: a name unique to this process's life. `store`: where counters go."""

    def __init__(self, folder: Path, run: str, store: Store | None = None) -> None:
        self._folder, self._run, self._store = folder, run, store
        self._waiting: deque[bytes] = deque()
        self._task: asyncio.Task[None] | None = None
        self._swept = ""
        self._erased: int | None = None  # files that a sweep of which the store does not know has erased
        self._writing = threading.Lock()  # a flush may still run in its thread when `stop` asks for the last one
        self.counters: dict[str, dict[str, int]] = {}
        """Hour -> name -> count, cumulative within this run: shipping it again changes nothing."""
        self._unshipped: set[str] = set()

    def record(self, entry: dict[str, Any]) -> None:
        """Queue one decision record."""
        if len(self._waiting) >= _ROOM:
            metrics.JOURNAL_DROPPED.inc()
            return
        now = clock.now()
        self._waiting.append(orjson.dumps({"at": clock.stamp(now), **entry}) + b"\n")
        hour = _hour(int(now // 3600))
        counts = self.counters.setdefault(hour, {})
        for name in (*_counted(entry, now), *_measured(entry)):
            counts[name] = counts.get(name, 0) + 1
        self._unshipped.add(hour)
        if len(self.counters) > 48:
            oldest = min(self.counters)
            del self.counters[oldest]
            self._unshipped.discard(oldest)

    def flush(self) -> None:
        """Write what waits. Runs in a thread; failures are counted, never raised."""
        with self._writing:
            self._flush()

    def _flush(self) -> None:
        lines = list(self._waiting)
        day = clock.stamp()[:10]
        try:
            if lines:
                append(self._folder, self._run, b"".join(lines))
            if self._swept != day:
                self._swept = day
                self._erased = (self._erased or 0) + swept(self._folder, KEEP_DAYS)
        except OSError as e:
            metrics.JOURNAL_DROPPED.inc(len(lines))
            log.error("journal cannot be written", extra={"error": type(e).__name__, "dropped": len(lines)})
        # Only now: `find` looks at what waits first, so that a record is always in one place or the other.
        for _ in lines:
            self._waiting.popleft()

    async def start(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._task = asyncio.create_task(self._loop())

    async def _loop(self) -> None:
        for second in itertools.count(1):
            await asyncio.sleep(1)
            if self._waiting:
                await asyncio.to_thread(self.flush)
            if second % _SHIP == 0:
                await self._ship()

    async def _ship(self) -> None:
        """Set this run's counts of each changed hour in the store; what fails is shipped again."""
        if self._store is None:
            return
        if (erased := self._erased) is not None:
            self._erased = None
            try:
                await sweeps.ran(self._store, "journal", erased)
            except StoreError:
                self._erased = erased
        for hour in sorted(self._unshipped):
            # A degraded minute is one, however many processes and requests were in it.
            fields = [
                part
                for name, n in self.counters[hour].items()
                for part in ((name, 1) if name.startswith(_DEGRADED) else (f"{self._run}:{name}", n))
            ]
            key = self._store.key(f"counters:{hour}")
            self._unshipped.discard(hour)
            try:
                await self._store.run("HSET", key, *fields)
                await self._store.run("EXPIRE", key, COUNTERS_KEPT)
            except StoreError:
                self._unshipped.add(hour)
                return

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)
        await asyncio.to_thread(self.flush)
        await self._ship()

    def find(self, decision: str) -> dict[str, Any] | None:
        """The record of a decision, from any worker's file of its day. Raises ValueError for what is no id."""
        began = decision_time(decision)
        needle = f'"decision":"{decision}"'.encode()
        for line in list(self._waiting):
            if needle in line:
                return dict(orjson.loads(line))
        # An answer may be recorded on the day after its decision began.
        for day in {time.strftime("%Y-%m-%d", time.gmtime(began + shift)) for shift in (0, 3600)}:
            for file in self._folder.glob(f"{day}.*.jsonl"):
                with file.open("rb") as lines:
                    for line in lines:
                        if needle in line:
                            return dict(orjson.loads(line))
        return None


def recent(folder: Path, keep: Callable[[dict[str, Any]], bool], most: int, scan: int = 50_000) -> list[dict[str, Any]]:
    """The newest records of every process of this machine that `keep` wants, of the last `scan` at most. Blocks."""
    found: list[dict[str, Any]] = []
    seen = 0
    for day in sorted({file.name[:10] for file in folder.glob("*.jsonl")}, reverse=True):
        lines: list[bytes] = []
        for file in folder.glob(f"{day}.*.jsonl"):
            with contextlib.suppress(OSError):
                lines += _tail(file, scan - seen)
        rows = sorted((orjson.loads(line) for line in lines), key=lambda row: str(row["at"]), reverse=True)[
            : scan - seen
        ]
        seen += len(rows)
        found += [row for row in rows if keep(row)]
        if len(found) >= most or seen >= scan:
            break
    return found[:most]


def _tail(file: Path, most: int) -> list[bytes]:
    """The last lines of a file that are whole."""
    size = file.stat().st_size
    with file.open("rb") as f:
        f.seek(max(0, size - most * _LINE))
        part = f.read()
    lines = part.split(b"\n")
    return [line for line in lines[1 if size > most * _LINE else 0 : -1] if line][-most:]


def append(folder: Path, run: str, lines: bytes, *, sync: bool = False) -> None:
    """Add lines to today's file of a process; `sync`: they are on disk when this returns. Blocks. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / f"{clock.stamp()[:10]}.{run}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(fd, "ab") as f:
        f.write(lines)
        if sync:
            f.flush()
            os.fsync(f.fileno())


def swept(folder: Path, days: int) -> int:
    """Remove files older than so many days; how many they were."""
    oldest = (datetime.fromtimestamp(clock.now(), UTC) - timedelta(days=days)).strftime("%Y-%m-%d")
    old = [file for file in folder.glob("*.jsonl") if file.name[:10] < oldest]
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)
