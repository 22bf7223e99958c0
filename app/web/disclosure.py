"""The routes of the disclosure at the client port, and of the operator's statements at the admin port. Law: what is public needs no key; a
version that is private and one that does not exist look the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.apps import App, Apps
from app.csp import ancestors
from app.disclosure import CSP, ROUTE, collected, html, statement_html
from app.errors import RequestError
from app.moderation import Moderator
from app.policy import Policy
from app.power import Power
from app.statements import KINDS, Archive, Content, Disclosure, Document, Note, publish, said, shown
from app.store.cases import Cases
from app.store.tables import Row, Table
from app.web import asgi
from app.web.errors import error, reused
from app.web.reports import body_of, idempotency_key, parsed, takes

_VARY = "accept, authorization, x-api-key"
_ALSO_A_PAGE: dict[int | str, Row] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
_ADMIN = "/sluice/v1/admin/statements"


class StatementIn(BaseModel):
    """A statement as the operator publishes it: `fields` of a disclosure, a text in one language or both of everything else."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal[tuple(KINDS)]  # type: ignore[valid-type]
    zh: Document | None = None
    en: Document | None = None
    fields: Disclosure | None = None
    public: bool = True
    note: Note = ""
    expected_version: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_shape(self) -> StatementIn:
        structured = self.kind == "disclosure"
        if structured and (self.zh or self.en):
            raise ValueError("zh, en: a disclosure is said in 'fields' (docs/disclosure.md)")
        if structured and self.fields is None:
            raise ValueError("fields: what the disclosure says (docs/disclosure.md)")
        if not structured and self.fields is not None:
            raise ValueError("fields: only a disclosure has them; give 'zh' or 'en'")
        if not structured and not (self.zh or self.en):
            raise ValueError("zh or en: the text of the document")
        return self


def page_wanted(accept: str) -> bool:
    """A page is liked better than JSON, by an Accept header."""
    liked: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (p.strip() for p in part.split(";"))
        weights = [p.removeprefix("q=") for p in parameters if p.startswith("q=")]
        try:
            liked[kind] = float(weights[0]) if weights else 1.0
        except ValueError:
            liked[kind] = 0.0
    json = next((liked[k] for k in ("application/json", "application/*", "*/*") if k in liked), 0.0)
    return liked.get("text/html", 0.0) > json


def disclosure_routes(
    api: FastAPI, moderator: Moderator, apps: Apps, archive: Archive, power: Power, status: Callable[[], Row]
) -> None:
    """Add those of the client port. `status`: which versions this process enforces."""

    def policy(request: Request, named: App | None) -> Policy:
        """That of the app whose key came along, or of the one that is named, where it has open pages; nobody needs either."""
        try:
            section = apps.identify(asgi.headers(request.scope)).policy
        except RequestError:
            if named is None or not named.open:
                return moderator.policies.common
            section = named.policy
        return moderator.policies.of(section)

    def answer(request: Request, named: App | None, value: Row, page: Callable[[], str]) -> Response:
        headers = {
            "content-security-policy": f"{CSP}; {ancestors(named.origins if named is not None else ())}",
            "x-content-type-options": "nosniff",
            "vary": _VARY,
        }
        if page_wanted(request.headers.get("accept", "")):
            return HTMLResponse(page(), headers=headers)
        return JSONResponse(value, headers=headers)

    @api.get(ROUTE, responses=_ALSO_A_PAGE)
    async def disclosure(request: Request, app: str = "") -> Response:
        named = apps.named(app)
        found = collected(policy(request, named), status(), archive, await power.figures())
        return answer(request, named, found, lambda: html(found, named.id if app and named is not None else ""))

    @api.get(ROUTE + "/{kind}/{version}", responses=_ALSO_A_PAGE)
    async def one(kind: str, version: str, request: Request, app: str = "") -> Response:
        row, named = _found(archive, kind, version), apps.named(app)
        if row is None or not row["public"]:
            return error(404, "no such statement", "not_found")
        shown_to = named.id if app and named is not None else ""
        return answer(request, named, shown(row) | said(row), lambda: statement_html(row, shown_to))


def statement_routes(
    api: FastAPI, cases: Cases, table: Table, archive: Archive, authorised: Callable[[Request], str]
) -> None:
    """Add those of the admin port. `table`: the one that `archive` follows."""

    @api.post(_ADMIN, status_code=201, openapi_extra=takes(StatementIn))
    async def add(request: Request, who: str = Depends(authorised)) -> Any:
        given: StatementIn = parsed(await body_of(request), StatementIn)
        fields = None if given.fields is None else given.fields.model_dump(mode="json", exclude_none=True)
        try:
            return await publish(
                cases, table, given.kind, Content(given.zh, given.en, fields), who,
                public=given.public, note=given.note, expected=given.expected_version, key=idempotency_key(request) or "",
            )  # fmt: skip
        except ValueError as e:
            raise reused(e) from None

    @api.get(_ADMIN, dependencies=[Depends(authorised)])
    async def listed(kind: str | None = None) -> Any:
        return {"statements": [shown(row, inside=True) for row in archive.all(kind)]}

    @api.get(_ADMIN + "/{kind}/{version}", dependencies=[Depends(authorised)])
    async def one(kind: str, version: str) -> Any:
        row = _found(archive, kind, version)
        if row is None:
            raise RequestError("no such statement", code="not_found", status=404)
        return shown(row, inside=True) | said(row)


def _found(archive: Archive, kind: str, version: str) -> Row | None:
    number = int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else 0
    return archive.one(kind, number)
