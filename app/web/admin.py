"""The admin port's API: live entries. Law: every call carries an admin token that may do it; a write answers only when the store confirmed
it, and an entry that would hit what everybody says has two people's word."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Security
from fastapi.security import HTTPBearer

from app import clock, strictjson
from app.desk import Desk
from app.entries import EntryIn, acts, gone_row, public, written
from app.errors import Conflict, RequestError
from app.privacy import Privacy
from app.review import WIDE_DAYS
from app.settings import Admin, Scope, admins
from app.store.tables import Row
from app.web.cases import case_routes
from app.web.complaints import outcome_routes
from app.web.disclosure import statement_routes
from app.web.entries import list_routes
from app.web.errors import answer_errors, reused
from app.web.playground import playground_routes
from app.web.privacy import privacy_routes
from app.web.reports import body_of, idempotency_key, parsed, takes
from app.web.standings import agreement_routes, standing_routes
from app.web.transparency import transparency_routes

_ROOT = "/sluice/v1/admin/"
_SCOPES: dict[str, Scope] = {
    "cases": "review",
    "complaints": "review",
    "standings": "review",
    "entries": "lists",
    "lists": "lists",
    "samples": "audit",
    "evidence": "audit",
    "audit": "audit",
    "transparency": "audit",
    "statements": "operate",
    "agreements": "operate",
    "privacy": "operate",
    "playground": "review",
    "policy": "operate",
}
_READ_BY_ALL = ("entries", "statements", "agreements")


def needed(method: str, route: str) -> Scope | None:
    """The scope that a call of a route takes; None where any token will do. Raises KeyError for a route that has none."""
    first = route.removeprefix(_ROOT).split("/")[0]
    return None if method == "GET" and first in _READ_BY_ALL else _SCOPES[first]


def admin_api(token: str, desk: Desk) -> FastAPI:
    """The ASGI app of the admin port. `token`: SLUICE_ADMIN_TOKEN."""
    keys, entries, review, cases = desk.keys, desk.entries, desk.review, desk.cases
    api = FastAPI(
        title="Sluice admin", docs_url=None, redoc_url=None, openapi_url="/sluice/v1/admin/openapi.json", redirect_slashes=False,
        dependencies=[Security(HTTPBearer(auto_error=False))],
    )  # fmt: skip

    named = admins(token)

    def holder(given: str) -> Admin | None:
        """Whose token it is."""
        raw = given.encode("utf-8", "surrogateescape")
        # Every one is compared, so that the time tells nothing of which it is.
        found = [who for secret, who in named.items() if hmac.compare_digest(raw, secret.encode())]
        return found[0] if found else None

    def authorised(request: Request) -> str:
        """Whose token it is, if it may do that."""
        who = holder(request.headers.get("authorization", "").removeprefix("Bearer "))
        if who is None:
            raise RequestError(
                "the admin token is missing or wrong: Authorization: Bearer $SLUICE_ADMIN_TOKEN",
                code="unauthorized",
                status=401,
            )
        scope = needed(request.method, request.scope["route"].path)
        if scope is not None and scope not in who.scopes:
            raise RequestError(
                f"this token may not do that: it needs the scope {scope} (SLUICE_ADMIN_TOKEN)", code="scope", status=403
            )
        return who.name

    def seconded(entry: EntryIn, row: Row, who: str, other: str) -> None:
        """A term that stands in ordinary texts acts only with the word of a second person. Raises RequestError."""
        hits = review.ordinary(entry.term) if entry.term and acts(entry) else 0
        if not hits:
            return
        second = holder(other)
        why = f"term: it stands in {hits} of the clean texts, so it would hit what everybody says"
        if second is None or second.name == who or "lists" not in second.scopes:
            way = "make it longer or suspect, or have a second person agree, whose token stands in X-Sluice-Second"
            raise RequestError(f"{why}: {way} (需第二人同意)", code="gate", param="term", status=422)
        until = entry.expires_at
        if until is None or until.timestamp() > clock.now() + WIDE_DAYS * 86400:
            raise RequestError(
                f"expires_at: {why}; it may act for {WIDE_DAYS} days at most",
                code="gate",
                param="expires_at",
                status=422,
            )
        row["second"] = second.name

    def idempotency(request: Request) -> str:
        return idempotency_key(request) or secrets.token_hex(16)

    answer_errors(api, "no such route on the admin port")

    @api.post("/sluice/v1/admin/entries", status_code=201, openapi_extra=takes(EntryIn))
    async def add(request: Request, who: str = Depends(authorised)) -> Any:
        raw = await body_of(request)
        entry: EntryIn = parsed(raw, EntryIn)
        key = idempotency(request)
        row = written(entry, who, keys)
        await asyncio.to_thread(seconded, entry, row, who, request.headers.get("x-sluice-second", ""))
        asked, other = strictjson.dumps(strictjson.loads(raw)).decode(), ValueError()
        # Under an older key too: the same call, sent again after a rotation, is the same call.
        for kid in keys.kids:
            digest = keys.mac("fingerprint", "request", asked, kid=kid).hex()
            # The id comes from the key, so that a repeated request names the same row.
            row["id"] = "ent_" + hashlib.sha256(f"{key}\n{digest}".encode()).hexdigest()[:20]
            try:
                return public(await entries.put(row["id"], row, idempotency_key=key, request=digest))
            except ValueError as e:
                other = e
        raise reused(other) from None

    @api.get("/sluice/v1/admin/entries", dependencies=[Depends(authorised)])
    async def listed(
        category: str | None = None,
        of: Annotated[str | None, Query(alias="list")] = None,
        after: int = 0,
        limit: int = 100,
    ) -> Any:
        if not 1 <= limit <= 1000:
            raise RequestError("limit must be 1 to 1000", code="invalid_value", param="limit")
        rows = [
            r
            for r in entries.rows()
            if r["version"] > after and category in (None, r["category"]) and of in (None, r.get("list"))
        ]
        return {
            "version": entries.version,
            "entries": [public(r) for r in rows[:limit]],
            "more": len(rows) > limit,
            "replica": desk.replica(),
        }

    @api.get("/sluice/v1/admin/entries/{id}", dependencies=[Depends(authorised)])
    async def one(id: str) -> Any:
        row = entries.get(id)
        if row is None or row.get("deleted"):
            raise RequestError("no such entry", code="not_found", status=404)
        return public(row)

    @api.delete("/sluice/v1/admin/entries/{id}", dependencies=[Depends(authorised)])
    async def remove(id: str, request: Request, expected_version: int | None = None) -> Any:
        row = entries.get(id)
        if row is None:
            await entries.refresh()
            row = entries.get(id)
        # A call repeated with its key gets its first answer; any other finds nothing there to delete.
        repeated = row is not None and row.get("deleted") and "idempotency-key" in request.headers
        if row is None or (row.get("deleted") and not repeated):
            raise RequestError("no such entry", code="not_found", status=404)
        gone = gone_row(row)
        key = idempotency(request)
        try:
            done = await entries.put(
                id,
                gone,
                idempotency_key=key,
                request=hashlib.sha256(f"delete {id}".encode()).hexdigest(),
                expected=0 if repeated else expected_version,
            )
        except Conflict:
            if repeated:
                raise RequestError("no such entry", code="not_found", status=404) from None
            raise
        except ValueError as e:
            raise reused(e) from None
        return {"id": id, "deleted": True, "version": done["version"]}

    case_routes(api, review, cases, authorised, desk.policies, desk.evidence)
    outcome_routes(api, desk.complaints, authorised)
    list_routes(api, keys, entries, cases, authorised, review.ordinary)
    standing_routes(api, desk.subjects, authorised)
    agreement_routes(api, desk.agreements, authorised, desk.apps)
    statement_routes(api, cases, desk.statements, desk.archive, authorised)
    playground_routes(api, desk.playground, authorised)
    transparency_routes(api, desk.transparency, authorised)
    privacy_routes(api, Privacy(cases, keys, desk.apps), authorised)

    return api
