"""Whether the service was there: minute by minute in the hour's counters, and what an export makes of them.

Law: a minute in which the parent did not live, or could not tell the store within a week, is a gap and shown as one, never as uptime; a
minute counts as ready where every look within it found all workers ready. Counts and times only. (Draft Measures, Article 14.)

The hour's hash holds `minutes:<replica>`, 60 characters: `r` ready, `u` up and not ready, `.` not seen; and `restarts:<replica>:<run>`.
A character a minute, for a field a minute would cost a replica's 400 days a hundred megabytes of the store's memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app import clock
from app.errors import StoreError
from app.journal import COUNTERS_KEPT, FIRST_MS, HELD_MS
from app.store.client import Store
from app.store.tables import Row

log = logging.getLogger("sluice.uptime")

PAUSE = 5.0
"""Seconds between two looks."""
WINDOWS = (30, 90, 180)
"""Days."""
_WAITING = 7 * 1440
"""Minutes that wait for the store at most."""
_HOURS = 7 * 24
"""Hours read at once."""
Hours = Sequence[tuple[int, Mapping[str, str]]]
"""(hours since the epoch, the fields of its hash), oldest first."""


def _key(hour: int) -> str:
    return f"counters:{datetime.fromtimestamp(hour * 3600, UTC):%Y-%m-%dT%H}"


class Minutes:
    """`ready`: whether all workers are, and how often one was started again. `replica`: the name of this one."""

    def __init__(self, store: Store, ready: Callable[[], tuple[bool, Row]], replica: str) -> None:
        self._store, self._ready, self._replica, self._run = store, ready, replica, secrets.token_hex(4)
        self._minute, self._seen = -1, ""
        self._waiting: dict[int, str] = {}
        self._restarts: dict[int, int] = {}
        self._told = 0

    async def run(self) -> None:
        while True:
            self.look()
            try:
                await self.ship()
            except StoreError:
                pass  # told by the store itself
            except Exception as e:
                log.error("minutes were not written down", extra={"error": type(e).__name__})
            await asyncio.sleep(PAUSE)

    def look(self) -> None:
        """See how things are in this minute."""
        ready, state = self._ready()
        minute = int(clock.now() // 60)
        seen = "u" if not ready or (minute == self._minute and self._seen == "u") else "r"
        if (minute, seen) != (self._minute, self._seen):
            self._minute, self._seen = minute, seen
            self._waiting[minute] = seen
            if len(self._waiting) > _WAITING:
                del self._waiting[next(iter(self._waiting))]
        if (more := state["worker_restarts"] - self._told) > 0:
            self._told += more
            hour = minute // 60
            self._restarts = {h: n for h, n in self._restarts.items() if h >= hour - _WAITING // 60}
            self._restarts[hour] = self._restarts.get(hour, 0) + more
            self._waiting.setdefault(minute, seen)

    async def ship(self) -> None:
        """Tell the store what it does not know yet. Raises StoreError."""
        field = f"minutes:{self._replica}"
        for hour in sorted({minute // 60 for minute in self._waiting}):
            mine = {m: seen for m, seen in self._waiting.items() if m // 60 == hour}
            key = self._store.key(_key(hour))
            line = list(str(await self._store.run("HGET", key, field) or "." * 60))
            for minute, seen in mine.items():
                # What another life of this parent saw in the same minute counts too.
                line[minute % 60] = "u" if "u" in (seen, line[minute % 60]) else seen
            fields: list[str | int] = [field, "".join(line)]
            if hour in self._restarts:
                fields += [f"restarts:{self._replica}:{self._run}", self._restarts[hour]]
            await self._store.run("HSET", key, *fields)
            await self._store.run("EXPIRE", key, COUNTERS_KEPT)
            for minute, seen in mine.items():
                if self._waiting.get(minute) == seen:
                    del self._waiting[minute]


async def read(store: Store, now: float) -> Hours:
    """The counters of the longest window. Raises StoreError."""
    last = int(now // 3600)
    wanted = range(last - WINDOWS[-1] * 24, last + 1)
    found: list[tuple[int, Mapping[str, str]]] = []
    for at in range(0, len(wanted), _HOURS):
        some = wanted[at : at + _HOURS]
        flat = await store.call("hashes", [_key(hour) for hour in some], [])
        found += [(hour, dict(zip(f[::2], f[1::2], strict=True))) for hour, f in zip(some, flat, strict=True) if f]
    return found


def figures(hours: Hours, now: float) -> Row:
    """What the counters say of each window, up to `now`."""
    return {"replicas": _replicas(hours, now)} | {
        f"last_{days}_days": _window([fields for hour, fields in hours if hour >= int(now // 3600) - days * 24])
        for days in WINDOWS
    }


def counted(hours: Hours, now: float, days: int, kind: str) -> Row:
    """The counters `<kind>.<name>` of so many days, by name."""
    total: Counter[str] = Counter()
    for hour, fields in hours:
        if hour >= int(now // 3600) - days * 24:
            for name, value in fields.items():
                what = name.partition(":")[2]
                if what.startswith(f"{kind}."):
                    total[what.partition(".")[2]] += int(value)
    return dict(sorted(total.items()))


def _window(hashes: Iterable[Mapping[str, str]]) -> Row:
    total: Counter[str] = Counter()
    for fields in hashes:
        for name, value in fields.items():
            run, _, what = name.partition(":")
            if run == "restarts":
                total["restarts"] += int(value)
            elif what.startswith(("degraded.", "first_ms.", "held_ms.")):
                total[what] += int(value)
    return {
        "worker_restarts": total["restarts"],
        "degraded": {k.removeprefix("degraded."): n for k, n in sorted(total.items()) if k.startswith("degraded.")},
        "first_text_ms": _spread(total, "first_ms", FIRST_MS),
        "held_ms": _spread(total, "held_ms", HELD_MS),
    }


def _spread(total: Counter[str], name: str, bounds: Sequence[int]) -> Row:
    """Bounds that half and 95% of the answers stay within; None: beyond the last one."""
    counts = [total[f"{name}.{bound}"] for bound in bounds]
    of = sum(counts) + total[f"{name}.more"]
    told: dict[str, int | None] = {}
    for share in (50, 95):
        reached = [bound for n, bound in enumerate(bounds) if of and sum(counts[: n + 1]) * 100 >= of * share]
        told[f"p{share}_at_most"] = reached[0] if reached else None
    return {"answers": of, **told}


def _replicas(hours: Hours, now: float) -> dict[str, Any]:
    lines: dict[str, dict[int, str]] = {}
    for hour, fields in hours:
        for name, value in fields.items():
            what, _, replica = name.partition(":")
            if what == "minutes":
                lines.setdefault(replica, {})[hour] = value
    return {replica: _replica(found, int(now // 60)) for replica, found in sorted(lines.items())}


def _replica(found: Mapping[int, str], until: int) -> Row:
    first = min(found)
    whole = "".join(found.get(hour, "." * 60) for hour in range(first, until // 60 + 1))[: until + 1 - first * 60]
    if whole.endswith("."):
        whole = whole[:-1]  # this minute has only begun
    begin = len(whole) - len(whole.lstrip("."))
    told: Row = {
        "first_seen": clock.stamp((first * 60 + begin) * 60),
        "last_seen": clock.stamp((first * 60 + len(whole.rstrip(".")) - 1) * 60),
    }
    for days in WINDOWS:
        line = whole[max(begin, len(whole) - days * 1440) :]
        gaps = [len(gap) for gap in re.findall(r"\.+", line)]
        told[f"last_{days}_days"] = {
            "minutes": len(line), "seen": len(line) - sum(gaps), "ready": line.count("r"), "not_seen": sum(gaps),
            "gaps": len(gaps), "longest_gap": max(gaps, default=0),
        }  # fmt: skip
    return told
