"""Errors of the routes that are not a dialect's, in one shape: OpenAI's. Law: a message names the field and the way out, never a value."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from app.errors import Conflict, Limited, RequestError, StoreError


def error(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "service_unavailable"
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def answer_errors(api: FastAPI) -> None:
    """Have the errors of ours answered as what they are."""

    @api.exception_handler(RequestError)
    async def _refused(_: Request, e: RequestError) -> JSONResponse:
        return error(e.status, e.message, e.code, e.param)

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
