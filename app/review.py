"""What reviewers do: decide about a case, undo it, widen what acts for it, hand it on, except it, look at its evidence.

Law: every step is one commit from the version that was read, with its audit row; undo restores the entries and the state exactly as they
were. What would act for more than one app, or on more than the passage, passes the gate and a second reviewer. A rule that was reversed
twice in 30 days goes to shadow. A case of a category that keeps nothing has no evidence, no preview, no probe and no export. What waits is
never read as a whole: a page costs what it shows (app/store/queue.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from app import clock, deadlines, looks, remediation, surrogate, vault
from app.claims import Claims
from app.clean import Clean
from app.errors import Conflict, RequestError, StoreError
from app.keys import Keys
from app.looks import Share
from app.policy import Policies
from app.remediation import DUTY, UNDECIDED, Case
from app.reports import entry
from app.store.cases import Cases, Writes
from app.store.client import within
from app.store.queue import Lane, Queue
from app.store.tables import Row, Table, gone
from app.taxonomy import taxonomy
from app.text import fold, is_han
from app.types import Action, Verdict
from app.words import is_word

PATIENCE = 5.0
"""Seconds that a decision may take: whether a wider entry may be is looked up in all clean texts."""
WIDE_DAYS = 90
"""What acts for every app, or as a term, acts so long at most."""
REVERSED_TWICE, WITHIN = 2, 30 * 86400
_DECISIONS = {
    "confirm": "confirm", "reject": "reject", "widen": "widen", "optimise": "optimise", "hand_over": "hand_over",
    "except": "except", "reopen": "reopen",
}  # fmt: skip
DECISIONS = (*_DECISIONS, "undo", "probe", "second")
_SAMPLES = 5
_ORDINARY = 1000
"""A term that stands in more than one of so many clean texts would hit what everybody says."""
PAGE = 50
AT_ONCE = 50
"""Cases that are decided together, at most."""
LANES: tuple[Lane, ...] = ("overdue", "soon", "undecided", "duty", "decided")
_STEP = 200
"""Cases that a walk reads at a time at most."""


class Review:
    """The desk of the admin port. `shadows`: the table of rules that wait for a review. `claims`: who works on which case; None: nobody
    asks."""

    def __init__(self, cases: Cases, keys: Keys, clean: Clean, shadows: Table, claims: Claims | None = None) -> None:
        self._cases, self._keys, self._clean, self._shadows = cases, keys, clean, shadows
        self._queue, self.claims = Queue(cases), claims

    async def find(self, name: str) -> Case:
        """The case of an id or of a ticket. Raises RequestError 404."""
        if name.startswith("tkt_"):
            ticket = await self._cases.ticket(name)
            name = str(ticket["case"]) if ticket is not None else ""
        case = await self._cases.get(name) if name.startswith("case_") else None
        if case is None:
            await self._cases.sure()
            raise RequestError("no such case", code="not_found", status=404)
        return case

    async def decide(
        self,
        name: str,
        decision: str,
        who: str,
        said: Row,
        *,
        expected: int | None = None,
        key: str = "",
        share: Share | None = None,
    ) -> Row:
        """Do what a reviewer says; the case as it is then. `share`: of an app's decided cases, those drawn for a second look. Raises
        RequestError (409 `claimed`: somebody else is working on it), Conflict (of `expected`, the version that he saw), StoreError."""
        request = json.dumps([name, decision, who, said], sort_keys=True, ensure_ascii=False)
        async with within(PATIENCE):
            try:
                return await self._decide(name, decision, who, said, expected, key, request, share or (lambda app: 0.0))
            except (Conflict, RequestError):
                # The very same call, sent twice at once: the other one was first, and its answer is this one's too.
                if key and (first := await self._cases.repeated(key, request)) is not None:
                    return first
                raise

    async def _decide(
        self, name: str, decision: str, who: str, said: Row, expected: int | None, key: str, request: str,
        share: Share,
    ) -> Row:  # fmt: skip
        if key and (first := await self._cases.repeated(key, request)) is not None:
            return first
        if decision not in DECISIONS:
            raise RequestError(
                f"decision: one of {', '.join(DECISIONS)}", code="invalid_value", param="decision", status=422
            )
        case = await self.find(name)
        if expected is not None and expected != case.version:
            raise self._cases.stale(case.version)
        claim = await self.claims.held(case.id) if self.claims is not None else None
        if claim is not None and claim.owner != who:
            raise RequestError(
                f"somebody else is working on this case until {clock.stamp(claim.until)}; wait, or take another one",
                code="claimed", status=409,
            )  # fmt: skip
        await self._cases.entries.refresh()
        writes, now = Writes(), clock.now()
        event: Row = {"who": who, "what": decision, "case": case.id, "reason": said.get("reason", "")}
        if decision == "undo":
            after = self._undone(writes, case, said, now)
        elif decision == "probe":
            after = self._asked(writes, case, said, now)
        elif decision == "second":
            after = self._looked_again(case, who, said, now, share)
            event |= {"would": said["would"], "agrees": looks.agrees(after)}
        else:
            category = said.get("category") or case.category
            if category not in taxonomy():
                raise RequestError(
                    "category: no such category; the ids are in docs/categories.md",
                    code="invalid_value",
                    param="category",
                    status=422,
                )
            after = remediation.moved(case, _DECISIONS[decision], now, **{**said, "category": category})
            if decision == "confirm":
                after = self._confirmed(writes, case, await self._copied(after), who)
                if taxonomy()[category].no_retain:
                    after = _forgotten(writes, after)
            elif decision == "reject":
                after = self._rejected(writes, case, after)
            elif decision == "widen":
                after = await self._widened(writes, case, after, who, said, now)
                event["in_force"] = after.widening is None
            elif decision == "reopen":
                after = replace(after, next_probe=None)
            if decision in looks.LOOKED:
                told = {"by": who, "would": decision, "category": after.category, "reported": case.category, "at": now}
                after = replace(after, decision=told)
        writes.case(case, after)
        event |= {"from": case.state, "to": after.state, "version": case.version + 1}
        result = shown(replace(after, version=case.version + 1), now)
        answer = await self._cases.commit(writes, event, key=key, request=request, result=result)
        if self.claims is not None and claim is not None:
            with suppress(StoreError):  # it lapses by itself
                await self.claims.release(case.id, who)
        return answer

    async def decide_many(
        self, versions: Mapping[str, int], decision: str, who: str, said: Row, *, key: str = ""
    ) -> list[Row]:
        """Confirm or reject several cases, each in a commit of its own and only at the version that he saw (id or ticket -> version); a row
        for each: case, ok, and its version, or the code of the error. What fails stops no other, but a store that does not answer is
        not asked again. Raises RequestError for what can be done of none."""
        if decision not in looks.LOOKED:
            raise RequestError(
                f"decision: several cases can be decided by {' or '.join(looks.LOOKED)} alone", code="invalid_value",
                param="decision", status=422,
            )  # fmt: skip
        if len(versions) > AT_ONCE:
            raise RequestError(
                f"cases: {AT_ONCE} at once at most, these are {len(versions)}",
                code="too_many",
                param="cases",
                status=422,
            )
        rows: list[Row] = []
        down = False
        for name, version in versions.items():
            code = "store_unavailable"
            if not down:
                try:
                    case = await self.decide(
                        name, decision, who, said, expected=version, key=f"{key} {name}" if key else ""
                    )
                    rows.append({"case": name, "ok": True, "version": case["version"]})
                    continue
                except RequestError as e:
                    code = e.code
                except Conflict:
                    code = "conflict"
                except StoreError:
                    down = True
            rows.append({"case": name, "ok": False, "error": code})
        return rows

    # ---- a second look

    def _looked_again(self, case: Case, who: str, said: Row, now: float, share: Share) -> Case:
        """What a second person would have decided. It changes nothing but the figures."""
        if not looks.drawn(self._keys, case, share(case.app)):
            raise RequestError("this case was not drawn for a second look", code="not_drawn", status=409)
        if case.second is not None:
            raise RequestError("somebody has looked at it already", code="wrong_state", status=409)
        first = case.decision or {}
        if first["by"] == who:
            raise RequestError("the second look is another person's", code="same_reviewer", status=409)
        category = said.get("category") or first["reported"]
        for name, good in (("reason", bool(said.get("reason"))), ("would", said.get("would") in looks.LOOKED)):
            if not good:
                raise RequestError(f"{name}: must be said for a second look", code="missing", param=name, status=422)
        if category not in taxonomy():
            raise RequestError(
                "category: no such category; the ids are in docs/categories.md", code="invalid_value", param="category", status=422,
            )  # fmt: skip
        told = {"by": who, "would": said["would"], "category": category, "reason": said["reason"], "at": now}
        return replace(case, second=told | {"first": first})

    async def second_looks(self, share: Share, who: str = "") -> Row:
        """The cases drawn that nobody has looked at again, the oldest first, without what was decided. `who`: whose own are left out."""
        found = await self._cases.several(await self._cases.index("all"))
        drawn = [c for c in found if c.second is None and looks.drawn(self._keys, c, share(c.app))]
        drawn = [c for c in drawn if c.decision is None or c.decision["by"] != who]
        return {"cases": [looks.blind(c) for c in drawn[:PAGE]], "total": len(drawn)}

    # ---- what acts

    async def _copied(self, case: Case) -> Case:
        """The case with a fingerprint by which near copies are found too."""
        runs = await self._cases.field("runs", case.id)
        if case.fingerprint is None or runs is None:
            return case
        return replace(case, fingerprint={**case.fingerprint, "runs": runs})

    def _put(self, writes: Writes, id: str, row: Row) -> None:
        writes.table(self._cases.entries, id, row, self._cases.changed())

    def _lifted(self, writes: Writes, ids: Iterable[str]) -> dict[str, Row | None]:
        """Entries taken down; what they were."""
        were: dict[str, Row | None] = {}
        for id in ids:
            row = self._cases.entries.get(id)
            were[id] = _bare(row)
            self._put(writes, id, gone(id))
        return were

    def _confirmed(self, writes: Writes, case: Case, after: Case, who: str) -> Case:
        row = entry(after, {"app": case.app, "directions": ["answer"]}, who) if case.fingerprint is not None else None
        keep = row["id"] if row is not None else ""
        were = self._lifted(writes, (id for id in case.entries if id != keep))
        if row is not None:
            were[keep] = _bare(self._cases.entries.get(keep))
            self._put(writes, keep, row)
        after = replace(after, fingerprint=case.fingerprint)
        return replace(after, entries=(keep,) if keep else (), lapses=None, before=(_memory(case, were),))

    def _rejected(self, writes: Writes, case: Case, after: Case) -> Case:
        were = self._lifted(writes, case.entries)
        return replace(after, entries=(), lapses=None, before=(_memory(case, were),))

    async def _widened(self, writes: Writes, case: Case, after: Case, who: str, said: Row, now: float) -> Case:
        """The first reviewer proposes, the second puts it into force."""
        term = str(said.get("term") or "").strip()
        if not term and said.get("to") != "apps":
            raise RequestError(
                "to: 'apps' for the passage in every app, or give a 'term'", code="missing", param="to", status=422
            )
        gate = await asyncio.to_thread(self._gate, case, term)
        if gate["refused"]:
            raise RequestError("; ".join(gate["refused"]), code="gate", param="term" if term else "to", status=422)
        wish = {"to": "term" if term else "apps", "term": term, "app": "*" if said.get("to") == "apps" else case.app}
        first = case.widening
        if first is None or any(first[k] != v for k, v in wish.items()) or first["by"] == who:
            return replace(after, widening={**wish, "by": who, "at": now, "gate": gate}, decided=case.decided)
        scope = {"app": wish["app"], "directions": ["answer"]}
        row = entry(await self._copied(case), scope, who, expires=now + WIDE_DAYS * 86400, name=wish["to"])
        row |= {"reason": f"case {case.id}, widened", "owner": first["by"], "second": who}
        if term:
            del row["fingerprint"]
            row["term"] = term
        were = {row["id"]: _bare(self._cases.entries.get(row["id"]))}
        self._put(writes, row["id"], row)
        return replace(after, entries=(*case.entries, row["id"]), widening=None, before=(_memory(case, were),))

    def ordinary(self, term: str) -> int:
        """In how many clean texts a term stands, where that is more than one in a thousand; else 0."""
        hits = len(self._clean.hits(term))
        return hits if hits * _ORDINARY > len(self._clean.lines) else 0

    def clean(self, term: str) -> tuple[list[str], int]:
        """The clean texts that a term stands in, and how many there are."""
        return self._clean.hits(term), len(self._clean.lines)

    def _gate(self, case: Case, term: str) -> Row:
        """Why a wider entry may not be, and what of the clean corpus it would have blocked."""
        refused: list[str] = []
        if not term:
            if case.fingerprint is None or case.length < 40:
                refused.append("the passage has fewer than 40 letters: too little to act in every app")
            return {"refused": refused, "clean": 0, "preview": []}
        letters = [c for c in fold(term) if c.isalnum()]
        if len(letters) < (4 if any(map(is_han, letters)) else 8):
            refused.append("the term is too short: at least 4 Chinese characters or 8 letters")
        if is_word(fold(term)):
            refused.append("the term is a word of the dictionary: it stands in ordinary texts")
        hits = self._clean.hits(term)
        if hits:
            refused.append(
                f"it stands in {len(hits)} of {len(self._clean.lines)} clean texts, for example: {hits[0][:80]}"
            )
        return {"refused": refused, "clean": len(hits), "preview": hits[:_SAMPLES]}

    def _undone(self, writes: Writes, case: Case, said: Row, now: float) -> Case:
        if not case.before or case.state == "probing":
            raise RequestError("there is no decision to undo", code="wrong_state", status=409)
        if not said.get("reason"):
            raise RequestError("reason: must be said to undo a decision", code="missing", param="reason", status=422)
        memory = case.before[-1]
        for id, row in memory["rows"].items():
            self._put(writes, id, row if row is not None else gone(id))
        if memory["state"] in UNDECIDED and case.state != "rejected":
            self._reversed(writes, case, case.entries, now)
        return replace(
            case, state=memory["state"], category=memory["category"], entries=tuple(memory["entries"]),
            lapses=memory["lapses"], decided=memory["decided"], before=(), widening=None,
            decision=None if memory["state"] in UNDECIDED else case.decision,
            ended=None, exception=None, next_probe=None,
        )  # fmt: skip

    def _reversed(self, writes: Writes, case: Case, rules: Iterable[str], now: float) -> None:
        """Count the reversals of rules; twice in 30 days, and a rule waits in shadow for a review."""
        for rule in rules:
            row = shadowed_after(self._shadows.get(rule), rule, case.id, now)
            writes.table(self._shadows, rule, row, self._cases.store.key(f"{self._shadows.name}:changed"))

    # ---- probes

    def _asked(self, writes: Writes, case: Case, said: Row, now: float) -> Case:
        """Have the model asked again. The prompt is the reporter's, sent with consent, or the operator's own."""
        if taxonomy()[case.category].no_retain:
            raise RequestError(
                "nothing of this category is kept, so nothing can be asked again; it ends by a written exception",
                code="no_retain", status=409,
            )  # fmt: skip
        if not case.prompted and not said.get("prompt") and case.asked is None:
            raise RequestError(
                "prompt: the report came without one; give the prompt to ask with",
                code="missing",
                param="prompt",
                status=422,
            )
        if not said.get("model") and case.asked is None:
            raise RequestError("model: the name of the model to ask", code="missing", param="model", status=422)
        asked = {
            k: said[k]
            for k in ("model", "temperature", "max_tokens", "answers", "system_version")
            if said.get(k) is not None
        }
        asked = {**(case.asked or {}), **asked, "by": "request"}
        if said.get("prompt") or said.get("variants"):
            text = json.dumps(
                {"prompt": said.get("prompt"), "variants": said.get("variants") or []}, ensure_ascii=False
            )
            writes.set("evidence", f"{case.id}/probe", vault.seal(self._keys, f"{case.id}/probe", text))
        after = remediation.moved(case, "probe", now, asked=asked)
        return replace(after, next_probe=now, evidence=True)

    # ---- looking

    async def evidence(self, name: str, who: str, part: str = "") -> Row:
        """What a person sent, opened; who looked, and at which part, is written down."""
        case = await self.find(name)
        opened = await self._opened(case)
        await self._looked(case, who, part)
        return {"case": case.id, **opened}

    async def comments(self, case: Case, who: str, *, plain: bool = False) -> list[str]:
        """What those who reported said besides, opened; who looked is written down. `plain`: with what is personal in it."""
        sealed = [pair async for pair in self._cases.scan(f"comments:{case.id}")]
        await self._looked(case, who, "comments, unmasked" if plain else "comments")
        return [vault.unseal(self._keys, f"{ticket}/comment", value) for ticket, value in sorted(sealed)]

    async def _looked(self, case: Case, who: str, part: str) -> None:
        event: Row = {"who": who, "what": "look", "case": case.id}
        await self._cases.commit(Writes(), event | ({"part": part} if part else {}))

    async def _opened(self, case: Case) -> Row:
        return await kept(self._cases, self._keys, case)

    async def samples(self, names: Iterable[str], who: str, policies: Policies) -> Row:
        """What a model can be tuned with: of each confirmed case the prompt, other ways to ask it, the passage, and what is said instead.
        Of those without a prompt or evidence, why there is none. Nothing about who reported."""
        wanted = [await self.find(name) for name in names] or [
            c for c in await self._cases.several(await self._cases.members("cases:all")) if c.state in DUTY
        ]
        samples: list[Row] = []
        left: list[Row] = []
        for case in wanted:
            opened = {} if taxonomy()[case.category].no_retain else await self._opened(case)
            if case.state in UNDECIDED | {"rejected"} or not opened.get("prompt") or not opened.get("passage"):
                left.append(
                    {"case": case.id, "why": f"{case.state}; " + ("no prompt is kept" if opened else "nothing is kept")}
                )
                continue
            policy = policies.of(case.app)
            verdict = Verdict(Action.BLOCK, category=case.category)
            own = [v for v in opened.get("variants") or [] if v != opened["prompt"]]
            samples.append({
                "case": case.id, "category": case.category, "language": case.language, "prompt": opened["prompt"],
                "variants": own or variants(opened["prompt"], case.language), "passage": opened["passage"],
                "surrogate": surrogate.text(policy, verdict, case.id, case.language),
            })  # fmt: skip
        ids = [s["case"] for s in samples]
        await self._cases.commit(Writes(), {"who": who, "what": "export", "cases": ids})
        return {"samples": samples, "left_out": left}

    async def queue(self, state: str | None = None, page: int = 1) -> Row:
        """Cases to work on, a page of them: what is overdue or due within 14 days by its date; then what nobody has decided, first of those
        who report least, among them what would harm most, then the oldest (docs/adr/0028); then the rest of what is due. `state`: of one
        state alone. Raises StoreError."""
        now, first = clock.now(), (page - 1) * PAGE
        if state in (None, "open"):
            counts, found = await self._queue.page(first, first + PAGE)
            total = counts.undecided + counts.duty
        elif state in UNDECIDED | DUTY:
            # In the order of the queue, which knows no states.
            counts = await self._queue.counts()
            those = {*await self._queue.ids(f"state:{state}", 0, counts.open)}
            ids = [id for id in await self._queue.order(counts) if id in those]
            total, found = len(ids), await self._cases.several(ids[first : first + PAGE])
        else:
            await self._queue.counts()
            total = await self._queue.size(f"state:{state}")
            found = await self._cases.several(await self._queue.ids(f"state:{state}", first, first + PAGE))
        return {"cases": [shown(c, now) for c in found], "total": total, "page": page, "pages": -(-total // PAGE)}

    async def lanes(self) -> dict[str, int]:
        """How many cases stand in each lane of `walk`. Raises StoreError."""
        counts = await self._queue.counts()
        sizes = {lane: counts.lane(lane) for lane in LANES}
        return {lane: last - first for lane, (_, first, last) in sizes.items()}

    async def walk(
        self, lane: Lane, start: int = 0, keep: Callable[[Case], bool] | None = None, most: int = PAGE, scan: int = 2000
    ) -> tuple[list[Case], int | None]:
        """Cases of a lane that `keep` keeps, in its order, from place `start` on; and the place to go on from, None at the end. Stops at
        `most` found, or `scan` looked at. Overdue; soon: due within 14 days; undecided; duty: all that is due; decided: what is over, the
        newest first. A place is as of now: what is decided meanwhile moves those behind it up. Raises StoreError."""
        index, begin, end = (await self._queue.counts()).lane(lane)
        at, last, found = begin + start, min(end, begin + start + scan), list[Case]()
        step = most  # mostly nearly all are kept; where few are, more are looked at at a time
        while at < last and len(found) < most:
            ids = await self._queue.ids(index, at, min(last, at + step))
            step = min(_STEP, 2 * step)
            if not ids:
                return found, None  # some have left it since they were counted
            cases = {case.id: case for case in await self._cases.several(ids)}
            for id in ids:
                at += 1
                if id in cases and (keep is None or keep(cases[id])):
                    found.append(cases[id])
                    if len(found) == most:
                        break
        return found, at - begin if at < end else None

    async def similar(self, case: Case, most: int = 50) -> list[tuple[Case, int]]:
        """Undecided cases of the same app whose passages are much like this one's, and how many of the 8 bands they share, the most
        first, then the oldest. A case from before a rotation of the key, or of an older Sluice, is like none. Raises StoreError."""
        await self._queue.counts()
        shared = await self._queue.alike(case)
        nearest = sorted(shared, key=lambda id: (-shared[id], id))[:most]
        found = [c for c in await self._cases.several(nearest) if c.state in UNDECIDED and c.app == case.app]
        return sorted(((c, shared[c.id]) for c in found), key=lambda of: (-of[1], of[0].received, of[0].id))


def shadowed_after(old: Row | None, rule: str, cause: str, now: float) -> Row:
    """The row of a rule that was reversed once more: in shadow, once that was twice within 30 days."""
    times = [t for t in (old or {}).get("reversed", []) if now - t < WITHIN] + [now]
    return {"id": rule, "reversed": times, "shadow": len(times) >= REVERSED_TWICE, "cause": cause}


async def kept(cases: Cases, keys: Keys, case: Case) -> Row:
    """The evidence of a case, opened: passage, text, prompt, variants, as far as there are any; what the operator gave for a probe stands
    over what the report brought."""
    opened: Row = {}
    for part in ("evidence", "probe"):
        sealed = await cases.field("evidence", case.id if part == "evidence" else f"{case.id}/probe")
        if sealed is not None:
            opened |= {k: v for k, v in json.loads(vault.unseal(keys, f"{case.id}/{part}", sealed)).items() if v}
    opened.pop("ticket", None)
    return opened


_FRAMES = {
    "zh": (
        "请问，{}", "{}\n请直接回答。", "我想了解一下：{}", "换个说法再问一次：{}", "你好，麻烦你回答这个问题：{}谢谢。",
        "“{}”——对此请给出完整的回答。",
    ),
    "en": (
        "Please: {}", "{}\nAnswer directly.", "I would like to know: {}", "Let me ask this in another way: {}",
        "Hello, could you answer this: {} Thank you.", "“{}” Please give a full answer.",
    ),
}  # fmt: skip


def variants(prompt: str, language: str) -> list[str]:
    """The same request in other words around it: what a model that only unlearned one wording still answers."""
    return [frame.format(prompt) for frame in _FRAMES[language]]


def shown(case: Case, now: float) -> Row:
    """A case as a first-line reviewer sees it: not who reported, and no fingerprint."""
    row = case.row()
    for hidden in ("fingerprint", "reporters", "before", "decision", "second", "like"):
        del row[hidden]
    left = deadlines.days_left(case.due, now)
    return row | {
        "version": case.version,
        "received": clock.stamp(case.received), "due": clock.stamp(case.due), "days_left": left,
        "lapses": None if case.lapses is None else clock.stamp(case.lapses),
        "no_retain": taxonomy()[case.category].no_retain,
        "undo": bool(case.before),
    }  # fmt: skip


def _forgotten(writes: Writes, case: Case) -> Case:
    """The case without what was kept of it before somebody saw that nothing may be."""
    writes.drop("evidence", case.id)
    writes.drop("evidence", f"{case.id}/probe")
    writes.erase(f"comments:{case.id}")
    return replace(case, evidence=False, prompted=False, comments=False, like=())


def _bare(row: Row | None) -> Row | None:
    """A row as it can be put back; None where it was not in force."""
    if row is None or row.get("deleted"):
        return None
    return {k: v for k, v in row.items() if k != "version"}


def _memory(case: Case, rows: dict[str, Row | None]) -> Row:
    """What an undo restores."""
    return {
        "state": case.state, "category": case.category, "entries": list(case.entries), "lapses": case.lapses,
        "decided": case.decided, "rows": rows,
    }  # fmt: skip
