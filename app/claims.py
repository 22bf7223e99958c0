"""Who is working on a case. Law: a claim is short and renewed by whoever looks at the case; it lapses by itself, and only its holder
lets go of it. It says who is at a case, never what becomes of it: what is decided twice is stopped by the version.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from app import clock
from app.errors import RequestError, StoreError
from app.store.cases import Cases, Writes

LEASE = 600
"""Seconds after which a claim that was not renewed is over."""


class Claim(NamedTuple):
    """`until`: seconds since the epoch, unless it is renewed."""

    owner: str
    until: float


def _key(case_id: str) -> str:
    return f"claim:{case_id}"


class Claims:
    """The claims of all reviewers, in the store. `who` is the name of a token, as the audit chain has it."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases

    async def take(self, case_id: str, who: str) -> str:
        """Claim a case, or renew one's own claim; who has it now, `who` or somebody else. Raises RequestError 404, StoreError."""
        if await self._cases.get(case_id) is None:
            await self._cases.sure()
            raise RequestError("no such case", code="not_found", status=404)
        owner, fresh = await self._cases.store.call("claim_take", [_key(case_id)], [who, LEASE])
        if int(fresh):
            try:
                await self._cases.commit(Writes(), {"who": who, "what": "claim", "case": case_id})
            except StoreError:
                # What is not written down was not taken.
                with suppress(StoreError):
                    await self.release(case_id, who)
                raise
        return str(owner)

    async def release(self, case_id: str, who: str) -> None:
        """Let go of one's own claim; of another's, or where there is none, nothing happens. Raises StoreError."""
        await self._cases.store.call("claim_release", [_key(case_id)], [who])

    async def owners(self, ids: Iterable[str]) -> dict[str, str]:
        """Of these cases those that are claimed, and by whom. Raises StoreError."""
        wanted, store = list(ids), self._cases.store
        if not wanted:
            return {}
        found = await store.run("MGET", *(store.key(_key(id)) for id in wanted))
        return {id: str(owner) for id, owner in zip(wanted, found, strict=True) if owner is not None}

    async def held(self, case_id: str) -> Claim | None:
        """The claim on a case, if there is one. Raises StoreError."""
        store = self._cases.store
        left = int(await store.run("PTTL", store.key(_key(case_id))))
        owner = await store.run("GET", store.key(_key(case_id)))
        return None if owner is None or left <= 0 else Claim(str(owner), clock.now() + left / 1000)
