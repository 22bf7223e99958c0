"""Cases, tickets and the audit chain in the store.

Law: what changes a case writes its audit row in the same call, or nothing; a case is changed only from the version that was read; the same
idempotency key gives the first result. Nothing here expires but the results of keys and the counts of limits. The chain is numbered by a
counter, never by a clock, and each row carries the hash of the one before it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any

import orjson

from app import clock, retention
from app.errors import Conflict, Limited, Reused, StoreError
from app.remediation import DUTY, ENDED, UNDECIDED, Case
from app.store.client import Store, within
from app.store.tables import REMEMBERED, Row, Table, history
from app.taxonomy import taxonomy

PATIENCE = 1.5
"""Seconds that a commit may take, and a report in all: they wait for one another, and behind a store that hangs the waits would add up."""
_TRIES = 64
"""Times that a row is chained anew because another process was first."""
_PAGE = 1000
_ANOTHER = "the store is not the one these cases came from; an operator must confirm it (docs/operations.md)"
_TRAILS = ("case", "matter", "standing")
"""What an audit row may be about, whose rows are found without the whole chain."""
_PROBED = retention.seconds("evidence") - retention.seconds("comments")
"""Seconds for which a case that has ended is probed again: eleven months."""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


class Writes:
    """What one commit does, in order."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.list: list[list[Any]] = []

    def _key(self, name: str) -> int:
        if name not in self.keys:
            self.keys.append(name)
        return 5 + self.keys.index(name)

    def row(self, key: str, id: str, expected: int, row: Row) -> None:
        self.list.append(["row", self._key(key), id, expected, _json(row)])

    def new(self, key: str, field: str, value: str) -> None:
        """Raises Taken at the commit where it is there already."""
        self.list.append(["new", self._key(key), field, value])

    def set(self, key: str, field: str, value: str) -> None:
        self.list.append(["set", self._key(key), field, value])

    def drop(self, key: str, field: str) -> None:
        self.list.append(["del", self._key(key), field])

    def erase(self, key: str) -> None:
        self.list.append(["erase", self._key(key)])

    def at(self, table: Table, version: int) -> None:
        """The whole table must stand at this version; raises Conflict at the commit."""
        self.list.append(["is", self._key(f"{table.name}:version"), str(version)])

    def seen(self, key: str, id: str, version: int) -> None:
        """A row must stand at this version; raises Conflict at the commit."""
        self.list.append(["at", self._key(key), id, version])

    def limit(self, name: str, most: int, seconds: int) -> None:
        """Count; raises Limited at the commit beyond so many in so many seconds."""
        self.list.append(["limit", self._key(f"limit:{name}"), most, seconds])

    def score(self, key: str, member: str, score: float | None) -> None:
        """None: it leaves the index."""
        self.list.append(
            ["unscore", self._key(key), member] if score is None else ["score", self._key(key), member, score]
        )

    def trail(self, what: str) -> None:
        """The audit row of this commit is one of those about `what`."""
        self.list.append(["trail", self._key(f"trail:{what}")])

    def case(self, before: Case | None, after: Case) -> None:
        """The case's row, and where its indexes change, those."""
        self.row("cases", after.id, before.version if before is not None else 0, after.row())
        if before is None:
            self.score("cases:all", after.id, after.received)
        for name, of in _INDEXES.items():
            was, now = of(before) if before is not None else None, of(after)
            if was != now:
                self.score(f"cases:{name}", after.id, now)
        if before is None or before.state != after.state:
            if before is not None:
                self.score(f"cases:state:{before.state}", after.id, None)
            self.score(f"cases:state:{after.state}", after.id, after.received)
        self._place(before, after)

    def ordered(self, case: Case) -> None:
        """The indexes that an older Sluice did not keep, of a case as it was read: raises Conflict at the commit where it is another by
        then. Done twice it is as done once."""
        self.seen("cases", case.id, case.version)
        if (over := _over(case)) is not None:
            self.score("cases:over", case.id, over)
        self.score(f"cases:state:{case.state}", case.id, case.received)
        self._place(None, case)

    def _place(self, before: Case | None, after: Case) -> None:
        """Where an undecided case waits, whose it is and what it is like."""
        was, now = _rest(before) if before is not None else None, _rest(after)
        had = before.reporters if before is not None and was is not None else ()
        has = after.reporters if now is not None else ()
        if was != now or had != has:
            keys = [self._key(f"cases:{name}") for name in ("queue", "reporter", "shared")]
            gone, come = ([w for w in a if w not in b] for a, b in ((had, has), (has, had)))
            self.list.append(["place", *keys, after.id, gone, come, has, -1 if now is None else now, MOST])
        alike = before.like if before is not None and was is not None else ()
        for band in {*alike} ^ {*(after.like if now is not None else ())}:
            self.score("cases:like", f"{band}|{after.id}", None if band in alike else 0)

    def table(self, table: Table, id: str, row: Row, channel: str, expected: int | None = None) -> None:
        """A row of a replicated table; every process puts it into force. `channel`: where it is told; '': with the next one.
        `expected`: the version that it must have, 0: none yet; raises Conflict at the commit."""
        self.row_of(table.name, id, row, channel, expected)

    def row_of(self, table: str, id: str, row: Row, channel: str, expected: int | None = None) -> None:
        """The same, of a table that this process does not follow."""
        names = (f"{table}:{part}" for part in ("version", "rows", "index", "sum"))
        at = [*(self._key(n) for n in names), id, _json(row), channel, -1 if expected is None else expected]
        kept = self._key(history(table)) if table in REMEMBERED else 0
        self.list.append(["table", *at, kept, clock.stamp()])


def _open(case: Case) -> float | None:
    return case.received if case.state in UNDECIDED | DUTY else None


def _due(case: Case) -> float | None:
    return case.due if case.state in DUTY else None


def _lapsing(case: Case) -> float | None:
    return case.lapses if case.state == "provisional" else None


def _probing(case: Case) -> float | None:
    return case.next_probe


def _over(case: Case) -> float | None:
    """When it ended, if it has."""
    return case.decided if case.state == "rejected" else case.ended if case.state in ENDED else None


def _told(case: Case) -> float | None:
    return _over(case) if case.comments else None


def _kept(case: Case) -> float | None:
    """A case that may be probed again needs its prompt for longer."""
    over = _over(case) if case.evidence else None
    return over if over is None or case.state == "rejected" else over + _PROBED


def _named(case: Case) -> float | None:
    return _over(case) if case.reporters else None


_INDEXES = {
    "open": _open, "due": _due, "lapse": _lapsing, "probes": _probing, "comments": _told, "evidence": _kept, "reporters": _named,
    "over": _over,
}  # fmt: skip
"""Sorted sets of case ids, by name: the score of a case, None where it does not stand there."""
MOST = 10
"""Who has 2 to the power of this many cases waiting, or more, waits behind everybody who has fewer; so a commit moves as many others at
most."""


def _rest(case: Case) -> float | None:
    """Of its score in `cases:queue` what does not depend on who reported: the most harm first, then the oldest. None: it is decided."""
    return (9 - taxonomy()[case.category].harm) * 1e10 + case.received if case.state in UNDECIDED else None


class Taken(StoreError):
    """Somebody was first with a field that had to be new; `value` is what stands there."""

    def __init__(self, value: str) -> None:
        super().__init__("somebody was first")
        self.value = value


class Cases:
    """`entries`: the table whose rows act for cases; it also knows whether the store is the one followed so far."""

    def __init__(self, store: Store | None, entries: Table) -> None:
        self._store, self.entries = store, entries
        self._head = ""
        self._turn = asyncio.Lock()

    @property
    def store(self) -> Store:
        """Raises StoreError where there is none."""
        if self._store is None:
            raise StoreError(
                "no store is configured: reports cannot be kept; unset SLUICE_REDIS_URL for the embedded one"
            )
        return self._store

    # ---- writing

    async def commit(
        self, writes: Writes, event: Row, *, key: str = "", request: str = "", result: Row | None = None
    ) -> Row:
        """All of `writes` and the audit row of `event`, or nothing; what was answered (of a repeated `key`, the first time).

        Raises StoreError (nothing is known to be written: send it again), Conflict, Taken, Limited, or ValueError for a key used for
        something else. `event`: who, what, which case; no text of a user. A `result` whose version is "@version" says that of the last row
        of a table among the writes.
        """
        store = self.store
        if store.problem:
            raise StoreError(store.problem)
        if self.entries.foreign:
            raise StoreError(_ANOTHER)
        said = _json(result or {})
        # A connection that breaks has the call sent twice: one without a key gets its own, so that its first answer is found.
        key = key or secrets.token_hex(16)
        digest = hashlib.sha256(request.encode()).hexdigest()
        for what in _TRAILS:
            # A report has a standing too, which is none of anybody's.
            if "_" in (name := str(event.get(what) or "")):
                writes.trail(f"{what} {name}")
        for name in event.get("cases", ()):
            writes.trail(f"case {name}")
        keys = [self._done(key), "store_id", "audit", "audit:head", *writes.keys]
        async with within(PATIENCE), self._turn:
            for _ in range(_TRIES):
                seq, _, prev = self._head.partition(" ")
                row = _json({**event, "seq": int(seq or 0) + 1, "prev": prev, "at": clock.stamp()})
                after = f"{int(seq or 0) + 1} {hashlib.sha256(row.encode()).hexdigest()}"
                args: list[str | int] = [
                    self.entries.store_id,
                    digest,
                    self._head,
                    after,
                    row,
                    said,
                    _json(writes.list),
                ]
                state, answer = await store.call("commit", keys, args, durable=True)
                if state in ("ok", "again"):
                    if state == "ok":
                        self._head = after
                    return dict(json.loads(answer))
                if state != "head":
                    break
                self._head = answer
            else:
                raise StoreError("too many others write at once; send it again with the same Idempotency-Key")
        if state == "conflict":
            raise self.stale(int(answer))
        if state == "taken":
            raise Taken(answer)
        if state == "limit":
            raise Limited(max(1, int(answer)))
        if state == "reused":
            raise Reused
        raise StoreError(_ANOTHER)

    async def put(self, writes: Writes) -> bool:
        """All of `writes` or nothing, without an audit row: what changes no case. False: a case is at another version than was read.

        Raises StoreError.
        """
        store = self.store
        if store.problem:
            raise StoreError(store.problem)
        keys = ["done:", "store_id", "audit", "audit:head", *writes.keys]
        args: list[str | int] = [self.entries.store_id, "", "", "", "", "", _json(writes.list)]
        state, _ = await store.call("commit", keys, args, durable=True)
        if state == "foreign":
            raise StoreError(_ANOTHER)
        return bool(state == "ok")

    async def repeated(self, key: str, request: str) -> Row | None:
        """What the first call with this key was answered, if there was one. Raises ValueError for a key used for something else.

        Its answer counts as an acknowledgement too: the first call may have failed only because no replica had it yet.
        """
        raw = await self.store.call("done", [self._done(key)], [], durable=True)
        if raw is None:
            return None
        digest, _, answer = str(raw).partition(" ")
        if digest != hashlib.sha256(request.encode()).hexdigest():
            raise Reused
        return dict(json.loads(answer))

    @staticmethod
    def _done(key: str) -> str:
        return f"done:{hashlib.sha256(f'cases {key}'.encode()).hexdigest()[:32]}"

    @staticmethod
    def stale(current: int) -> Conflict:
        return Conflict(f"somebody changed it first; it is at version {current}", current)

    def changed(self) -> str:
        """The channel that tells of changed entries."""
        return self.store.key(f"{self.entries.name}:changed")

    # ---- reading

    async def sure(self) -> None:
        """Nothing was found: that says something only of the store that is followed. Raises StoreError where another one answers."""
        await self.entries.refresh()
        if self.entries.foreign:
            raise StoreError(_ANOTHER)

    async def field(self, key: str, field: str) -> str | None:
        value = await self.store.run("HGET", self.store.key(key), field)
        return None if value is None else str(value)

    async def get(self, id: str) -> Case | None:
        raw = await self.field("cases", id)
        return None if raw is None else read(raw)

    async def several(self, ids: Iterable[str]) -> list[Case]:
        """Those that are there, in this order."""
        wanted = list(ids)
        found: list[Case] = []
        for at in range(0, len(wanted), _PAGE):
            rows = await self.store.run("HMGET", self.store.key("cases"), *wanted[at : at + _PAGE])
            found += [read(raw) for raw in rows if raw is not None]
        return found

    async def index(self, name: str, until: float | None = None, most: int = 100_000) -> list[str]:
        """Ids of a sorted set, the lowest score first, up to `until`."""
        bound = "+inf" if until is None else f"{until:.3f}"
        ids = await self.store.run("ZRANGEBYSCORE", self.store.key(f"cases:{name}"), "-inf", bound, "LIMIT", 0, most)
        return [str(id) for id in ids]

    async def members(self, key: str, until: float = float("inf")) -> list[str]:
        """Of a sorted set, the lowest score first, up to `until`."""
        bound = "+inf" if until == float("inf") else f"{until:.3f}"
        return [str(m) for m in await self.store.run("ZRANGEBYSCORE", self.store.key(key), "-inf", bound)]

    async def scan(self, key: str) -> AsyncIterator[tuple[str, str]]:
        """Every field of a hash and its value, a page at a time: what is written meanwhile may be missed, what stood there is not."""
        cursor = 0
        while True:
            cursor, found = await self.store.run("HSCAN", self.store.key(key), cursor, "COUNT", _PAGE)
            for field, value in found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True):
                yield str(field), str(value)
            if not int(cursor):
                return

    async def ticket(self, id: str) -> Row | None:
        raw = await self.field("tickets", id)
        return None if raw is None else dict(json.loads(raw))

    async def now(self) -> float:
        """The store's own clock, seconds since the epoch."""
        seconds, micros = await self.store.run("TIME")
        return int(seconds) + int(micros) / 1e6

    async def audit(self) -> list[str]:
        """Every row of the chain, oldest first, as it was written."""
        rows: list[str] = []
        while page := await self.store.run("LRANGE", self.store.key("audit"), len(rows), len(rows) + _PAGE - 1):
            rows += [str(raw) for raw in page]
        return rows

    async def trail(self, what: str, most: int = 200) -> list[Row]:
        """The last audit rows about a case, a complaint, an account (`case case_…`), oldest first. Those from before trails were kept
        stand in the chain alone."""
        rows = await self.store.call("trail", [f"trail:{what}", "audit"], [most])
        return [dict(json.loads(raw)) for raw in rows]

    async def chain(self) -> tuple[list[str], str]:
        """Every row of the chain and its head, of one moment: what is written while they are read is left out. Rows behind a head that
        stands still are not."""
        head = await self.head()
        rows = await self.audit()
        if await self.head() != head:
            rows = rows[: int(head.partition(" ")[0] or 0)]
        return rows, head

    async def head(self) -> str:
        return str(await self.store.run("GET", self.store.key("audit:head")) or "")


def broken(rows: list[str], head: str) -> int | None:
    """The number of the first row of the chain that is not the one that was written there; None: it is whole."""
    for at, (before, raw) in enumerate(pairwise(["", *rows]), 1):
        try:
            row = json.loads(raw)
            linked = row["seq"] == at and row["prev"] == (hashlib.sha256(before.encode()).hexdigest() if before else "")
        except (ValueError, KeyError, TypeError):
            return at  # no row of ours
        if not linked:
            return at
    last = f"{len(rows)} {hashlib.sha256(rows[-1].encode()).hexdigest()}" if rows else ""
    return None if head == last else len(rows) + 1


def read(raw: str) -> Case:
    """A case as it stands in the store: its version, a space, its row."""
    version, _, body = raw.partition(" ")
    return Case.of(orjson.loads(body), int(version))
