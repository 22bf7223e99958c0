"""The checker, after Jepsen's "set" test: it sends reports and decisions while something breaks, remembers every attempt and every
acknowledgement, and reads back.

lost: acknowledged and not there. duplicated: there more than once. phantom: there and never sent. undecided: not acknowledged, so it
may be there or not, until the same call is sent again. It passes with 0 lost, 0 duplicated, 0 phantom and a whole chain.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from app import clock, deadlines
from tests.conftest import Model, Whole
from tests.faults.matrix import told, within
from tests.integration.test_privacy import CANARY
from tests.integration.test_reports import ANSWER, OTHER, PASSAGE, REVIEWERS, Desk

MONTHS = 3
PATIENCE = within(2.0)
"""Seconds within which a report is answered, whatever happens."""
DESK_PATIENCE = within(5.5)
"""And a decision."""
ASKED = "说说搬箱子的事"
_TOKENS = [pair.partition(":")[2] for pair in REVIEWERS.split(",")]


@dataclass
class Call:
    """Something to be done once, under one key, however often it is sent. `name`: of a decision, the ticket that it is about."""

    key: str
    body: dict[str, Any]
    name: str = ""
    answer: dict[str, Any] | None = None
    sent: int = 0

    @property
    def acked(self) -> bool:
        return self.answer is not None


@dataclass
class Figures:
    attempted: int
    acked: int
    undecided: int
    decisions: int
    decided: int
    p50: float
    p99: float
    refused: int
    gone: int
    chats: int
    chat_p99: float
    lost: int = 0
    duplicated: int = 0
    phantom: int = 0

    def __str__(self) -> str:
        return (
            f"{self.attempted} reports attempted, {self.acked} acked, {self.undecided} undecided (a 503 {self.refused} times, "
            f"gone {self.gone} times); {self.decided} of {self.decisions} decisions acked; {self.lost} lost, {self.duplicated} duplicated, "
            f"{self.phantom} phantom; intake p50 {self.p50 * 1000:.0f} ms, p99 {self.p99 * 1000:.0f} ms; {self.chats} chats, "
            f"p99 {self.chat_p99 * 1000:.0f} ms"
        )  # fmt: skip


def script(model: Model) -> None:
    """Have the model say the reported answer to who asks for it, and something harmless else."""
    model.script.chat(ANSWER)
    bad = model.script.plain
    model.script.chat(OTHER)
    good = model.script.plain

    def before(body: dict[str, Any]) -> None:
        model.script.plain = bad if body["messages"][-1]["content"] == ASKED else good

    model.script.before = before


class Checker:
    """A client of one gateway, or of several. `gone`: a gateway may be gone while it is asked, because the test kills it."""

    def __init__(self, *wholes: Whole, gone: bool = False) -> None:
        self.wholes, self.gone_allowed = wholes, gone
        self.desk = Desk(wholes[0])
        self.run = secrets.token_hex(4)
        self.reports: list[Call] = []
        self.decisions: list[Call] = []
        self.odd: list[str] = []
        """What no client may ever see."""
        self.took: list[float] = []
        self.chatted: list[float] = []
        self.refused = self.gone = 0
        self._lock = threading.Lock()
        self._undecided: list[str] = []
        self._dues: dict[str, str] = {}
        self._before = len(self.audit())

    # ---- sending

    def send(self, call: Call, http: httpx.Client, whole: Whole | None = None) -> None:
        whole = whole or random.choice(self.wholes)
        headers = {"Idempotency-Key": call.key}
        if call.name:
            url = f"{whole.admin}/sluice/v1/admin/cases/{call.name}/decision"
            headers["Authorization"] = f"Bearer {random.choice(_TOKENS) if not call.sent else call.body['token']}"
            call.body.setdefault("token", headers["Authorization"].removeprefix("Bearer "))
        else:
            url = f"{whole.url}/sluice/v1/reports"
        call.sent += 1
        started = time.perf_counter()
        try:
            answer = http.post(url, json={k: v for k, v in call.body.items() if k != "token"}, headers=headers)
        except httpx.TransportError as e:
            with self._lock:
                self.gone += 1
                if not self.gone_allowed:
                    self.odd.append(f"{'decision' if call.name else 'report'}: {e!r}")
            return
        took = time.perf_counter() - started
        with self._lock:
            if answer.status_code in (200, 202):
                value = answer.json()
                if call.answer is not None and call.answer != value:
                    self.odd.append(f"another answer to the same call: {call.answer} and {value}")
                call.answer = value
                if call.name:
                    self._dues.setdefault(value["id"], value["due"])
                else:
                    self.took.append(took)
                    if call.body["text"] != self._storm and random.random() < 0.5:
                        self._undecided.append(value["ticket"])
            elif answer.status_code == 503 and answer.json()["error"]["code"] == "store_unavailable":
                self.refused += 1
            else:
                self.odd.append(f"{'decision' if call.name else 'report'}: {answer.status_code} {answer.text[:200]}")
            # A gateway that has just been started anew lets connections wait until its workers have started.
            if took > (DESK_PATIENCE if call.name else PATIENCE) and not self.gone_allowed:
                self.odd.append(
                    f"{'decision' if call.name else 'report'} answered {answer.status_code} after {took:.2f} s"
                )

    @property
    def _storm(self) -> str:
        """What many report."""
        return f"第{self.run}号大家都举报的这一段话，说的是河边的一只旧船和船上的一盏灯，到了夜里还亮着。"

    def report(self, http: httpx.Client) -> Call:
        """Send a new report."""
        with self._lock:
            n = len(self.reports)
            key = f"{self.run}-{n}"
            text = (
                self._storm
                if n % 8 == 0
                else f"请把编号{key}的东西搬到河边，再用绳子捆好，最后写上日期和{CANARY}，交给夜班。"
            )
            call = Call(key, {"text": text, "comment": f"看看{CANARY}"})
            self.reports.append(call)
        self.send(call, http)
        return call

    def decide(self, http: httpx.Client) -> Call | None:
        """Decide a report that nobody has decided."""
        with self._lock:
            if not self._undecided:
                return None
            ticket = self._undecided.pop()
            call = Call(
                f"decide {ticket}",
                {"decision": "confirm" if len(self.decisions) % 4 == 0 else "reject", "reason": "checked"},
                ticket,
            )
            self.decisions.append(call)
        self.send(call, http)
        return call

    @contextmanager
    def load(self, threads: int = 3, pause: float = 0.01) -> Iterator[None]:
        """Reports, decisions and chats while the block runs. Half of what was not acknowledged is sent again at once."""
        over = threading.Event()

        def work() -> None:
            with httpx.Client(timeout=15) as http:
                while not over.is_set():
                    for call in (self.report(http), self.decide(http)):
                        if call is not None and not call.acked and random.random() < 0.5:
                            self.send(call, http)
                    # Nobody is there for seconds on end: that would be thousands of attempts.
                    time.sleep(pause if self.reports[-1].acked else 0.1)

        def chat() -> None:
            with httpx.Client(timeout=15) as http:
                while not over.is_set():
                    self._chat(http)
                    time.sleep(0.02)

        workers = [threading.Thread(target=work) for _ in range(threads)] + [threading.Thread(target=chat)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            over.set()
            for worker in workers:
                worker.join(30)

    def _chat(self, http: httpx.Client) -> None:
        whole, blocked = random.choice(self.wholes), random.random() < 0.5
        content = ASKED if blocked else f"今天怎么样，{CANARY}"
        body = {"model": "m", "messages": [{"role": "user", "content": content}]}
        started = time.perf_counter()
        try:
            answer = http.post(f"{whole.url}/v1/chat/completions", json=body)
        except httpx.TransportError as e:
            if not self.gone_allowed:
                self.odd.append(f"chat: {e!r}")
            return
        self.chatted.append(time.perf_counter() - started)
        if self.gone_allowed and "gateway_draining" in answer.text:
            return  # its parent is gone
        if answer.status_code != 200:
            self.odd.append(f"chat: {answer.status_code} {answer.text[:200]}")
            return
        said = answer.json()["choices"][0]["message"]["content"]
        if blocked and "木箱" in said:
            self.odd.append("a confirmed passage was delivered")
        if not blocked and said != OTHER:
            self.odd.append(f"a harmless answer was changed: {said}")

    def block(self) -> None:
        """Have the model's bad answer reported and confirmed, so that chats can tell whether it stays blocked."""
        answer = self.desk.ask()
        if "木箱" in answer["choices"][0]["message"]["content"]:
            ticket = self.desk.report(answer, passage=[8, 8 + len(PASSAGE)], key=f"{self.run} bad").json()
            assert self.desk.decide(ticket["ticket"], "confirm", category="illegal_acts").status_code == 200
        for whole in self.wholes:
            end = time.monotonic() + 5
            while "木箱" in Desk(whole).said():
                assert time.monotonic() < end, "a confirmed passage is not blocked"
                time.sleep(0.02)
        self._before = len(self.audit())

    def acks(self) -> int:
        return sum(c.acked for c in self.reports)

    def until(self, more: int, seconds: float = 15) -> float:
        """Wait until so many more reports are acknowledged; how long it took."""
        wanted, started = self.acks() + more, time.monotonic()
        while self.acks() < wanted:
            assert time.monotonic() - started < seconds, f"reports are not taken any more: {self.odd[:3]}"
            time.sleep(0.02)
        return time.monotonic() - started

    # ---- reading back

    def audit(self) -> list[dict[str, Any]]:
        """The whole chain, verified by the gateway."""
        rows: list[dict[str, Any]] = []
        while True:
            found = self.desk.admin("GET", f"/audit?after={len(rows)}").json()
            assert found["chain"] == "whole", found["chain"]
            rows += found["rows"]
            if len(rows) >= found["total"] or not found["rows"]:
                break
        assert [r["seq"] for r in rows] == list(range(1, len(rows) + 1))
        return rows

    def verify(self, row: str, what: str = "") -> Figures:
        """Read back, send again what nobody acknowledged, and read back once more. Fails where anything is lost, twice or made up."""
        figures = self._figures()
        first = self._count(figures, settled=False)
        with httpx.Client(timeout=15) as http:
            for call in (*self.reports, *self.decisions):
                end = time.monotonic() + 10
                while not call.acked and time.monotonic() < end and not self.odd:
                    self.send(call, http)
                # And one that was acknowledged gives the first answer.
                if call.sent == 1 and random.random() < 0.1:
                    self.send(call, http)
        assert self.odd == [], self.odd[:5]
        self._count(figures, settled=True, before=first)
        told(row, f"{what + ': ' if what else ''}{figures}")
        assert (figures.lost, figures.duplicated, figures.phantom) == (0, 0, 0), figures
        self._cases()
        for whole in self.wholes:
            assert CANARY not in httpx.get(whole.ops + "/metrics").text
        return figures

    def _figures(self) -> Figures:
        took, chatted = sorted(self.took), sorted(self.chatted)
        acked, decided = self.acks(), sum(c.acked for c in self.decisions)

        def part(values: list[float], share: float) -> float:
            return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0

        return Figures(
            len(self.reports), acked, len(self.reports) - acked, len(self.decisions), decided, part(took, 0.5), part(took, 0.99),
            self.refused, self.gone, len(chatted), part(chatted, 0.99),
        )  # fmt: skip

    def _count(self, figures: Figures, *, settled: bool, before: Counter[str] | None = None) -> Counter[str]:
        rows = self.audit()[self._before :]
        tickets = Counter(r["ticket"] for r in rows if r["what"] == "report")
        case_of = {r["ticket"]: r["case"] for r in rows if r["what"] == "report"}
        decided = Counter((r["case"], r["what"]) for r in rows if r["what"] in ("confirm", "reject"))
        acked = {c.answer["ticket"] for c in self.reports if c.answer is not None}
        unacked = sum(not c.acked for c in self.reports)
        wanted = {(case_of.get(c.name, ""), c.body["decision"]) for c in self.decisions}
        done = {(case_of.get(c.name, ""), c.body["decision"]) for c in self.decisions if c.acked}
        figures.lost += len(acked - set(tickets)) + len(done - set(decided))
        figures.duplicated += sum(n - 1 for n in tickets.values()) + sum(n - 1 for n in decided.values())
        figures.duplicated += sum(c.acked for c in self.reports) - len(acked)
        # A report that was not acknowledged may be there, but not more of them than were sent.
        figures.phantom += max(0, len(set(tickets) - acked) - unacked) + len(set(decided) - wanted)
        if settled:
            figures.lost += unacked + sum(not c.acked for c in self.decisions)
            assert before is None or set(before) <= set(tickets), "a row of the chain is gone"
        return tickets

    def _cases(self) -> None:
        """Every case: as many reports and changes as the chain has rows for it, decided as acknowledged, due when it was first due."""
        rows = self.audit()
        changes = Counter(r["case"] for r in rows if "case" in r and r["what"] != "look")
        reports = Counter(r["case"] for r in rows if r["what"] == "report")
        case_of = {r["ticket"]: r["case"] for r in rows if r["what"] == "report"}
        seen: set[str] = set()
        outcome = {case_of[c.name]: c.body["decision"] for c in self.decisions}
        with httpx.Client(timeout=10, headers={"Authorization": f"Bearer {_TOKENS[0]}"}) as http:
            for call in self.reports:
                assert call.answer is not None
                id = case_of[call.answer["ticket"]]
                if id in seen:
                    continue
                seen.add(id)
                case = http.get(f"{self.wholes[0].admin}/sluice/v1/admin/cases/{id}").json()
                assert case["version"] == changes[id], (case, changes[id])
                assert case["reports"] == reports[id], (case, reports[id])
                state = {"confirm": "confirmed", "reject": "rejected"}.get(outcome.get(id, ""), "received")
                assert case["state"] == state, (case, state)
                received = datetime.fromisoformat(case["received"]).timestamp()
                assert case["due"] == clock.stamp(deadlines.due(received, MONTHS).at), case
                assert self._dues.setdefault(id, case["due"]) == case["due"], "a due date has changed"
                if random.random() < 0.2:
                    assert self.desk.state(call.answer) == (case["state"] if state != "received" else "unverified")
