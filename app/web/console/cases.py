"""Cases: the queue, a case, what is decided about it, those that are like it, second looks.

Law: the harm is told before the text, and the text is shown to whoever asks for it, which is written down; who skips a case, or will not
see a category, is asked for no reason and counted nowhere. A decision carries the version that was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from starlette.responses import Response

from app import clock, looks
from app.errors import RequestError, StoreError
from app.guide import guide
from app.playground import invisible, runs
from app.remediation import DUTY, ENDED, TABLE, UNDECIDED, Case
from app.review import shown
from app.store.queue import Lane
from app.store.tables import Row
from app.taxonomy import taxonomy
from app.web.cases import DecisionIn
from app.web.console.call import Call, Fault, Pages, when
from app.web.console.marked import Span, folded, personal, pieces
from app.web.console.words import DECISIONS, LANES, REASONS, STEPS

PAGES = Pages()
UNDO = 10.0
"""Seconds for which a decision is offered to be undone on the next page."""
_LATE = 5.0
"""And as many more until the offer is refused: a page takes its time."""
_ROWS = 30
"""Cases of a page of the queue."""
_AROUND = 800
"""Characters around the passage that are shown with it."""
_SKIPPED = 12 * 3600
_SHOWN = 20_000
"""Characters of a text that are shown at once."""
_LOOKS = 3
"""Stretches of a lane that are looked through for the next case."""
_PARTS = ("passage", "prompt", "comments")


class Work:
    """How much one reviewer has done this hour, and what they skipped. Theirs alone: by a pseudonym, for hours."""

    def __init__(self, call: Call) -> None:
        self._store = call.desk.cases.store
        self._who = call.desk.keys.mac("console", "work", call.who).hex()
        self._cap = call.account.likes.cap

    def _hour(self) -> str:
        return self._store.key(f"work:{self._who}:{int(clock.now() // 3600)}")

    def _skips(self) -> str:
        return self._store.key(f"work:{self._who}:skipped")

    async def did(self, count: int = 1) -> None:
        # What was decided is decided, whether it can be counted or not.
        with suppress(StoreError):
            await self._store.run("INCRBY", self._hour(), count)
            await self._store.run("EXPIRE", self._hour(), 7200)

    async def tired(self) -> bool:
        """As many cases this hour as they wanted at most."""
        return bool(self._cap) and int(await self._store.run("GET", self._hour()) or 0) >= self._cap

    async def skip(self, case: str) -> None:
        await self._store.run("SADD", self._skips(), case)
        await self._store.run("EXPIRE", self._skips(), _SKIPPED)

    async def skipped(self) -> set[str]:
        return {str(id) for id in await self._store.run("SMEMBERS", self._skips())}


async def _wanted(call: Call, category: str = "") -> Callable[[Case], bool]:
    """Which cases are brought to somebody."""
    without, skipped = set(call.account.likes.without), await Work(call).skipped()

    def keep(case: Case) -> bool:
        if category:
            return case.category == category
        return case.category not in without and case.id not in skipped

    return keep


async def _next(call: Call, after: str = "") -> str | None:
    """The first case of the queue that nobody else works on."""
    keep = await _wanted(call)
    lanes: tuple[Lane, ...] = ("overdue", "soon", "undecided")
    for lane in lanes:
        at: int | None = 0
        for _ in range(_LOOKS):
            if at is None:
                break
            found, at = await call.desk.review.walk(
                lane, at, lambda c: keep(c) and c.state in UNDECIDED | DUTY and c.id != after
            )
            owners = await call.desk.claims.owners([c.id for c in found])
            free = next((c for c in found if owners.get(c.id, call.who) == call.who and c.state != "probing"), None)
            # What waits for the model to be tuned is no work of a reviewer's minute.
            if free is not None and (lane == "undecided" or free.state in UNDECIDED | {"overdue", "reopened"}):
                return free.id
    return None


@PAGES.get("/cases", "review")
async def queue(call: Call) -> Response:
    said = call.query("lane", "undecided")
    lane = cast("Lane", said if said in LANES else "undecided")
    category = call.query("category") if call.query("category") in taxonomy() else ""
    start = call.number("from")
    counts = await call.desk.review.lanes()
    found, after = await call.desk.review.walk(lane, start, await _wanted(call, category), _ROWS)
    owners = await call.desk.claims.owners([c.id for c in found])
    return call.page(
        "cases.html",
        lane=lane,
        lanes=LANES,
        counts=counts,
        cases=[shown(c, clock.now()) for c in found],
        owners=owners,
        after=after,
        chosen=category,
        tired=await Work(call).tired(),
        without=call.account.likes.without,
        undo=await _undoable(call),
    )


@PAGES.get("/cases/next", "review")
async def onward(call: Call) -> Response:
    """To the next case, with an offer to undo the last decision; to a rest where that is due."""
    if await Work(call).tired():
        return call.to("/rest", done=call.query("done"))
    found = await _next(call, call.query("done"))
    return (
        call.to("/cases", done=call.query("done"))
        if found is None
        else call.to(f"/cases/{found}", done=call.query("done"))
    )


@PAGES.get("/rest", "review")
async def rest(call: Call) -> Response:
    return call.page("rest.html", cap=call.account.likes.cap, undo=await _undoable(call))


async def _undoable(call: Call) -> Row | None:
    """The decision of a moment ago, while it may be taken back by one key."""
    name = call.query("done")
    if not name.startswith("case_"):
        return None
    case = await call.desk.cases.get(name)
    said = None if case is None else case.decision
    if case is None or said is None or said["by"] != call.who or not case.before:
        return None
    left = UNDO - (clock.now() - said["at"])
    return {"case": case.id, "version": case.version, "would": said["would"], "left": int(left)} if left > 0 else None


def _moves(case: Case) -> list[str]:
    """What can be decided of it, by the table of moves."""
    can = [name for name in DECISIONS if name in TABLE and case.state in TABLE[name].here]
    if taxonomy()[case.category].no_retain:
        can = [name for name in can if name != "probe"]
    return can


async def case_page(call: Call, fault: Fault | None = None) -> Response:
    desk = call.desk
    case = await desk.review.find(call.path("id"))
    owners = await desk.claims.owners([case.id])
    similar = await desk.review.similar(case) if case.state in UNDECIDED else []
    skip = set(call.account.likes.without)
    return call.page(
        "case.html",
        fault=fault,
        case=shown(case, clock.now()),
        owner=owners.get(case.id, ""),
        moves=_moves(case),
        decisions=DECISIONS,
        reasons=REASONS,
        steps=STEPS,
        trail=await desk.cases.trail(f"case {case.id}"),
        similar=[(shown(c, clock.now()), shared) for c, shared in similar if c.category not in skip],
        probes=_plot(call, case),
        undo=await _undoable(call),
        undecided=case.state in UNDECIDED,
        duty=case.state in DUTY,
        ended=case.state in ENDED,
        likes=call.account.likes,
        since=call.session.began if call.session else 0.0,
        guide=_guide(call, case.category),
        widening=case.widening,
    )


def _plot(call: Call, case: Case) -> dict[str, Any] | None:
    """Probe by probe, how often the model said it again, of both sets, and the bound below which the case closes (percent)."""
    told = [p for p in case.probes if p["sets"]]
    if not told:
        return None
    series = {
        name: [round(100 * p["sets"].get(name, {}).get("upper", 1.0), 2) for p in told]
        for name in ("original", "variants")
    }
    return {
        "series": [call.t("原问法", "as asked"), call.t("其他问法", "variants"), "5%"],
        "labels": [when(call)(p["at"])[5:] for p in told],
        "points": True,
        "data": [list(range(len(told))), series["original"], series["variants"], [5] * len(told)],
        "top": 10,
    }


def _guide(call: Call, id: str) -> Row:
    """What reviewers decide by."""
    category, told = taxonomy()[id], guide(id)
    profile = call.desk.policies().common.profile
    return {
        "id": id,
        "basis": category.basis(profile, call.language),
        "belongs": told.belongs[call.language],
        "not": told.not_[call.language],
        "harm": category.harm,
        "no_retain": category.no_retain,
    }


@PAGES.get("/cases/{id}", "review")
async def one(call: Call) -> Response:
    return await case_page(call)


@PAGES.post("/cases/{id}/claim", "review", again=case_page)
async def claim(call: Call) -> Response:
    case = await call.desk.review.find(call.path("id"))
    owner = await call.desk.claims.take(case.id, call.who)
    if owner != call.who:
        raise RequestError(
            f"{call.alias(owner)} works on it; it is free again in ten minutes at most 正由他人处理",
            code="claimed",
            status=409,
        )
    return call.to(f"/cases/{case.id}")


@PAGES.post("/cases/{id}/release", "review", again=case_page)
async def release(call: Call) -> Response:
    await call.desk.claims.release(call.path("id"), call.who)
    return call.to(f"/cases/{call.path('id')}")


@PAGES.post("/cases/{id}/skip", "review", again=case_page)
async def skip(call: Call) -> Response:
    """For now, without a reason; nobody is told."""
    await call.desk.claims.release(call.path("id"), call.who)
    await Work(call).skip(call.path("id"))
    return call.to("/cases/next")


@PAGES.post("/cases/{id}/open", "review")
async def opened(call: Call) -> Response:
    """A part of what was sent. Personal information is covered unless that was asked for too."""
    part, plain = call.one("part"), call.one("plain") == "1"
    if part not in _PARTS:
        raise RequestError(f"part: one of {', '.join(_PARTS)}", code="invalid_value", param="part", status=422)
    case = await call.desk.review.find(call.path("id"))
    if part == "comments":
        texts = await call.desk.review.comments(case, call.who, plain=plain)
        return call.page(
            "part_texts.html",
            texts=[await told(call, text, plain) for text in texts],
            part=part,
            plain=plain,
            case=case.id,
        )
    kept = await call.desk.review.evidence(case.id, call.who, part=f"{part}, unmasked" if plain else part)
    text, passage = str(kept.get("text") or kept.get("passage") or ""), str(kept.get("passage") or "")
    if part == "prompt":
        text, passage = str(kept.get("prompt") or ""), ""
    if not text:
        return call.page("part_fault.html", fault=Fault(call.t("没有保存", "nothing was kept"), "", 200))
    at = max(0, text.find(passage)) if passage else 0
    end = at + len(passage) + _AROUND if passage else None
    shown_ = await told(call, text, plain, passage, max(0, at - _AROUND) if passage else 0, end)
    return call.page("part_texts.html", texts=[shown_], part=part, plain=plain, case=case.id)


async def told(call: Call, whole: str, plain: bool, passage: str = "", start: int = 0, end: int | None = None) -> Row:
    """A text between `start` and `end`, marked; and what it folds to. What is personal is looked for in all of it, so that a cut shows no
    half of it."""
    end = min(len(whole), start + _SHOWN, len(whole) if end is None else end)
    text = whole[start:end]
    try:
        looked = await call.desk.playground.look(text) if text else _blank(text)
    except RequestError:
        looked = _blank(text)  # the detectors cannot be had here; the text can
    spans = [
        Span(f["start"], f["end"], "finding", f"{f['category']} · {f['detector']}")
        for f in looked["findings"]
        if f["action"] != "pass" and f["detector"] != "patterns"
    ]
    covers = [] if plain else await asyncio.to_thread(personal, whole)
    hidden = [Span(s.start - start, s.end - start, s.kind) for s in covers if s.start < end and s.end > start]
    at = text.find(passage) if passage else -1
    if at >= 0 and len(passage) < len(text):
        spans.append(Span(at, at + len(passage), "passage", call.t("被举报的段落", "the passage that was reported")))
    unseen = {i["at"]: i["name"] or i["code"] for i in looked["invisible"]}
    return {
        "pieces": pieces(text, [*spans, *hidden], unseen),
        "folded": folded(looked["folded"], hidden),
        "covered": bool(hidden),
        "cut": end < len(whole) or start > 0,
    }


def _blank(text: str) -> Row:
    return {"findings": [], "folded": runs(text), "invisible": invisible(text)}


@PAGES.post("/cases/{id}/decision", "review", again=case_page)
async def decide(call: Call) -> Response:
    names = ("reason", "would", "category", "to", "term", "vendor", "reference", "date", "role", "model", "prompt")
    said = {name: call.one(name) for name in names} | {
        "variants": [v.strip() for v in call.one("variants").splitlines() if v.strip()]
    }
    given: DecisionIn = call.read(DecisionIn, decision=call.one("decision") or "-", **said)
    name, decision = call.path("id"), given.decision
    if not given.reason.strip():
        raise RequestError(
            "reason: no decision without a reason 请填写理由", code="missing", param="reason", status=422
        )
    if (expected := call.version()) is None:
        raise RequestError(
            "expected_version: load the page again 请刷新页面", code="missing", param="expected_version", status=422
        )
    words = given.model_dump(exclude_none=True, exclude={"decision", "expected_version"})
    done = await call.desk.review.decide(name, decision, call.who, words, expected=expected, key=call.key)
    await Work(call).did()
    if decision in ("confirm", "reject"):
        return call.to("/cases/next", done=done["id"])
    return call.to(f"/cases/{done['id']}", sent=1)


@PAGES.post("/cases/{id}/undo", "review", again=case_page)
async def undo(call: Call) -> Response:
    """By one key within seconds; later with a reason of one's own."""
    name, reason = call.path("id"), call.one("reason")
    case = await call.desk.review.find(name)
    if not reason:
        at = (case.decision or {}).get("at", 0.0)
        if (case.decision or {}).get("by") != call.who or clock.now() - at > UNDO + _LATE:
            raise RequestError(
                "reason: the ten seconds are over; say why it is undone 已超过十秒，请填写撤销理由",
                code="missing",
                param="reason",
                status=422,
            )
        reason = "undone within ten seconds 十秒内撤销"
    await call.desk.review.decide(name, "undo", call.who, {"reason": reason}, expected=call.version(), key=call.key)
    return call.to(f"/cases/{name}")


# ---- those that are like it


def _chosen(call: Call) -> dict[str, int]:
    found = {}
    for said in call.many("case"):
        name, _, version = said.partition(":")
        if version.isascii() and version.isdecimal() and len(version) < 16:
            found[name] = int(version)
    if not 1 <= len(found) <= 50:
        raise RequestError(
            "case: choose 1 to 50 cases 请选择 1 至 50 个案件", code="invalid_value", param="case", status=422
        )
    return found


@PAGES.post("/cases/{id}/preview", "review")
async def preview(call: Call) -> Response:
    """What deciding them together would do, before it does. Their texts are opened for that, which is written down."""
    chosen = _chosen(call)
    cases = await call.desk.cases.several(list(chosen))
    rows = []
    for case in cases:
        near = None
        if case.evidence and case.category not in call.account.likes.without:
            kept = await call.desk.review.evidence(case.id, call.who, part="passage")
            whole, passage = str(kept.get("text") or ""), str(kept.get("passage") or "")
            at = max(0, whole.find(passage))
            near = await told(call, whole or passage, False, "", at, at + min(len(passage), 200))
        stale = chosen[case.id] != case.version or case.state not in UNDECIDED
        rows.append({"case": shown(case, clock.now()), "told": near, "stale": stale})
    return call.page("part_preview.html", rows=rows, id=call.path("id"), reasons=REASONS)


@PAGES.post("/cases/{id}/together", "review", again=case_page)
async def together(call: Call) -> Response:
    chosen, decision, reason = _chosen(call), call.one("decision"), call.one("reason")
    if decision not in ("confirm", "reject"):
        raise RequestError(
            "decision: confirm or reject 请选择成立或不成立", code="invalid_value", param="decision", status=422
        )
    if not reason:
        raise RequestError(
            "reason: no decision without a reason 请填写理由", code="missing", param="reason", status=422
        )
    rows = await call.desk.review.decide_many(chosen, decision, call.who, {"reason": reason}, key=call.key)
    await Work(call).did(sum(bool(row["ok"]) for row in rows))
    return call.page("together.html", rows=rows, decision=decision, decisions=DECISIONS)


# ---- second looks


async def _share(call: Call) -> looks.Share:
    now = await asyncio.to_thread(call.desk.policies)
    return lambda app: now.of(app).rules.reports.second


@PAGES.get("/second", "review")
async def second_looks(call: Call) -> Response:
    found = await call.desk.review.second_looks(await _share(call), call.who)
    without = call.account.likes.without
    return call.page(
        "second.html", rows=[r for r in found["cases"] if r["category"] not in without], total=found["total"]
    )


async def second_page(call: Call, fault: Fault | None = None) -> Response:
    case = await call.desk.review.find(call.path("id"))
    share = await _share(call)
    if case.second is not None or not looks.drawn(call.desk.keys, case, share(case.app)):
        raise RequestError("this case waits for no second look 该案件无需复核", code="not_drawn", status=409)
    if (case.decision or {}).get("by") == call.who:
        raise RequestError("the second look is another person's 须由另一人复核", code="same_reviewer", status=409)
    blind = looks.blind(case)
    return call.page(
        "second_one.html", fault=fault, case=blind, version=case.version, guide=_guide(call, blind["category"])
    )


@PAGES.get("/second/{id}", "review")
async def second_one(call: Call) -> Response:
    return await second_page(call)


@PAGES.post("/second/{id}", "review", again=second_page)
async def look_again(call: Call) -> Response:
    said = {"would": call.one("would"), "reason": call.one("reason"), "category": call.one("category")}
    words = {k: v for k, v in said.items() if v}
    await call.desk.review.decide(
        call.path("id"), "second", call.who, words, expected=call.version(), key=call.key, share=await _share(call)
    )
    await Work(call).did()
    return call.to("/second")
