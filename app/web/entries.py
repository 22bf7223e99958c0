"""Live entries as they come in, and the lists of them that an operator loads as a whole.

Law: a passage is fingerprinted on arrival and never stored or returned. An entry of a list is named by what it says (keyed), so that a
list loaded twice changes nothing; what a load adds or removes is one commit with its audit row.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app import clock, strictjson
from app.detectors.blocklist import pack
from app.errors import RequestError
from app.keys import Keys
from app.passages import fingerprint
from app.store.cases import Cases, Writes
from app.store.tables import Entries, Row
from app.taxonomy import taxonomy
from app.text import fold
from app.web.reports import body_of, parsed

AT_ONCE = 500
"""Entries of a list that one call brings or removes at most."""
NAMED = r"^[\w.-]{1,64}$"
"""What a list may be called."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EntryScope(_Strict):
    """`app`: an app id, or '*' for all."""

    app: str = Field(default="*", pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,62})$")
    directions: list[Literal["prompt", "answer"]] = Field(default=["prompt", "answer"], min_length=1, max_length=2)


class Correction(_Strict):
    """What is right where an entry is wrong: shown instead where the entry replaces. `source`: where it can be read."""

    zh: str = Field(min_length=1, max_length=2000)
    en: str = Field(min_length=1, max_length=2000)
    source: str | None = Field(default=None, max_length=500, pattern=r"^https?://\S+$")


class EntryIn(_Strict):
    """A blocklist entry as a moderator sends it. A passage is fingerprinted on arrival and never stored or returned. `list`: the
    operator's list that it is of."""

    term: str | None = Field(default=None, max_length=200)
    passage: str | None = Field(default=None, max_length=60_000)
    category: str
    action: Literal["flag", "mask", "replace", "block"] = "block"
    tier: Literal["certain", "suspect"] = "certain"
    scope: EntryScope = EntryScope()
    reason: str = Field(min_length=1, max_length=1000)
    expires_at: datetime | None = None
    correction: Correction | None = None
    list: str | None = Field(default=None, pattern=NAMED)

    @field_validator("category")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in taxonomy():
            raise ValueError("no such category; the ids are in docs/categories.md")
        return value

    @field_validator("term")
    @classmethod
    def _long_enough(cls, value: str | None) -> str | None:
        if value is not None:
            value = " ".join(value.split())  # as it was pasted: with spaces or a line break around it
            letters = [c for c in fold(value) if c.isalnum()]
            # One Han character, or two Latin letters, stand in nearly every text.
            if len(letters) < (2 if any(c >= "\u2e80" for c in letters) else 4):
                raise ValueError("too short: at least 2 Chinese characters or 4 letters or digits")
        return value

    @field_validator("expires_at")
    @classmethod
    def _ahead(cls, value: datetime | None) -> datetime | None:
        if value is not None:
            if value.tzinfo is None:
                raise ValueError("must say its zone, for example 2027-01-31T00:00:00+08:00")
            try:
                value = value.astimezone(UTC)
            except OverflowError:
                raise ValueError("is too far ahead") from None
            if value.timestamp() <= clock.now():
                raise ValueError("is in the past")
        return value

    @model_validator(mode="after")
    def _one(self) -> EntryIn:
        if (self.term is None) == (self.passage is None):
            raise ValueError("give either 'term' or 'passage'")
        return self


def public(row: Row) -> Row:
    """An entry as it is returned: a passage's fingerprint stays inside."""
    return {k: v for k, v in row.items() if k != "fingerprint"} | (
        {"kind": "passage"} if "fingerprint" in row else {"kind": "term"}
    )


def written(entry: EntryIn, who: str, keys: Keys) -> Row:
    """The row of an entry, without its id. Raises RequestError for a passage that cannot be one."""
    row: Row = entry.model_dump(mode="json", exclude={"term", "passage", "correction", "list"})
    row["created_at"] = clock.stamp()
    row["owner"] = who
    if entry.list is not None:
        row["list"] = entry.list
    if entry.correction is not None:
        row["correction"] = entry.correction.model_dump(exclude_none=True)
    if entry.term is not None:
        row["term"] = entry.term
    else:
        try:
            row["fingerprint"] = pack(fingerprint(entry.passage or "", keys.kid, keys.derive("fingerprint")))
        except ValueError as e:
            raise RequestError(f"passage: {e}", code="invalid_request", param="passage", status=422) from None
    if entry.expires_at is not None:
        row["expires_at"] = entry.expires_at.isoformat()
    return row


def gone_row(row: Row) -> Row:
    """The row once it is deleted: nothing that it said."""
    left = {k: v for k, v in row.items() if k not in ("version", "term", "fingerprint", "correction")}
    return left | {"deleted": True, "deleted_at": clock.stamp()}


class Loaded(_Strict):
    entries: list[EntryIn] = Field(min_length=1, max_length=AT_ONCE)


class Left(_Strict):
    ids: list[str] = Field(min_length=1, max_length=AT_ONCE)


def list_routes(api: FastAPI, keys: Keys, entries: Entries, cases: Cases, authorised: Callable[[Request], str]) -> None:
    """Add them. `authorised`: whose token a request carries."""

    def rows_of(given: Loaded, name: str, who: str) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for at, entry in enumerate(given.entries):
            entry.list = name
            try:
                row = written(entry, who, keys)
            except RequestError as e:
                raise RequestError(
                    f"entries.{at}.{e.message}", code=e.code, param=f"entries.{at}", status=422
                ) from None
            said = {k: v for k, v in row.items() if k not in ("created_at", "owner")}
            id = "ent_" + keys.mac("fingerprint", "list", strictjson.dumps(said).decode()).hex()[:20]
            rows[id] = row | {"id": id}
        return rows

    async def commit(changed: dict[str, Row], name: str, who: str, what: str) -> None:
        """Put rows into force, all or none; who follows the table is told once."""
        writes = Writes()
        for at, (id, row) in enumerate(changed.items(), 1):
            writes.table(entries, id, row, cases.changed() if at == len(changed) else "")
        if changed:
            await cases.commit(writes, {"who": who, "what": what, "list": name, "entries": len(changed)})
            await entries.refresh()

    @api.post("/sluice/v1/admin/lists/{name}/entries")
    async def load(name: str, request: Request, who: str = Depends(authorised)) -> Any:
        given: Loaded = parsed(await body_of(request), Loaded)
        rows = await asyncio.to_thread(rows_of, given, _known(name), who)
        await entries.refresh()
        fresh = {id: row for id, row in rows.items() if (old := entries.get(id)) is None or old.get("deleted")}
        await commit(fresh, name, who, "list_load")
        return {"list": name, "ids": list(rows), "added": len(fresh)}

    @api.post("/sluice/v1/admin/lists/{name}/remove")
    async def remove(name: str, request: Request, who: str = Depends(authorised)) -> Any:
        given: Left = parsed(await body_of(request), Left)
        await entries.refresh()
        rows = {id: entries.get(id) for id in given.ids}
        gone = {
            id: gone_row(row)
            for id, row in rows.items()
            if row is not None and row.get("list") == _known(name) and not row.get("deleted")
        }
        await commit(gone, name, who, "list_remove")
        return {"list": name, "removed": len(gone)}


def _known(name: str) -> str:
    if not re.match(NAMED, name):
        raise RequestError(
            "a list's name has 1 to 64 letters, digits, '.', '_' or '-'", code="invalid_value", param="list", status=422
        )
    return name
