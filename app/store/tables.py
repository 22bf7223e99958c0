"""Replicated tables: versioned rows that every process holds in memory and on disk.

Law: a process asks the store in the background only; what it enforces is a complete, checksummed version, and a list is
replaced only by a newer one of the same store. No answer of the store, no empty server and no foreign one ever empties it.
Push tells at once, a poll stands behind it. A row never vanishes: deleting marks it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import aclosing, suppress
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Protocol

from app import clock
from app.errors import Conflict, Reused, StoreError
from app.store.client import SCHEMA, Store, ended

log = logging.getLogger("sluice.tables")

POLL = 0.5
"""Seconds between looks when no push comes."""
_CHECK = 5.0
"""Seconds between looks at what the server promises."""

Row = dict[str, Any]
REMEMBERED = ("entries",)
"""Tables whose changes are remembered for a time (app/history.py)."""
_MOD = 281_474_976_710_656


def _part(id: str, raw: str) -> int:
    return int(hashlib.sha1(f"{id} {raw}".encode()).hexdigest()[:12], 16)


class Changed(Protocol):
    """Puts rows into force: all live ones (`whole`), or by id those that changed, None for one that no longer lives."""

    def __call__(self, rows: dict[str, Row | None], version: int, whole: bool) -> None: ...


class Table:
    """Rows by id, each with its version. `changed` runs in a thread after every change."""

    name = ""

    def __init__(
        self,
        store: Store | None,
        folder: Path,
        changed: Changed,
        *,
        keep_snapshot: bool = False,
    ) -> None:
        self._store, self._changed, self._keep = store, changed, keep_snapshot
        self._path = folder / f"{self.name}.snapshot.json"
        self._rows: dict[str, str] = {}  # id -> "<version> <json>", as the store has it
        self._sum = 0
        self._due: list[tuple[float, str]] = []  # a heap of (expiry, id)
        self._live: set[str] = set()
        self._announced = False
        self._task: asyncio.Task[None] | None = None
        self._agrees = True
        self._turn = asyncio.Lock()
        self.version = 0
        self.store_id = ""
        self.foreign = False
        """True while the server that answers is not the one these rows came from."""

    # ---- reading

    async def start(self) -> None:
        """Load the snapshot and begin to follow. Never waits for the store."""
        self._load_snapshot()
        if self._rows:
            await self._announce(self._rows, self.version)
        if self._store is not None:
            self._task = asyncio.create_task(self._follow(self._store))

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)

    def __len__(self) -> int:
        """How many rows are in force."""
        return len(self._live)

    def rows(self) -> list[Row]:
        """Every live row, oldest version first."""
        return _live(self._rows)

    def holding(self, part: str) -> list[Row]:
        """Rows that are not deleted, in force or not, whose JSON holds `part`."""
        rows = (_parse(id, raw) for id, raw in self._rows.items() if part in raw)
        return [row for row in rows if not row.get("deleted")]

    def expired(self, part: str) -> list[Row]:
        """Rows whose date has passed, of those whose JSON holds `part`."""
        now = clock.now()
        return [row for row in self.holding(part) if _expiry(row) <= now]

    def newest(self) -> int:
        """The version of the row that was written last; 0: there is none. A restore raises the table's own version beyond it."""
        return max((int(raw.partition(" ")[0]) for raw in self._rows.values()), default=0)

    def get(self, id: str) -> Row | None:
        raw = self._rows.get(id)
        return None if raw is None else _parse(id, raw)

    async def _announce(self, raw: dict[str, str], version: int, fresh: dict[str, str] | None = None) -> None:
        """Put rows into force: only the `fresh` ones where all others are. What it raises leaves the old ones in force,
        and the next look tries again."""
        whole = fresh is None or not self._announced
        live = await asyncio.to_thread(_live, raw if fresh is None or whole else fresh)
        rows: dict[str, Row | None] = dict.fromkeys(() if fresh is None or whole else fresh)
        rows |= {row["id"]: row for row in live}
        before = self._live
        self._live = {id for id in (() if whole else before) if id not in rows} | {row["id"] for row in live}
        try:
            await asyncio.to_thread(self._changed, rows, version, whole)
        except BaseException:
            self._live = before
            raise
        self._announced = True
        if whole:
            self._due = []
        for row in live:
            if (expiry := _expiry(row)) < float("inf"):
                heappush(self._due, (expiry, row["id"]))

    async def _expire(self) -> None:
        now = clock.now()
        due = [id for expiry, id in self._due if expiry <= now] if self._due and self._due[0][0] <= now else []
        if due:
            await self._announce(self._rows, self.version, {id: self._rows[id] for id in due if id in self._rows})
            while self._due and self._due[0][0] <= now:
                heappop(self._due)

    async def _follow(self, store: Store) -> None:
        delay = 0.05
        loop = asyncio.get_running_loop()
        checked = -_CHECK
        while True:
            try:
                async with aclosing(store.pushes(f"{self.name}:changed", POLL)) as pushes:
                    async for _ in pushes:
                        if loop.time() - checked >= _CHECK or store.problem:
                            checked = loop.time()
                            await store.check()
                        await self.refresh()
                        await self._expire()
                        delay = 0.05
            except StoreError:
                checked = -_CHECK
            except Exception as e:
                log.error("following a table failed", extra={"table": self.name, "error": type(e).__name__})
            try:
                await self._expire()
            except Exception as e:
                log.error("entries that expired stay in force", extra={"table": self.name, "error": type(e).__name__})
            await asyncio.sleep(delay)
            delay = min(delay * 2, 0.4)

    async def refresh(self) -> None:
        """Catch up with the store. Raises StoreError."""
        # One at a time: of two that overlap, the later end could bring back the older version.
        async with self._turn:
            await self._catch_up()

    async def _catch_up(self) -> None:
        if await self._read(self.version):
            return
        agrees = await self._read(0)
        if agrees != self._agrees:
            self._agrees = agrees
            log.error(
                "table checksum agrees again"
                if agrees
                else "table checksum does not agree; the last good version stays",
                extra={"table": self.name},
            )

    async def _read(self, since: int) -> bool:
        """Apply what is newer than `since`; False if the sum does not agree."""
        assert self._store is not None
        keys = [
            f"{self.name}:version",
            f"{self.name}:rows",
            f"{self.name}:index",
            f"{self.name}:sum",
            "store_id",
            "schema",
        ]
        store_id, version, total, schema, flat = await self._store.call(
            "table_read", keys, [since, secrets.token_hex(8), SCHEMA, self.store_id]
        )
        self._store.schema = str(schema)
        # A server that lost rows, or another one, must not shrink a list in silence.
        foreign = (
            (self.store_id != "" and store_id != self.store_id)
            or int(version) < self.version
            or schema not in ("", SCHEMA)
        )
        if foreign != self.foreign:
            self.foreign = foreign
            log.error(
                "the store is not the one followed so far; the last good version stays"
                if foreign
                else "the store is the known one again"
            )
        if foreign:
            return True
        if store_id != self.store_id:
            self.store_id = store_id
            if self._keep:
                # Before there is any row: another server that is there after a restart must not pass for the first one.
                await asyncio.to_thread(self._save_snapshot)
        if int(version) == self.version and since == self.version:
            # After a failover two servers can have given one number to different rows.
            return int(total) == self._sum
        fresh = dict(zip(flat[::2], flat[1::2], strict=True))
        if since:
            total_now = self._sum
            for id, raw in fresh.items():
                if id in self._rows:
                    total_now -= _part(id, self._rows[id])
                total_now += _part(id, raw)
            rows = {**self._rows, **fresh}
        else:
            total_now, rows = sum(_part(id, raw) for id, raw in fresh.items()), fresh
        if total_now % _MOD != int(total):
            return False
        if lost := [id for id in self._rows if id not in rows]:
            log.error("the store has lost rows that it had confirmed", extra={"table": self.name, "ids": lost[:20]})
        await self._announce(rows, int(version), fresh if since else None)
        self._rows, self._sum, self.version = rows, total_now % _MOD, int(version)
        if self._keep:
            await asyncio.to_thread(self._save_snapshot)
        return True

    # ---- the snapshot on disk

    def _snapshot(self) -> Iterator[bytes]:
        """The file's body, a row at a time: a string of all of it, made anew for each change, would leave holes in the memory that nothing
        fits into."""
        rows = self._rows
        yield f'{{"store_id": {json.dumps(self.store_id)}, "version": {self.version}, "rows": {{'.encode()
        for n, (id, raw) in enumerate(rows.items()):
            yield f"{', ' if n else ''}{json.dumps(id)}: {json.dumps(raw, ensure_ascii=False)}".encode()
        yield b"}}"

    def _save_snapshot(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._path.with_suffix(f".{os.getpid()}.tmp")
        digest = hashlib.sha256()
        room = digest.hexdigest().encode()  # its place, until it is known
        try:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as f:
                f.write(room + b"\n")
                for piece in self._snapshot():
                    digest.update(piece)
                    f.write(piece)
                f.seek(0)
                f.write(digest.hexdigest().encode())
                f.flush()
                os.fsync(f.fileno())
            partial.replace(self._path)
        except OSError as e:
            log.error("snapshot cannot be written", extra={"table": self.name, "error": type(e).__name__})

    def _load_snapshot(self) -> None:
        try:
            digest, _, body = self._path.read_text("utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return
        if hashlib.sha256(body.encode()).hexdigest() != digest:
            log.error("snapshot is damaged and not used", extra={"table": self.name})
            return
        value = json.loads(body)
        self.store_id, self.version, self._rows = value["store_id"], value["version"], value["rows"]
        self._sum = sum(_part(id, raw) for id, raw in self._rows.items()) % _MOD

    # ---- writing

    async def put(self, id: str, row: Row, *, idempotency_key: str, request: str, expected: int | None = None) -> Row:
        """Write one row; the same `idempotency_key` gives the first result again. `request`: a digest of what was asked.

        Raises StoreError (nothing is known to be written: send it again), Conflict, or ValueError for a key used for
        something else.
        """
        if self._store is None:
            raise StoreError("no store is configured")
        if self._store.problem:
            raise StoreError(self._store.problem)
        if self.foreign:
            raise StoreError(
                "the store is not the one these entries came from; an operator must confirm it (docs/operations.md)"
            )
        key = f"done:{hashlib.sha256(f'{self.name} {idempotency_key}'.encode()).hexdigest()[:32]}"
        keys = [f"{self.name}:version", f"{self.name}:rows", f"{self.name}:index", f"{self.name}:sum", key, "store_id"]
        remembered = self.name in REMEMBERED
        if remembered:
            keys.append(history(self.name))
        body = json.dumps(row, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        args: list[str | int] = [
            id,
            body,
            "" if expected is None else expected,
            request,
            self.store_id,
            self._store.key(f"{self.name}:changed"),
            clock.stamp() if remembered else "",
        ]
        state, result = await self._store.call("table_put", keys, args, durable=True)
        if state == "conflict":
            raise Conflict(f"somebody changed it first; it is at version {result}", int(result))
        if state == "reused":
            raise Reused
        if state == "foreign":
            raise StoreError(
                "the store is not the one these entries came from; an operator must confirm it (docs/operations.md)"
            )
        # Who wrote reads what was written. It is written in any case: what fails here the follower tries again, and tells.
        with suppress(Exception):
            await self.refresh()
        raw = str(result)
        return _parse(json.loads(raw.partition(" ")[2])["id"], raw)


class Entries(Table):
    """The blocklist's entries."""

    name = "entries"


class ExceptionRows(Table):
    """Prompts that an upheld appeal lets through."""

    name = "exceptions"


class Standings(Table):
    """What is imposed on subjects."""

    name = "standings"


class AgreementRows(Table):
    """Subjects that agreed to get answers without a visible label."""

    name = "agreements"


class Shadows(Table):
    """Rules that were reversed too often: they wait in shadow for a review."""

    name = "shadows"


class Statements(Table):
    """What the operator has published: a row for each version of each kind."""

    name = "statements"


def history(table: str) -> str:
    """The key of what the rows of a table were."""
    return f"{table}:history"


def gone(id: str) -> Row:
    """What a deleted row leaves."""
    return {"id": id, "deleted": True, "deleted_at": clock.stamp()}


def _live(raw: dict[str, str]) -> list[Row]:
    now = clock.now()
    rows = (_parse(id, text) for id, text in raw.items())
    return sorted((r for r in rows if not r.get("deleted") and _expiry(r) > now), key=lambda r: int(r["version"]))


def _parse(id: str, raw: str) -> Row:
    version, _, body = raw.partition(" ")
    return {**json.loads(body), "id": id, "version": int(version)}


def _expiry(row: Row) -> float:
    value = row.get("expires_at")
    return float("inf") if value is None else clock.seconds(value)
