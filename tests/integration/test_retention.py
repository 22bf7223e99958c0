"""What is erased when its time is over: names and texts go on their day and not before, the ledger stays, and each run is written down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from app import clock, evidence, metrics, retention
from app.agreements import Agreements
from app.apps import App
from app.complaints import Complaints
from app.duties import Duties
from app.journal import KEEP_DAYS, Journal
from app.keys import Keys
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.policyfile import Rules
from app.reports import Report, Sender
from app.review import entry
from app.statements import Archive
from app.store import sweeps
from app.store.cases import Writes
from app.store.tables import ExceptionRows, Shadows
from app.subjects import Subjects
from app.types import Subject
from tests.conftest import SECRET, RedisServer
from tests.integration.test_duties import DAY, house
from tests.integration.test_reports import PASSAGE
from tests.integration.test_rotation import everything

WHO = Sender(App("default", "default"), "0.reporter-name", ("0.reporter-name", "0.talk-name"), "0.source")


def test_article_11_a_table_says_of_every_class_how_long_and_who_erases_it() -> None:
    assert len(retention.RECORDS) == len(retention.TABLE)
    for row in retention.TABLE:
        assert row.where and row.kept and row.basis and row.eraser
        assert row.seconds is None or row.seconds <= 400 * retention.DAY
        if row.personal and row.seconds is not None and not row.basis.startswith("Labelling"):
            assert row.seconds <= 365 * retention.DAY and row.basis.startswith("own choice")
    assert retention.RECORDS["held"].kept == "72 h" and retention.RECORDS["journal"].seconds == KEEP_DAYS * DAY


def test_article_11_who_reported_is_forgotten_half_a_year_after_the_end_and_the_case_stays(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            taken = await h.reports.receive(Report(PASSAGE), WHO)
            case = await h.review.find(str(taken["ticket"]))
            waiting = await h.reports.receive(Report(PASSAGE[::-1]), WHO)
            row = entry(case, {"app": "default", "directions": ["answer"], "readers": list(WHO.readers)}, "report",
                        expires=clock.now() + 3 * DAY, name=WHO.readers[0])  # fmt: skip
            writes = Writes()
            writes.table(h.entries, row["id"], row, h.cases.changed())
            await h.cases.commit(writes, {"who": "test", "what": "hold", "case": case.id})
            await h.duties.sweep()
            assert any("talk-name" in v for v in everything(redis_server.url))
            h.clock.move(3.1)
            await h.duties.sweep()
            assert not any("talk-name" in v for v in everything(redis_server.url)), "a hold that has ended names nobody"
            await h.review.decide(case.id, "reject", "anna", {"reason": "r"})
            h.clock.move(186)
            await h.duties.sweep()
            assert (await h.review.find(case.id)).reporters == (WHO.reporter,)
            before = metrics.ERASED.labels("reporters")._value.get()
            h.clock.move(2)
            await h.duties.sweep()
            assert (await h.review.find(case.id)).reporters == ()
            assert (await h.cases.ticket(str(taken["ticket"])) or {})["reporter"] == ""
            assert (await h.cases.ticket(str(waiting["ticket"])) or {})["reporter"] == WHO.reporter, "its case is open"
            assert metrics.ERASED.labels("reporters")._value.get() == before + 1
            assert (await sweeps.last(h.cases.store))["reporters"]["erased"] == 1
            assert [r["part"] for r in await h.audit() if r["what"] == "erase"] == ["holds", "evidence", "reporters"]

    asyncio.run(story())


def test_article_11_whose_a_complaint_was_is_forgotten_and_its_text_goes_with_the_answer(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            store = h.cases.store
            nothing = lambda rows, version, whole: None  # noqa: E731
            shadows, exceptions = Shadows(store, tmp_path, nothing), ExceptionRows(store, tmp_path, nothing)
            policies = Policies(Policy(Rules(), "draft_2023_04", "test"), {})
            complaints = Complaints(h.cases, Keys(SECRET), exceptions, shadows, Moderator([], policies), h.reports)
            taken = await complaints.receive("pi_delete", WHO, {"comment": "那是我写的话"})
            assert await h.cases.field("evidence", taken["ticket"])
            h.clock.move(400)
            await h.duties.sweep()
            assert (await complaints.one(taken["ticket"])).reporter, "nobody has answered it yet"
            await complaints.decide(taken["ticket"], "refuse", "anna", {"reason": "r"})
            assert await h.cases.field("evidence", taken["ticket"]) is None
            h.clock.move(186)
            await h.duties.sweep()
            assert (await complaints.one(taken["ticket"])).reporter
            h.clock.move(2)
            await h.duties.sweep()
            matter = await complaints.one(taken["ticket"])
            assert (matter.reporter, matter.state, matter.outcome) == ("", "refused", "r")
            assert await h.cases.members("matters:answered") == []

            shown = await evidence.collected(h.cases, complaints, h.entries, policies, Keys(SECRET), [], Archive())
            kept = shown["articles"]["11"]["retention"]
            assert set(kept) == set(retention.RECORDS)
            assert kept["matters_reporters"]["last_erased"] == kept["matters_reporters"]["erased_rows"] == 1
            assert kept["matters_reporters"]["last_run"] and kept["comments"]["last_run"]
            assert "187 days" in evidence.html(shown) and "第十一条" in evidence.html(shown)
            assert WHO.reporter not in json.dumps(shown)

    asyncio.run(story())


def test_article_11_the_journal_says_when_it_was_swept(redis_server: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            journal = Journal(tmp_path / "journal", "run", h.cases.store)
            await journal.start()
            for name in ("2020-01-01.old.jsonl", "2020-01-02.old.jsonl"):
                (tmp_path / "journal" / name).write_text("{}\n")
            await journal.stop()
            assert (await sweeps.last(h.cases.store))["journal"]["erased"] == 2
            assert not list((tmp_path / "journal").glob("2020*"))

    asyncio.run(story())


def test_article_11_agreements_standings_and_the_log_go_on_their_day_and_each_sweep_is_written_down(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with house(redis_server, tmp_path) as h:
            keys, store = Keys(SECRET), h.cases.store
            subjects, agreements = Subjects(h.cases, keys, store, tmp_path), Agreements(h.cases, keys, store, tmp_path)
            await subjects.table.start()
            await agreements.table.start()
            duties = Duties(h.cases, None, None, subjects, agreements)
            name = keys.pseudonym("default", "mia")
            await agreements.add("default", "mia", "terms-1", clock.now() + DAY, "anna")
            assert agreements.logged("agr_x", "slc_x", Subject("default", name))
            writes = Writes()
            row = {"id": "std_1", "app": "default", "subject": name, "level": "warn", "reason": "abuse_spam", "by": "rule",
                   "expires_at": clock.stamp(clock.now() + DAY).replace("Z", "+00:00")}  # fmt: skip
            writes.table(subjects.table, "std_1", row, store.key("standings:changed"), 0)
            await h.cases.commit(writes, {"who": "test", "what": "warn"})
            for days, left in ((2, {"std", "log"}), (30, {"log"}), (160, set())):
                h.clock.move(days)
                await subjects.table.refresh()
                await agreements.table.refresh()
                await duties.sweep()
                found = everything(redis_server.url)
                assert any(name in v and "agr_" in v for v in found) == ("agr" in left)
                assert any(name in v and "std_1" in v for v in found) == ("std" in left)
                assert bool(list((tmp_path / "unlabelled").glob("*.jsonl"))) == ("log" in left)
            runs = await sweeps.last(store)
            mine = {r.name for r in retention.TABLE if r.eraser in ("app/duties.py", "app/agreements.py")}
            assert mine <= set(runs), "each sweep is written down"
            await subjects.table.stop()
            await agreements.table.stop()

    asyncio.run(story())
