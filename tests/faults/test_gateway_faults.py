"""Reports and decisions while processes of the gateway die, clocks are wrong, and two decide at once (F21 to F25 of the fault matrix)."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
import redis

from app import clock, deadlines, duties, metrics, policy
from app.duties import Duties
from app.keys import Keys
from app.probes import Prober
from app.remediation import Case
from app.settings import read
from app.store.cases import Cases, Writes, broken
from app.store.client import Store
from app.store.tables import Entries
from tests.conftest import SECRET, Model, RedisServer, Whole, redis_binaries, wait_for, whole_gateway
from tests.faults.checker import Checker, script
from tests.faults.matrix import told, within
from tests.faults.test_store_faults import metric, started
from tests.integration.test_reports import Desk


def ready(whole: Whole) -> bool:
    try:
        return httpx.get(whole.ops + "/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def kill_all(whole: Whole) -> None:
    """SIGKILL for the parent and its workers at once."""
    family = [psutil.Process(whole.process.pid), *whole.workers()]
    for process in family:
        process.kill()
    whole.process.wait()
    psutil.wait_procs(family[1:], 5)


@contextmanager
def again(whole: Whole) -> Iterator[Callable[[], None]]:
    """Starts a gateway that was killed once more, with the same settings on the same ports."""
    process = psutil.Process(whole.process.pid)
    command, environment = process.cmdline(), process.environ()
    opened: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        log = (whole.folder / "log").open("ab")
        whole.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        opened.append(whole.process)

    yield start
    if opened:
        opened[-1].terminate()
        opened[-1].wait(20)


def store_of(whole: Whole) -> psutil.Process:
    """The private server."""
    return next(p for p in psutil.Process(whole.process.pid).children() if "redis-server" in p.name())


@pytest.mark.long
@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.timeout(1800))])
def test_f21_a_worker_the_parent_the_store_and_all_at_once_are_killed_under_load(
    shared_model: Model, tmp_path: Path, kills: int
) -> None:
    """In turn. Back is: all workers serve, and a report is taken."""
    script(shared_model)
    settings = started(tmp_path / "gateway", "", WORKERS="2")
    with whole_gateway(tmp_path / "gateway", shared_model.url, **settings) as whole, again(whole) as start:
        checker = Checker(whole, gone=True)
        checker.block()
        took: dict[str, list[float]] = {"worker": [], "store": [], "parent": [], "all": []}
        with checker.load(threads=2, pause=0.05):
            checker.until(20)
            for n in range(kills):
                victim = list(took)[n % len(took)]
                begun = time.monotonic()
                if victim == "worker":
                    killed = random.choice(whole.workers())
                    killed.kill()
                    wait_for(lambda p=killed: p.pid not in {w.pid for w in whole.workers()}, 5)  # type: ignore[misc]
                    wait_for(lambda: len(whole.workers()) == 2 and served(whole), 30)
                elif victim == "store":
                    store_of(whole).kill()
                    checker.until(1, 30)
                else:
                    if victim == "parent":
                        whole.process.kill()
                        whole.process.wait()
                    else:
                        kill_all(whole)
                    start()
                    wait_for(lambda: ready(whole), 30)
                    checker.until(1, 30)
                took[victim].append(time.monotonic() - begun)
                checker.until(5, 30)
        told(
            "F21", f"{kills} kills under load, back after (median, most): "
            + "; ".join(f"{who} {statistics.median(s):.2f} s, {max(s):.2f} s" for who, s in took.items()),
        )  # fmt: skip
        figures = checker.verify("F21", f"{kills} kills")
        assert figures.acked > 5 * kills
        assert max(took["worker"]) < within(2) and max(took["store"]) < within(2)


def served(whole: Whole) -> bool:
    """Every worker says that it is ready."""
    try:
        return all(w["ready"] for w in whole.ready()["workers"])
    except httpx.TransportError:
        return False


# ---- F22: clocks


def test_f22_a_wrong_clock_moves_no_due_date_and_ends_nothing(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(redis_server.url, "clock")
        entries = Entries(store, tmp_path, lambda rows, version, whole: None)
        cases = Cases(store, entries)
        await entries.refresh()
        now = time.time()
        due = deadlines.due(now, 3)
        held = Case(
            "case_held", "default", "violence", "provisional", now, due.at, due.rule, lapses=now + 3600,
            comments=True, evidence=True, entries=("ent_held",),
        )  # fmt: skip
        confirmed = replace(held, id="case_confirmed", state="confirmed", lapses=None, entries=("ent_confirmed",))
        for case in (held, confirmed):
            writes = Writes()
            writes.case(None, case)
            row = {"id": case.entries[0], "term": "x"}
            writes.table(entries, case.entries[0], row, cases.changed())
            await cases.commit(writes, {"who": "reporter", "what": "report", "case": case.id})

        async def states() -> dict[str, tuple[str, float]]:
            await entries.refresh()
            found = await cases.several(["case_held", "case_confirmed"])
            return {c.id: (c.state, c.due) for c in found}

        before, chain = await states(), await cases.audit()
        watch = Duties(cases)
        for days in (100, -10, 0.0001, 4000):
            clock.use(lambda days=days: now + days * 86400)  # type: ignore[misc]
            await watch.sweep()
            assert metrics.CLOCK_SUSPECT._value.get() == 1, days
            assert await states() == before and await cases.audit() == chain
            assert {r["id"] for r in entries.rows()} == {"ent_held", "ent_confirmed"}
        clock.use()
        await watch.sweep()
        assert metrics.CLOCK_SUSPECT._value.get() == 0
        assert await states() == before and await cases.audit() == chain

        # The time has really come: the store's clock says so too.
        async def agreed() -> float:
            return clock.now()

        cases.now = agreed  # type: ignore[method-assign]
        clock.use(lambda: now + 100 * 86400)
        await watch.sweep()
        after = await states()
        assert after == {"case_held": ("verified", due.at), "case_confirmed": ("overdue", due.at)}
        assert {r["id"] for r in entries.rows()} == {"ent_confirmed"}, "what was confirmed never ends by time"
        rows = await cases.audit()
        told_ = [row for row in map(json.loads, rows[len(chain) :]) if row.get("part") != "history"]
        assert [row["what"] for row in told_] == ["lapse", "fall_due", "alert"]
        # And back: nothing that has ended begins again.
        for days in (-10, 0, 100):
            clock.use(lambda days=days: now + days * 86400)  # type: ignore[misc]
            await watch.sweep()
            assert await states() == after and await cases.audit() == rows
            assert {r["id"] for r in entries.rows()} == {"ent_confirmed"}
        assert broken(rows, await cases.head()) is None
        await store.close()

    asyncio.run(run())
    assert duties.APART == 5.0
    told(
        "F22",
        "a clock +100, -10, +4000 days or 9 s wrong: told, 0 due dates moved, 0 of 2 cases ended; once the store agrees: 1 lapsed, 1 "
        "overdue, for good",
    )


def test_f22_what_a_probe_shows_counts_though_its_case_fell_due_and_was_reported_meanwhile(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def run(outcome: str) -> str:
        store = Store(redis_server.url, outcome)
        entries = Entries(store, tmp_path / outcome, lambda rows, version, whole: None)
        cases = Cases(store, entries)
        await entries.refresh()
        now = time.time()
        asked = {"model": "m", "by": "request"}
        case = Case(
            "case_late", "default", "violence", "probing", now - 9e6, now - 60, "", asked=asked, left="confirmed",
            next_probe=now - 1,
        )  # fmt: skip
        writes = Writes()
        writes.case(None, case)
        await cases.commit(writes, {"who": "reporter", "what": "report", "case": case.id})
        moderator: Any = SimpleNamespace(policies=policy.load(read({}).policy))
        prober = Prober(cases, Keys(SECRET), moderator, None, dict)  # type: ignore[arg-type]

        async def shows(case: Case, rule: Any) -> dict[str, Any]:
            await Duties(cases).sweep()
            again = await cases.get(case.id)
            assert again is not None and again.state == "probing" and "overdue" in again.alerted
            writes = Writes()
            writes.case(again, replace(again, reports=again.reports + 1))
            await cases.commit(writes, {"who": "reporter", "what": "report", "case": case.id})
            return {"outcome": outcome, "sets": {}}

        prober._outcome = shows  # type: ignore[method-assign]
        await prober.once()
        after = await cases.get(case.id)
        assert after is not None and after.reports == 2 and after.due == case.due
        await store.close()
        return after.state

    assert asyncio.run(run("passed")) == "closed"
    assert asyncio.run(run("failed")) == "overdue"


# ---- F23 and F24: two at once


@pytest.mark.long
def test_f23_two_gateways_that_decide_the_same_reports_at_once_decide_each_once(
    shared_model: Model, tmp_path: Path
) -> None:
    script(shared_model)
    (tmp_path / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], tmp_path / "redis")
    with (
        whole_gateway(tmp_path / "a", shared_model.url, **started(tmp_path / "a", server.url)) as a,
        whole_gateway(tmp_path / "b", shared_model.url, **started(tmp_path / "b", server.url)) as b,
    ):
        checker = Checker(a, b)
        with httpx.Client(timeout=10) as http:
            tickets = [call.answer["ticket"] for _ in range(40) if (call := checker.report(http)).answer is not None]
        tickets = sorted({checker.desk.case(t)["id"]: t for t in tickets}.values())
        answers: dict[str, list[httpx.Response]] = {t: [] for t in tickets}

        def decide(whole: Whole, who: str, decision: str, order: list[str]) -> None:
            for ticket in order:
                answers[ticket].append(Desk(whole).decide(ticket, decision, who))

        threads = [
            threading.Thread(target=decide, args=(whole, who, decision, tickets))
            for whole, who, decision in ((a, "a", "confirm"), (b, "b", "reject"), (b, "a", "confirm"), (a, "b", "reject"))
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = checker.audit()
        for ticket in tickets:
            codes = sorted(r.status_code for r in answers[ticket])
            assert codes == [200, 409, 409, 409], (codes, [r.text for r in answers[ticket]])
            case = checker.desk.case(ticket)
            (decided,) = [r for r in rows if r.get("case") == case["id"] and r["what"] in ("confirm", "reject")]
            (winner,) = [r.json() for r in answers[ticket] if r.status_code == 200]
            assert decided["to"] == winner["state"] == case["state"] and winner["version"] == case["version"]
        told("F23", f"{len(tickets)} cases decided by four at once: {len(tickets)} winners, one row each")

        # F24: who works on a page that is no longer true is told the version that is.
        with httpx.Client(timeout=10) as http:
            call = next(
                c for c in (checker.report(http) for _ in range(3)) if c.answer and c.body["text"] != checker._storm
            )
        assert call.answer is not None
        seen = checker.desk.case(call.answer["ticket"])
        assert Desk(b).decide(seen["id"], "confirm", "b", expected_version=seen["version"]).status_code == 200
        for whole in (a, b):
            late = Desk(whole).decide(seen["id"], "reject", expected_version=seen["version"])
            assert late.status_code == 409 and late.headers["x-sluice-version"] == str(seen["version"] + 1)
            assert Desk(whole).case(seen["id"])["state"] == "confirmed"
        told(
            "F24",
            "a stale version on either of two gateways: 409 with the current one, and the case as the first decided it",
        )
    server.kill()


# ---- F25: poison


@pytest.mark.long
def test_f25_a_probe_that_breaks_its_worker_each_time_is_set_aside_and_holds_up_no_other(
    shared_model: Model, tmp_path: Path
) -> None:
    script(shared_model)
    (tmp_path / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], tmp_path / "redis")
    store: Any = redis.Redis(port=server.port, decode_responses=True)
    with whole_gateway(tmp_path / "gateway", shared_model.url, **started(tmp_path / "gateway", server.url)) as whole:
        desk, broken_workers = Desk(whole), []

        def before(body: dict[str, Any]) -> None:
            if "毒药" in body["messages"][-1]["content"]:
                for worker in whole.workers():
                    broken_workers.append(worker.pid)
                    os.kill(worker.pid, signal.SIGKILL)

        shared_model.script.before = before
        shared_model.script.chat("对不起，这件事我不能说。")
        names = {}
        for prompt in ("毒药", "别的"):
            ticket = desk.report(text=f"{prompt}的那一段话，说的是怎样把东西搬到河边再捆好。").json()["ticket"]
            names[prompt] = desk.case(ticket)["id"]
            assert desk.decide(names[prompt], "confirm").status_code == 200
            assert desk.decide(names[prompt], "probe", model="m", prompt=f"说说{prompt}").status_code == 200
        due = desk.case(names["毒药"])["due"]

        def pass_lease() -> None:
            """The lease runs out: what a quarter of an hour would do."""
            index, rows = "{sluice:default}:cases:probes", "{sluice:default}:cases"
            version, _, body = store.hget(rows, names["毒药"]).partition(" ")
            row = json.loads(body) | {"next_probe": time.time() - 1}
            store.hset(rows, names["毒药"], f"{version} {json.dumps(row, ensure_ascii=False)}")
            store.zadd(index, {names["毒药"]: row["next_probe"]})

        for tries in (1, 2, 3):
            wait_for(lambda: len(set(broken_workers)) == tries, 30)  # noqa: B023
            wait_for(lambda: ready(whole), 30)
            case = desk.case(names["毒药"])
            assert (case["state"], case["tries"], case["due"]) == ("probing", tries, due)
            pass_lease()
        wait_for(lambda: desk.case(names["毒药"])["state"] == "confirmed", 30)
        case = desk.case(names["毒药"])
        assert case["due"] == due and case["next_probe"] is None and "set aside" in case["probes"][-1]["reason"]
        wait_for(lambda: desk.case(names["别的"])["state"] == "closed", 60)
        assert len(set(broken_workers)) == 3
        assert [r["what"] for r in desk.chain() if r.get("case") == names["毒药"]] == [
            "report", "confirm", "probe", "probe", "probe", "probe", "set_aside",
        ]  # fmt: skip
        assert metric(whole, 'sluice_probes_total{outcome="set_aside"}') == 1
        assert [c["id"] for c in desk.admin("GET", "/cases").json()["cases"]] == [names["毒药"]]
        told(
            "F25", f"set aside after {len(set(broken_workers))} workers, due date kept, the other probe closed its case"
        )
    server.kill()
