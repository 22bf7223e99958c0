"""The routes of the admin port by which a person's own is handed out and erased. Law: the user id comes in a body, never in an address that
somebody logs, and no answer repeats it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from app.privacy import Privacy
from app.web.reports import body_of, parsed, takes


class PersonIn(BaseModel):
    """A user of an app, as the trusted header names them."""

    model_config = ConfigDict(extra="forbid")

    app: str = Field(max_length=63)
    user: str = Field(min_length=1, max_length=1000)


def privacy_routes(api: FastAPI, privacy: Privacy, authorised: Callable[[Request], str]) -> None:
    """Add them. `authorised`: whose token a request carries."""

    async def asked(request: Request) -> PersonIn:
        given: PersonIn = parsed(await body_of(request), PersonIn)
        return given

    @api.post("/sluice/v1/admin/privacy/export", openapi_extra=takes(PersonIn, keyed=False))
    async def export(request: Request, who: str = Depends(authorised)) -> Any:
        given = await asked(request)
        return await privacy.export(given.app, given.user, who)

    @api.post("/sluice/v1/admin/privacy/erase", openapi_extra=takes(PersonIn, keyed=False))
    async def erase(request: Request, who: str = Depends(authorised)) -> Any:
        given = await asked(request)
        return await privacy.erase(given.app, given.user, who)
