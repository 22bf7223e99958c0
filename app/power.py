"""Power: what the gateway does to people's words, counted, so that it can be published. Per category the entries in force, and of the last
30 days how much was stopped, appealed and reversed; and how long moderation was not whole.

Law: numbers alone, never a term, a text or a pseudonym. Read when somebody asks, at most once a minute in a process, and never on a
request's path. What cannot be read is said to be missing, not shown as nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

from app import clock
from app.complaints import APPEALS, Complaints
from app.errors import StoreError
from app.store.client import Store, within
from app.store.tables import Row, Table
from app.taxonomy import taxonomy

DAYS = 30
FRESH = 60.0
"""Seconds for which figures are shown again."""
_AGAIN = 5.0
"""Seconds until a store that gave none is asked again."""
_PATIENCE = 5.0
_SETTLED = 50
"""Hours after which no process ships more about an hour."""
_AT_ONCE = 24
"""Hours that the store sums in one call."""
UNNAMED = "-"
"""No category: what was stopped because moderation was not available; an appeal about an answer nobody kept."""
_OBJECTIONS = (*APPEALS, "wrong_block")


class Power:
    """Reads and sums. `store`: None has no figures."""

    def __init__(self, store: Store | None, complaints: Complaints, entries: Table) -> None:
        self._store, self._complaints, self._entries = store, complaints, entries
        self._hours: dict[str, Counter[str]] = {}
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
                counts = await self._summed(self._store, now)
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
            "degraded_minutes": counts["degraded"],
            "live_entries": sum(live.values()),
            "blocked": sum(n for name, n in counts.items() if name.startswith("blocked.")),
            "appeals": sum(appeals.values()),
            "reversals": sum(upheld.values()),
            "categories": {id: line(id) for id in (*taxonomy(), UNNAMED)},
        }

    async def _summed(self, store: Store, now: float) -> Counter[str]:
        """All counts of the last days, and under `degraded` in how many minutes moderation was."""
        last = datetime.fromtimestamp(now, UTC)
        names = [(last - timedelta(hours=back)).strftime("%Y-%m-%dT%H") for back in range(DAYS * 24)]
        self._hours = {hour: self._hours[hour] for hour in names[_SETTLED:] if hour in self._hours}
        found = dict(self._hours)
        unknown = [hour for hour in names if hour not in found]
        for first in range(0, len(unknown), _AT_ONCE):
            some = unknown[first : first + _AT_ONCE]
            # Summed where they lie: of many processes they are many fields, and a loop that reads them all makes others wait.
            sums = await store.call("counted", [f"counters:{hour}" for hour in some], [])
            found |= {hour: Counter(json.loads(said)) for hour, said in zip(some, sums, strict=True)}
        self._hours = {hour: found[hour] for hour in names[_SETTLED:]}
        total: Counter[str] = Counter()
        for counts in found.values():
            total.update(counts)
        return total
