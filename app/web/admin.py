"""The admin port's API: live entries. Law: every call carries an admin token that may do it; a write answers only when the store confirmed
it, and an entry that would hit what everybody says has two people's word."""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Security
from fastapi.security import HTTPBearer
from starlette.applications import Starlette
from starlette.responses import RedirectResponse

from app import strictjson
from app.desk import Desk
from app.entries import EntryIn, public
from app.errors import RequestError
from app.privacy import Privacy
from app.settings import Admin, Scope, admins
from app.web.cases import case_routes
from app.web.complaints import outcome_routes
from app.web.console.call import ROOT
from app.web.disclosure import statement_routes
from app.web.entries import list_routes
from app.web.errors import answer_errors, reused
from app.web.history import history_routes
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
    "history": "lists",
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


def admin_api(token: str, desk: Desk, console: Starlette | None = None) -> FastAPI:
    """The ASGI app of the admin port. `token`: SLUICE_ADMIN_TOKEN. `console`: what stands at /console."""
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

    def seconds(request: Request) -> str:
        """Who agrees to what is asked: the name of another token, that may do it too; '' where there is none."""
        other = holder(request.headers.get("x-sluice-second", ""))
        return other.name if other is not None and "lists" in other.scopes else ""

    def idempotency(request: Request) -> str:
        return idempotency_key(request) or secrets.token_hex(16)

    answer_errors(api, "no such route on the admin port")

    @api.post("/sluice/v1/admin/entries", status_code=201, openapi_extra=takes(EntryIn))
    async def add(request: Request, who: str = Depends(authorised)) -> Any:
        raw = await body_of(request)
        entry: EntryIn = parsed(raw, EntryIn)
        key = idempotency(request)
        asked = strictjson.dumps(strictjson.loads(raw)).decode()
        try:
            return await desk.register.add(entry, who, asked, second=seconds(request), key=key)
        except ValueError as e:
            raise reused(e) from None

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
        return desk.register.one(id)

    @api.delete("/sluice/v1/admin/entries/{id}")
    async def remove(
        id: str, request: Request, expected_version: int | None = None, who: str = Depends(authorised)
    ) -> Any:
        try:
            return await desk.register.remove(id, who, expected=expected_version, key=idempotency(request))
        except ValueError as e:
            raise reused(e) from None

    case_routes(api, review, cases, authorised, desk.policies, desk.evidence)
    outcome_routes(api, desk.complaints, authorised)
    list_routes(api, keys, entries, cases, authorised, review.ordinary)
    history_routes(api, desk.history, authorised)
    standing_routes(api, desk.subjects, authorised)
    agreement_routes(api, desk.agreements, authorised, desk.apps)
    statement_routes(api, cases, desk.statements, desk.archive, authorised)
    playground_routes(api, desk.playground, authorised)
    transparency_routes(api, desk.transparency, authorised)
    privacy_routes(api, Privacy(cases, keys, desk.apps), authorised)

    if console is not None:
        api.mount(ROOT, console)
        api.add_route(ROOT, lambda request: RedirectResponse(f"{ROOT}/", 308), include_in_schema=False)
    return api
