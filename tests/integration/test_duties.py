"""What time brings about, with the clock moved by hand and a real store: holds lapse visibly, cases fall due, alerts go out once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from app import clock, metrics, remediation
from app.apps import App
from app.clean import Clean
from app.deadlines import SHANGHAI
from app.deliveries import Deliveries
from app.duties import Duties
from app.keys import Keys
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.policyfile import Rules
from app.remediation import Case
from app.reports import Report, Reports, Sender, entry
from app.review import Review
from app.store.cases import Cases, Writes, broken
from app.store.client import Store
from app.store.tables import Entries, Shadows
from app.web import asgi
from tests.conftest import SECRET, RedisServer, served
from tests.integration.test_reports import PASSAGE

DAY = 86400.0


class Clock:
    """Ours and the store's, moved together; the store's real one stays where it is."""

    def __init__(self) -> None:
        import time

        self.shift = 0.0
        self._time = time.time
        clock.use(lambda: self._time() + self.shift)

    def move(self, days: float) -> None:
        self.shift += days * DAY


class House(NamedTuple):
    """All that stands behind the ports, in one process."""

    cases: Cases
    reports: Reports
    review: Review
    duties: Duties
    entries: Entries
    clock: Clock

    async def report(self, text: str = PASSAGE, **more: Any) -> Case:
        sender = Sender(App("default", "default"), "", (), "here")
        taken = await self.reports.receive(Report(text, **more), sender)
        return await self.review.find(str(taken["ticket"]))

    async def audit(self) -> list[dict[str, Any]]:
        rows = await self.cases.audit()
        assert broken(rows, await self.cases.head()) is None
        return [orjson.loads(raw) for raw in rows]


class Told(Cases):
    """Cases whose store has the clock of the test."""

    async def now(self) -> float:
        return clock.now()


@asynccontextmanager
async def house(
    server: RedisServer, folder: Path, url: str | None = None, cases: type[Cases] = Told
) -> AsyncIterator[House]:
    store, keys, moved = Store(server.url, "duties"), Keys(SECRET), Clock()
    policies = Policies(Policy(Rules(), "draft_2023_04", "test"), {})
    entries = Entries(store, folder, lambda rows, version, whole: None)
    shadows = Shadows(store, folder, lambda rows, version, whole: None)
    kept = cases(store, entries)
    await entries.refresh()
    reports = Reports(kept, keys, Moderator([], policies), Clean.of([]), Deliveries(None, keys))
    duties = Duties(kept, url)
    await duties.start()
    try:
        yield House(kept, reports, Review(kept, keys, Clean.of([]), shadows), duties, entries, moved)
    finally:
        await duties.stop()
        await store.close()


@pytest.fixture
def alerts() -> Iterator[tuple[str, list[Any]]]:
    heard: list[Any] = []

    async def hook(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        body = orjson.loads(await asgi.read_body(receive, asgi.headers(scope), 1 << 20))
        heard.append(body)
        await asgi.respond(send, 500 if len(heard) == 1 else 204, b"")

    with served(hook) as port:
        yield f"http://127.0.0.1:{port}/alerts", heard


def test_alerts_go_out_once_at_30_14_and_3_days_and_when_overdue_and_nothing_is_closed(
    redis_server: RedisServer, tmp_path: Path, alerts: tuple[str, list[Any]]
) -> None:
    url, heard = alerts

    async def story() -> None:
        async with house(redis_server, tmp_path, url) as h:
            case = await h.report()
            await h.review.decide(case.id, "confirm", "anna", {"reason": "r"})
            due = (await h.review.find(case.id)).due
            await h.duties.sweep()
            assert heard == []
            left = (due - clock.now()) / DAY
            for days in (30.5, 29, 20, 13, 2, -1, -400):
                h.clock.move(left - days)
                left = days
                await h.duties.sweep()
                await h.duties.sweep()
            told = [(a["kind"], a["days_left"]) for a in heard]
            assert [kind for kind, _ in told] == ["30", "30", "14", "3", "overdue"], (
                "the first was not taken, and was sent again"
            )
            late = await h.review.find(case.id)
            assert (late.state, late.due) == ("overdue", due) and late.fingerprint is not None
            await h.entries.refresh()
            assert h.entries.get(late.entries[0]) is not None, "nothing that is confirmed ends by time"
            assert metrics.CASES_DUE.labels("overdue")._value.get() == 1
            done = await h.review.decide(case.id, "except", "anna", {"reason": "r", "role": "legal"})
            assert done["state"] == "excepted"
            assert [r["what"] for r in await h.audit()] == [
                "report", "confirm", "alert", "alert", "alert", "fall_due", "alert", "except"
            ]  # fmt: skip

    asyncio.run(story())


def test_what_was_held_lapses_visibly_and_is_not_held_again(redis_server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            case = await h.report()
            held = remediation.moved(replace(case, proved=True), "hold", clock.now())
            row = entry(held, {"app": "default", "directions": ["answer"]}, "report", expires=clock.now() + 3 * DAY)
            held = replace(held, lapses=clock.now() + 3 * DAY, entries=(row["id"],))
            writes = Writes()
            writes.table(h.entries, row["id"], row, h.cases.changed())
            writes.case(case, held)
            await h.cases.commit(writes, {"who": "test", "what": "hold", "case": case.id})
            await h.entries.refresh()
            h.clock.move(2.9)
            await h.duties.sweep()
            assert (await h.review.find(case.id)).state == "provisional" and len(h.entries.rows()) == 1
            h.clock.move(0.2)
            await h.duties.sweep()
            await h.entries.refresh()
            after = await h.review.find(case.id)
            assert (after.state, after.lapsed, after.entries) == ("verified", True, ()) and h.entries.rows() == []
            assert (await h.audit())[-1]["what"] == "lapse"

    asyncio.run(story())


def test_evidence_and_comments_are_erased_a_month_after_the_end_and_the_case_stays(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            rejected = await h.report(comment="c", prompt="p")
            closed = await h.report(PASSAGE + "另一段", comment="c", prompt="p")
            await h.review.decide(rejected.id, "reject", "anna", {"reason": "r"})
            await h.review.decide(closed.id, "confirm", "anna", {"reason": "r"})
            await h.review.decide(closed.id, "except", "anna", {"reason": "r", "role": "legal"})
            h.clock.move(29)
            await h.duties.sweep()
            assert (await h.review.evidence(rejected.id, "anna"))["prompt"] == "p"
            h.clock.move(2)
            await h.duties.sweep()
            assert await h.review.evidence(rejected.id, "anna") == {"case": rejected.id}
            one, other = await h.review.find(rejected.id), await h.review.find(closed.id)
            assert not (one.evidence or one.comments or other.comments) and other.evidence, (
                "a closed case is probed again"
            )
            h.clock.move(365)
            await h.duties.sweep()
            assert not (await h.review.find(closed.id)).evidence
            store = h.cases.store
            for key in ("evidence", f"comments:{one.id}", f"comments:{other.id}"):
                assert not await store.run("EXISTS", store.key(key))

    asyncio.run(story())


def test_by_a_clock_that_cannot_be_trusted_nothing_falls_due(redis_server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path, cases=Cases) as h:
            case = await h.report()
            await h.review.decide(case.id, "confirm", "anna", {"reason": "r"})
            due = (await h.review.find(case.id)).due
            for days in (100, -110, 4000):
                h.clock.move(days)
                await h.duties.sweep()
                found = await h.review.find(case.id)
                assert (found.state, found.due) == ("confirmed", due)
                assert metrics.CLOCK_SUSPECT._value.get() == 1
                more = await h.report()
                assert (more.id, more.due) == (case.id, due), "the first report's date, whatever the clock says"
            h.clock.shift = 0
            await h.duties.sweep()
            assert metrics.CLOCK_SUSPECT._value.get() == 0

    asyncio.run(story())


def test_the_interim_measures_take_the_operators_period(redis_server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            rules = Rules(reports={"months": 6})  # type: ignore[arg-type]
            h.reports._moderator.policies = Policies(Policy(rules, "interim_2023_08", "test"), {})
            case = await h.report()
            assert case.rule.startswith("interim_2023_08:") and case.rule.endswith(f"+P6M@{SHANGHAI.tzname(None)}")

    asyncio.run(story())


class Slow:
    """A guard that takes longer than a report may wait for the store."""

    name, version, covers = "slow", "1", frozenset({"violence"})

    async def judge(self, text: str, since: int, scope: Any) -> list[Any]:
        await asyncio.sleep(1.8)
        return []


def test_a_slow_guard_keeps_no_report_out(redis_server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            policies = Policies(Policy(Rules(guard={"when": "always"}), "draft_2023_04", "test"), {})  # type: ignore[arg-type]
            h.reports._moderator = Moderator([], policies, guards=[Slow()])
            assert (await h.report()).state == "received"

    asyncio.run(story())
