"""Subjects: users known by a pseudonym alone, and what follows for one who goes on asking for what Article 19 of the draft names: a
warning, fewer requests, a suspension, and by a person's decision alone an end.

Law: conduct counts, never an opinion: a strike is a message in which a category that counts for Article 19 was found by wording that itself
instructs or offers. A strike is a count and a decision id, forgotten after 24 hours; no text, no profile. What is imposed names its reason,
ends by a date and can be appealed; lifting it undoes it and the strikes that led to it. Every replica enforces the same rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from app import clock, metrics
from app.deadlines import SHANGHAI
from app.errors import Conflict, RequestError, StoreError
from app.keys import Keys
from app.moderation import Judged
from app.policy import Policy
from app.policyfile import SubjectRule
from app.stance import Cues
from app.store.cases import Cases, Writes
from app.store.client import Store, ended
from app.store.feed import Feed
from app.store.tables import Row, Standings, gone
from app.taxonomy import Profile, taxonomy
from app.terms import CONTEXT
from app.text import fold
from app.types import Action, Slot, Subject

log = logging.getLogger("sluice.subjects")

Level = Literal["warn", "limit", "suspend", "terminate"]
LEVELS: tuple[Level, ...] = get_args(Level)
DAY = 86_400
AGAIN = 30 * DAY
"""Seconds within which a suspension is another one; an ended row is kept so long."""
_ROOM = 4096
_OPEN = 65_536
_TRIES = 8
_LOOKED, _NEAR = 50, 4 * CONTEXT
"""Findings of a message that are looked at; characters around one."""
_OVER = "+00:00"
_FOUND_BY = frozenset({"lexicon", "rules"})
"""Whose certain findings instruct or offer: shipped terms of that tier hold the verb or the offer (lint), and an operator's rules do."""


_BASIS: dict[Profile, tuple[str, str]] = {
    "draft_2023_04": (
        "《生成式人工智能服务管理办法（征求意见稿）》第十九条", "draft Measures for generative AI services, Article 19"
    ),
    "interim_2023_08": (
        "《生成式人工智能服务管理暂行办法》第十四条", "Interim Measures for generative AI services, Article 14"
    ),
}  # fmt: skip
"""By which provision something is imposed: zh, en."""


class Standing(NamedTuple):
    """What is imposed on a subject. `until`: None, no end but a person's decision."""

    id: str
    level: Level
    reason: str
    until: float | None
    version: int = 0

    def words(self, language: str, profile: Profile) -> str:
        """What its subject is told. `profile`: by whose text."""
        end = {"zh": "直至人工决定解除", "en": "until somebody lifts it"}[language]
        if self.until is not None:
            stamp = datetime.fromtimestamp(self.until, SHANGHAI).strftime("%Y-%m-%d %H:%M")
            end = {"zh": f"至北京时间 {stamp}", "en": f"until {stamp} (UTC+8)"}[language]
        category = taxonomy().get(self.reason)
        name = getattr(category, language) if category is not None else self.reason
        what = {
            "warn": {"zh": "提醒：您的部分请求涉及", "en": "A warning: some of your requests concern"},
            "limit": {
                "zh": "您的使用频率已被限制，因为部分请求涉及",
                "en": "Your use is limited, because some requests concern",
            },
            "suspend": {
                "zh": "您的使用已被暂停，因为多次请求涉及",
                "en": "Your use is suspended, because repeated requests concern",
            },
            "terminate": {
                "zh": "您的使用已被终止，因为多次请求涉及",
                "en": "Your use was ended, because repeated requests concern",
            },
        }[self.level][language]
        if language == "zh":
            return f"{what}“{name}”（依据：{_BASIS[profile][0]}），{end}。如认为有误，请凭编号申诉：{self.id}"
        return (
            f"{what} “{name}” (basis: {_BASIS[profile][1]}), {end}. "
            f"If you think this is wrong, appeal with the number {self.id}"
        )


def step(rule: SubjectRule, row: int, day: int) -> Level | None:
    """What follows after `row` strikes in a row and `day` within 24 hours."""
    if (rule.row and row >= rule.row) or (rule.day and day >= rule.day):
        return "suspend"
    if rule.limit and row >= rule.limit:
        return "limit"
    return "warn" if rule.warn and row >= rule.warn else None


class Counted(NamedTuple):
    """Why a message is a strike: the category, and the text."""

    category: str
    text: str


def counted(policy: Policy, slots: Sequence[Slot], judged: Judged, cues: Cues) -> Counted | None:
    """Whether a request is a strike: something that policy acts on was found in the newest words of the user, by what instructs or offers,
    in a sentence that shows no other stance (of the law, news, teaching, refutation, help, fiction, history)."""
    if not judged.verdict.findings:
        return None
    counts = frozenset(policy.rules.subjects.counts) or _may_count()
    fresh = {slot.path: slot.text for slot in slots if slot.origin == "user" and slot.age == 0 and slot.message >= 0}
    for f in judged.verdict.findings[:_LOOKED]:
        if (
            f.action > Action.PASS and f.category in counts and f.tier == "certain" and f.detector in _FOUND_BY and not f.shadow
            and f.path in fresh and "join" not in f.technique
        ):  # fmt: skip
            text = fresh[f.path]
            # As far as a stance reaches, whatever folding does to it.
            before, after = text[max(0, f.start - _NEAR) : f.start], text[f.end : f.end + _NEAR]
            near = fold(before + text[f.start : f.end] + after)
            if not cues.around(near, len(fold(before)), len(near) - len(fold(after)), True):
                return Counted(f.category, text)
    return None


@cache
def _may_count() -> frozenset[str]:
    return frozenset(c.id for c in taxonomy().values() if c.counts_for_article_19)


class _Strike(NamedTuple):
    subject: Subject
    decision: str
    category: str | None
    """None: a message without one, which ends the row."""
    same: str
    """A MAC of the message: sent again, it is the same strike."""
    rule: SubjectRule


class Subjects:
    """`folder`: where their snapshot lies; `keep`: this process writes it. Strikes are counted in the background: no request waits."""

    def __init__(self, cases: Cases, keys: Keys, store: Store | None, folder: Path, *, keep: bool = False) -> None:
        self._cases, self._keys = cases, keys
        self.table = Standings(store, folder, self.change, keep_snapshot=keep)
        self._rows: dict[tuple[str, str], Standing] = {}
        self._waiting: asyncio.Queue[_Strike] = asyncio.Queue(_ROOM)
        self._open: dict[bytes, None] = {}
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None

    # ---- in force

    def change(self, rows: dict[str, Row | None], version: int, whole: bool) -> None:
        """Put changed rows into force; as Table.changed."""
        now = {} if whole else {key: s for key, s in self._rows.items() if s.id not in rows}
        for row in rows.values():
            if row is not None:
                until = _seconds(row.get("expires_at"))
                now[row["app"], row["subject"]] = Standing(
                    row["id"], row["level"], row["reason"], until, int(row["version"])
                )
        self._rows = now

    def of(self, app: str, names: Iterable[str]) -> Standing | None:
        """What is imposed on whom `names` are pseudonyms of, under this key and older ones."""
        if not self._rows:
            return None
        now = clock.now()
        found = (self._rows.get((app, name)) for name in names)
        live = [s for s in found if s is not None and (s.until is None or s.until > now)]
        return max(live, key=lambda s: LEVELS.index(s.level), default=None)

    @property
    def unreadable(self) -> int:
        """Rows under a key that is listed no more: whom they are about cannot be told."""
        return sum(name.partition(".")[0] not in self._keys.kids for _, name in self._rows)

    # ---- counting

    async def start(self) -> None:
        store = self._cases.store
        self._feed = Feed(store, "struck", self._heard)
        await self._feed.start()
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)
        if self._feed is not None:
            await self._feed.stop()

    def _mark(self, subject: Subject) -> bytes:
        return mark(self._keys, subject)

    def _heard(self, mark: bytes) -> None:
        self._open[mark] = None
        if len(self._open) > _OPEN:
            del self._open[next(iter(self._open))]

    def asked(self, subject: Subject, names: Iterable[str], decision: str, why: Counted | None, policy: Policy) -> None:
        """A message of a subject was judged. Never waits. A clean one is only told of where strikes are open. `names`: their pseudonyms
        under every key; whom something is imposed on goes on under the name by which that stands."""
        known = next((name for name in names if (subject.app, name) in self._rows), subject.pseudonym)
        subject = Subject(subject.app, known)
        if self._task is None or (why is None and (not self._open or self._mark(subject) not in self._open)):
            return
        category, same = None, ""
        if why is not None:
            category = why.category
            same = self._keys.mac("subject", "strike", subject.app, known, fold(why.text)).hex()
        try:
            self._waiting.put_nowait(_Strike(subject, decision, category, same, policy.rules.subjects))
        except asyncio.QueueFull:
            metrics.STRIKES.labels("dropped").inc()

    async def _work(self) -> None:
        while True:
            strike = await self._waiting.get()
            try:
                await (self._clean(strike) if strike.category is None else self._struck(strike, strike.category))
            except StoreError as e:
                metrics.STRIKES.labels("dropped").inc()
                log.error("a strike is not counted", extra={"error": type(e).__name__})

    async def _clean(self, strike: _Strike) -> None:
        await self._cases.store.run("HDEL", self._cases.store.key(_strikes(strike.subject)), "row")
        self._open.pop(self._mark(strike.subject), None)

    async def _struck(self, strike: _Strike, category: str) -> None:
        metrics.STRIKES.labels("counted").inc()
        row, day, decisions = await self._cases.store.call(
            "strike", [_strikes(strike.subject)], [strike.decision, strike.same, f"{clock.now():.3f}", DAY]
        )
        mark = self._mark(strike.subject)
        self._heard(mark)
        if self._feed is not None:
            self._feed.tell(mark)
        level = step(strike.rule, int(row), int(day))
        if level is not None:
            await self._impose(strike, level, category, {"row": int(row), "day": int(day)}, [str(d) for d in decisions])

    async def _impose(
        self, strike: _Strike, level: Level, category: str, counts: Mapping[str, int], decisions: list[str]
    ) -> None:
        """By rule. A level that is in force already is not imposed again."""
        subject, rule = strike.subject, strike.rule
        for _ in range(_TRIES):
            await self.table.refresh()
            now = clock.now()
            mine = (row for row in self.table.holding(subject.pseudonym) if row["app"] == subject.app)
            old = next((row for row in mine if row["subject"] == subject.pseudonym), None)
            # All that count see the same first strike; and what begins anew after an erasure has another one.
            id = str(old["id"]) if old is not None else standing_id(self._keys, subject, decisions[0])
            live = old is not None and (_seconds(old.get("expires_at")) or 1e18) > now
            counted = await self._cases.field(_strikes(subject), f"d:{strike.same}")
            if counted is None:
                return  # lifted meanwhile, and the strikes with it
            if live and old is not None and old["by"] != "rule" and not old["proposed"]:
                # What a person imposed no rule changes unasked. Asked for already, a step above it is imposed: nobody is immune.
                await self._propose(old)
                return
            if live and old is not None and LEVELS.index(old["level"]) >= LEVELS.index(level):
                return
            recent = old is not None and now - float(old.get("suspended", 0)) < AGAIN
            times = (int(old.get("times", 0)) if recent and old is not None else 0) + (level == "suspend")
            hours = rule.longer if level == "suspend" and times > 1 else rule.hours
            made: Row = {
                "id": id, "app": subject.app, "subject": subject.pseudonym, "level": level, "reason": category,
                "by": "rule", "at": clock.stamp(now), "expires_at": _stamp(now + hours * 3600), "counts": dict(counts),
                "decisions": decisions[-20:], "times": times,
                "suspended": now if level == "suspend" else float(old.get("suspended", 0)) if recent and old else 0,
                "proposed": level == "suspend" and times >= rule.review,
            }  # fmt: skip
            writes = Writes()
            if level == "suspend":
                writes.erase(_strikes(subject))
            writes.table(self.table, id, made, self._channel(), int(old["version"]) if old is not None else 0)
            event = {"who": "rule", "what": level, "standing": id, "reason": category, "counts": dict(counts)}
            try:
                await self._cases.commit(writes, event, key=f"{id} {level} {strike.decision}", request=level)
            except Conflict:
                continue
            metrics.STANDINGS.labels(level, "rule").inc()
            await self.table.refresh()
            return

    async def _propose(self, row: Row) -> None:
        writes = Writes()
        after = {k: v for k, v in row.items() if k != "version"} | {"proposed": True}
        writes.table(self.table, row["id"], after, self._channel(), int(row["version"]))
        with contextlib.suppress(Conflict):
            await self._cases.commit(writes, {"who": "rule", "what": "propose", "standing": row["id"]})
            await self.table.refresh()

    def _channel(self) -> str:
        return self._cases.store.key(f"{self.table.name}:changed")

    # ---- people

    async def listed(self, *, proposed: bool = False) -> list[Row]:
        """What is in force, newest first; `proposed`: where somebody must say what becomes of it, ended meanwhile or not."""
        await self.table.refresh()
        rows = [r for r in self.table.holding('"proposed":true') if r["proposed"]] if proposed else self.table.rows()
        return [shown(row) for row in sorted(rows, key=lambda row: -int(row["version"]))]

    async def one(self, id: str) -> Row:
        """Raises RequestError 404."""
        await self.table.refresh()
        row = self.table.get(id)
        if row is None or row.get("deleted"):
            raise RequestError("no such standing", code="not_found", status=404)
        return row

    async def decide(
        self, id: str, what: str, who: str, reason: str, *, hours: int | None = None, expected: int | None = None,
        key: str = "",
    ) -> Row:  # fmt: skip
        """`lift`, `keep` (it is not to be terminated), or a level. Raises RequestError, Conflict, StoreError."""
        request = f"{id} {what} {who} {reason} {hours}"
        if key and (first := await self._cases.repeated(key, request)) is not None:
            return first
        row = await self.one(id)
        if expected is not None and expected != row["version"]:
            raise self._cases.stale(int(row["version"]))
        writes, now = Writes(), clock.now()
        if what == "lift":
            self.lift(writes, row)
            result: Row = {"id": id, "level": None, "lifted": True}
        else:
            after = {k: v for k, v in row.items() if k != "version"} | {"proposed": False}
            if what != "keep":
                until = None if what == "terminate" else _stamp(now + (hours or 24) * 3600)
                after |= {"level": what, "by": who, "at": clock.stamp(now), "expires_at": until}
            writes.table(self.table, id, after, self._channel(), int(row["version"]))
            result = shown(after | {"version": 0}) | {"lifted": False}
        event = {"who": who, "what": what, "standing": id, "reason": reason}
        done = await self._cases.commit(writes, event, key=key, request=request, result=result)
        metrics.STANDINGS.labels(what, "person").inc()
        await self.table.refresh()
        return done

    def lift(self, writes: Writes, row: Mapping[str, Any]) -> None:
        """Undo a standing and the strikes that led to it; of the subject nothing stays but the number."""
        writes.table(self.table, row["id"], gone(row["id"]), self._channel(), int(row["version"]))
        writes.erase(_strikes(Subject(row["app"], row["subject"])))

    async def forget(self, now: float) -> int:
        """Erase rows that ended so long ago that nothing hangs on them; how many. Raises StoreError."""
        ended = 0
        for row in self.table.expired('"subject"'):
            if now > clock.seconds(row["expires_at"]) + AGAIN:
                writes = Writes()
                self.lift(writes, row)
                event = {"who": "time", "what": "erase", "part": "standings", "standing": row["id"]}
                with contextlib.suppress(Conflict):
                    await self._cases.commit(writes, event)
                    ended += 1
        return ended


def mark(keys: Keys, subject: Subject) -> bytes:
    """By which the processes tell one another of a subject with an open row."""
    return keys.mac("subject", "strikes", subject.app, subject.pseudonym, kid=subject.pseudonym.partition(".")[0])


def standing_id(keys: Keys, subject: Subject, first: str) -> str:
    """The number of a subject's standing, by the decision that began it: it leads back to nobody, nor to another one of theirs."""
    return "std_" + keys.mac("subject", "standing", subject.app, subject.pseudonym, first).hex()[:24]


def _strikes(subject: Subject) -> str:
    return f"strikes:{subject.app}:{subject.pseudonym}"


def _stamp(at: float) -> str:
    return clock.stamp(at).replace("Z", _OVER)


def _seconds(stamp: str | None) -> float | None:
    return None if stamp is None else clock.seconds(stamp)


def shown(row: Mapping[str, Any]) -> Row:
    """As a reviewer sees it: not whose it is."""
    kept = (
        "id",
        "app",
        "level",
        "reason",
        "by",
        "at",
        "expires_at",
        "counts",
        "decisions",
        "times",
        "proposed",
        "version",
    )
    return {k: row.get(k) for k in kept}
