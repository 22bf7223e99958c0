"""Complaints and appeals: what people demand for themselves. Draft Measures, Article 13; Interim Measures, Articles 11 and 15.

Law: each has a ticket, a published date by which it is answered, and an outcome that its status token opens; a refusal gives its reason.
A block about a person never masks a name: it masks a number, an address or an account, for 180 days at most, decided by two who answered
the question of public interest. An appeal against a refused prompt is proved by the prompt itself; upheld, that very text passes, in that
app, in that category, for a time, and the rule that misfired is counted.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from app import clock, retention, vault
from app.deadlines import SHANGHAI, day_end
from app.errors import RequestError, Unreadable
from app.exceptions import exception
from app.keys import Keys, decision_tail
from app.moderation import Moderator
from app.reports import Report, Reports, Sender
from app.review import shadowed_after
from app.store.cases import Cases, Writes
from app.store.tables import Row, Table
from app.subjects import Subjects
from app.taxonomy import taxonomy
from app.types import Action, Scope, Slot

KINDS = ("pi_correct", "pi_delete", "pi_block", "infringement", "unlawful_content", "wrong_block")
APPEALS = ("blocked_prompt", "blocked_answer", "standing")
_PAGE = 1000
BLOCK_DAYS, EXCEPTION_DAYS = 180, retention.seconds("exceptions") // retention.DAY
_NUMBER = re.compile(r"(?:\d[\s-]?){5,}")
_ACCOUNT = re.compile(r"[A-Za-z0-9._-]*(?:@|\d)[A-Za-z0-9@._-]{4,}")
_ADDRESS = re.compile(r"(?=.*\d)(?=(?:.*[\u4e00-\u9fff]){6}|(?:.*[A-Za-z]){8})")

State = Literal["received", "upheld", "refused", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Matter:
    """A complaint or an appeal. Holds no text: what was sent is sealed evidence. `rules`: those that an appeal says misfired. `outcome`:
    what the reviewer answers. `first`: what a first reviewer proposed, where two are needed. `case`: what follows from the text that it is
    about. `standing`, `imposed`: what was imposed on
    whoever appeals against that, and which version of it. `tries`: how often the model was to be asked again."""

    id: str
    kind: str
    app: str
    at: float
    due: float
    state: State = "received"
    reporter: str = ""
    decision: str = ""
    proved: bool = False
    category: str = ""
    rules: tuple[str, ...] = ()
    outcome: str = ""
    first: Mapping[str, Any] | None = None
    entries: tuple[str, ...] = ()
    case: str = ""
    standing: str = ""
    imposed: int = 0
    tries: int = 0
    version: int = 0

    def row(self) -> Row:
        return {k: v for k, v in asdict(self).items() if k != "version"}

    @classmethod
    def of(cls, raw: str) -> Matter:
        version, _, body = raw.partition(" ")
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in json.loads(body).items() if k in cls.__dataclass_fields__
        }  # fmt: skip
        return cls(**given | {"version": int(version)})


class Complaints:
    """Intake (with `moderator` and `reports`, at the client port) and decisions (at the admin port). `exceptions`, `shadows`: their
    tables."""

    def __init__(
        self,
        cases: Cases,
        keys: Keys,
        exceptions: Table,
        shadows: Table,
        moderator: Moderator | None = None,
        reports: Reports | None = None,
        subjects: Subjects | None = None,
    ) -> None:
        self._cases, self._keys, self._exceptions, self._shadows = cases, keys, exceptions, shadows
        self._moderator, self._reports, self._subjects = moderator, reports, subjects

    # ---- coming in

    async def receive(self, kind: str, sender: Sender, said: Mapping[str, Any], key: str | None = None) -> Row:
        """Take one: its ticket, status token, state and the date by which it is answered. `said`: text, prompt, decision_id, comment.
        Raises RequestError, Limited, StoreError, ValueError for a key used for something else."""
        assert self._moderator is not None
        policy = self._moderator.policies.of(sender.app.policy)
        app, now = sender.app.id, clock.now()
        for before, kid in sender.before(self._keys) if key else ():
            used = f"{app} {before.reporter or before.source} {key}"
            if first := await self._cases.repeated(used, self._digest(kind, before, said, kid)):
                return first
        standing = sender.standing if kind == "standing" else None
        if kind == "standing" and standing is None:
            raise RequestError(
                "nothing is imposed on this user that could be appealed against", code="not_found", status=404
            )
        request = self._digest(kind, sender, said)
        key = f"{app} {sender.reporter or sender.source} {key}" if key else secrets.token_hex(16)
        if standing is not None:
            # One appeal against one thing: sent again, however worded, it is the same ticket.
            request = key = f"{app} {standing.id}@{standing.version}"
        id = ("apl_" if kind in APPEALS else "cmp_") + hashlib.sha256(f"{kind}\n{key}\n{request}".encode()).hexdigest()[
            :24
        ]
        matter = Matter(
            id, kind, app, now, day_end(now, policy.rules.reports.days),
            reporter=sender.reporter, decision=str(said.get("decision_id") or ""),
        )  # fmt: skip
        if standing is not None:
            matter = replace(matter, standing=standing.id, imposed=standing.version)
        elif kind == "blocked_prompt":
            matter = await self._appealed(matter, str(said["prompt"]), sender)
        elif said.get("text") and kind not in APPEALS:
            matter = await self._reported(matter, said, sender, key)
        result = {
            "ticket": id,
            "status_token": self._keys.status_token(id),
            "state": matter.state,
            "answered_by": clock.stamp(matter.due),
        }
        writes = Writes()
        if sender.reporter:
            writes.limit(f"reporter:{sender.reporter}", policy.rules.reports.per_reporter, 3600)
        writes.limit(f"source:{app}:{sender.source}", policy.rules.reports.per_source, 60)
        writes.row("matters", id, 0, matter.row())
        writes.score("matters:open", id, now)
        writes.score("matters:all", id, now)
        kept = {k: v for k, v in said.items() if v and k not in ("decision_id", "receipt")}
        if kind == "blocked_answer" and (answer := await self._held(matter.decision)):
            kept["answer"] = answer
        if matter.case:  # the text is the case's evidence, or may not be kept at all
            kept = {k: v for k, v in kept.items() if k == "comment"}
        if kept and not await self._forbidden(matter, said, sender):
            writes.set("evidence", id, vault.seal(self._keys, f"{id}/evidence", json.dumps(kept, ensure_ascii=False)))
        event = {"who": "reporter", "what": kind, "matter": id}
        return await self._cases.commit(writes, event, key=key, request=request, result=result)

    def _digest(self, kind: str, sender: Sender, said: Mapping[str, Any], kid: str | None = None) -> str:
        parts = (kind, sender.app.id, sender.reporter, json.dumps(said, sort_keys=True))
        return self._keys.mac("ticket", "request", *parts, kid=kid).hex()

    def kind(self, app: str, decision: str, prompt: str) -> str:
        """Which appeal it is: against the refusal of this prompt, or against an answer."""
        try:
            refused = self._keys.refusal.is_tail(decision_tail(decision), app, prompt)
        except ValueError:
            refused = False
        return "blocked_prompt" if refused else "blocked_answer"

    async def _reported(self, matter: Matter, said: Mapping[str, Any], sender: Sender, key: str) -> Matter:
        """The text that a complaint is about is a report too: what follows from it is a case."""
        assert self._reports is not None
        report = Report(
            said["text"], said.get("decision_id") if said.get("receipt") else None, said.get("receipt"),
            said.get("passage"), said.get("category"), None, said.get("prompt"),
        )  # fmt: skip
        taken = await self._reports.receive(report, sender, f"{key} complaint")
        ticket = await self._cases.ticket(str(taken["ticket"]))
        if ticket is None:
            return matter
        # By the name under which the case knows them: two names of one person are never brought together.
        return replace(matter, case=ticket["case"], reporter=ticket["reporter"])

    async def _forbidden(self, matter: Matter, said: Mapping[str, Any], sender: Sender) -> bool:
        """What was sent is of a category of which nothing is kept, by what is said of it or by what is found in it."""
        assert self._moderator is not None
        policy = self._moderator.policies.of(sender.app.policy)
        slots = [Slot((name,), said[name], "user") for name in ("text", "prompt", "comment") if said.get(name)]
        judged = await self._moderator.judge(slots, Scope(matter.app, "prompt"), policy)
        case = await self._cases.get(matter.case) if matter.case else None
        named = (matter.category, said.get("category"), case.category if case is not None else None)
        found = (*filter(None, named), *(f.category for f in judged.verdict.findings if not f.shadow))
        return any(taxonomy()[category].no_retain for category in found)

    async def _held(self, decision: str) -> str:
        """The answer that this decision blocked, where it was kept; it is evidence from now on."""
        store = self._cases.store
        sealed = await store.run("GET", store.key(f"held:{decision}"))
        try:
            return vault.unseal(self._keys, f"{decision}/held", str(sealed)) if sealed is not None else ""
        except Unreadable:
            return ""  # the appeal is taken all the same; the model can be asked again

    async def _appealed(self, matter: Matter, prompt: str, sender: Sender) -> Matter:
        """Whether this prompt is the one that was refused, and by what it would be now."""
        assert self._moderator is not None
        policy = self._moderator.policies.of(sender.app.policy)
        try:
            tail = decision_tail(matter.decision)
        except ValueError:
            tail = b""
        proved = self._keys.refusal.is_tail(tail, matter.app, prompt)
        if not proved:
            raise RequestError(
                "prompt: it is not the one that this decision refused; send the last message as it was sent then",
                code="not_proved", param="prompt", status=422,
            )  # fmt: skip
        judged = await self._moderator.judge([Slot(("prompt",), prompt, "user")], Scope(matter.app, "prompt"), policy)
        acting = [f for f in judged.verdict.findings if f.action > Action.FLAG and not f.shadow]
        rules = tuple(dict.fromkeys(f.rule for f in acting))
        return replace(matter, proved=True, category=judged.verdict.category or "", rules=rules)

    async def state(self, ticket: str, token: str) -> Row | None:
        """State, outcome and date; None for an unknown ticket and for a wrong token alike."""
        if not self._keys.opens(ticket, token):
            return None
        matter = await self._get(ticket)
        if matter is None:
            await self._cases.sure()
            return None
        return {
            "ticket": ticket, "state": matter.state, "outcome": matter.outcome or None,
            "answered_by": clock.stamp(matter.due),
        }  # fmt: skip

    async def _get(self, id: str) -> Matter | None:
        raw = await self._cases.field("matters", id)
        return None if raw is None else Matter.of(raw)

    # ---- decided

    async def open(self) -> list[Row]:
        """Those that wait for an answer, the oldest first."""
        return [shown(m) for m in await self.several(await self._cases.members("matters:open"))]

    async def waiting(self) -> int:
        """How many wait for an answer. Raises StoreError."""
        return int(await self._cases.store.run("ZCARD", self._cases.store.key("matters:open")))

    async def all(self) -> list[Matter]:
        """Every one, the oldest first."""
        flat = await self._cases.store.run("HGETALL", self._cases.store.key("matters"))
        rows = flat.values() if isinstance(flat, dict) else flat[1::2]
        return sorted(map(Matter.of, rows), key=lambda m: m.at)

    async def since(self, at: float) -> list[Matter]:
        """Those that came after `at`, the oldest first."""
        store = self._cases.store
        return await self.several(await store.run("ZRANGEBYSCORE", store.key("matters:all"), f"{at:.3f}", "+inf"))

    async def several(self, ids: Sequence[str]) -> list[Matter]:
        """Those that are there, in this order."""
        store = self._cases.store
        rows: list[str | None] = []
        for first in range(0, len(ids), _PAGE):
            rows += await store.run("HMGET", store.key("matters"), *ids[first : first + _PAGE])
        return [Matter.of(raw) for raw in rows if raw is not None]

    async def one(self, id: str) -> Matter:
        """Raises RequestError 404."""
        matter = await self._get(id)
        if matter is None:
            await self._cases.sure()
            raise RequestError("no such complaint or appeal", code="not_found", status=404)
        return matter

    async def evidence(self, id: str, who: str, part: str = "") -> Row:
        """What was sent, opened; who looked, and at which part, is written down."""
        await self.one(id)
        opened: Row = {}
        for field, of in ((id, "evidence"), (f"{id}/answers", "answers")):
            if (sealed := await self._cases.field("evidence", field)) is not None:
                opened |= json.loads(vault.unseal(self._keys, f"{id}/{of}", sealed))
        event: Row = {"who": who, "what": "look", "matter": id}
        await self._cases.commit(Writes(), event | ({"part": part} if part else {}))
        return {"ticket": id, **opened}

    async def ask(self, id: str, model: str, who: str) -> Row:
        """Have the model asked once more, past the filter, what an appeal says was answered wrongly: nobody saw that answer. What it
        says is sealed evidence for the reviewer."""
        matter = await self.one(id)
        if matter.kind != "blocked_answer" or matter.state != "received":
            raise RequestError(
                "only an open appeal against a blocked answer is asked again", code="wrong_state", status=409
            )
        writes = Writes()
        writes.set("matters:model", id, model)
        writes.score("matters:ask", id, clock.now())
        await self._cases.commit(writes, {"who": who, "what": "ask", "matter": id})
        return shown(matter)

    async def decide(
        self, id: str, decision: str, who: str, said: Row, *, expected: int | None = None, key: str = ""
    ) -> Row:
        """`uphold` or `refuse`, with the reason that the person is told. Raises RequestError, Conflict, StoreError."""
        request = json.dumps([id, decision, who, said], sort_keys=True, ensure_ascii=False)
        if key and (first := await self._cases.repeated(key, request)) is not None:
            return first
        matter = await self.one(id)
        if expected is not None and expected != matter.version:
            raise self._cases.stale(matter.version)
        if matter.state != "received":
            raise RequestError(f"it was {matter.state} already", code="wrong_state", status=409)
        if not said.get("reason"):
            raise RequestError("reason: what the person is told", code="missing", param="reason", status=422)
        writes, now = Writes(), clock.now()
        after = replace(matter, state="upheld" if decision == "uphold" else "refused", outcome=said["reason"])
        if decision == "uphold" and matter.kind == "pi_block":
            after = self._blocked(writes, matter, after, who, said, now)
        elif decision == "uphold" and matter.kind == "blocked_prompt":
            await self._excepted(writes, matter, now)
        elif decision == "uphold" and matter.kind == "standing" and self._subjects is not None:
            await self._lifted(writes, matter)
        writes.row("matters", id, matter.version, after.row())
        if after.state != "received":
            writes.score("matters:open", id, None)
            writes.drop("evidence", id)
            writes.drop("evidence", f"{id}/answers")
            if matter.reporter:
                writes.score("matters:answered", id, now)
        event = {
            "who": who,
            "what": decision,
            "matter": id,
            "kind": matter.kind,
            "to": after.state,
            "reason": said["reason"],
        }
        result = shown(replace(after, version=matter.version + 1))
        done = await self._cases.commit(writes, event, key=key, request=request, result=result)
        if matter.standing and self._subjects is not None:
            await self._subjects.table.refresh()
        return done

    async def _lifted(self, writes: Writes, matter: Matter) -> None:
        """What the appeal is against is undone; what was imposed after it is not. Raises RequestError."""
        assert self._subjects is not None
        try:
            row = await self._subjects.one(matter.standing)
        except RequestError:
            return  # it has ended meanwhile
        if int(row["version"]) != matter.imposed:
            raise RequestError(
                "something else was imposed since this appeal came; look at it, and lift that itself if it is wrong "
                f"(POST /sluice/v1/admin/standings/{matter.standing}/decision), or refuse the appeal with that for a reason",
                code="wrong_state", status=409,
            )  # fmt: skip
        self._subjects.lift(writes, row)

    def _blocked(self, writes: Writes, matter: Matter, after: Matter, who: str, said: Row, now: float) -> Matter:
        """The first reviewer proposes, the second puts it into force."""
        identifiers = sorted({" ".join(str(i).split()) for i in said.get("identifiers") or ()})
        if not identifiers:
            raise RequestError(
                "identifiers: the numbers, addresses or accounts to mask",
                code="missing",
                param="identifiers",
                status=422,
            )
        for given in identifiers:
            if not (_NUMBER.search(given) or _ACCOUNT.fullmatch(given) or _ADDRESS.match(given)):
                raise RequestError(
                    "identifiers: a name alone is never masked; give the number, address or account that stands beside it",
                    code="name_alone", param="identifiers", status=422,
                )  # fmt: skip
        if not said.get("public_interest"):
            raise RequestError(
                "public_interest: say why the public has no claim to this",
                code="missing",
                param="public_interest",
                status=422,
            )
        days = min(int(said.get("days") or BLOCK_DAYS), BLOCK_DAYS)
        wish = {"identifiers": identifiers, "days": days}
        first = matter.first
        if first is None or first["wish"] != wish or first["by"] == who:
            return replace(matter, first={"wish": wish, "by": who, "interest": said["public_interest"]})
        ids = []
        for given in identifiers:
            row: Row = {
                "id": "ent_" + hashlib.sha256(f"{matter.id}\n{given}".encode()).hexdigest()[:20], "term": given,
                "category": "privacy_violation", "action": "mask", "tier": "certain", "subject_block": True,
                "scope": {"app": matter.app, "directions": ["answer"]}, "owner": first["by"], "created_at": clock.stamp(),
                "reason": f"complaint {matter.id}", "second": who,
                "expires_at": clock.stamp(now + days * 86400).replace("Z", "+00:00"),
            }  # fmt: skip
            writes.table(self._cases.entries, row["id"], row, self._cases.changed())
            ids.append(row["id"])
        return replace(after, entries=tuple(ids), first=None)

    async def _excepted(self, writes: Writes, matter: Matter, now: float) -> None:
        """That very text passes from now on, and what stopped it is counted."""
        sealed = await self._cases.field("evidence", matter.id)
        if sealed is None or not matter.category:
            raise RequestError(
                "nothing stops that prompt any more, or nothing of it was kept; refuse the appeal with that for a reason",
                code="nothing_to_except", status=409,
            )  # fmt: skip
        prompt = json.loads(vault.unseal(self._keys, f"{matter.id}/evidence", sealed))["prompt"]
        row = exception(self._keys, matter.app, prompt, matter.category, now + EXCEPTION_DAYS * 86400, matter.id)
        store = self._cases.store
        writes.table(self._exceptions, row["id"], row, store.key(f"{self._exceptions.name}:changed"))
        for rule in matter.rules:
            counted = shadowed_after(self._shadows.get(rule), rule, matter.id, now)
            writes.table(self._shadows, rule, counted, store.key(f"{self._shadows.name}:changed"))


def shown(matter: Matter) -> Row:
    """As a first-line reviewer sees it: not whose it is."""
    row = matter.row()
    del row["reporter"]
    at, due = (clock.stamp(t) for t in (matter.at, matter.due))
    return row | {"version": matter.version, "at": at, "due": due, "zone": str(SHANGHAI)}
