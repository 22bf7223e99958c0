"""Sessions: how long somebody has been at it without a break, so that a reminder comes in time. Draft Measures, Article 10.

Law: in memory alone. What the processes tell one another (MACs of pseudonyms, times, counts) passes through the store and is kept nowhere;
a session that has ended is forgotten, and after a restart of all of them each begins anew. Without a subject only the messages of the
conversation at hand are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field

from app import clock
from app.errors import StoreError
from app.policyfile import NoticeRule
from app.store.client import Store, ended

_MOST = 65_536
_PAUSE = 1.0


@dataclass(slots=True)
class _Session:
    """`idle`: seconds that end it. `turns`: by process, what each has seen. `reminded`: how often of hours, of turns."""

    began: float
    last: float
    idle: float
    turns: dict[str, int] = field(default_factory=dict)
    reminded: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Use:
    """A reminder is due: hours of use, and messages, so far."""

    hours: float
    turns: int


class Sessions:
    """`run`: a name unique to this process's life. Sessions of one gateway; `store`: through which other processes hear of them."""

    def __init__(self, store: Store | None, run: str) -> None:
        self._store, self._run = store, run
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._changed: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if self._store is not None:
            self._tasks = [
                asyncio.create_task(self._tell(self._store)),
                asyncio.create_task(self._hear(self._store)),
            ]

    async def stop(self) -> None:
        await ended(*self._tasks)

    def used(self, who: str, rule: NoticeRule) -> Use | None:
        """One more message of somebody; a reminder, where one is due."""
        now = clock.now()
        session = self._sessions.get(who)
        if session is None or not 0 <= now - session.last < 60 * rule.idle:
            session = self._sessions[who] = _Session(now, now, 60.0 * rule.idle)
        self._bounded(who)
        session.last, session.idle = now, 60.0 * rule.idle
        session.turns[self._run] = session.turns.get(self._run, 0) + 1
        self._changed.add(who)
        hours, turns = (now - session.began) / 3600, sum(session.turns.values())
        reached = int(hours / rule.hours) if rule.hours else 0, turns // rule.turns if rule.turns else 0
        if reached[0] <= session.reminded[0] and reached[1] <= session.reminded[1]:
            return None
        session.reminded = max(reached[0], session.reminded[0]), max(reached[1], session.reminded[1])
        return Use(hours, turns)

    def _bounded(self, who: str) -> None:
        """The newest last; those that have ended, and the oldest of too many, are forgotten."""
        self._sessions.move_to_end(who)
        now = clock.now()
        while self._sessions:
            first = next(iter(self._sessions.values()))
            if len(self._sessions) <= _MOST and first.last + first.idle >= now:
                break
            self._sessions.popitem(last=False)

    async def _tell(self, store: Store) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            changed, self._changed = self._changed, set()
            rows = [
                [who, s.began, s.last, s.idle, s.turns.get(self._run, 0), *s.reminded]
                for who in changed if (s := self._sessions.get(who)) is not None
            ]  # fmt: skip
            if rows:
                with contextlib.suppress(StoreError):
                    await store.run("PUBLISH", store.key("sessions:told"), json.dumps([self._run, rows]))

    async def _hear(self, store: Store) -> None:
        while True:
            with contextlib.suppress(StoreError):
                async with aclosing(store.pushes("sessions:told", 5.0)) as pushes:
                    async for said in pushes:
                        if said:
                            self._merge(said)
            await asyncio.sleep(_PAUSE)

    def _merge(self, said: str) -> None:
        run, rows = json.loads(said)
        if run == self._run:
            return
        for who, began, last, idle, turns, hours, by_turns in rows:
            mine = self._sessions.get(who)
            # What ended before the other one began is another session.
            if mine is None or mine.last < began - idle:
                mine = self._sessions[who] = _Session(began, last, idle)
            elif last < mine.began - idle:
                continue
            mine.began, mine.last = min(mine.began, began), max(mine.last, last)
            mine.turns[run] = turns
            mine.reminded = max(mine.reminded[0], hours), max(mine.reminded[1], by_turns)
            self._bounded(who)
