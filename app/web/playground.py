"""The routes of the admin port by which something is tried out: a text, and a new policy file. Law: neither is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app import strictjson
from app.playground import ANY, CHARACTERS, CHUNKS, Playground
from app.types import Direction
from app.web.reports import body_of, parsed, takes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LookIn(_Strict):
    """A text to try. `app`: an id, or '*' for the common rules. `chunks`: the text again, in the pieces that it comes in."""

    text: str = Field(min_length=1, max_length=CHARACTERS)
    direction: Direction = "answer"
    app: str | None = Field(default=None, max_length=63, description=f"left out: the only app there is, else {ANY}")
    chunks: list[str] | None = Field(default=None, min_length=1, max_length=CHUNKS)


class PolicyIn(_Strict):
    """A policy file as it would be loaded."""

    policy: str


def playground_routes(api: FastAPI, playground: Playground, authorised: Callable[[Request], str]) -> None:
    """Add them. `authorised`: whose token a request carries."""

    @api.post(
        "/sluice/v1/admin/playground",
        openapi_extra=takes(LookIn, keyed=False),
        dependencies=[Depends(authorised)],
    )
    async def look(request: Request) -> Any:
        given: LookIn = parsed(await body_of(request), LookIn)
        found = await playground.look(given.text, direction=given.direction, app=given.app, chunks=given.chunks)
        # A row for each character, at worst.
        return Response(await asyncio.to_thread(strictjson.dumps, found), media_type="application/json")

    @api.post(
        "/sluice/v1/admin/policy/check",
        openapi_extra=takes(PolicyIn, keyed=False),
        dependencies=[Depends(authorised)],
    )
    async def check(request: Request) -> Any:
        given: PolicyIn = parsed(await body_of(request), PolicyIn)
        return await playground.check(given.policy)
