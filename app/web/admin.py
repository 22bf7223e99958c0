"""The admin port's API: live entries. Law: every call carries the admin token; a write answers only when the store confirmed it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app import clock, evidence, strictjson
from app.agreements import Agreements
from app.complaints import Complaints
from app.detectors.blocklist import pack
from app.errors import Conflict, RequestError
from app.keys import Keys
from app.passages import fingerprint
from app.policy import Policies, taxonomy
from app.privacy import Privacy
from app.review import Review
from app.settings import admins
from app.statements import Archive
from app.store.cases import Cases
from app.store.tables import Entries, Row, Statements
from app.subjects import Subjects
from app.text import fold
from app.web.cases import case_routes
from app.web.complaints import outcome_routes
from app.web.disclosure import statement_routes
from app.web.errors import answer_errors, error, reused
from app.web.privacy import privacy_routes
from app.web.reports import body_of, idempotency_key, parsed
from app.web.standings import agreement_routes, standing_routes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EntryScope(_Strict):
    """`app`: an app id, or '*' for all."""

    app: str = Field(default="*", pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,62})$")
    directions: list[Literal["prompt", "answer"]] = Field(default=["prompt", "answer"], min_length=1, max_length=2)


class EntryIn(_Strict):
    """A blocklist entry as a moderator sends it. A passage is fingerprinted on arrival and never stored or returned."""

    term: str | None = Field(default=None, max_length=200)
    passage: str | None = Field(default=None, max_length=60_000)
    category: str
    action: Literal["flag", "mask", "replace", "block"] = "block"
    tier: Literal["certain", "suspect"] = "certain"
    scope: EntryScope = EntryScope()
    reason: str = Field(min_length=1, max_length=1000)
    expires_at: datetime | None = None

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
    apps: set[str],
) -> FastAPI:
    """The ASGI app of the admin port. `token`: SLUICE_ADMIN_TOKEN. `statements`: the table that `archive` follows. `apps`: the ids of the
    apps file."""
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
        row: Row = entry.model_dump(mode="json", exclude={"term", "passage"})
        row["created_at"] = clock.stamp()
        row["owner"] = who
        if entry.term is not None:
            row["term"] = entry.term
        else:
            try:
                row["fingerprint"] = pack(fingerprint(entry.passage or "", keys.kid, keys.derive("fingerprint")))
            except ValueError as e:
                raise RequestError(f"passage: {e}", code="invalid_request", param="passage", status=422) from None
        if entry.expires_at is not None:
            row["expires_at"] = entry.expires_at.isoformat()
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
    async def listed(category: str | None = None, after: int = 0, limit: int = 100) -> Any:
        if not 1 <= limit <= 1000:
            raise RequestError("limit must be 1 to 1000", code="invalid_value", param="limit")
        rows = [r for r in entries.rows() if r["version"] > after and category in (None, r["category"])]
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
        gone = {k: v for k, v in row.items() if k not in ("version", "term", "fingerprint")} | {
            "deleted": True,
            "deleted_at": clock.stamp(),
        }
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
        return await evidence.collected(cases, complaints, entries, now, keys, replica().get("workers", []), archive)

    case_routes(api, review, cases, authorised, policies, collected)
    outcome_routes(api, complaints, authorised)
    standing_routes(api, subjects, authorised)
    agreement_routes(api, agreements, authorised)
    statement_routes(api, cases, statements, archive, authorised)
    privacy_routes(api, Privacy(cases, keys, apps), authorised)

    @api.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def unknown(path: str) -> JSONResponse:
        return error(404, "no such route on the admin port", "unknown_route")

    return api
