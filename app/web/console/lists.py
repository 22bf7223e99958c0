"""Live entries: search, add with the gate and a preview, expiry, history, roll back, each replica's version; and the lexicon's terms.

Law: what would hit ordinary texts is a proposal until a second person agrees; a roll back shows first what it would change.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response

from app import replicas
from app.deadlines import SHANGHAI
from app.detectors import lexicon
from app.entries import EntryIn
from app.errors import RequestError
from app.taxonomy import taxonomy
from app.text import fold
from app.web.console.call import Call, Fault, Pages

PAGES = Pages()
_ROWS = 100


async def entries_page(call: Call, fault: Fault | None = None) -> Response:
    desk = call.desk
    await desk.entries.refresh()
    words, category, of = (call.query(name).strip() for name in ("q", "category", "list"))
    rows = await asyncio.to_thread(desk.register.find, words, category, of)
    start = call.number("from")
    return call.page(
        "entries.html",
        fault=fault,
        rows=rows[start : start + _ROWS],
        total=len(rows),
        after=start + _ROWS if start + _ROWS < len(rows) else None,
        wanted={"q": words, "category": category, "list": of},
        version=desk.entries.version,
        preview=None,
        proposed=await desk.register.proposed(),
        replicas=await replicas.known(desk.cases.store, desk.entries.version),
        apps=sorted(await asyncio.to_thread(desk.apps)),
        lists=sorted({r["list"] for r in rows if r.get("list")}),
    )


@PAGES.get("/entries", "lists")
async def entries(call: Call) -> Response:
    return await entries_page(call)


def _until(said: str) -> datetime | None:
    """The end of a day in Shanghai. Raises RequestError."""
    if not said:
        return None
    try:
        day = datetime.strptime(said, "%Y-%m-%d")
    except ValueError:
        raise RequestError(
            "expires_at: a day like 2027-01-31 日期格式须为 2027-01-31",
            code="invalid_value",
            param="expires_at",
            status=422,
        ) from None
    return day.replace(hour=23, minute=59, second=59, tzinfo=SHANGHAI)


def _entry(call: Call) -> EntryIn:
    passage = call.form.get("passage", [""])[0]
    given: EntryIn = call.read(
        EntryIn,
        term=call.one("term"),
        passage=passage if passage.strip() else "",
        category=call.one("category"),
        action=call.one("action") or "block",
        tier=call.one("tier") or "certain",
        reason=call.one("reason"),
        expires_at=_until(call.one("expires_at")),
        scope={"app": call.one("app") or "*", "directions": call.many("directions") or ["prompt", "answer"]},
    )
    return given


@PAGES.post("/entries/preview", "lists", again=entries_page)
async def preview(call: Call) -> Response:
    """What it would hit, before it acts."""
    entry = _entry(call)
    found = await asyncio.to_thread(call.desk.register.preview, entry)
    return call.page("part_entry.html", preview=found, entry=entry)


@PAGES.post("/entries", "lists", again=entries_page)
async def add(call: Call) -> Response:
    entry = _entry(call)
    if call.one("propose") == "1":
        await call.desk.register.propose(entry, call.who, call.key)
        return call.to("/entries")
    done = await call.desk.register.add(entry, call.who, entry.model_dump_json(), key=f"{call.who} {call.key}")
    return call.to(f"/entries/{done['id']}")


@PAGES.post("/entries/proposed/{id}", "lists", again=entries_page)
async def answer(call: Call) -> Response:
    done = await call.desk.register.answer(call.path("id"), call.who, call.one("answer") == "agree")
    return call.to("/entries" if done is None else f"/entries/{done['id']}")


async def history_page(call: Call, fault: Fault | None = None) -> Response:
    until = call.number("until") or None
    found = await call.desk.history.changes(0, until)
    last = min((c["version"] for c in found["changes"]), default=1)
    return call.page("history.html", fault=fault, found=found, older=last - 1 if found["more"] else None, diff=None)


@PAGES.get("/entries/history", "lists")
async def history(call: Call) -> Response:
    return await history_page(call)


@PAGES.get("/entries/diff", "lists")
async def diff(call: Call) -> Response:
    """What differs between two versions; and, from the older to now, what a roll back would do."""
    a, b = call.number("a"), call.number("b") or None
    found = await call.desk.history.diff(a, b)
    return call.page(
        "diff.html", diff=found, version=call.desk.entries.version, back=b is None or b == call.desk.entries.version
    )


@PAGES.post("/entries/rollback", "lists", again=history_page)
async def roll_back(call: Call) -> Response:
    reason, to, expected = call.one("reason"), call.version("to"), call.version()
    if not reason:
        raise RequestError(
            "reason: say why it is rolled back 请填写回滚理由", code="missing", param="reason", status=422
        )
    if to is None or expected is None:
        raise RequestError("to: a version 请选择版本", code="missing", param="to", status=422)
    await call.desk.history.roll_back(to, call.who, reason, expected, key=call.key)
    return call.to("/entries/history")


async def entry_page(call: Call, fault: Fault | None = None) -> Response:
    await call.desk.entries.refresh()
    return call.page(
        "entry.html", fault=fault, row=call.desk.register.one(call.path("id")), version=call.desk.entries.version
    )


@PAGES.get("/entries/{id}", "lists", "review")
async def entry(call: Call) -> Response:
    return await entry_page(call)


@PAGES.post("/entries/{id}", "lists", again=entry_page)
async def change(call: Call) -> Response:
    id, reason, expected = call.path("id"), call.one("reason"), call.version()
    if not reason:
        raise RequestError("reason: say why 请填写理由", code="missing", param="reason", status=422)
    if call.one("what") == "remove":
        await call.desk.register.remove(id, call.who, reason, expected=expected, key=f"{call.who} {call.key}")
        return call.to("/entries")
    await call.desk.register.extend(
        id, call.who, _until(call.one("expires_at")), reason, expected=expected or 0, key=f"{call.who} {call.key}"
    )
    return call.to(f"/entries/{id}")


# ---- the lexicon


@lru_cache(maxsize=1)
def _terms(folder: Path, stamps: Hashable) -> list[lexicon.Term]:
    """Those of the files; read again once a file has changed."""
    return list(lexicon.load(folder))


@PAGES.get("/lexicon", "lists", "operate")
async def terms(call: Call) -> Response:
    """Terms of the files, as the workers have them. They are changed in their files (sluice lexicon)."""
    folder = call.desk.settings.lexicons
    rows = await asyncio.to_thread(lambda: _terms(folder, tuple(lexicon.stamps([folder]))))
    words, category = call.query("q").strip(), call.query("category")
    said = fold(words)
    found = [
        r
        for r in rows
        if (not category or r.category == category) and (not said or said in fold(r.term) or words == r.rule)
    ]
    counts = Counter(r.category for r in rows)
    tiers = Counter((r.category, r.tier) for r in rows)
    by = [(id, counts[id], tiers[id, "certain"], tiers[id, "suspect"]) for id in taxonomy() if counts[id]]
    return call.page(
        "lexicon.html",
        rows=found[:200] if words or category else [],
        total=len(found),
        all=len(rows),
        by=by,
        words=words,
        chosen=category,
        workers=call.desk.replica().get("workers", []),
    )
