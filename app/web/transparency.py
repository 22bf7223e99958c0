"""The route of the admin port that gives the transparency report of a half-year, as JSON, a table or a page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from app.store.tables import Row
from app.transparency import csv, html

_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


def transparency_routes(
    api: FastAPI, collected: Callable[[str, bool], Awaitable[Row]], authorised: Callable[[Request], str]
) -> None:
    """Add it. `collected`: the report of a half-year, public or not. `authorised`: whose token a request carries."""

    @api.get("/sluice/v1/admin/transparency", dependencies=[Depends(authorised)])
    async def report(half: str, form: Literal["json", "csv", "html"] = "json", public: bool = False) -> Response:
        found = await collected(half, public)
        if form == "html":
            return HTMLResponse(await asyncio.to_thread(html, found), headers=_HEADERS)
        if form == "csv":
            name = f"transparency-{half}{'-public' if public else ''}.csv"
            headers = _HEADERS | {"content-disposition": f'attachment; filename="{name}"'}
            return Response(await asyncio.to_thread(csv, found), media_type="text/csv", headers=headers)
        return JSONResponse(found, headers=_HEADERS)
