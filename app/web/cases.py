"""The case routes of the admin port: the queue, a case, a decision about it, its evidence, the audit chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app import clock
from app.errors import RequestError
from app.looks import Share
from app.policy import Policies
from app.review import DECISIONS, Review, shown
from app.store.cases import Cases, broken
from app.store.tables import Row
from app.web.errors import reused
from app.web.reports import body_of, idempotency_key, parsed, takes

_ROWS = 500


class DecisionIn(BaseModel):
    """What a reviewer decides. Which of these a decision needs stands in app.remediation's table."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal[DECISIONS]  # type: ignore[valid-type]
    reason: str = Field(default="", max_length=2000)
    would: Literal["confirm", "reject"] | None = None
    expected_version: int | None = None
    category: str | None = None
    to: Literal["apps"] | None = None
    term: str | None = Field(default=None, max_length=200)
    vendor: str | None = Field(default=None, max_length=200)
    reference: str | None = Field(default=None, max_length=200)
    date: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    role: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=200)
    prompt: str | None = Field(default=None, max_length=60_000)
    variants: list[str] = Field(default=[], max_length=100)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=8192)
    answers: int | None = Field(default=None, ge=60, le=2000)


def case_routes(
    api: FastAPI,
    review: Review,
    cases: Cases,
    authorised: Callable[[Request], str],
    policies: Callable[[], Policies],
    collected: Callable[[Policies], Awaitable[Row]],
) -> None:
    """Add them. `authorised`: whose token a request carries. `policies`: those of the file, read now. `collected`: an auditor's export."""

    async def share() -> Share:
        now = await asyncio.to_thread(policies)
        return lambda app: now.of(app).rules.reports.second

    @api.get("/sluice/v1/admin/cases")
    async def queue(
        state: str | None = None, page: int = 1, second: bool = False, who: str = Depends(authorised)
    ) -> Any:
        if page < 1:
            raise RequestError("page: must be 1 or more", code="invalid_value", param="page", status=422)
        if second:
            return await review.second_looks(await share(), who)
        return await review.queue(state, page)

    @api.get("/sluice/v1/admin/cases/{name}", dependencies=[Depends(authorised)])
    async def one(name: str) -> Any:
        return shown(await review.find(name), clock.now())

    @api.post("/sluice/v1/admin/cases/{name}/decision", openapi_extra=takes(DecisionIn))
    async def decide(name: str, request: Request, who: str = Depends(authorised)) -> Any:
        given: DecisionIn = parsed(await body_of(request), DecisionIn)
        said = given.model_dump(exclude_none=True, exclude={"decision", "expected_version"})
        try:
            return await review.decide(
                name, given.decision, who, said,
                expected=given.expected_version, key=idempotency_key(request) or "",
                share=await share() if given.decision == "second" else None,
            )  # fmt: skip
        except ValueError as e:
            raise reused(e) from None

    @api.get("/sluice/v1/admin/cases/{name}/evidence")
    async def evidence(name: str, who: str = Depends(authorised)) -> Any:
        return await review.evidence(name, who)

    @api.get("/sluice/v1/admin/samples")
    async def samples(case: Annotated[list[str], Query()] = [], who: str = Depends(authorised)) -> Any:  # noqa: B006
        return await review.samples(case, who, await asyncio.to_thread(policies))

    @api.get("/sluice/v1/admin/evidence", dependencies=[Depends(authorised)])
    async def export() -> Any:
        return await collected(await asyncio.to_thread(policies))

    @api.get("/sluice/v1/admin/audit", dependencies=[Depends(authorised)])
    async def audit(after: Annotated[int, Query(ge=0)] = 0) -> Any:
        rows, head = await cases.chain()
        at = broken(rows, head)
        return {
            "rows": [json.loads(raw) for raw in rows[after : after + _ROWS]],
            "total": len(rows),
            "chain": "whole" if at is None else f"broken at row {at}",
        }
