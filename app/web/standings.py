"""The admin routes of standings and agreements: what is imposed on subjects, and who gets answers without a visible label."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app import clock
from app.agreements import Agreements
from app.errors import RequestError
from app.subjects import Subjects, shown
from app.web.errors import reused
from app.web.reports import body_of, idempotency_key, parsed, takes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StandingIn(_Strict):
    """What a person decides of a subject's standing. Only a person terminates."""

    decision: Literal["lift", "keep", "warn", "limit", "suspend", "terminate"]
    reason: str = Field(min_length=1, max_length=2000)
    hours: int | None = Field(default=None, ge=1, le=24 * 366)
    expected_version: int | None = None

    @model_validator(mode="after")
    def _sound(self) -> StandingIn:
        if self.hours is not None and self.decision not in ("warn", "limit", "suspend"):
            raise ValueError("hours: goes with warn, limit and suspend")
        return self


class AgreementIn(_Strict):
    """`user`: as the app names them, by a trusted header or (`named_by`) a token's `sub`; only a pseudonym is kept. `agreement`: which text
    they agreed to."""

    app: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    user: str = Field(min_length=1, max_length=256)
    agreement: str = Field(min_length=1, max_length=200)
    named_by: Literal["header", "token"] = "header"
    days: int = Field(default=365, ge=1, le=3660)


def standing_routes(api: FastAPI, subjects: Subjects, authorised: Callable[[Request], str]) -> None:
    """Add those of standings."""

    @api.get("/sluice/v1/admin/standings", dependencies=[Depends(authorised)])
    async def listed(proposed: bool = False) -> Any:
        return {"standings": await subjects.listed(proposed=proposed)}

    @api.get("/sluice/v1/admin/standings/{id}", dependencies=[Depends(authorised)])
    async def one(id: str) -> Any:
        return shown(await subjects.one(id))

    @api.post("/sluice/v1/admin/standings/{id}/decision", openapi_extra=takes(StandingIn))
    async def decide(id: str, request: Request, who: str = Depends(authorised)) -> Any:
        given: StandingIn = parsed(await body_of(request), StandingIn)
        try:
            return await subjects.decide(
                id, given.decision, who, given.reason,
                hours=given.hours, expected=given.expected_version, key=idempotency_key(request) or "",
            )  # fmt: skip
        except ValueError as e:
            raise reused(e) from None


def agreement_routes(
    api: FastAPI, agreements: Agreements, authorised: Callable[[Request], str], apps: Callable[[], set[str]]
) -> None:
    """Add those of agreements. `apps`: the ids of the apps file, read now."""

    @api.post("/sluice/v1/admin/agreements", status_code=201, openapi_extra=takes(AgreementIn))
    async def add(request: Request, who: str = Depends(authorised)) -> Any:
        given: AgreementIn = parsed(await body_of(request), AgreementIn)
        if given.app not in await asyncio.to_thread(apps):
            raise RequestError("app: no such app in the apps file", code="invalid_value", param="app", status=422)
        until = clock.now() + given.days * 86_400
        try:
            return await agreements.add(
                given.app, given.user, given.agreement, until, who, idempotency_key(request) or "",
                header=given.named_by == "header",
            )  # fmt: skip
        except ValueError as e:
            raise reused(e) from None

    @api.get("/sluice/v1/admin/agreements", dependencies=[Depends(authorised)])
    async def listed() -> Any:
        return {"agreements": await agreements.listed()}

    @api.delete("/sluice/v1/admin/agreements/{id}")
    async def remove(id: str, who: str = Depends(authorised)) -> Any:
        if not await agreements.remove(id, who):
            raise RequestError("no such agreement", code="not_found", status=404)
        return {"id": id, "deleted": True}
