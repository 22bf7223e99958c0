"""The report routes of the client port. Law: a 2xx means durable; what a ticket's token opens is its state and nothing else, and unknown
and wrong look the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app import metrics, strictjson
from app.callers import Caller, Callers
from app.errors import Conflict, Limited, RequestError, StoreError
from app.keys import Keys
from app.reports import Report, Reports, Sender
from app.store.tables import Row
from app.taxonomy import taxonomy
from app.web import asgi
from app.web.errors import error, reused

BODY_MAX = 1 << 20
_TEXT = 60_000
_TICKET = re.compile(r"tkt_[0-9a-f]{24}\Z")


class ReportIn(BaseModel):
    """A report as it is sent."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=_TEXT)
    decision_id: str | None = Field(default=None, max_length=64)
    receipt: str | None = Field(default=None, max_length=4000)
    passage: tuple[int, int] | None = None
    category: str | None = None
    comment: str | None = Field(default=None, max_length=4000)
    prompt: str | None = Field(default=None, max_length=_TEXT)

    @field_validator("category")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in taxonomy():
            raise ValueError("no such category; the ids are in docs/categories.md")
        return value

    @model_validator(mode="after")
    def _sound(self) -> ReportIn:
        if self.passage is not None and not 0 <= self.passage[0] < self.passage[1] <= len(self.text):
            raise ValueError("passage: must be [start, end] within text, in code points, end exclusive")
        if self.receipt is not None and self.decision_id is None:
            raise ValueError("decision_id: goes with the receipt")
        return self


def takes(model: type[BaseModel], *, keyed: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a POST that reads its body by `body_of` and `parsed`: they, not the framework, know what it takes. `keyed`: an
    Idempotency-Key too; False where a call sent again does nothing anyway.

    References are written out: inside an operation they would point nowhere.
    """
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def whole(node: Any) -> Any:
        if isinstance(node, list):
            return [whole(inner) for inner in node]
        if not isinstance(node, dict):
            return node
        part = parts[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
        return {name: whole(inner) for name, inner in (part | node).items() if name != "$ref"}

    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A call sent again with its key gets the first answer",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    }
    body = {"required": True, "content": {"application/json": {"schema": whole(schema)}}}
    return {"parameters": [key] if keyed else [], "requestBody": body}


def parsed(raw: bytes, model: type[BaseModel]) -> Any:
    """A body as `model` has it. Raises RequestError or RequestValidationError, neither with a value."""
    value = strictjson.loads(raw)
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise RequestValidationError(e.errors(include_input=False, include_url=False)) from None


async def body_of(request: Request, most: int = BODY_MAX) -> bytes:
    """Raises RequestError for one of more than `most` bytes."""
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > most:
            raise RequestError(f"the body is larger than {most >> 20} MiB", code="body_too_large", status=413)
    return bytes(raw)


def idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 200:
        raise RequestError(
            "Idempotency-Key: must have 1 to 200 characters", code="invalid_value", param="Idempotency-Key"
        )
    return key


def senders(callers: Callers, keys: Keys) -> Callable[[Request], Sender]:
    """Who a request comes from. Whoever is suspended is heard too."""

    def sender(request: Request) -> Sender:
        return sender_of(callers.known(asgi.headers(request.scope), asgi.peer(request.scope), "report"), keys)

    return sender


def sender_of(caller: Caller, keys: Keys) -> Sender:
    """A caller as somebody who reports."""
    by_key = zip(keys.kids, caller.sources, strict=True)
    names = ((tuple(n for n in caller.readers if n.startswith(f"{kid}.")), source) for kid, source in by_key)
    known = caller.subject is not None
    now, *older = ((mine[0] if known else "", mine, source) for mine, source in names)
    return Sender(caller.app, *now, tuple(older), caller.standing)


async def taken(reports: Reports, given: ReportIn, who: Sender, key: str | None) -> Row:
    """Have a report received. Raises RequestError, Limited, StoreError."""
    report = Report(
        given.text, given.decision_id, given.receipt, given.passage, given.category, given.comment, given.prompt
    )
    try:
        return await reports.receive(report, who, key)
    except ValueError as e:
        raise reused(e) from None
    except Limited:
        metrics.REPORTS_REFUSED.labels("limit").inc()
        raise
    except Conflict:
        metrics.REPORTS_REFUSED.labels("busy").inc()
        # The sender knows no versions: it is the same call that may be sent again.
        raise StoreError("too many reports of one passage at once; send it again") from None
    except StoreError:
        metrics.REPORTS_REFUSED.labels("store").inc()
        raise


async def state_of(reports: Reports, ticket: str, token: str) -> str | None:
    """What has become of a report; None for what is no ticket, an unknown one and a wrong token alike."""
    return await reports.state(ticket, token) if _TICKET.match(ticket) else None


def report_routes(api: FastAPI, reports: Reports, sender: Callable[[Request], Sender]) -> None:
    """Add them. `sender`: who a request comes from."""

    @api.post("/sluice/v1/reports", status_code=202, openapi_extra=takes(ReportIn))
    async def receive(request: Request) -> Any:
        who = sender(request)
        return await taken(reports, parsed(await body_of(request), ReportIn), who, idempotency_key(request))

    @api.get("/sluice/v1/reports/{ticket}")
    async def state(ticket: str, request: Request) -> JSONResponse:
        token = request.headers.get("x-sluice-status-token") or request.headers.get("authorization", "").removeprefix(
            "Bearer "
        )
        found = await state_of(reports, ticket, token)
        if found is None:
            return error(404, "no such ticket for this token", "not_found")
        return JSONResponse({"ticket": ticket, "state": found})
