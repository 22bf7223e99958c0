"""The lists of entries that an operator loads as a whole.

Law: an entry of a list is named by what it says (keyed), so that a list loaded twice changes nothing; what a load adds or removes is one
commit with its audit row.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from app import strictjson
from app.entries import AT_ONCE, NAMED, EntryIn, acts, gone_row, written
from app.errors import RequestError
from app.keys import Keys
from app.store.cases import Cases, Writes
from app.store.tables import Entries, Row
from app.web.reports import body_of, parsed, takes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Loaded(_Strict):
    entries: list[EntryIn] = Field(min_length=1, max_length=AT_ONCE)


class Left(_Strict):
    ids: list[str] = Field(min_length=1, max_length=AT_ONCE)


def list_routes(
    api: FastAPI,
    keys: Keys,
    entries: Entries,
    cases: Cases,
    authorised: Callable[[Request], str],
    ordinary: Callable[[str], int],
) -> None:
    """Add them. `authorised`: whose token a request carries. `ordinary`: in how many clean texts a term stands, where that is too many."""

    def live(id: str) -> bool:
        row = entries.get(id)
        return row is not None and not row.get("deleted")

    def rows_of(given: Loaded, name: str, who: str) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for at, entry in enumerate(given.entries):
            entry.list = name
            if entry.term and acts(entry) and (hits := ordinary(entry.term)):
                raise RequestError(
                    f"entries.{at}.term: it stands in {hits} of the clean texts, so it would hit what everybody says: make it longer or "
                    "suspect, or add it by itself with a second person's word",
                    code="gate", param=f"entries.{at}", status=422,
                )  # fmt: skip
            try:
                row = written(entry, who, keys)
            except RequestError as e:
                raise RequestError(
                    f"entries.{at}.{e.message}", code=e.code, param=f"entries.{at}", status=422
                ) from None
            said = strictjson.dumps({k: v for k, v in row.items() if k not in ("created_at", "owner")}).decode()
            # A term that was loaded under an older key is the same; a passage's fingerprint is not, and is made anew.
            ids = ["ent_" + keys.mac("fingerprint", "list", said, kid=kid).hex()[:20] for kid in keys.kids]
            id = next((id for id in ids if live(id)), ids[0])
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

    @api.post("/sluice/v1/admin/lists/{name}/entries", openapi_extra=takes(Loaded, keyed=False))
    async def load(name: str, request: Request, who: str = Depends(authorised)) -> Any:
        given: Loaded = parsed(await body_of(request), Loaded)
        await entries.refresh()
        rows = await asyncio.to_thread(rows_of, given, _known(name), who)
        fresh = {id: row for id, row in rows.items() if not live(id)}
        await commit(fresh, name, who, "list_load")
        return {"list": name, "ids": list(rows), "added": len(fresh)}

    @api.post("/sluice/v1/admin/lists/{name}/remove", openapi_extra=takes(Left, keyed=False))
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
    if not re.fullmatch(NAMED.removesuffix("$"), name):
        raise RequestError(
            "a list's name has 1 to 64 letters, digits, '.', '_' or '-'", code="invalid_value", param="list", status=422
        )
    return name
