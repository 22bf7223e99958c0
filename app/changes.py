"""The change log: what decides about texts, and every change of it, as rows of the audit chain.

Law: only versions and the words of the policy; written by the parent alone, once all its workers have changed. What a replica has is
compared with the last row and with what that replica had before: a restart writes nothing, and of several replicas that change one after
another the first writes. While the store is down it is tried again. (Draft Measures, Article 6.)
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from app.errors import Conflict, StoreError
from app.store.cases import Cases, Writes
from app.store.tables import Row

log = logging.getLogger("sluice.changes")

PAUSE = 2.0
"""Seconds between two looks."""
_KEY = "changes"
_ASSESSED = frozenset({"policy", "profile", "lexicon", "model", "guard", "fail_modes"})
"""What an assessment was about; another version of the gateway is in the list, and is for its operator to judge."""


def gateway() -> str:
    """The version of this program."""
    try:
        return version("sluice-gateway")
    except PackageNotFoundError:
        return "none"


def deciding(workers: Sequence[Row], guard: str | None) -> Row | None:
    """What decides in all these workers; None while they differ, or one does not say. `guard`: the name of the guard model."""
    found = [_state(worker, guard) if worker.get("ready") else None for worker in workers]
    return found[0] if found and all(state == found[0] for state in found) else None


def _state(worker: Row, guard: str | None) -> Row:
    return {
        "gateway": gateway(),
        "profile": worker["profile"],
        # Rules in shadow have rows of their own.
        "policy": str(worker["policy"]).partition("+")[0],
        "lexicon": worker["lexicon"],
        "model": worker["model"],
        "guard": None if guard is None else f"{guard} {worker['guard']}",
        "fail_modes": worker["fail_modes"],
    }


class Changes:
    """`workers`: what each says now. `replica`: the name of this one, the same after a restart."""

    def __init__(self, cases: Cases, workers: Callable[[], Sequence[Row]], guard: str | None, replica: str) -> None:
        self._cases, self._workers, self._guard, self._replica = cases, workers, guard, replica
        self._own: Row | None = None

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except (StoreError, Conflict):
                pass  # told by the store itself; another replica was first
            except Exception as e:
                log.error("a change was not written down", extra={"error": type(e).__name__})
            await asyncio.sleep(PAUSE)

    async def look(self) -> None:
        """Write down what has changed. Raises StoreError, Conflict."""
        state = deciding(self._workers(), self._guard)
        if state is None or state == self._own:
            return
        store, own = self._cases.store, f"replica:{self._replica}"
        raw, before = await store.run("HMGET", store.key(_KEY), "last", own)
        number, _, body = (raw or "0 {}").partition(" ")
        last: Row = json.loads(body)
        if state == last or (before is not None and state == json.loads(before)):
            await store.run("HSET", store.key(_KEY), own, json.dumps(state))
        else:
            writes = Writes()
            writes.row(_KEY, "last", int(number), state)
            writes.set(_KEY, own, json.dumps(state))
            changed = {k: [last.get(k), v] for k, v in state.items() if v != last.get(k)}
            event = {
                "who": "gateway",
                "what": "change",
                "replica": self._replica,
                "changed": changed,
                "first": not last,
            }
            await self._cases.commit(writes, event)
        self._own = state


def listed(rows: Iterable[Row]) -> list[Row]:
    """The changes among the rows of the audit chain, oldest first. `first`: what stood when the log began."""
    return [{k: row[k] for k in ("at", "replica", "changed", "first")} for row in rows if row.get("what") == "change"]


def since(changes: Iterable[Row], at: str) -> bool:
    """Whether what an assessment is about has changed since `at` (RFC 3339 in UTC, or a date)."""
    return any(c["at"] > at and not c["first"] and _ASSESSED & set(c["changed"]) for c in changes)


def fail_modes(changes: Iterable[Row]) -> list[dict[str, Any]]:
    """What was to happen when a detector failed, from when on."""
    return [{"from": c["at"], "words": c["changed"]["fail_modes"][1]} for c in changes if "fail_modes" in c["changed"]]
