"""Figures: the overview, the records behind them, transparency reports, evidence and the audit.

Law: every number leads to what it counts; none is of a person who reviews: agreement is told by category, and only where so many decided
that it is nobody's.
"""

from __future__ import annotations

import asyncio
import json
import re
from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from starlette.responses import Response

from app import clock, evidence, journal, looks, metrics
from app import transparency as report
from app.deadlines import SHANGHAI, day_end
from app.errors import RequestError
from app.remediation import Case
from app.store.cases import broken
from app.store.tables import Row
from app.types import Action
from app.web.console.call import Call, Pages
from app.web.console.words import KINDS, LANES, STEPS

PAGES = Pages()
_HOURS = 48
_CASES = 5000
"""Of the newest cases the burn-down is made."""
_DAYS = 90
PEOPLE = 5
"""Reviewers that must stand behind a figure of agreement."""
_ROWS = 100


async def _hours(call: Call, hours: int) -> list[tuple[float, Counter[str]]]:
    """What was counted in each of the last hours, oldest first: its beginning, name -> count."""
    last = datetime.fromtimestamp(clock.now(), UTC).replace(minute=0, second=0, microsecond=0)
    begins = [last - timedelta(hours=back) for back in reversed(range(hours))]
    sums = await call.desk.cases.store.call("counted", [f"counters:{b.strftime('%Y-%m-%dT%H')}" for b in begins], [])
    return [(b.timestamp(), Counter(json.loads(said))) for b, said in zip(begins, sums, strict=True)]


def _median(counts: Counter[str], name: str) -> str:
    """The bound that half of what was measured keeps; '-' of nothing."""
    found = sorted(
        ((float("inf") if b == "more" else float(b)), n)
        for key, n in counts.items()
        if key.startswith(f"{name}.")
        for b in [key.partition(".")[2]]
    )
    half, seen = sum(n for _, n in found) / 2, 0
    for bound, n in found:
        seen += n
        if seen >= half:
            return "> 5000" if bound == float("inf") else f"≤ {bound:g}"
    return "-"


async def _deadlines(call: Call, cases: list[Case]) -> tuple[Row, Row]:
    """The burn-down of the last days (cases in remediation, day by day), and how many cases fall due week by week."""
    store, now = call.desk.cases.store, clock.now()
    days = [day_end(now, back) for back in range(-_DAYS + 1, 1)]

    spans = [
        (c.decided, c.ended or float("inf"), c.due) for c in cases if c.decided is not None and c.state != "rejected"
    ]
    begins, ends = sorted(a for a, _, _ in spans), sorted(b for _, b, _ in spans)
    lates = [(max(a, due), b) for a, b, due in spans if due < b]
    late_begins, late_ends = sorted(a for a, _ in lates), sorted(b for _, b in lates)
    burn = {
        "series": [call.t("整改中", "in remediation"), call.t("已超期", "overdue")],
        "data": [
            days,
            [bisect_right(begins, d) - bisect_right(ends, d) for d in days],
            [bisect_right(late_begins, d) - bisect_right(late_ends, d) for d in days],
        ],
    }
    edges = [float("-inf"), *(now + 86400 * 7 * week for week in range(14)), float("inf")]
    counts = []
    for a, b in pairwise(edges):
        low, high = ("-inf" if a == float("-inf") else f"({a:.3f}"), ("+inf" if b == float("inf") else f"{b:.3f}")
        counts.append(int(await store.run("ZCOUNT", store.key("cases:due"), low, high)))
    labels = [call.t("超期", "over"), *(f"{7 * w}–{7 * w + 7}" for w in range(13)), "91+"]
    left = {
        "series": [call.t("案件", "cases")],
        "bars": True,
        "labels": labels,
        "data": [list(range(len(counts))), counts],
    }
    return burn, left


def agreement(cases: list[Case]) -> list[Row]:
    """Of each category that at least PEOPLE reviewers looked at: how often two of them agreed."""
    by: dict[str, list[Case]] = {}
    for case in cases:
        if case.second is not None:
            by.setdefault(str(case.second["first"]["category"]), []).append(case)
    rows = []
    for category, found in sorted(by.items()):
        people = {name for c in found if c.second is not None for name in (c.second["by"], c.second["first"]["by"])}
        if len(people) >= PEOPLE:
            rows.append({"category": category, "of": len(found), "agreed": sum(map(looks.agrees, found))})
    return rows


@PAGES.get("/")
async def overview(call: Call) -> Response:
    desk = call.desk
    hours = await _hours(call, _HOURS)
    day: Counter[str] = Counter()
    for _, counts in hours[-24:]:
        day.update(counts)
    families = await asyncio.to_thread(metrics.families)
    traffic = {
        "series": [call.t("请求", "requests"), call.t("拦截与替换", "stopped")],
        "data": [
            [at for at, _ in hours],
            [c["total"] for _, c in hours],
            [c["prompt.block"] + c["prompt.replace"] + c["answer.block"] + c["answer.replace"] for _, c in hours],
        ],
    }
    blocked = {k.partition(".")[2]: n for k, n in day.items() if k.startswith("blocked.")}
    store = desk.cases.store
    ids = [str(id) for id in await store.run("ZREVRANGE", store.key("cases:all"), 0, _CASES - 1)]
    newest = await desk.cases.several(ids)
    burn, left = await _deadlines(call, newest)
    workers = desk.replica().get("workers", [])
    return call.page(
        "overview.html",
        day=day,
        traffic=traffic,
        blocked=dict(sorted(blocked.items(), key=lambda kv: -kv[1])),
        burn=burn,
        left=left,
        held=_median(day, "held_ms"),
        first=_median(day, "first_ms"),
        leaked=metrics.total(families, "sluice_leaked_characters"),
        unscreened=metrics.total(families, "sluice_unscreened_characters"),
        lanes=LANES,
        counts=await desk.review.lanes(),
        power=await call.office.power.figures(),
        store=store,
        workers=workers,
        actions=[a.word for a in Action],
        appeals=await desk.complaints.waiting(),
        degraded={k.partition(".")[2]: n for k, n in day.items() if k.startswith("degraded.")},
        entries=desk.entries.version,
        agreement=agreement(newest) if call.may("audit") else [],
    )


@PAGES.get("/metrics")
async def measured(call: Call) -> Response:
    """What this replica counted since it started, metric by metric."""
    return call.page("metrics.html", families=await asyncio.to_thread(metrics.families))


@PAGES.get("/decisions", "audit", "operate", "lists")
async def decisions(call: Call) -> Response:
    """Records of the journal of this machine: ids, categories, offsets. There is no text to show."""
    wanted = {
        name: call.query(name)
        for name in ("direction", "action", "category", "rule", "id", "outcome", "degraded", "leaked")
    }

    def keep(row: Row) -> bool:
        sides = [row[d] for d in ("prompt", "answer") if wanted["direction"] in ("", d)]
        return (
            (not wanted["id"] or row["decision"] == wanted["id"])
            and (not wanted["outcome"] or row["outcome"] == wanted["outcome"])
            and (not wanted["leaked"] or row["leaked"] > 0)
            and (not wanted["degraded"] or any(wanted["degraded"] in s["degraded"] for s in sides))
            and (not wanted["rule"] or any(f["rule"] == wanted["rule"] for s in sides for f in s["findings"]))
            and any(
                (not wanted["action"] or s["action"] == wanted["action"])
                and (not wanted["category"] or (s["category"] or "-") == wanted["category"])
                for s in sides
            )
        )

    folder = call.desk.settings.data_dir / "journal"
    rows = await asyncio.to_thread(journal.recent, folder, keep, 200)
    return call.page("decisions.html", rows=rows, wanted=wanted, actions=[a.word for a in Action])


# ---- what is given to others


def _download(name: str, text: str, kind: str) -> Response:
    return Response(text, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


@PAGES.get("/evidence", "audit")
async def for_auditors(call: Call) -> Response:
    found = await call.desk.evidence(await asyncio.to_thread(call.desk.policies))
    if call.query("form") == "json":
        return _download("evidence.json", json.dumps(found, ensure_ascii=False, indent=2), "application/json")
    return _download("evidence.html", evidence.html(found), "text/html")


@PAGES.post("/cases/{id}/export", "audit", also=("review",))
async def samples(call: Call) -> Response:
    """What a model can be tuned with, as it was sent: for who may read it and give it out."""
    found = await call.desk.review.samples([call.path("id")], call.who, await asyncio.to_thread(call.desk.policies))
    return _download(f"{call.path('id')}.json", json.dumps(found, ensure_ascii=False, indent=2), "application/json")


@PAGES.get("/audit", "audit")
async def audit(call: Call) -> Response:
    """Who did what, newest first. Here alone people stand by their names."""
    store, cases = call.desk.cases.store, call.desk.cases
    total = int(await store.run("LLEN", store.key("audit")))
    start = min(call.number("from"), total)
    rows = (
        [json.loads(raw) for raw in await store.run("LRANGE", store.key("audit"), -(start + _ROWS), -(start + 1))]
        if total
        else []
    )
    checked = None
    if call.query("check") == "1":
        whole, head = await cases.chain()
        at = await asyncio.to_thread(broken, whole, head)
        checked = {"rows": len(whole), "at": at, "head": head}
    after = start + _ROWS if start + _ROWS < total else None
    return call.page("audit.html", rows=rows[::-1], total=total, after=after, steps=STEPS, kinds=KINDS, checked=checked)


def _named(call: Call) -> dict[str, str]:
    """What the figures are called, in the reader's language: the report has both in a line, Chinese first."""
    at = 0 if call.language == "zh" else 1
    return {key: re.split(r" ?(?=[A-Za-z])", said, maxsplit=1)[at] for key, said in report.NAMES.items()}


@PAGES.get("/transparency", "audit")
async def transparency(call: Call) -> Response:
    now = datetime.fromtimestamp(clock.now(), SHANGHAI)
    half = call.query("half") or f"{now.year}H{1 if now.month < 7 else 2}"
    public = call.query("public") == "1"
    found = await call.desk.transparency(half, public)
    match call.query("form"):
        case "json":
            return _download(
                f"transparency-{half}.json", json.dumps(found, ensure_ascii=False, indent=2), "application/json"
            )
        case "csv":
            return _download(f"transparency-{half}.csv", report.csv(found), "text/csv; charset=utf-8")
        case "html":
            return _download(f"transparency-{half}.html", report.html(found), "text/html; charset=utf-8")
        case "":
            return call.page("transparency.html", report=found, half=half, public=public, names=_named(call))
    raise RequestError("form: one of json, csv, html", code="invalid_value", param="form", status=422)
