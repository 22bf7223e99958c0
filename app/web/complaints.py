"""The routes of complaints and appeals, at the client port and at the admin port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.complaints import APPEALS, KINDS, Complaints, shown
from app.moderation import Moderator
from app.reports import Sender
from app.store.tables import Row
from app.web.errors import error, reused
from app.web.reports import ReportIn, body_of, idempotency_key, parsed, takes

_TEXT = 60_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ComplaintIn(ReportIn):
    """A complaint: a report with its kind. `text`: what it is about, as it was delivered, where it is about a text."""

    kind: Literal[KINDS]  # type: ignore[valid-type]
    text: str = Field(default="", max_length=_TEXT)

    @model_validator(mode="after")
    def _about(self) -> ComplaintIn:
        if not (self.text or self.comment):
            raise ValueError("text or comment: say what the complaint is about")
        return self


class AppealIn(ReportIn):
    """An appeal: against a refused prompt, which it brings; or a blocked answer, with the prompt that led to it. `text` says the prompt
    too. Or, of the kind `standing`, against what is imposed on the user who sends it."""

    kind: Literal[APPEALS] | None = None  # type: ignore[valid-type]
    text: str = Field(default="", max_length=_TEXT)

    @model_validator(mode="after")
    def _asked(self) -> AppealIn:
        if self.kind == "standing":
            return self
        if not self.decision_id:
            raise ValueError("decision_id: the decision that the appeal is against")
        if not (self.text or self.prompt):
            raise ValueError("prompt: the message that was refused, or that led to the blocked answer")
        return self


class OutcomeIn(_Strict):
    """What a reviewer decides of one."""

    decision: Literal["uphold", "refuse", "ask"]
    reason: str = Field(default="", max_length=2000)
    expected_version: int | None = None
    identifiers: list[str] = Field(default=[], max_length=20)
    public_interest: str | None = Field(default=None, max_length=2000)
    days: int | None = Field(default=None, ge=1, le=180)
    model: str | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _sound(self) -> OutcomeIn:
        if self.decision == "ask" and not self.model:
            raise ValueError("model: the name of the model to ask")
        return self


async def complained(complaints: Complaints, given: ComplaintIn, who: Sender, key: str | None) -> Row:
    """Have a complaint received. Raises RequestError, Limited, StoreError."""
    said = given.model_dump()
    return await _taken(complaints, said.pop("kind"), who, said, key)


async def appealed(complaints: Complaints, given: AppealIn, who: Sender, key: str | None) -> Row:
    """Have an appeal received. Raises RequestError, Limited, StoreError."""
    said = given.model_dump()
    kind = said.pop("kind")
    if kind == "standing":
        return await _taken(complaints, kind, who, {"comment": said["comment"]}, key)
    said["prompt"] = said["prompt"] or said.pop("text")
    kind = kind or complaints.kind(who.app.id, said["decision_id"], said["prompt"])
    return await _taken(complaints, kind, who, said, key)


async def _taken(complaints: Complaints, kind: str, who: Sender, said: dict[str, Any], key: str | None) -> Row:
    try:
        return await complaints.receive(kind, who, said, key)
    except ValueError as e:
        raise reused(e) from None


def complaint_routes(
    api: FastAPI, complaints: Complaints, moderator: Moderator, sender: Callable[[Request], Sender]
) -> None:
    """Add those of the client port. `sender`: who a request comes from."""

    @api.post("/sluice/v1/complaints", status_code=202, openapi_extra=takes(ComplaintIn))
    async def complain(request: Request) -> Any:
        who = sender(request)
        return await complained(complaints, parsed(await body_of(request), ComplaintIn), who, idempotency_key(request))

    @api.post("/sluice/v1/appeals", status_code=202, openapi_extra=takes(AppealIn))
    async def appeal(request: Request) -> Any:
        who = sender(request)
        return await appealed(complaints, parsed(await body_of(request), AppealIn), who, idempotency_key(request))

    @api.get("/sluice/v1/complaints")
    async def process() -> Any:
        """What may be complained of, and the periods that are promised."""
        rules = moderator.policies.common.rules.reports
        return {
            "kinds": list(KINDS), "appeals": list(APPEALS), "answered_within_days": rules.days,
            "not_generated_again_within_months": rules.months,
        }  # fmt: skip

    @api.get("/sluice/v1/complaints/{ticket}")
    @api.get("/sluice/v1/appeals/{ticket}")
    async def state(ticket: str, request: Request) -> JSONResponse:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = await complaints.state(ticket, request.headers.get("x-sluice-status-token") or given)
        return error(404, "no such ticket for this token", "not_found") if found is None else JSONResponse(found)


def outcome_routes(api: FastAPI, complaints: Complaints, authorised: Callable[[Request], str]) -> None:
    """Add those of the admin port."""

    @api.get("/sluice/v1/admin/complaints", dependencies=[Depends(authorised)])
    async def waiting() -> Any:
        return {"complaints": await complaints.open()}

    @api.get("/sluice/v1/admin/complaints/{ticket}", dependencies=[Depends(authorised)])
    async def one(ticket: str) -> Any:
        return shown(await complaints.one(ticket))

    @api.get("/sluice/v1/admin/complaints/{ticket}/evidence")
    async def evidence(ticket: str, who: str = Depends(authorised)) -> Any:
        return await complaints.evidence(ticket, who)

    @api.post("/sluice/v1/admin/complaints/{ticket}/decision", openapi_extra=takes(OutcomeIn))
    async def decide(ticket: str, request: Request, who: str = Depends(authorised)) -> Any:
        given: OutcomeIn = parsed(await body_of(request), OutcomeIn)
        if given.decision == "ask":
            return await complaints.ask(ticket, given.model or "", who)
        said = given.model_dump(exclude_none=True, exclude={"decision", "expected_version", "model"})
        try:
            return await complaints.decide(
                ticket, given.decision, who, said, expected=given.expected_version, key=idempotency_key(request) or ""
            )
        except ValueError as e:
            raise reused(e) from None
