"""The admin port's API: live entries. Law: every call carries the admin token; a write answers only when the store confirmed it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse

from app import evidence, strictjson
from app.agreements import Agreements
from app.complaints import Complaints
from app.entries import EntryIn, gone_row, public, written
from app.errors import Conflict, RequestError
from app.keys import Keys
from app.policy import Policies
from app.privacy import Privacy
from app.review import Review
from app.settings import admins
from app.statements import Archive
from app.store.cases import Cases
from app.store.tables import Entries, Row, Statements
from app.subjects import Subjects
from app.web.cases import case_routes
from app.web.complaints import outcome_routes
from app.web.disclosure import statement_routes
from app.web.entries import list_routes
from app.web.errors import answer_errors, error, reused
from app.web.privacy import privacy_routes
from app.web.reports import body_of, idempotency_key, parsed
from app.web.standings import agreement_routes, standing_routes


def admin_api(
    token: str,
    keys: Keys,
    entries: Entries,
    review: Review,
    cases: Cases,
    complaints: Complaints,
    subjects: Subjects,
    agreements: Agreements,
    replica: Callable[[], dict[str, Any]],
    policies: Callable[[], Policies],
    statements: Statements,
    archive: Archive,
    apps: Callable[[], set[str]],
    models: Path | None = None,
) -> FastAPI:
    """The ASGI app of the admin port. `token`: SLUICE_ADMIN_TOKEN. `statements`: the table that `archive` follows. `apps`: the ids of the
    apps file, read now. `models`: the folder of SLUICE_MODELS."""
    api = FastAPI(title="Sluice admin", docs_url=None, redoc_url=None, openapi_url="/sluice/v1/admin/openapi.json")

    named = admins(token)

    def authorised(request: Request) -> str:
        """Whose token it is."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode("utf-8", "surrogateescape")
        for secret, name in named.items():
            if hmac.compare_digest(given, secret.encode()):
                return name
        raise RequestError(
            "the admin token is missing or wrong: Authorization: Bearer $SLUICE_ADMIN_TOKEN",
            code="unauthorized",
            status=401,
        )

    def idempotency(request: Request) -> str:
        return idempotency_key(request) or secrets.token_hex(16)

    answer_errors(api)

    @api.post("/sluice/v1/admin/entries", status_code=201)
    async def add(request: Request, who: str = Depends(authorised)) -> Any:
        raw = await body_of(request)
        entry: EntryIn = parsed(raw, EntryIn)
        key = idempotency(request)
        row = written(entry, who, keys)
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
            "replica": replica(),
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

    async def collected(now: Policies) -> Row:
        workers = replica().get("workers", [])
        return await evidence.collected(cases, complaints, entries, now, keys, workers, archive, models)

    case_routes(api, review, cases, authorised, policies, collected)
    outcome_routes(api, complaints, authorised)
    list_routes(api, keys, entries, cases, authorised)
    standing_routes(api, subjects, authorised)
    agreement_routes(api, agreements, authorised, apps)
    statement_routes(api, cases, statements, archive, authorised)
    privacy_routes(api, Privacy(cases, keys, apps), authorised)

    @api.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def unknown(path: str) -> JSONResponse:
        return error(404, "no such route on the admin port", "unknown_route")

    return api
