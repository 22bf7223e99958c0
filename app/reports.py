"""Reports: how they come in, what they bring about before somebody decides, and what the person who reported may know.

Law: an acknowledged report is durable and exists once per idempotency key; the same passage reported again is the same case, counted.
A receipt proves a delivery, never a wrong: what is unconfirmed is hidden from the reporter alone, and app-wide only for hours and only
where `held` says so. No text a person sends is kept but as sealed evidence, and of a category that keeps nothing not even that. Who a
report is about is told nothing; who reported is a pseudonym.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from app import clock, deadlines, metrics, remediation, vault
from app.apps import App
from app.clean import Clean
from app.copies import runs
from app.deliveries import Deliveries
from app.detectors.blocklist import pack
from app.errors import Conflict, RequestError
from app.keys import Keys, verify
from app.likeness import bands
from app.moderation import Judged, Moderator
from app.notices import without
from app.passages import MAX, compact, fingerprint
from app.policy import Policy
from app.remediation import Case
from app.store.cases import PATIENCE, Cases, Taken, Writes
from app.store.client import within
from app.store.tables import Row
from app.subjects import Standing
from app.surrogate import language
from app.taxonomy import taxonomy
from app.text import fold
from app.types import Action, Scope, Slot

UNKNOWN = "other_prohibited"
"""The category of a case where nobody named one and nothing was found."""
OURS = "sluice"
"""The source of a report that nobody sent: an answer that was stopped."""
_TRIES = 20
_REPORTERS = 64
_COPIED = 4000
"""Characters of a passage by which near copies of it are found."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a person sends in. `passage`: where it stands in `text`, code points, end exclusive. `prompt`: sent with consent."""

    text: str
    decision: str | None = None
    receipt: str | None = None
    passage: tuple[int, int] | None = None
    category: str | None = None
    comment: str | None = None
    prompt: str | None = None
    bare: str | None = None
    """The passage without words of ours."""

    @property
    def marked(self) -> str:
        """The passage."""
        if self.bare is not None:
            return self.bare
        if self.passage is None:
            return self.text
        start, end = self.passage
        return self.text[start:end]


class Sender(NamedTuple):
    """Who reports. `reporter`: a pseudonym, '' where nobody is known; `readers`: under which names answers to them are screened;
    `source`: a pseudonym of where it came from. `older`: reporter, readers and source under each older key. `standing`: what is imposed on
    them, if anything.

    What one person's report writes stands under one key: who has the store and not the secret cannot tell who somebody was before a
    rotation. So a case goes on knowing a person by the name by which it came to know them."""

    app: App
    reporter: str
    readers: tuple[str, ...]
    source: str
    older: tuple[tuple[str, tuple[str, ...], str], ...] = ()
    standing: Standing | None = None

    def known(self, names: Collection[str]) -> Sender:
        """The same, by the name under which they stand among `names`; by the current one where they do not."""
        for reporter, readers, _ in self.older:
            if reporter in names:
                return self._replace(reporter=reporter, readers=readers)
        return self

    def before(self, keys: Keys) -> Iterator[tuple[Sender, str]]:
        """Who they were under each older key, and that key's kid."""
        for (reporter, readers, source), kid in zip(self.older, keys.kids[1:], strict=False):
            yield self._replace(reporter=reporter, readers=readers, source=source), kid


class Reports:
    """Intake at the client port. `clean`: what no report may hide."""

    def __init__(self, cases: Cases, keys: Keys, moderator: Moderator, clean: Clean, deliveries: Deliveries) -> None:
        self._cases, self._keys, self._moderator = cases, keys, moderator
        self._clean, self._deliveries = clean, deliveries
        self.corrections: Callable[[], Sequence[str]] = list
        """The words of corrections that answers may hold."""
        self._turn = asyncio.Lock()

    async def receive(self, report: Report, sender: Sender, key: str | None = None) -> Row:
        """Take a report: its ticket, status token and what is known of it. `key`: the Idempotency-Key.

        Raises RequestError, Limited (too many), StoreError (not taken; the same call may be sent again), ValueError for a key used for
        something else.
        """
        app = sender.app.id
        policy = self._moderator.policies.of(sender.app.policy)
        for before, kid in sender.before(self._keys):
            digest = self._digest(before, report, kid)
            used = f"{app} {before.reporter or before.source} {key}" if key else f"{app} {digest}"
            if first := await self._cases.repeated(used, digest):
                return first
        request = self._digest(sender, report)
        # Without a key of its own the same report of the same person is the same report.
        own = sender.reporter or report.receipt
        key = (
            f"{app} {sender.reporter or sender.source} {key}"
            if key
            else f"{app} {request}"
            if own
            else secrets.token_hex(16)
        )
        ticket = "tkt_" + hashlib.sha256(f"report\n{key}\n{request}".encode()).hexdigest()[:24]
        proved = bool(
            report.receipt and report.decision
            and verify(self._keys, report.receipt, report.decision, app, report.text)
        )  # fmt: skip
        if report.receipt and not proved:
            raise RequestError(
                "receipt: it is not of this text and decision; send text and receipt as they were delivered, or neither",
                code="receipt_mismatch", param="receipt", status=422,
            )  # fmt: skip
        # What we said around the answer is no part of what is wrong with it.
        report = replace(report, bare=without(report.marked, policy.rules, self.corrections))
        if len(compact(fold(report.marked))) < 2:
            raise RequestError(
                "passage: there is nothing in it but spaces and marks",
                code="empty_passage",
                param="passage",
                status=422,
            )
        # Takes its own time, where a guard is asked; the rest is the store's.
        judged = await self._moderator.judge([Slot(("text",), report.text, "assistant")], Scope(app, "answer"), policy)
        async with within(PATIENCE):
            looked = await self._look(report, sender, policy, proved, judged)
            standing = "verified" if looked.proved else "unverified"
            result = {"ticket": ticket, "status_token": self._keys.status_token(ticket), "state": standing}
            event: Row = {"who": "reporter", "what": "report", "ticket": ticket, "standing": standing}
            if sender.source == OURS:
                event["ours"] = True
            used_up = await self._used(sender)
            # One at a time in this process: reports of one passage, of which a storm consists, would else trip over each other.
            async with self._turn:
                for _ in range(_TRIES):
                    writes = Writes()
                    case, known, hides = await self._case(writes, looked, sender, policy, ticket)
                    self._limits(writes, known, policy, used_up)
                    kept = {
                        "case": case.id,
                        "app": app,
                        "at": clock.now(),
                        "proved": looked.proved,
                        "reporter": known.reporter,
                    }
                    writes.new("tickets", ticket, json.dumps(kept))
                    if report.comment and not (looked.no_retain or taxonomy()[case.category].no_retain):
                        writes.set(
                            f"comments:{case.id}", ticket, vault.seal(self._keys, f"{ticket}/comment", report.comment)
                        )
                    try:
                        answer = await self._cases.commit(
                            writes,
                            {**event, "case": case.id, "state": case.state, "held": hides},
                            key=key,
                            request=request,
                            result=result,
                        )
                    except Conflict:
                        continue
                    except Taken as e:
                        if e.value.startswith("{"):
                            return result  # the result of the key has been forgotten, the ticket has not
                        continue  # somebody was first with this passage: it is a case now
                    metrics.REPORTS.labels(standing).inc()
                    return answer
        raise Conflict("too many reports of one passage at once; send it again", 0)

    async def state(self, ticket: str, token: str) -> str | None:
        """What has become of a report; None for an unknown ticket and for a wrong token alike."""
        if not self._keys.opens(ticket, token):
            return None
        row = await self._cases.ticket(ticket)
        if row is None:
            await self._cases.sure()
            return None
        case = await self._cases.get(row["case"])
        if case is None:
            return None
        if case.state in ("received", "verified"):
            return "verified" if row["proved"] else "unverified"
        return case.state

    # ---- looking at it

    async def _look(self, report: Report, sender: Sender, policy: Policy, proved: bool, judged: Judged) -> _Looked:
        passage = report.marked
        dense = compact(fold(passage))
        start, end = report.passage or (0, len(report.text))
        found = [
            f for f in judged.verdict.findings
            if f.action > Action.PASS and not f.shadow and f.start < end and start < f.end
            and f.detector not in ("blocklist", "passages")
        ]  # fmt: skip
        strictest = max(found, key=lambda f: f.action, default=None)
        category = report.category or (strictest.category if strictest is not None else UNKNOWN)
        no_retain = any(taxonomy()[c].no_retain for c in (category, *(f.category for f in found)))
        count = await self._deliveries.count(sender.app.id, passage)
        clean = await asyncio.to_thread(self._is_clean, passage, policy)
        marks = tuple(
            f"{kid}.{self._keys.mac('fingerprint', 'case', sender.app.id, dense, kid=kid).hex()}"
            for kid in self._keys.all("fingerprint")
        )
        like = () if no_retain else await asyncio.to_thread(bands, self._keys, sender.app.id, dense)
        print_: Mapping[str, Any] | None = None
        try:
            key = self._keys.derive("fingerprint")
            made = await asyncio.to_thread(runs, passage[:_COPIED], self._keys.kid, key, self._clean)
            print_ = pack(fingerprint(passage[:MAX], self._keys.kid, key), made)
        except ValueError:
            pass  # too short for one: a case all the same, on which a person may act
        return _Looked(
            report,
            marks,
            print_,
            like,
            len(dense),
            category,
            no_retain,
            bool(found),
            proved or count is not None,
            count,
            clean,
        )

    def _is_clean(self, passage: str, policy: Policy) -> bool:
        own = [*policy.rules.reports.clean, *(w for s in policy.rules.surrogates.values() for w in (s.zh, s.en))]
        return self._clean.knows(passage) or (bool(own) and Clean.of(own).knows(passage))

    def _digest(self, sender: Sender, report: Report, kid: str | None = None) -> str:
        parts = [
            report.text,
            report.decision,
            report.receipt,
            report.passage,
            report.category,
            report.comment,
            report.prompt,
        ]
        return self._keys.mac("ticket", "request", sender.app.id, sender.reporter, json.dumps(parts), kid=kid).hex()

    async def _used(self, sender: Sender) -> Mapping[str, int]:
        """How many reports of this hour are counted under each name of a sender with several: a rotation gives nobody a second hour."""
        names = [n for n in (sender.reporter, *(older[0] for older in sender.older)) if n]
        if len(names) < 2:
            return {}
        store = self._cases.store
        counts = await store.run("MGET", *(store.key(f"limit:reporter:{name}") for name in names))
        return {name: int(n or 0) for name, n in zip(names, counts, strict=True)}

    def _limits(self, writes: Writes, sender: Sender, policy: Policy, used: Mapping[str, int]) -> None:
        rule = policy.rules.reports
        if sender.reporter:
            others = sum(n for name, n in used.items() if name != sender.reporter)
            writes.limit(f"reporter:{sender.reporter}", rule.per_reporter - others, 3600)
        writes.limit(f"source:{sender.app.id}:{sender.source}", rule.per_source, 60)

    # ---- the case

    async def _case(
        self, writes: Writes, looked: _Looked, sender: Sender, policy: Policy, ticket: str
    ) -> tuple[Case, Sender, str | None]:
        """The case of this report as it is afterwards, new or one that is there, by which name it knows the sender, and from whom it is
        hidden now: "app", "reporter", None for nobody else; `writes` gets what that takes."""
        now = clock.now()
        known = None
        for mark in looked.marks:
            known = known or await self._cases.field("cases:same", mark)
        before = await self._cases.get(known) if known is not None else None
        sender = sender.known(before.reporters) if before is not None else sender
        if before is None:
            case = self._opened(looked, sender, policy, now)
            writes.new("cases:same", looked.marks[0], case.id)
            if looked.fingerprint is not None and "runs" in looked.fingerprint:
                writes.set("runs", case.id, looked.fingerprint["runs"])
        else:
            case = _merged(before, looked, sender)
        case, hides = self._acted(writes, case, looked, sender, policy, now)
        # Nobody who comes later replaces what was sent first; a prompt is taken up where there was none, from whom it was answered.
        if looked.report.comment and not (looked.no_retain or taxonomy()[case.category].no_retain):
            case = replace(case, comments=True)
        if before is None or not before.evidence or (looked.report.prompt and looked.proved and not before.prompted):
            case = self._evidence(writes, case, looked, ticket)
        writes.case(before, case)
        return case, sender, hides

    def _opened(self, looked: _Looked, sender: Sender, policy: Policy, now: float) -> Case:
        due = deadlines.due(now, policy.rules.reports.months)
        return Case(
            id="case_" + secrets.token_hex(10), app=sender.app.id, category=looked.category,
            state="verified" if looked.proved else "received", received=now, due=due.at, rule=f"{policy.profile}:{due.rule}",
            length=looked.length, fingerprint=_whole(looked.fingerprint), language=_language(looked.report),
            subjects=int(bool(sender.reporter) and looked.proved), reporters=(sender.reporter,) if sender.reporter else (),
            flagged=looked.flagged, proved=looked.proved, like=looked.like,
        )  # fmt: skip

    def _acted(
        self, writes: Writes, case: Case, looked: _Looked, sender: Sender, policy: Policy, now: float
    ) -> tuple[Case, str | None]:
        """Put up what acts before somebody decides; for whom that is."""
        if case.state not in ("received", "verified") or case.fingerprint is None:
            return case, None
        rule = policy.rules.reports
        lapses = now + rule.hours * 3600
        if held(case, looked, rule.letters, rule.subjects, rule.delivered) and rule.hold:
            case = remediation.moved(case, "hold", now)
            row = entry(case, {"app": case.app, "directions": ["answer"]}, "report", expires=lapses)
            case = replace(case, lapses=lapses, entries=(*case.entries, row["id"]))
            whom = "app"
        elif looked.proved and sender.readers:
            row = entry(
                case, {"app": case.app, "directions": ["answer"], "readers": list(sender.readers)}, "report",
                expires=lapses, name=sender.readers[0],
            )  # fmt: skip
            others = {_entry_id(case, readers[0]) for _, readers, _ in sender.older if readers}
            if not {row["id"], *others}.isdisjoint(case.entries) or len(case.entries) >= _REPORTERS:
                return case, None
            case = replace(case, entries=(*case.entries, row["id"]))
            whom = "reporter"
        else:
            return case, None
        metrics.HOLDS.labels(whom).inc()
        writes.table(self._cases.entries, row["id"], row, self._cases.changed())
        return case, whom

    def _evidence(self, writes: Writes, case: Case, looked: _Looked, ticket: str) -> Case:
        """`ticket`: of the report that it came with, so that whoever sent it can have it erased."""
        if looked.no_retain or taxonomy()[case.category].no_retain:
            return case
        kept = {
            "passage": looked.report.marked,
            "text": looked.report.text,
            "prompt": looked.report.prompt,
            "ticket": ticket,
        }
        writes.set(
            "evidence", case.id, vault.seal(self._keys, f"{case.id}/evidence", json.dumps(kept, ensure_ascii=False))
        )
        return replace(case, evidence=True, prompted=looked.report.prompt is not None)


class _Looked(NamedTuple):
    """A report as it was looked at. `marks`: of the passage, under every key; `deliveries`: about how often it was delivered, None:
    unknown."""

    report: Report
    marks: tuple[str, ...]
    fingerprint: Mapping[str, Any] | None
    like: tuple[str, ...]
    length: int
    category: str
    no_retain: bool
    flagged: bool
    proved: bool
    deliveries: int | None
    clean: bool


def held(case: Case, looked: _Looked, letters: int, subjects: int, delivered: int) -> bool:
    """An unconfirmed passage may be hidden from a whole app for some hours: never what is short, stands in a clean text, or was delivered
    to many; and only where our own detectors had flagged it, or so many asserted users reported it and it is known how often it was
    delivered. Anonymous reports never count. Once a case."""
    if case.lapsed or not looked.proved or looked.length < letters or looked.clean or looked.no_retain:
        return False
    others = None if looked.deliveries is None else looked.deliveries - case.subjects
    if others is not None and others > delivered:
        return False
    return looked.flagged or (case.subjects >= subjects and others is not None)


def _merged(case: Case, looked: _Looked, sender: Sender) -> Case:
    """The same passage was reported once more. Its due date stays that of the first report."""
    case = replace(case, reports=case.reports + 1, flagged=case.flagged or looked.flagged)
    if sender.reporter and sender.reporter not in case.reporters and len(case.reporters) < _REPORTERS:
        reporters = (*case.reporters, sender.reporter)
        case = replace(case, reporters=reporters, subjects=case.subjects + looked.proved)
    if looked.proved and not case.proved:
        case = replace(case, proved=True)
        if case.state == "received":
            case = remediation.moved(case, "verify", clock.now())
    if case.state == "closed" and _delivered(looked.report) > (case.ended or 0):
        # It was delivered again: the model does it again, and no entry stopped it. A receipt from before says nothing of that.
        case = remediation.moved(case, "reopen", clock.now(), reason="it was delivered again")
    return case


def entry(case: Case, scope: Row, owner: str, *, expires: float | None = None, name: str = "") -> Row:
    """The live entry by which a case acts. `name`: tells one that acts for a reader from the one that acts for all."""
    row: Row = {
        "id": _entry_id(case, name), "fingerprint": case.fingerprint, "category": case.category, "action": "block", "tier": "certain",
        "scope": scope, "reason": f"case {case.id}", "case": case.id, "owner": owner, "created_at": clock.stamp(),
    }  # fmt: skip
    if expires is not None:
        row["expires_at"] = clock.stamp(expires).replace("Z", "+00:00")
    return row


def _entry_id(case: Case, name: str) -> str:
    return "ent_" + hashlib.sha256(f"{case.id}\n{name}".encode()).hexdigest()[:20]


def _delivered(report: Report) -> float:
    """When the answer was delivered, by its receipt, which was verified before; 0 without one."""
    return float(report.receipt.split(".")[2]) if report.receipt else 0.0


def _whole(print_: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Without the runs, which are kept apart: unconfirmed, a passage is found as a whole."""
    return None if print_ is None else {k: v for k, v in print_.items() if k != "runs"}


def _language(report: Report) -> str:
    return language([Slot((), report.marked, "user", message=0)])
