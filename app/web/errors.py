"""Errors of the routes that are not a dialect's, in one shape: OpenAI's. Law: a message names the field and the way out, never a value."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.errors import Conflict, Limited, RequestError, StoreError


class Fault(BaseModel):
    """What was wrong, in OpenAI's words. `code`: a stable word for programs; `param`: the field or header at fault."""

    message: str
    type: str
    param: str | None
    code: str


class Failure(BaseModel):
    """The body of every answer that is an error."""

    error: Fault


ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": said}
    for status, said in {
        400: "The body is not JSON as it should be, or a value or a header cannot be used",
        401: "The key or token is missing or wrong",
        403: "The key may not do this",
        404: "There is no such thing, or the token does not open it",
        409: "Somebody else was first, the state does not allow it, or the Idempotency-Key was used for another request",
        413: "The body is larger than 1 MiB",
        422: "A field is missing or wrong",
        429: "Too many from one sender; retry-after says when the next is taken",
        503: "The store cannot take it now; the same call may be sent again",
    }.items()
}
"""How each route may answer what it does not do: OpenAPI says it of all of them."""


def error(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "service_unavailable"
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def answer_errors(api: FastAPI, unknown: str = "no such route") -> None:
    """Have the errors of ours answered as what they are, and told of in OpenAPI by the routes that are added from here on. `unknown`: what
    is said of a path that is no route."""
    api.router.responses = ANSWERS | api.router.responses

    @api.exception_handler(RequestError)
    async def _refused(_: Request, e: RequestError) -> JSONResponse:
        response = error(e.status, e.message, e.code, e.param)
        if e.status == 401:
            response.headers["www-authenticate"] = "Bearer"  # RFC 9110, 11.6.1
        if e.retry is not None:
            response.headers["retry-after"] = str(e.retry)
        return response

    @api.exception_handler(HTTPException)
    async def _unrouted(request: Request, e: HTTPException) -> JSONResponse:
        if e.status_code != 405:
            return error(e.status_code, unknown, "unknown_route")
        # Of routes that share a path the framework names the methods of the first.
        matching = (r for r in api.routes if r.matches(request.scope)[0] is not Match.NONE)
        allowed = ", ".join(sorted({m for r in matching for m in getattr(r, "methods", None) or ()}))
        response = error(405, f"this route takes {allowed}", "method_not_allowed")
        response.headers["allow"] = allowed  # RFC 9110, 15.5.6
        return response

    @api.exception_handler(ClientDisconnect)
    async def _left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it: whoever sent half a body is gone, which is no error of ours

    @api.exception_handler(Conflict)
    async def _conflict(_: Request, e: Conflict) -> JSONResponse:
        response = error(409, str(e), "conflict", "expected_version")
        response.headers["x-sluice-version"] = str(e.current)
        return response

    @api.exception_handler(Limited)
    async def _limited(_: Request, e: Limited) -> JSONResponse:
        response = error(429, str(e), "too_many_reports")
        response.headers["retry-after"] = str(e.seconds)
        return response

    @api.exception_handler(StoreError)
    async def _down(_: Request, e: StoreError) -> JSONResponse:
        response = error(503, str(e), "store_unavailable")
        response.headers["retry-after"] = "1"
        return response

    @api.exception_handler(RequestValidationError)
    async def _invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"] if p not in ("body", "query", "path"))
        return error(422, f"{where or 'body'}: {first['msg']}", "invalid_request", where or None)


def reused(e: ValueError) -> RequestError:
    """A key that was used for something else."""
    return RequestError(str(e), code="idempotency_key_reused", param="Idempotency-Key", status=409)
