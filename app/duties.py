"""What time brings about: holds lapse, cases fall due, alerts go out, evidence is erased.

Law: time closes nothing and lowers nothing that was confirmed; it only shows. Nothing falls due by a clock that cannot be trusted:
where ours and the store's differ by more than a few seconds, all of it waits, visibly. Every step is a commit like a person's, so that
two replicas that sweep at once do it once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import replace
from typing import Any

from app import clock, deadlines, history, metrics, remediation, retention, strictjson
from app.agreements import Agreements
from app.complaints import Matter
from app.errors import Conflict, StoreError, UpstreamError
from app.outbound import Outbound, target
from app.remediation import DUTY, Case
from app.store import sweeps
from app.store.cases import Cases, Writes
from app.store.queue import Queue
from app.store.tables import gone
from app.subjects import Subjects

log = logging.getLogger("sluice.duties")

PAUSE = 5.0
"""Seconds between two sweeps."""
APART = 5.0
"""Seconds that two clocks may differ."""
ALERTS = (30, 14, 3)
"""Days left at which an alert goes out; one more when a case is overdue."""
ERASED = retention.seconds("comments")
"""Seconds after the end of a case at which comments are erased, and where it is not probed again, the evidence."""
_NAMED = retention.seconds("reporters")
_SWEPT = 3600.0
"""Seconds between two looks for names whose time is over: every ticket is looked at."""
_COUNTED = 60.0
"""Seconds between two counts of all that is open: there may be many."""
_AT_ONCE = 200
"""Cases of one kind that one sweep moves."""


class Duties:
    """`url`, `key`: where alerts are posted. `subjects`, `agreements`: of whom something is kept for a time."""

    def __init__(
        self,
        cases: Cases,
        url: str | None = None,
        key: str | None = None,
        subjects: Subjects | None = None,
        agreements: Agreements | None = None,
    ) -> None:
        self._subjects, self._agreements = subjects, agreements
        self._cases, self._target = cases, target(url) if url else None
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._outbound = Outbound(3.0, 5.0, 5.0)
        self._queue = Queue(cases)
        self._gauged = self._swept = 0.0

    async def start(self) -> None:
        await self._outbound.start()

    async def stop(self) -> None:
        await self._outbound.close()

    async def run(self) -> None:
        await self.start()
        try:
            while True:
                try:
                    await self.sweep()
                except StoreError:
                    pass  # told by the store itself
                except Exception as e:
                    log.error("a sweep failed", extra={"error": type(e).__name__})
                await asyncio.sleep(PAUSE)
        finally:
            await self.stop()

    async def sweep(self) -> None:
        """Do what is due now. Raises StoreError."""
        await self._queue.mend()
        now = clock.now()
        suspect = abs(await self._cases.now() - now) > APART
        metrics.CLOCK_SUSPECT.set(suspect)
        if suspect:
            log.error("this clock and the store's differ; nothing falls due until they agree")
            return
        for case in await self._of("lapse", now):
            await self._lapse(case, now)
        await self._erase(now)
        for case in await self._of("due", now + (ALERTS[0] + 1) * 86400):
            if case.state in remediation.TABLE["fall_due"].here and now > case.due:
                case = await self._moved(case, remediation.moved(case, "fall_due", now), "fall_due") or case
            await self._alert(case, now)
        if now - self._gauged >= _COUNTED or now < self._gauged:
            self._gauged = now
            await self._gauges(now)

    async def _erase(self, now: float) -> None:
        """Erase what has been kept for its time (app.retention)."""
        erased: Counter[str] = Counter()
        for case in await self._of("comments", now - ERASED):
            writes = Writes()
            writes.erase(f"comments:{case.id}")
            erased["comments"] += bool(
                await self._moved(case, replace(case, comments=False), "erase", writes, part="comments")
            )
        for case in await self._of("evidence", now - ERASED):
            writes = Writes()
            writes.drop("evidence", case.id)
            writes.drop("evidence", f"{case.id}/probe")
            after = replace(case, evidence=False, prompted=False, next_probe=None)
            erased["evidence"] += bool(await self._moved(case, after, "erase", writes, part="evidence"))
        swept = list(erased)
        if now - self._swept >= _SWEPT or now < self._swept:
            erased["reporters"] += await self._unnamed(now)
            erased["matters_reporters"] += await self._unsigned(now)
            erased["holds"] += await self._ended_holds()
            erased["history"] += await history.forget(self._cases, now)
            swept = ["comments", "evidence", "reporters", "matters_reporters", "holds", "history"]
            if self._subjects is not None and self._agreements is not None:
                erased["standings"] = await self._subjects.forget(now)
                erased["agreements"], erased["unlabelled"] = await self._agreements.forget()
                swept += ["standings", "agreements", "unlabelled"]
            self._swept = now
        for name in swept:
            await sweeps.ran(self._cases.store, name, erased[name])

    async def _unnamed(self, now: float) -> int:
        """Forget who reported, in cases that ended long ago and in the tickets of their reports."""
        cases = await self._of("reporters", now - _NAMED)
        tickets: dict[str, dict[str, Any]] = {case.id: {} for case in cases}
        if not cases:
            return 0
        async for id, raw in self._cases.scan("tickets"):
            row = json.loads(raw)
            if row["reporter"] and row["case"] in tickets:
                tickets[row["case"]][id] = row | {"reporter": ""}
        gone = 0
        for case in cases:
            writes = Writes()
            for id, row in tickets[case.id].items():
                writes.set("tickets", id, json.dumps(row))
            gone += bool(await self._moved(case, remediation.unnamed(case), "erase", writes, part="reporters"))
        return gone

    async def _unsigned(self, now: float) -> int:
        """Forget whose the complaints and appeals were that were answered long ago."""
        gone = 0
        for id in (await self._cases.members("matters:answered", now - _NAMED))[:_AT_ONCE]:
            raw = await self._cases.field("matters", id)
            writes = Writes()
            writes.score("matters:answered", id, None)
            if raw is not None:
                matter = Matter.of(raw)
                writes.row("matters", id, matter.version, replace(matter, reporter="").row())
            try:
                await self._cases.commit(
                    writes, {"who": "time", "what": "erase", "matter": id, "part": "matters_reporters"}
                )
            except Conflict:
                continue
            gone += 1
        return gone

    async def _ended_holds(self) -> int:
        """Take away the names in entries that acted for a reporter alone and have expired."""
        entries = self._cases.entries
        await entries.refresh()
        ended = [row["id"] for row in entries.expired('"readers"')][:_AT_ONCE]
        writes = Writes()
        for id in ended:
            writes.table(entries, id, gone(id), self._cases.changed())
        if ended:
            await self._cases.commit(writes, {"who": "time", "what": "erase", "entries": ended, "part": "holds"})
        return len(ended)

    async def _of(self, index: str, until: float) -> list[Case]:
        return await self._cases.several(await self._cases.index(index, until, _AT_ONCE))

    async def _moved(
        self, case: Case, after: Case, what: str, writes: Writes | None = None, **more: Any
    ) -> Case | None:
        """One step; None where somebody else was first."""
        writes = writes or Writes()
        writes.case(case, after)
        event = {"who": "time", "what": what, "case": case.id, "from": case.state, "to": after.state, **more}
        try:
            await self._cases.commit(writes, event)
        except Conflict:
            return None
        return replace(after, version=case.version + 1)

    async def _lapse(self, case: Case, now: float) -> None:
        writes = Writes()
        for id in case.entries:
            writes.table(self._cases.entries, id, gone(id), self._cases.changed())
        after = replace(remediation.moved(case, "lapse", now), entries=())
        if await self._moved(case, after, "lapse", writes):
            metrics.HOLDS.labels("lapsed").inc()

    async def _alert(self, case: Case, now: float) -> None:
        left = deadlines.days_left(case.due, now)
        kind = "overdue" if now > case.due else next((str(n) for n in sorted(ALERTS) if left <= n), None)
        if kind is None or kind in case.alerted or case.state not in DUTY:
            return
        if self._target is not None and not await self._post(case, kind, left):
            metrics.ALERTS.labels(kind, "failed").inc()
            return
        metrics.ALERTS.labels(kind, "sent" if self._target is not None else "shown").inc()
        # Those that would have come before say no more.
        passed = [str(n) for n in ALERTS if kind == "overdue" or n >= int(kind)]
        told = tuple(dict.fromkeys((*case.alerted, *passed, kind)))
        await self._moved(case, replace(case, alerted=told), "alert", kind=kind)

    async def _post(self, case: Case, kind: str, left: int) -> bool:
        assert self._target is not None
        body = {
            "kind": kind, "case": case.id, "app": case.app, "category": case.category, "state": case.state,
            "due": clock.stamp(case.due), "days_left": left,
        }  # fmt: skip
        try:
            reply = await self._outbound.open("POST", self._target, self._headers, strictjson.dumps(body))
            reply.close()
        except UpstreamError as e:
            log.error("alert not sent, it is tried again", extra={"case": case.id, "error": e.code})
            return False
        if reply.status >= 300:
            log.error("alert not taken, it is tried again", extra={"case": case.id, "status": reply.status})
            return False
        return True

    async def _gauges(self, now: float) -> None:
        store = self._cases.store
        for state in sorted(remediation.UNDECIDED | DUTY):
            metrics.CASES.labels(state).set(int(await store.run("ZCARD", store.key(f"cases:state:{state}"))))
        due, counted = store.key("cases:due"), 0
        bounds = {"overdue": f"({now:.3f}"} | {str(n): f"{deadlines.day_end(now, n):.3f}" for n in sorted(ALERTS)}
        for key, bound in (bounds | {"later": "+inf"}).items():
            until = int(await store.run("ZCOUNT", due, "-inf", bound))
            metrics.CASES_DUE.labels(key).set(until - counted)
            counted = until
