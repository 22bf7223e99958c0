"""The transparency report: a half-year played through with the clock moved by hand, and every figure as it was counted by hand."""

from __future__ import annotations

import asyncio
import csv as tables
import hashlib
import io
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import clock, remediation
from app.apps import App
from app.complaints import APPEALS, KINDS, Complaints
from app.deadlines import SHANGHAI
from app.detectors.lexicon import Lexicon, Term
from app.errors import RequestError
from app.keys import Keys, Receipt
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.policyfile import Rules
from app.privacy import Privacy
from app.probes import Prober
from app.reports import OURS, Report, Sender
from app.settings import read
from app.store.cases import Cases
from app.store.client import Store
from app.store.tables import Entries, ExceptionRows, Shadows
from app.subjects import Counted, Subjects
from app.taxonomy import taxonomy
from app.transparency import COUNTS, collected, csv, half, html
from app.types import Subject
from app.upstream import Upstream
from tests.backing import environment
from tests.conftest import SECRET, Model, RedisServer, whole_gateway
from tests.integration.test_duties import DAY, House, house
from tests.integration.test_reports import PASSAGE, REVIEWERS, Desk, variant

TERM = "示例违禁短语"
ANYONE = Sender(App("default", "default"), "", (), "0.somewhere")
DETECTORS = ANYONE._replace(source=OURS)
OPEN: dict[str, Any] = {"reports": {"per_reporter": 1000, "per_source": 100_000}}


def at(day: str) -> float:
    """A moment of Shanghai: "2026-07-01", or with "T23:59:59.999"."""
    return datetime.fromisoformat(day if "T" in day else f"{day}T12:00:00").replace(tzinfo=SHANGHAI).timestamp()


def now(day: str) -> None:
    moment = at(day)
    clock.use(lambda: moment)


class Office(NamedTuple):
    """All that writes rows of the chain, in one process."""

    house: House
    complaints: Complaints
    subjects: Subjects
    privacy: Privacy
    keys: Keys
    moderator: Moderator

    async def report(
        self, n: int, *, proved: bool = False, who: Sender = ANYONE, flagged: bool = False, category: str | None = "violence"
    ) -> str:  # fmt: skip
        """A report of the n-th passage; its case."""
        text = f"{variant(n)}{TERM}" if flagged else variant(n)
        decision = f"slc_{n}"
        receipt = Receipt(self.keys, decision, "default")
        receipt.add(0, text)
        proof = (decision, receipt.text()) if proved else (None, None)
        report = Report(text, *proof, category=category, prompt="说说搬箱子的事")
        taken = await self.house.reports.receive(report, who)
        return (await self.house.review.find(str(taken["ticket"]))).id

    async def decide(self, case: str, decision: str, who: str = "anna", **said: Any) -> None:
        await self.house.review.decide(case, decision, who, {"reason": "looked at", **said})

    async def complain(self, kind: str, who: Sender = ANYONE, **said: Any) -> str:
        return str((await self.complaints.receive(kind, who, {"comment": "那是我的", **said}))["ticket"])

    async def answer(self, matter: str, decision: str, who: str = "anna", **said: Any) -> None:
        await self.complaints.decide(matter, decision, who, {"reason": "looked at", **said})

    async def figures(self, period: str, **more: Any) -> dict[str, Any]:
        return dict(await collected(self.house.cases, self.complaints, period, **more))


def rules(**probes: Any) -> Policies:
    return Policies(Policy(Rules(**OPEN, probes=probes), "draft_2023_04", "test"), {})


@asynccontextmanager
async def office(server: RedisServer, folder: Path) -> AsyncIterator[Office]:
    keys = Keys(SECRET)
    async with house(server, folder) as h:
        store = h.cases.store
        moderator = Moderator([Lexicon([Term(TERM, "violence")])], rules(terms_allow=True, per_minute=6000))
        h.reports._moderator = moderator
        shadows = Shadows(store, folder, lambda rows, version, whole: None)
        exceptions = ExceptionRows(store, folder, lambda rows, version, whole: None)
        subjects = Subjects(h.cases, keys, store, folder)
        complaints = Complaints(h.cases, keys, exceptions, shadows, moderator, h.reports, subjects)
        await subjects.table.start()
        await subjects.start()
        try:
            yield Office(h, complaints, subjects, Privacy(h.cases, keys, lambda: {"default"}), keys, moderator)
        finally:
            await subjects.stop()
            await subjects.table.stop()


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.02)


def sums(row: dict[str, Any]) -> dict[str, int]:
    """Over the months."""
    return {name: sum(month[name] for month in row["by_month"].values()) for name in COUNTS}


# ---- the half-year


def test_a_half_year_is_of_shanghai_and_anything_else_is_told_the_way_out() -> None:
    assert half("2026H2") == (at("2026-07-01T00:00:00"), at("2027-01-01T00:00:00"))
    assert half("2026H1") == (at("2026-01-01T00:00:00"), at("2026-07-01T00:00:00"))
    assert clock.stamp(half("2026H2")[0]) == "2026-06-30T16:00:00.000Z"
    for wrong in (
        "",
        "2026",
        "2026H3",
        "2026h2",
        "26H1",
        "2026H2 ",
        "2026H2\n",
        "２０２６H2",
        "2026-H2",
        "1999H1",
        "=1+1",
    ):
        with pytest.raises(RequestError) as told:
            half(wrong)
        assert told.value.status == 422 and told.value.param == "half" and "2026H2" in str(told.value)


def test_a_half_year_counts_what_was_done_in_it_and_no_more(
    redis_server: RedisServer, tmp_path: Path, model: Model
) -> None:
    async def story() -> None:
        async with office(redis_server, tmp_path) as o:
            mia = ANYONE._replace(reporter="0.mia", readers=("0.mia",))
            # Before it: one report, one complaint.
            now("2026-06-30T23:59:59.999")
            early = await o.report(1)
            old = await o.complain("pi_delete")
            # At its first moment a person decides, at once.
            now("2026-07-01T00:00:00")
            await o.decide(early, "confirm", category="violence")
            # July: held for an app and confirmed ten days on; held for the reporter and rejected after two; of our own detectors.
            now("2026-07-02")
            app_wide = await o.report(2, proved=True, flagged=True)
            own = await o.report(3, proved=True, who=mia)
            found = await o.report(4, who=DETECTORS)
            await o.report(2, flagged=True)  # once more: no second case
            now("2026-07-04")
            await o.decide(own, "reject")
            now("2026-07-12")
            await o.decide(app_wide, "confirm", category="violence")
            await o.decide(found, "confirm", category="illegal_acts")
            # An appeal and a complaint; one is late, of one only the first of two has decided.
            block = await o.complain("pi_block")
            wanted = {"identifiers": ["88-1234-5678"], "public_interest": "a private number"}
            await o.answer(block, "uphold", **wanted)
            appeal = await o.complain("blocked_answer", decision_id="slc_9", prompt="说")
            now("2026-07-13")
            await o.answer(appeal, "refuse")
            await o.answer(old, "uphold")
            # August: undone and decided anew; what is held lapses.
            now("2026-08-01")
            await o.decide(found, "undo")
            await o.decide(found, "reject")
            lapsed = await o.report(5, proved=True, flagged=True)
            now("2026-08-05")
            await o.house.duties.sweep()
            assert (await o.house.review.find(lapsed)).state == "verified"
            # Widened with two persons' word, and proposed once more by one.
            await o.decide(app_wide, "widen", "anna", to="apps")
            await o.decide(app_wide, "widen", "bert", to="apps")
            await o.decide(early, "widen", "anna", to="apps")
            # September: probes of three outcomes, closed, opened again, handed over, excepted.
            now("2026-09-01")
            upstream = Upstream(model.url, None, read({}), credentials=False)
            await upstream.outbound.start()
            prober = Prober(o.house.cases, o.keys, o.moderator, upstream, dict)
            for policies, says in (
                (rules(), "好的。"),
                (rules(terms_allow=True, per_minute=6000), f"好的，{TERM}。"),
                (rules(terms_allow=True, per_minute=6000), "对不起，这件事我不能说。"),
            ):
                o.moderator.policies = policies
                model.script.chat(says)
                await o.decide(app_wide, "probe", model="m")
                await prober.once()
            await upstream.outbound.close()
            closed = await o.house.review.find(app_wide)
            assert [p["outcome"] for p in closed.probes] == ["inconclusive", "failed", "passed"]
            assert closed.state == "closed"
            await o.decide(app_wide, "reopen")
            await o.decide(early, "hand_over", vendor="v", reference="r", date="2026-09-01")
            # October: the first one is overdue, and whose answer was promised by then, is answered late.
            now("2026-10-01")
            await o.house.duties.sweep()
            assert (await o.house.review.find(early)).state == "overdue"
            late = await o.complain("infringement")
            await o.complain("wrong_block")  # which nobody answers
            now("2026-11-20")
            await o.answer(late, "refuse")
            await o.house.duties.sweep()
            assert (await o.house.review.find(app_wide)).state == "overdue"
            await o.decide(app_wide, "except", role="legal")
            # Conduct: two strikes by rule, then by a person; requests of persons.
            pia = Subject("default", o.keys.pseudonym("default", "pia"))
            policy = o.moderator.policies.common
            for n, level in enumerate(("warn", "limit", "suspend")):
                o.subjects.asked(pia, [pia.pseudonym], f"slc_s{n}", Counted("abuse_spam", f"text {n}"), policy)
                await until(lambda: (s := o.subjects.of("default", [pia.pseudonym])) is not None and s.level == level)  # noqa: B023
            standing = o.subjects.of("default", [pia.pseudonym])
            assert standing is not None
            appealed = await o.complain("standing", ANYONE._replace(standing=standing))
            await o.subjects.decide(standing.id, "terminate", "anna", "a person's own words")
            await o.subjects.decide(standing.id, "lift", "bert", "a person's own words")
            await o.answer(appealed, "uphold")
            await o.privacy.export("default", "pia", "anna")
            await o.privacy.erase("default", "pia", "anna")
            # Its last moment, and the first one after it.
            now("2026-12-31T23:59:59.999")
            await o.report(6, category="illegal_acts")
            now("2027-01-01T00:00:00")
            await o.report(7)
            await o.decide(early, "except", role="legal")

            row = await o.figures("2026H2")
            assert row["chain"] == "whole" and row["complete"] and row["head"].startswith(f"{row['rows']} ")
            assert (row["from"], row["to"]) == ("2026-07-01T00:00:00+08:00", "2027-01-01T00:00:00+08:00")
            assert row["reports"] == {"reports": 6, "verified": 3, "unverified": 2, "ours": 1, "cases": 5}
            decisions = row["decisions"]
            assert {k: decisions[k] for k in ("confirmed", "rejected", "undone", "widened")} == {
                "confirmed": 3, "rejected": 2, "undone": 1, "widened": 1,
            }  # fmt: skip
            # Of early 0, own 2, app_wide 10, found 10 and once more 30 days.
            assert decisions["days_to_decide"] == {"of": 5, "median": 10.0, "p90": 22.0}
            assert decisions["undecided_at_end"] == 2
            automated = row["automated"]
            assert (automated["held_for_app"], automated["held_for_reporter"], automated["lapsed"]) == (2, 1, 1)
            assert automated["first_actions"] == {"of": 5, "automated": 3, "share": 0.6}
            assert automated["decisions"] == {"of": 5, "automated": 0, "share": 0.0}
            assert row["remediation"] == {
                "passed": 1, "failed": 1, "inconclusive": 1, "closed": 1, "excepted": 1, "handed_over": 1, "reopened": 1,
                "became_overdue": 2, "overdue_at_end": 1,
            }  # fmt: skip
            complaints, appeals = row["complaints"], row["appeals"]
            assert [complaints[k] for k in ("received", "upheld", "refused", "late")] == [3, 1, 1, 1]
            assert (complaints["waiting_at_end"], complaints["waiting_late_at_end"]) == (2, 2)
            assert complaints["by_kind"]["pi_delete"] == {"received": 0, "upheld": 1, "refused": 0, "late": 0}
            assert complaints["by_kind"]["pi_block"] == {"received": 1, "upheld": 0, "refused": 0, "late": 0}
            assert complaints["days_to_answer"] == {"of": 2, "median": 31.25, "p90": 46.25}
            assert [appeals[k] for k in ("received", "upheld", "refused", "late")] == [2, 1, 1, 0]
            assert appeals["by_kind"]["standing"]["upheld"] == 1 and appeals["waiting_at_end"] == 0
            assert row["conduct"] == {
                "rule_warn": 1, "rule_limit": 1, "rule_suspend": 1, "person_warn": 0, "person_limit": 0, "person_suspend": 0,
                "person_terminate": 1, "lifted": 1,
            }  # fmt: skip
            assert row["requests"] == {"access": 1, "erasure": 1}
            assert row["by_category"] == {
                # The one that was confirmed as something else, undone and rejected is again what it was reported as.
                "violence": {"reports": 5, "cases": 4, "held": 3, "confirmed": 3, "rejected": 2},
                "illegal_acts": {"reports": 1, "cases": 1, "held": 0, "confirmed": 0, "rejected": 0},
            }  # fmt: skip
            assert row["by_month"]["2026-07"]["reports"] == 4 and row["by_month"]["2026-12"]["reports"] == 1
            assert sum(row["not_told"].values()) == 0
            holds = {(s["decision"], s["automated_detection"], s["automated_decision"]): s["count"]
                     for s in row["statements"] if s["category"] == "violence"}  # fmt: skip
            assert holds == {
                ("hold", "Yes", "AUTOMATED_DECISION_FULLY"): 2, ("hold", "No", "AUTOMATED_DECISION_FULLY"): 1,
                ("confirm", "Yes", "AUTOMATED_DECISION_NOT_AUTOMATED"): 2, ("confirm", "No", "AUTOMATED_DECISION_NOT_AUTOMATED"): 1,
            }  # fmt: skip
            for s in row["statements"]:
                assert s["decision_ground"] == "DECISION_GROUND_ILLEGAL_CONTENT"
                assert s["illegal_content_legal_ground"] == taxonomy()[s["category"]].clause

            # The halves beside it have what is left.
            before, after = await o.figures("2026H1"), await o.figures("2027H1")
            assert (before["reports"]["reports"], before["complaints"]["received"]) == (1, 1)
            assert (before["decisions"]["undecided_at_end"], before["complaints"]["waiting_at_end"]) == (1, 1)
            assert (after["reports"]["reports"], after["remediation"]["excepted"]) == (1, 1)
            assert after["remediation"]["overdue_at_end"] == 0 and not after["complete"]

            # Numbers alone.
            for form in (json.dumps(row, ensure_ascii=False), html(row), csv(row)):
                for word in (
                    "anna",
                    "bert",
                    "0.mia",
                    pia.pseudonym,
                    "own words",
                    "looked at",
                    "那是我的",
                    PASSAGE[:8],
                    early,
                    old,
                ):
                    assert word not in form, word

    asyncio.run(story())


# ---- the chain, written as a gateway writes it


def event(day: str | float, **row: Any) -> dict[str, Any]:
    return {**row, "at": clock.stamp(at(day) if isinstance(day, str) else day)}


def chained(server: RedisServer, events: list[dict[str, Any]], cases: dict[str, str] | None = None) -> None:
    """A store whose chain holds these rows; `cases`: their categories."""
    client, prev, raws = redis.Redis(port=server.port), "", []
    client.flushall()
    for seq, row in enumerate(events, 1):
        raws.append(json.dumps({**row, "seq": seq, "prev": prev}, sort_keys=True))
        prev = hashlib.sha256(raws[-1].encode()).hexdigest()
    with client.pipeline() as pipe:
        for first in range(0, len(raws), 1000):
            pipe.rpush("{sluice:chain}:audit", *raws[first : first + 1000])
        pipe.set("{sluice:chain}:audit:head", f"{len(raws)} {prev}")
        for id, category in (cases or {}).items():
            case = remediation.Case(id, "default", category, "received", 0.0, 0.0, "")
            pipe.hset("{sluice:chain}:cases", id, f"1 {json.dumps(case.row())}")
        pipe.execute()


async def told(server: RedisServer, folder: Path, period: str = "2026H2", **more: Any) -> dict[str, Any]:
    store = Store(server.url, "chain")
    unused: Any = lambda rows, version, whole: None  # noqa: E731
    kept, keys = Cases(store, Entries(store, folder, unused)), Keys(SECRET)
    complaints = Complaints(kept, keys, ExceptionRows(store, folder, unused), Shadows(store, folder, unused))
    try:
        return dict(await collected(kept, complaints, period, **more))
    finally:
        await store.close()


def reported(case: str, day: str | float, **more: Any) -> dict[str, Any]:
    row = {"who": "reporter", "what": "report", "standing": "verified", "case": case, "state": "verified", "held": None}
    return event(day, **row | more)


def moved(case: str, day: str | float, what: str, to: str, **more: Any) -> dict[str, Any]:
    return event(day, **{"who": "anna", "what": what, "case": case, "from": "verified", "to": to, "reason": "r"} | more)


def test_a_chain_that_is_broken_is_said_where_and_nothing_breaks_for_that(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    rows = [reported(f"case_{n}", "2026-08-01") for n in range(9)]
    chained(redis_server, rows, {f"case_{n}": "violence" for n in range(9)})
    client = redis.Redis(port=redis_server.port)
    row = asyncio.run(told(redis_server, tmp_path))
    assert (row["chain"], row["rows"], row["reports"]["reports"]) == ("whole", 9, 9)
    assert 'class="alarm"' not in html(row)
    for at_row, harm in ((3, b"no row at all"), (3, b"[1]"), (4, b'{"seq": 4, "what": []}')):
        whole = client.lindex("{sluice:chain}:audit", at_row - 1)
        client.lset("{sluice:chain}:audit", at_row - 1, harm)
        row = asyncio.run(told(redis_server, tmp_path))
        assert row["chain"] == f"broken at row {at_row}" and row["not_told"]["rows"] == 1
        assert row["reports"]["reports"] == 8 and 'class="alarm"' in html(row) and f"broken at row {at_row}" in csv(row)
        client.lset("{sluice:chain}:audit", at_row - 1, whole)  # type: ignore[arg-type]
    client.rpop("{sluice:chain}:audit")
    assert asyncio.run(told(redis_server, tmp_path))["chain"] == "broken at row 9"


def test_what_older_versions_did_not_write_is_counted_as_not_told(redis_server: RedisServer, tmp_path: Path) -> None:
    def old(case: str, **more: Any) -> dict[str, Any]:
        return {k: v for k, v in reported(case, "2026-08-01", **more).items() if k != "held"}

    chained(redis_server, [
        old("case_1"), old("case_2", standing="unverified", state="received"), old("case_3", state="provisional"),
        *(moved(f"case_{n}", "2026-08-02", "confirm", "confirmed") for n in (1, 2, 3)),
        moved("case_1", "2026-08-03", "widen", "confirmed"),
    ], {"case_1": "violence", "case_2": "violence"})  # fmt: skip
    row = asyncio.run(told(redis_server, tmp_path))
    assert row["automated"]["first_actions"] == {"of": 2, "automated": 1, "share": 0.5}, (
        "one was held, of one nobody knows"
    )
    told_not = {name: n for name, n in row["not_told"].items() if n}
    assert told_not == {"holds": 1, "first_actions": 1, "widenings": 1, "categories": 1}
    assert row["decisions"]["widened"] == 0 and row["by_category"]["other_prohibited"]["cases"] == 1


def test_whom_nothing_is_known_of_is_in_no_published_figure_that_is_small(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    counts = {name: 6 + n for n, name in enumerate(taxonomy())}
    counts["violence"], counts["abuse_spam"] = 1, 0
    rows, cases = [], {}
    for name, n in counts.items():
        for i in range(n):
            cases[f"case_{name}{i}"] = name
            rows += [
                reported(f"case_{name}{i}", "2026-08-01"),
                moved(f"case_{name}{i}", "2026-08-02", "reject", "rejected"),
            ]
    chained(redis_server, rows, cases)
    row = asyncio.run(told(redis_server, tmp_path))
    shown = asyncio.run(told(redis_server, tmp_path, public=True))
    assert row["by_category"]["violence"]["reports"] == 1 and "abuse_spam" not in row["by_category"]
    assert shown["by_category"]["violence"]["reports"] == "<5" == shown["by_category"]["abuse_spam"]["reports"]
    assert shown["by_category"]["illegal_acts"]["reports"] == counts["illegal_acts"]
    assert set(shown["by_category"]) == set(taxonomy()), "that a category stands there says nothing"
    assert {
        name for c in shown["by_category"].values() for name in c.values() if isinstance(name, int) and name < 5
    } == set()
    # Where one alone would be hidden, the total less the others would be that one.
    chained(redis_server, [*rows, *(reported(f"case_s{n}", "2026-08-03") for n in range(7))],
            cases | {f"case_s{n}": "abuse_spam" for n in range(7)})  # fmt: skip
    shown = asyncio.run(told(redis_server, tmp_path, public=True))
    hidden = {name: c["reports"] for name, c in shown["by_category"].items() if isinstance(c["reports"], str)}
    assert hidden == {"violence": "<5", min((c for c in counts if counts[c] > 1), key=counts.__getitem__): "5+"}
    # And of the reasons nothing is told that is hidden there.
    said = asyncio.run(told(redis_server, tmp_path))["statements"]
    assert shown["statements"] == [] == said


def test_published_reasons_are_never_fewer_than_five(redis_server: RedisServer, tmp_path: Path) -> None:
    rows, cases, client = [], {}, redis.Redis(port=redis_server.port)
    for name, found, n in (("violence", True, 9), ("violence", False, 6), ("abuse_spam", True, 8), ("abuse_spam", False, 2),
                           ("illegal_acts", True, 3)):  # fmt: skip
        for i in range(n):
            cases[f"case_{name}{found}{i}"] = name
            rows += [reported(f"case_{name}{found}{i}", "2026-08-01"),
                     moved(f"case_{name}{found}{i}", "2026-08-02", "confirm", "confirmed")]  # fmt: skip
    chained(redis_server, rows, cases)
    for id, name in cases.items():
        case = remediation.Case(id, "default", name, "confirmed", 0.0, 0.0, "", flagged="True" in id)
        client.hset("{sluice:chain}:cases", id, f"1 {json.dumps(case.row())}")
    shown = asyncio.run(told(redis_server, tmp_path, public=True))["statements"]
    assert {(s["category"], s["automated_detection"]): s["count"] for s in shown} == {
        ("violence", "Yes"): 9, ("violence", "No"): 6, ("abuse_spam", None): 10,
    }  # fmt: skip
    assert len(asyncio.run(told(redis_server, tmp_path))["statements"]) == 5


def test_a_case_that_is_probed_again_while_it_is_closed_is_not_closed_twice(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    def probed(day: str, left: str, outcome: str, to: str) -> list[dict[str, Any]]:
        return [moved("case_1", day, "probe", "probing", **{"from": left, "who": "time"}),
                moved("case_1", day, "judge", to, **{"from": "probing", "who": "time", "outcome": outcome})]  # fmt: skip

    chained(redis_server, [
        reported("case_1", "2026-07-10"), moved("case_1", "2026-07-11", "confirm", "confirmed"),
        *probed("2026-07-12", "confirmed", "passed", "closed"), *probed("2026-08-12", "closed", "passed", "closed"),
        *probed("2026-09-12", "closed", "inconclusive", "closed"), *probed("2026-10-13", "closed", "failed", "reopened"),
        *probed("2026-10-14", "reopened", "failed", "overdue"),
        moved("case_1", "2026-10-15", "hand_over", "handed_over", **{"from": "overdue"}),
        moved("case_1", "2026-10-15", "fall_due", "overdue", **{"from": "handed_over", "who": "time"}),
        *probed("2026-10-16", "overdue", "passed", "closed"),
        reported("case_1", "2026-10-17", state="reopened"), reported("case_1", "2026-10-18", state="reopened"),
    ], {"case_1": "violence"})  # fmt: skip
    row = asyncio.run(told(redis_server, tmp_path))["remediation"]
    assert row == {
        "passed": 3, "failed": 2, "inconclusive": 1, "closed": 2, "excepted": 0, "handed_over": 1, "reopened": 2,
        "became_overdue": 1, "overdue_at_end": 1,
    }  # fmt: skip


MOMENT = st.floats(half("2026H2")[0] - 20 * DAY, half("2026H2")[1] + 20 * DAY)
CATEGORIES = ("violence", "illegal_acts", "abuse_spam")
STEP = st.one_of(
    st.tuples(st.just("report"), st.integers(0, 7), st.sampled_from(("verified", "unverified", "ours"))),
    st.tuples(st.just("move"), st.integers(0, 7), st.sampled_from((("confirm", "confirmed"), ("reject", "rejected"),
              ("undo", "verified"), ("lapse", "verified"), ("except", "excepted"), ("fall_due", "overdue")))),
    st.tuples(st.just("matter"), st.integers(0, 7), st.sampled_from((*KINDS, *APPEALS))),
    st.tuples(st.just("outcome"), st.sampled_from((*KINDS, *APPEALS)), st.sampled_from(("upheld", "refused"))),
    st.tuples(st.just("conduct"), st.sampled_from(("rule", "anna")), st.sampled_from(("warn", "limit", "suspend", "lift"))),
    st.tuples(st.just("plain"), st.just(0), st.sampled_from(("privacy_export", "privacy_erase"))),
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(MOMENT, STEP), max_size=60))
def test_months_categories_and_kinds_add_up_to_the_totals_whatever_happened(
    redis_server: RedisServer, tmp_path: Path, steps: list[tuple[float, tuple[str, Any, Any]]]
) -> None:
    events, inside = [], Counter[str]()
    start, end = half("2026H2")
    for moment, (what, of, how) in sorted(steps, key=lambda s: s[0]):
        moment = clock.seconds(clock.stamp(moment))
        counts = start <= moment < end
        if what == "report":
            standing = "unverified" if how == "ours" else how
            events.append(
                reported(f"case_{of}", moment, standing=standing, **({"ours": True} if how == "ours" else {}))
            )
            inside["reports"] += counts
        elif what == "move":
            events.append(moved(f"case_{of}", moment, how[0], how[1]))
            inside[how[0]] += counts
        elif what == "matter":
            events.append(event(moment, who="reporter", what=how, matter=f"m{of}"))
            inside["received"] += counts
        elif what == "outcome":
            decision = "uphold" if how == "upheld" else "refuse"
            events.append(event(moment, who="anna", what=decision, matter=f"m{of}", kind=of, to=how))
            inside[how] += counts
        elif what == "conduct":
            events.append(event(moment, who=of, what=how, standing="std_1", reason="abuse_spam"))
            inside["conduct"] += counts
        else:
            events.append(event(moment, who="anna", what=how))
            inside[how] += counts
    chained(redis_server, events, {f"case_{n}": CATEGORIES[n % 3] for n in range(8)})
    row = asyncio.run(told(redis_server, tmp_path))
    months, decisions, reports = sums(row), row["decisions"], row["reports"]
    assert reports["reports"] == inside["reports"] == sum(reports[k] for k in ("verified", "unverified", "ours"))
    assert (decisions["confirmed"], decisions["rejected"], decisions["undone"]) == tuple(
        inside[k] for k in ("confirm", "reject", "undo")
    )
    assert sum(row["conduct"].values()) == inside["conduct"]
    assert row["requests"] == {"access": inside["privacy_export"], "erasure": inside["privacy_erase"]}
    for outcome in ("received", "upheld", "refused"):
        assert sum(row[block][outcome] for block in ("complaints", "appeals")) == inside[outcome]
        for block in ("complaints", "appeals"):
            assert row[block][outcome] == sum(kind[outcome] for kind in row[block]["by_kind"].values())
            assert row[block][outcome] == months[f"{block}_{outcome}"]
    for section in ("reports", "decisions", "remediation", "conduct", "requests"):
        assert {k: v for k, v in row[section].items() if k in months} == {
            k: months[k] for k in row[section] if k in months
        }
    for name in ("reports", "cases", "confirmed", "rejected"):
        assert sum(c[name] for c in row["by_category"].values()) == months[name]
    assert sum(c["held"] for c in row["by_category"].values()) == months["held_for_app"] + months["held_for_reporter"]
    # A half is its two quarters' neighbours': nothing is counted twice, nothing is lost between them.
    around = [
        asyncio.run(told(redis_server, tmp_path, period))["reports"]["reports"] for period in ("2026H1", "2027H1")
    ]
    assert sum(around) + reports["reports"] == sum(e["what"] == "report" for e in events)


# ---- forms


def cells(row: dict[str, Any]) -> list[list[str]]:
    return list(tables.reader(io.StringIO(csv(row), newline="")))


def test_no_cell_of_the_table_is_a_formula(redis_server: RedisServer, tmp_path: Path) -> None:
    wicked = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'a",=1', "a\n=1"]
    names = {f"case_{n}": word for n, word in enumerate(wicked)}
    chained(redis_server, [reported(case, "2026-08-01") for case in names], names)
    row = asyncio.run(told(redis_server, tmp_path))
    assert set(row["by_category"]) == set(wicked)
    lines = cells(row)
    assert lines[0] == ["section", "item", "figure", "value"] and {len(line) for line in lines} == {4}
    for line in lines:
        for cell in line:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell
    items = {line[1] for line in lines if line[0] == "by_category"}
    assert items == {f"'{word}" for word in wicked[:6]} | set(wicked[6:])
    named = asyncio.run(told(redis_server, tmp_path)) | {"by_category": {"<script>": dict.fromkeys(("reports",), 1)}}
    assert "<script>" not in html(named) and "&lt;script&gt;" in html(named)


def test_table_and_page_tell_what_the_json_tells(redis_server: RedisServer, tmp_path: Path) -> None:
    chained(redis_server, [reported("case_1", "2026-08-01"), moved("case_1", "2026-08-04", "confirm", "confirmed")],
            {"case_1": "violence"})  # fmt: skip
    row = asyncio.run(told(redis_server, tmp_path))
    lines = {tuple(line[:3]): line[3] for line in cells(row)}
    assert lines["decisions", "", "confirmed"] == "1" and lines["decisions", "days_to_decide", "median"] == "3.0"
    assert lines["by_month", "2026-08", "reports"] == "1" and lines["by_category", "violence", "confirmed"] == "1"
    assert lines["complaints", "by_kind.pi_block", "received"] == "0" and lines["chain", "", ""] == "whole"
    assert lines["complaints", "days_to_answer", "median"] == "", "what there is none of is no zero"
    page = html(row)
    assert "script" not in page and "Content-Security-Policy" in page and "default-src &#x27;none" not in page
    for word in (
        "透明度报告",
        "暴力信息",
        "2026-08",
        "DECISION_GROUND_ILLEGAL_CONTENT",
        "审定用时（天）days to decide",
        row["head"],
    ):
        assert word in page, word


@pytest.mark.long
def test_a_hundred_thousand_rows_take_seconds_and_nobody_waits_for_them(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    draw, start, events, cases = random.Random(1), half("2026H2")[0], [], {}
    for n in range(50_000):
        cases[f"case_{n}"] = draw.choice(CATEGORIES)
        day = start + n / 50_000 * 180 * DAY
        events += [reported(f"case_{n}", day), moved(f"case_{n}", day + 3600, "confirm", "confirmed")]
    chained(redis_server, events, cases)

    async def watched() -> tuple[dict[str, Any], float, float, float]:
        longest, last, done = 0.0, time.perf_counter(), False

        async def beat() -> None:
            nonlocal longest, last
            while not done:
                await asyncio.sleep(0.005)
                longest, last = max(longest, time.perf_counter() - last), time.perf_counter()

        task = asyncio.create_task(beat())
        began, worked = time.perf_counter(), time.process_time()
        row = await told(redis_server, tmp_path)
        took, worked = time.perf_counter() - began, time.process_time() - worked
        done = True
        await task
        return row, took, worked, longest

    row, took, worked, longest = asyncio.run(watched())
    assert row["reports"]["reports"] == 50_000 == row["decisions"]["confirmed"] and row["chain"] == "whole"
    # Of this process, and as shares: whatever else the machine does meanwhile.
    assert worked < 30 and longest < took / 5, (took, worked, longest)


# ---- from outside


def test_the_admin_port_and_the_command_give_it_in_each_form_to_who_may_audit(
    tmp_path: Path, shared_model: Model
) -> None:
    tokens = f"{REVIEWERS},rita/review:{'r' * 32}"
    period = (
        f"{datetime.fromtimestamp(time.time() + 8 * 3600):%Y}H{1 + (time.gmtime(time.time() + 8 * 3600).tm_mon > 6)}"
    )
    with whole_gateway(tmp_path / "gateway", shared_model.url, ADMIN_TOKEN=tokens) as whole:
        desk = Desk(whole)
        shared_model.script.chat(variant(1))
        ticket = desk.report(desk.ask()).json()["ticket"]
        assert desk.decide(ticket, "confirm", category="illegal_acts").status_code == 200
        row = desk.admin("GET", "/transparency", params={"half": period}).json()
        assert row["reports"]["reports"] == 1 == row["decisions"]["confirmed"] and row["chain"] == "whole"
        assert row["by_category"]["illegal_acts"]["confirmed"] == 1 and not row["complete"]
        public = desk.admin("GET", "/transparency", params={"half": period, "public": "true"}).json()
        assert public["by_category"]["illegal_acts"]["confirmed"] == "<5" and public["statements"] == []
        table = desk.admin("GET", "/transparency", params={"half": period, "form": "csv"})
        assert (
            table.headers["content-type"] == "text/csv; charset=utf-8"
            and "attachment" in table.headers["content-disposition"]
        )
        page = desk.admin("GET", "/transparency", params={"half": period, "form": "html"})
        assert page.headers["content-type"].startswith("text/html") and "透明度报告" in page.text
        for wrong in ({"half": "2026H3"}, {}, {"half": period, "form": "pdf"}):
            refused = desk.admin("GET", "/transparency", params=wrong)
            assert refused.status_code in (400, 422) and refused.json()["error"]["message"], wrong
        assert "2026H2" in desk.admin("GET", "/transparency", params={"half": "x"}).json()["error"]["message"]
        assert desk.admin("GET", "/transparency", "r", params={"half": period}).status_code == 403

        def command(*words: str) -> subprocess.CompletedProcess[str]:
            given = {"ADMIN_TOKEN": tokens, "ADMIN_PORT": whole.admin.rpartition(":")[2]}
            return subprocess.run(
                [sys.executable, "-m", "app.cli", "evidence", "transparency", *words], env=environment(**given),
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip

        out = tmp_path / "out"
        done = command("--half", period, "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert command("--half", period, "--out", str(out), "--public").returncode == 0
        files = sorted(p.name for p in out.iterdir())
        assert files == sorted(
            f"transparency-{period}{p}.{s}" for p in ("", "-public") for s in ("json", "csv", "html")
        )
        assert {p.stat().st_mode & 0o777 for p in out.iterdir()} == {0o600}
        assert json.loads((out / f"transparency-{period}.json").read_text("utf-8"))["decisions"]["confirmed"] == 1
        wrong = command("--half", "../x", "--out", str(tmp_path / "not"))
        assert wrong.returncode != 0 and "2026H2" in wrong.stderr and not (tmp_path / "not").exists()
