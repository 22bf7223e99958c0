"""Power: what the gateway does to people's words, counted, so that it can be published. Per category the entries in force, and of the last
30 days how much was stopped, appealed and reversed; and how long moderation was not whole.

Law: numbers alone, never a term, a text or a pseudonym. Read when somebody asks, at most once a minute in a process, and never on a
request's path. What cannot be read is said to be missing, not shown as nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from app import clock
from app.complaints import APPEALS, Complaints
from app.errors import StoreError
from app.journal import DEGRADED
from app.policy import taxonomy
from app.store.client import Store, within
from app.store.tables import Row, Table

DAYS = 30
FRESH = 60.0
"""Seconds for which figures are shown again."""
_AGAIN = 5.0
"""Seconds until a store that gave none is asked again."""
_PATIENCE = 5.0
_SETTLED = 50
"""Hours after which no process ships more about an hour."""
UNNAMED = "-"
"""No category: what was stopped because moderation was not available; an appeal about an answer nobody kept."""
_OBJECTIONS = (*APPEALS, "wrong_block")

_Counts = tuple[Counter[str], frozenset[int]]


class Power:
    """Reads and sums. `store`: None has no figures."""

    def __init__(self, store: Store | None, complaints: Complaints, entries: Table) -> None:
        self._store, self._complaints, self._entries = store, complaints, entries
        self._hours: dict[str, _Counts] = {}
        self._turn = asyncio.Lock()
        self._known: Row | None = None
        self._until = 0.0

    async def figures(self) -> Row | None:
        """Those of a minute ago at most; None where the store does not give them."""
        async with self._turn:
            now = clock.now()
            # A clock that was set back must not keep old figures for ever.
            if not 0 < self._until - now <= FRESH:
                self._known = await self._read(now)
                self._until = now + (FRESH if self._known is not None else _AGAIN)
            return self._known

    async def _read(self, now: float) -> Row | None:
        if self._store is None:
            return None
        try:
            async with within(_PATIENCE):
                counts, degraded = await self._summed(self._store, now)
                matters = await self._complaints.since(now - DAYS * 86400)
        except StoreError:
            return None
        objections = [m for m in matters if m.kind in _OBJECTIONS]
        appeals = Counter(m.category or UNNAMED for m in objections)
        upheld = Counter(m.category or UNNAMED for m in objections if m.state == "upheld")
        rows = await asyncio.to_thread(self._entries.rows)
        live = Counter(str(row["category"]) for row in rows)
        total = counts["total"]

        def line(id: str) -> Row:
            stopped = counts[f"blocked.{id}"]
            rate = round(stopped * 10_000 / total, 2) if total else None
            return {
                "live_entries": live[id], "blocked": stopped, "per_10000": rate, "appeals": appeals[id], "reversals": upheld[id],
            }  # fmt: skip

        return {
            "at": clock.stamp(now),
            "days": DAYS,
            "requests": total,
            "degraded_minutes": degraded,
            "live_entries": sum(live.values()),
            "blocked": sum(n for name, n in counts.items() if name.startswith("blocked.")),
            "appeals": sum(appeals.values()),
            "reversals": sum(upheld.values()),
            "categories": {id: line(id) for id in (*taxonomy(), UNNAMED)},
        }

    async def _summed(self, store: Store, now: float) -> tuple[Counter[str], int]:
        """All counts of the last days, and in how many minutes moderation was degraded."""
        last = datetime.fromtimestamp(now, UTC)
        names = [(last - timedelta(hours=back)).strftime("%Y-%m-%dT%H") for back in range(DAYS * 24)]
        self._hours = {hour: self._hours[hour] for hour in names[_SETTLED:] if hour in self._hours}
        total: Counter[str] = Counter()
        minutes = 0
        for back, hour in enumerate(names):
            found = self._hours.get(hour)
            if found is None:
                found = _hour(await store.run("HGETALL", store.key(f"counters:{hour}")))
                if back >= _SETTLED:
                    self._hours[hour] = found
            total.update(found[0])
            minutes += len(found[1])
        return total, minutes


def _hour(fields: Any) -> _Counts:
    """One hour of all processes: `<run>:<name>` -> count, and a field for each degraded minute."""
    pairs = fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
    counts: Counter[str] = Counter()
    minutes: set[int] = set()
    for name, n in pairs:
        if name.startswith(DEGRADED):
            minutes.add(int(name.removeprefix(DEGRADED)))
        else:
            counts[name.partition(":")[2]] += int(n)
    return counts, frozenset(minutes)
