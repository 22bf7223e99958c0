"""What the live entries were: each change, the difference between two versions, and the way back.

Law: the script that puts a row writes down what it was (app/store/scripts/history.lua), so no change is without its past, and what the
history does not hold it never guesses: it says from which version on it can tell. What is about a person, of a case or for some readers
alone is not in it. Rolling back is a commit like any other: one row of the audit chain, and itself in the history.

The state of an entry at a version is what it was before its earliest change after that version; where there is none, what it is now. An
entry that has expired stands as it was put.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from app import clock, retention
from app.entries import gone_row, public
from app.errors import Conflict, RequestError, StoreError
from app.store.cases import Cases, Writes
from app.store.client import Store
from app.store.tables import Row, history

PAGE = 200
"""Changes that one call tells at most."""
MOST = 1000
"""Entries that one roll back puts at most: they are one commit, and the store does nothing else meanwhile."""
_BYTES = 2 << 20
"""And how much they may be, as JSON: a correction makes a row large."""
_READ = 200
_DROPPED = 1000
_KEPT = retention.seconds("history")
_KEY = history("entries")


class Change(NamedTuple):
    """`was`: the row before it, None where none stood there; `at`: RFC 3339, by the clock of who wrote."""

    version: int
    id: str
    at: str
    was: Row | None


class History:
    """Of the entries that `cases` acts by. `ordinary`: in how many clean texts a term stands, where that is too many."""

    def __init__(self, cases: Cases, ordinary: Callable[[str], int]) -> None:
        self._cases, self._table, self._ordinary = cases, cases.entries, ordinary

    async def changes(self, after: int = 0, until: int | None = None, most: int = PAGE) -> Row:
        """Changes above `after`, up to `until` (None: the last), newest first, `most` of them (1 to PAGE): `was` and `now` before and
        after each. `from`: the oldest version of which the history can tell. Raises StoreError."""
        await self._table.refresh()
        top = self._table.version if until is None else until
        held = [n for n in await _numbers(self._cases.store) if after < n <= top]
        first = held[-most:][0] if held else top + 1
        found, begins = await self._since(first - 1)
        now: dict[str, Row | None] = {}
        told: list[Row] = []
        for change in reversed(found):
            if begins < change.version <= top:
                state = now[change.id] if change.id in now else self._now(change.id)
                told.append({
                    "version": change.version, "id": change.id, "at": change.at, "was": _shown(change.was), "now": _shown(state),
                })  # fmt: skip
            now[change.id] = change.was
        more = any(begins < n < first for n in held)
        return {"version": self._table.version, "from": begins, "changes": told, "more": more}

    async def diff(self, a: int, b: int | None = None) -> Row:
        """What differs between versions `a` and `b` (None: now) of the entries, as anybody may see them. Raises StoreError, RequestError:
        409 `history_gone` where `a` is older than what is held."""
        found, begins = await self._since(a)
        end = self._table.version if b is None else b
        self._told(a, begins, "from")
        if not a <= end <= self._table.version:
            raise _no_version("to", f"from {a} to {self._table.version}")
        before, after = _states(found, a), _states(found, end)
        differ: dict[str, list[Row]] = {"added": [], "removed": [], "changed": []}
        for id in dict.fromkeys(c.id for c in found if c.version <= end):
            was, now = before[id], after[id] if id in after else self._now(id)
            if _bare(was) == _bare(now):
                continue
            if was is None or now is None:
                differ["removed" if now is None else "added"].append(_shown(now or was) or {})
            else:
                differ["changed"].append({"id": id, "was": _shown(was), "now": _shown(now)})
        return {"from": a, "to": end, **differ}

    async def roll_back(
        self, to: int, who: str, reason: str, expected: int, *, leave: Collection[str] = (), key: str = ""
    ) -> Row:
        """Put every entry that was changed since version `to` back to what it was then, but those that have expired since, and those named
        in `leave`; how many that were, and the version after it. `expected`: the version of the entries that `who` saw.

        Raises StoreError, Conflict where they have moved past `expected`, ValueError for a key used for something else, RequestError: what
        would hit ordinary texts and has no second person's word, too much at once, or `history_gone`."""
        request = json.dumps(["roll_back", to, who, reason, expected, sorted(leave)], ensure_ascii=False)
        if key and (first := await self._cases.repeated(key, request)) is not None:
            return first
        found, begins = await self._since(to)
        if self._table.version != expected:
            raise self._cases.stale(self._table.version)
        self._told(to, begins, "to")
        rows = self._rows(_states(found, to), leave)
        self._bounded(rows, found)
        await asyncio.to_thread(self._gate, rows)
        writes = Writes()
        writes.at(self._table, expected)
        for at, (id, row) in enumerate(rows.items(), 1):
            writes.table(self._table, id, row, self._cases.changed() if at == len(rows) else "")
        event = {"who": who, "what": "roll_back", "to": to, "entries": len(rows), "reason": reason}
        result = {"to": to, "entries": len(rows), "version": expected + len(rows)}
        said = await self._cases.commit(writes, event, key=key, request=request, result=result)
        # Who wrote reads what was written. It is written in any case: what fails here the follower tries again.
        with suppress(StoreError):
            await self._table.refresh()
        return said

    # ---- the way back

    def _rows(self, states: dict[str, Row | None], leave: Collection[str]) -> dict[str, Row]:
        """What must be put so that these states are in force again."""
        rows: dict[str, Row] = {}
        for id, state in states.items():
            now, then = self._now(id), _bare(state)
            if id in leave or _bare(now) == then:
                continue
            if then is not None and _over(then):
                then = None
            if then is not None:
                rows[id] = then
            elif now is not None:
                rows[id] = gone_row(now)
        return rows

    def _bounded(self, rows: dict[str, Row], found: list[Change]) -> None:
        """Raises RequestError for more than one commit takes."""
        size = sum(len(json.dumps(row, ensure_ascii=False).encode()) for row in rows.values())
        if len(rows) <= MOST and size <= _BYTES:
            return
        steps = min(len(found) - 1, MOST, len(found) * _BYTES // max(size, 1))
        nearer = found[-max(1, steps)].version - 1
        raise RequestError(
            f"to: {len(rows)} entries would have to be put at once, {size} bytes; {MOST} and {_BYTES} is the most. Go back in "
            f"steps, first to {nearer} (一次回退过多，请分步进行)",
            code="too_much", param="to", status=422,
        )  # fmt: skip

    def _gate(self, rows: dict[str, Row]) -> None:
        """The texts that everybody writes may be others than they were then. Raises RequestError."""
        alone = [
            id
            for id, row in rows.items()
            if "term" in row and row["action"] != "flag" and row["tier"] == "certain" and not row.get("second")
            if self._ordinary(row["term"])
        ]
        if alone:
            more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
            raise RequestError(
                "to: entries that were in force then stand in ordinary texts and would hit what everybody says: "
                f"{', '.join(alone[:5])}{more}. Name them in leave, and add what is needed by itself with a second person's word "
                "(需第二人同意，或在 leave 中排除)",
                code="gate", param="to", status=422,
            )  # fmt: skip

    # ---- reading

    def _now(self, id: str) -> Row | None:
        row = self._table.get(id)
        return None if row is None or row.get("deleted") else row

    def _told(self, version: int, begins: int, param: str) -> None:
        """Raises RequestError where a version cannot be told."""
        if version > self._table.version:
            raise _no_version(param, f"to {self._table.version}")
        if version < begins:
            raise RequestError(
                f"{param}: the history tells of version {begins} and later alone; what was is kept for {_KEPT // 86400} days, and "
                f"nothing of before an upgrade to a Sluice that keeps it (该版本的历史已不可查，最早可查 {begins})",
                code="history_gone", param=param, status=409,
            )  # fmt: skip

    async def _since(self, version: int) -> tuple[list[Change], int]:
        """Every change after a version, oldest first, up to where the table is when this returns; and the oldest version that can be
        told."""
        await self._cases.sure()
        found: list[Change] = []
        seen, store = version, self._cases.store
        while True:
            upto = self._table.version
            numbers = [n for n in await _numbers(store) if seen < n <= upto]
            for at in range(0, len(numbers), _READ):
                found += await _read(store, numbers[at : at + _READ])
            # What is swept meanwhile is missing above, and told here.
            begins = await self._begins()
            if self._table.version == upto:
                return found, begins
            seen = max(seen, upto)

    async def _begins(self) -> int:
        span, swept = await self._cases.store.run("HMGET", self._cases.store.key(_KEY), "span", "swept")
        first, last = map(int, (span or "0 0").split())
        newest = self._table.newest()
        # A Sluice that keeps no history has written since.
        return max(first if last >= newest else newest, _swept(swept)[1])


async def forget(cases: Cases, now: float) -> int:
    """Erase changes that have been kept for their time; how many. From then on older versions cannot be told. Raises StoreError."""
    store, erased = cases.store, 0
    while True:
        # In the order of versions, which is that of time: clocks that differ by seconds make one go a sweep later.
        oldest = await _read(store, (await _numbers(store))[:_DROPPED])
        due = [change.version for change in oldest if clock.seconds(change.at) <= now - _KEPT]
        if not due:
            return erased
        turn, before = _swept(await cases.field(_KEY, "swept"))
        writes = Writes()
        writes.row(_KEY, "swept", turn, {"version": max(before, *due)})
        for version in due:
            writes.drop(_KEY, str(version))
        try:
            await cases.commit(writes, {"who": "time", "what": "erase", "changes": len(due), "part": "history"})
        except Conflict:
            return erased  # another replica does it
        erased += len(due)


def _swept(raw: str | None) -> tuple[int, int]:
    """How often the history was swept, and the last version that went."""
    turn, _, body = (raw or "").partition(" ")
    return (int(turn), int(json.loads(body)["version"])) if raw else (0, 0)


async def _numbers(store: Store) -> list[int]:
    """The versions of all changes that are held, oldest first."""
    return sorted(int(field) for field in await store.run("HKEYS", store.key(_KEY)) if str(field).isdigit())


async def _read(store: Store, numbers: list[int]) -> list[Change]:
    """Those of these changes that are held."""
    if not numbers:
        return []
    found = zip(numbers, await store.run("HMGET", store.key(_KEY), *numbers), strict=True)
    return [_change(version, json.loads(raw)) for version, raw in found if raw is not None]


def _change(version: int, told: Row) -> Change:
    was = told["was"]
    return Change(
        version, told["id"], told["at"],
        None if was is None else {**was, "id": told["id"], "version": told["was_version"]},
    )  # fmt: skip


def _states(found: list[Change], version: int) -> dict[str, Row | None]:
    """By id, the state at a version of all that was changed after it."""
    states: dict[str, Row | None] = {}
    for change in found:
        if change.version > version:
            states.setdefault(change.id, change.was)
    return states


def _bare(row: Row | None) -> Row | None:
    """What a row says, whenever it was put."""
    return None if row is None else {k: v for k, v in row.items() if k != "version"}


def _shown(row: Row | None) -> Row | None:
    return None if row is None else public(row)


def _over(row: Row) -> bool:
    return row.get("expires_at") is not None and clock.seconds(row["expires_at"]) <= clock.now()


def _no_version(param: str, which: str) -> RequestError:
    return RequestError(
        f"{param}: there is no such version; give one {which}", code="invalid_value", param=param, status=422
    )
