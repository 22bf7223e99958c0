"""The admin port's API: live entries. Law: every call carries the admin token; a write answers only when the store confirmed it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app import clock, strictjson
from app.detectors.blocklist import pack
from app.errors import Conflict, RequestError, StoreError
from app.keys import Keys
from app.passages import fingerprint
from app.policy import taxonomy
from app.store.tables import Entries, Row
from app.text import fold


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


def admin_api(token: str, keys: Keys, entries: Entries, replica: Callable[[], dict[str, Any]]) -> FastAPI:
    """The ASGI app of the admin port."""
    api = FastAPI(title="Sluice admin", docs_url=None, redoc_url=None, openapi_url="/sluice/v1/admin/openapi.json")

    def authorised(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
            raise RequestError(
                "the admin token is missing or wrong: Authorization: Bearer $SLUICE_ADMIN_TOKEN",
                code="unauthorized",
                status=401,
            )

    async def body(request: Request) -> Any:
        raw = await request.body()
        if len(raw) > 1 << 20:
            raise RequestError("the body is larger than 1 MiB", code="body_too_large", status=413)
        return strictjson.loads(raw)

    def idempotency(request: Request) -> str:
        key = request.headers.get("idempotency-key") or secrets.token_hex(16)
        if len(key) > 200:
            raise RequestError(
                "Idempotency-Key is longer than 200 characters", code="invalid_value", param="Idempotency-Key"
            )
        return key

    @api.exception_handler(RequestError)
    async def _refused(_: Request, e: RequestError) -> JSONResponse:
        return _error(e.status, e.message, e.code, e.param)

    @api.exception_handler(Conflict)
    async def _conflict(_: Request, e: Conflict) -> JSONResponse:
        response = _error(409, str(e), "conflict", "expected_version")
        response.headers["x-sluice-version"] = str(e.current)
        return response

    @api.exception_handler(StoreError)
    async def _down(_: Request, e: StoreError) -> JSONResponse:
        return _error(503, str(e), "store_unavailable")

    @api.exception_handler(RequestValidationError)
    async def _invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"] if p not in ("body", "query", "path"))
        return _error(422, f"{where or 'body'}: {first['msg']}", "invalid_request", where or None)

    @api.post("/sluice/v1/admin/entries", dependencies=[Depends(authorised)], status_code=201)
    async def add(request: Request) -> Any:
        value = await body(request)
        try:
            entry = EntryIn.model_validate(value)
        except ValueError as e:
            raise RequestValidationError(getattr(e, "errors", list)()) from None
        key = idempotency(request)
        row: Row = entry.model_dump(mode="json", exclude={"term", "passage"})
        row["created_at"] = clock.stamp()
        row["owner"] = "admin"
        if entry.term is not None:
            row["term"] = entry.term
        else:
            try:
                row["fingerprint"] = pack(fingerprint(entry.passage or "", keys.kid, keys.derive("fingerprint")))
            except ValueError as e:
                raise RequestError(f"passage: {e}", code="invalid_request", param="passage", status=422) from None
        digest = keys.mac("fingerprint", "request", strictjson.dumps(value).decode()).hex()
        # The id comes from the key, so that a repeated request names the same row.
        id = "ent_" + hashlib.sha256(f"{key}\n{digest}".encode()).hexdigest()[:20]
        row["id"] = id
        if entry.expires_at is not None:
            row["expires_at"] = entry.expires_at.isoformat()
        try:
            return public(await entries.put(id, row, idempotency_key=key, request=digest))
        except ValueError as e:
            raise RequestError(str(e), code="idempotency_key_reused", param="Idempotency-Key", status=409) from None

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
            raise RequestError(str(e), code="idempotency_key_reused", param="Idempotency-Key", status=409) from None
        return {"id": id, "deleted": True, "version": done["version"]}

    @api.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def unknown(path: str) -> JSONResponse:
        return _error(404, "no such route on the admin port", "unknown_route")

    return api


def _error(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "service_unavailable"
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)
