"""Complaints and appeals, and what is imposed on users.

Law: whoever decides gives the reason that the person is told; a user is a number.
"""

from __future__ import annotations

from starlette.responses import Response

from app.complaints import shown
from app.errors import RequestError
from app.subjects import LEVELS
from app.subjects import shown as standing_shown
from app.web.complaints import OutcomeIn
from app.web.console.call import Call, Fault, Pages
from app.web.console.cases import Work, told
from app.web.console.words import KINDS, STEPS
from app.web.standings import StandingIn

PAGES = Pages()


@PAGES.get("/complaints", "review")
async def waiting(call: Call) -> Response:
    rows = await call.desk.complaints.open()
    kind = call.query("kind")
    return call.page("complaints.html", rows=[r for r in rows if kind in ("", r["kind"])], kinds=KINDS, chosen=kind)


async def matter_page(call: Call, fault: Fault | None = None) -> Response:
    matter = await call.desk.complaints.one(call.path("id"))
    trail = await call.desk.cases.trail(f"matter {matter.id}")
    return call.page("complaint.html", fault=fault, matter=shown(matter), kinds=KINDS, trail=trail, steps=STEPS)


@PAGES.get("/complaints/{id}", "review")
async def one(call: Call) -> Response:
    return await matter_page(call)


@PAGES.post("/complaints/{id}/open", "review")
async def opened(call: Call) -> Response:
    """What was sent, and what the model said when it was asked again; who looked is written down."""
    plain = call.one("plain") == "1"
    kept = await call.desk.complaints.evidence(call.path("id"), call.who, "unmasked" if plain else "")
    texts = [
        (name, await told(call, str(kept[name]), plain))
        for name in ("prompt", "answer", "text", "comment")
        if kept.get(name)
    ]
    texts += [("asked", await told(call, str(a["text"]), plain)) for a in kept.get("answers", ())]
    return call.page("part_matter.html", texts=texts, id=call.path("id"), plain=plain)


@PAGES.post("/complaints/{id}/decision", "review", again=matter_page)
async def decide(call: Call) -> Response:
    id, decision = call.path("id"), call.one("decision")
    names = [line.strip() for line in call.one("identifiers").splitlines() if line.strip()]
    given: OutcomeIn = call.read(
        OutcomeIn, decision=decision or "-", reason=call.one("reason"), identifiers=names or None,
        public_interest=call.one("public_interest"), days=call.one("days"), model=call.one("model"),
    )  # fmt: skip
    if given.decision == "ask":
        await call.desk.complaints.ask(id, given.model or "", call.who)
        return call.to(f"/complaints/{id}")
    if not given.reason:
        raise RequestError(
            "reason: what the person is told 请填写将告知对方的理由", code="missing", param="reason", status=422
        )
    said = given.model_dump(exclude_none=True, exclude={"decision", "expected_version", "model"})
    await call.desk.complaints.decide(id, given.decision, call.who, said, expected=call.version(), key=call.key)
    await Work(call).did()
    return call.to("/complaints")


# ---- standings


@PAGES.get("/standings", "review")
async def standings(call: Call) -> Response:
    proposed = call.query("proposed") == "1"
    return call.page("standings.html", rows=await call.desk.subjects.listed(proposed=proposed), proposed=proposed)


async def standing_page(call: Call, fault: Fault | None = None) -> Response:
    row = standing_shown(await call.desk.subjects.one(call.path("id")))
    trail = await call.desk.cases.trail(f"standing {row['id']}")
    return call.page("standing.html", fault=fault, row=row, levels=LEVELS, trail=trail, steps=STEPS)


@PAGES.get("/standings/{id}", "review")
async def standing(call: Call) -> Response:
    return await standing_page(call)


@PAGES.post("/standings/{id}/decision", "review", again=standing_page)
async def impose(call: Call) -> Response:
    decision = call.one("decision")
    hours = call.one("hours") if decision in ("warn", "limit", "suspend") else ""
    given: StandingIn = call.read(StandingIn, decision=decision or "-", reason=call.one("reason"), hours=hours)
    await call.desk.subjects.decide(
        call.path("id"),
        given.decision,
        call.who,
        given.reason,
        hours=given.hours,
        expected=call.version(),
        key=call.key,
    )
    return call.to("/standings")
