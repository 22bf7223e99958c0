"""The routes of the admin port for the history of the live entries. Law: a passage's fingerprint stays inside; a roll back names the
version that was seen, and is refused where the entries have moved on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.entries import AT_ONCE
from app.errors import RequestError
from app.history import PAGE, History
from app.web.errors import reused
from app.web.reports import body_of, idempotency_key, parsed, takes

_HIGHEST = 1 << 53
"""Beyond any version: what JSON keeps exactly (RFC 8259, 6)."""
_Version = Annotated[int, Field(ge=0, le=_HIGHEST)]


class Back(BaseModel):
    """`to`: the version to go back to; `expected_version`: that of the entries as they were seen; `leave`: ids that stay as they are."""

    model_config = ConfigDict(extra="forbid", strict=True)

    to: _Version
    reason: str = Field(min_length=1, max_length=1000)
    expected_version: _Version
    leave: list[str] = Field(default=[], max_length=AT_ONCE)


def history_routes(api: FastAPI, history: History, authorised: Callable[[Request], str]) -> None:
    """Add them. `authorised`: whose token a request carries."""

    @api.get("/sluice/v1/admin/history", dependencies=[Depends(authorised)])
    async def listed(after: int = 0, until: int | None = None, limit: int = 100) -> Any:
        if not 1 <= limit <= PAGE:
            raise RequestError(f"limit must be 1 to {PAGE}", code="invalid_value", param="limit")
        return await history.changes(after, until, limit)

    @api.get("/sluice/v1/admin/history/diff", dependencies=[Depends(authorised)])
    async def diff(
        a: Annotated[int, Query(alias="from", ge=0)], b: Annotated[int | None, Query(alias="to", ge=0)] = None
    ) -> Any:
        return await history.diff(a, b)

    @api.post("/sluice/v1/admin/history/rollback", openapi_extra=takes(Back))
    async def roll_back(request: Request, who: str = Depends(authorised)) -> Any:
        given: Back = parsed(await body_of(request), Back)
        try:
            return await history.roll_back(
                given.to, who, given.reason, given.expected_version, leave=given.leave, key=idempotency_key(request) or "",
            )  # fmt: skip
        except ValueError as e:
            raise reused(e) from None
