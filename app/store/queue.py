"""The order in which open cases wait: how many stand where, which come next, and the indexes anew where they are missing.

Law: what is asked here costs O(log n) and what it gives, never all cases. The indexes are written with the case, in its commit
(`Writes.case`). A store that an older Sluice wrote has none and gets them in pages, each from the versions that were read, so that it
may be broken off and done again at any time; until they are whole nobody is shown a part of the queue as if it were all
(docs/adr/0028).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import suppress
from typing import Literal, NamedTuple

from app import clock, deadlines
from app.errors import StoreError
from app.remediation import DUTY, ENDED, UNDECIDED, Case
from app.store.cases import Cases, Writes, read

Lane = Literal["overdue", "soon", "undecided", "duty", "decided"]
SOON = 14
"""Days left from which on a case that is due stands before those that nobody has decided."""
GENERATION = "1"
"""Of the indexes; where the store has another one they are built anew."""
PATIENCE = 5.0
"""Seconds that a look at the queue waits for indexes that are being built."""
_STATES = sorted(UNDECIDED | DUTY | ENDED | {"rejected"})
_BUILT = ("queue", "reporter", "shared", "like", "over", *(f"state:{state}" for state in _STATES))
_PAGE = 100
"""Cases of one commit of the building: the store is held for a few milliseconds."""
_LEASE = 60
"""Seconds after which a builder that says nothing is taken for dead."""
_AGAIN = 600.0
"""Seconds between two buildings because the numbers do not agree."""
_ALIKE = 1000
"""Members of a band that are looked at: of more than that, any will do."""


class Counts(NamedTuple):
    """How many cases stand where, in one moment. `soon`: due within SOON days, or overdue; `duty`: all that are due."""

    generation: str
    open: int
    duty: int
    undecided: int
    overdue: int
    soon: int
    decided: int

    @property
    def agree(self) -> bool:
        """What is open is due or waits for a decision: else somebody has written who does not know these indexes."""
        return self.generation == GENERATION and self.open == self.duty + self.undecided

    def lane(self, lane: Lane) -> tuple[str, int, int]:
        """Its index, and between which ranks of that it is, the end exclusive."""
        return {
            "overdue": ("due", 0, self.overdue),
            "soon": ("due", self.overdue, self.soon),
            "undecided": ("queue", 0, self.undecided),
            "duty": ("due", 0, self.duty),
            "decided": ("over", 0, self.decided),
        }[lane]


class Queue:
    """The queue of a store, seen from one process."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases
        self._building: asyncio.Task[bool] | None = None
        self._built = -_AGAIN

    # ---- looking

    async def counts(self) -> Counts:
        """How many stand where now. Raises StoreError, also while the indexes are being built."""
        return (await self.page(0, 0))[0]

    async def page(self, start: int, stop: int) -> tuple[Counts, list[Case]]:
        """The same, and the cases from one place of the queue to another, the end exclusive, in one look: what is overdue or due soon, then
        what nobody has decided, then the rest of what is due."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while (found := await self._look(start, stop))[0].generation != GENERATION:
            if loop.time() >= end:
                raise StoreError("the queue is put in order, once after an upgrade; try again in a minute")
            if self._building is None or self._building.done():
                self._building = asyncio.create_task(self._build())
            # What is begun goes on, however long this caller waits.
            await asyncio.wait([self._building], timeout=end - loop.time())
            if self._building.done() and not self._building.result():
                await asyncio.sleep(0.1)  # another process is at it
        return found

    async def _look(self, start: int = 0, stop: int = 0) -> tuple[Counts, list[Case]]:
        now = clock.now()
        keys = [f"cases:{name}" for name in ("indexed", "open", "due", "queue", "over")]
        args: list[str | int] = [f"{now:.3f}", f"{deadlines.day_end(now, SOON):.3f}", start, stop]
        generation, *numbers, rows = await self._cases.store.call("lanes", [*keys, "cases"], args)
        # One text of them all: a client that reads fifty answers needs longer than the store.
        return Counts(str(generation), *map(int, numbers)), [read(raw) for raw in str(rows).split("\n") if raw]

    async def ids(self, index: str, start: int, stop: int) -> list[str]:
        """The ids at these ranks of an index, the end exclusive; of what is over, the newest first."""
        if stop <= start:
            return []
        store, command = self._cases.store, "ZREVRANGE" if index == "over" else "ZRANGE"
        return [str(id) for id in await store.run(command, store.key(f"cases:{index}"), start, stop - 1)]

    async def size(self, index: str) -> int:
        return int(await self._cases.store.run("ZCARD", self._cases.store.key(f"cases:{index}")))

    async def order(self, counts: Counts) -> list[str]:
        """The ids of all of the queue, in its order."""
        parts = (("due", 0, counts.soon), counts.lane("undecided"), ("due", counts.soon, counts.duty))
        return [id for part in parts for id in await self.ids(*part)]

    async def alike(self, case: Case) -> Counter[str]:
        """The ids of other undecided cases with bands of this one, and how many bands they share."""
        store, shared = self._cases.store, Counter[str]()
        for band in case.like:
            bounds = (f"[{band}|", f"({band}}}")
            members = await store.run("ZRANGEBYLEX", store.key("cases:like"), *bounds, "LIMIT", 0, _ALIKE)
            shared.update(str(member).partition("|")[2] for member in members)
        del shared[case.id]
        return shared

    # ---- building

    async def mend(self) -> None:
        """Build the indexes where an older Sluice wrote the store, or writes to it beside this one. Raises StoreError."""
        (found, _), now = await self._look(), asyncio.get_running_loop().time()
        if found.generation != GENERATION or (not found.agree and now - self._built >= _AGAIN):
            await self._build()

    async def _build(self) -> bool:
        """All of it anew; False where another process is at it. Raises StoreError."""
        me, store = secrets.token_hex(8), self._cases.store
        if not await self._leased(me):
            return False
        try:
            writes = Writes()
            writes.drop("cases:indexed", "generation")
            for name in _BUILT:
                writes.erase(f"cases:{name}")
            await self._cases.put(writes)
            at = 0
            # By rank: what comes meanwhile stands behind, or moves others there, and is looked at twice.
            while ids := [str(id) for id in await store.run("ZRANGE", store.key("cases:all"), at, at + _PAGE - 1)]:
                if await self._page(ids):
                    at += len(ids)
                if not await self._leased(me):
                    return False
            writes = Writes()
            writes.set("cases:indexed", "generation", GENERATION)
            await self._cases.put(writes)
            self._built = asyncio.get_running_loop().time()
            return True
        finally:
            with suppress(StoreError):
                await store.call("claim_release", ["cases:indexing"], [me])

    async def _page(self, ids: list[str]) -> bool:
        writes = Writes()
        for case in await self._cases.several(ids):
            writes.ordered(case)
        return await self._cases.put(writes)

    async def _leased(self, me: str) -> bool:
        owner, _ = await self._cases.store.call("claim_take", ["cases:indexing"], [me, _LEASE])
        return str(owner) == me
