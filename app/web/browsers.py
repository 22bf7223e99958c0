"""Browsers of other sites: which pages may call the routes of reports, complaints and appeals (CORS, as the Fetch standard has it).

Law: only an origin that the apps file names, and it is named back, never `*`, never with credentials. A preflight carries no key, so it is
answered for the sites of every app; the answer itself can be read by those of the app whose key came along. No other route is for
browsers: its answers stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app.apps import Apps
from app.errors import RequestError
from app.web import asgi

_ROUTES = re.compile(r"/sluice/v1/(?:reports|appeals|complaints)(?:/[^/]+)?\Z")
_PREFLIGHT: asgi.Headers = [
    (b"access-control-allow-methods", b"GET, POST"),
    (
        b"access-control-allow-headers",
        b"authorization, x-api-key, content-type, idempotency-key, x-sluice-status-token",
    ),
    (b"access-control-max-age", b"600"),
]
_EXPOSED = (b"access-control-expose-headers", b"retry-after")
_VARY = (b"vary", b"origin")


class Browsers:
    """Before the other routes of the client port."""

    def __init__(self, app: Callable[[asgi.Scope, asgi.Receive, asgi.Send], Awaitable[None]], apps: Apps) -> None:
        self._inner, self._apps = app, apps

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] != "http" or not _ROUTES.match(scope["path"]):
            await self._inner(scope, receive, send)
            return
        headers = asgi.headers(scope)
        origin = headers.get("origin", "")
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers and origin in self._apps.origins:
            allowed = [(b"access-control-allow-origin", origin.encode()), *_PREFLIGHT, _VARY]
            await send({"type": "http.response.start", "status": 204, "headers": allowed})
            await send({"type": "http.response.body", "body": b""})
            return
        more = [_VARY]
        if self._may(origin, headers):
            more += [(b"access-control-allow-origin", origin.encode()), _EXPOSED]

        async def named(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        await self._inner(scope, receive, named)

    def _may(self, origin: str, headers: dict[str, str]) -> bool:
        """Without a key that is known, as when a ticket is looked up or a key is wrong: where some app names it."""
        try:
            return origin in self._apps.identify(headers, "report").origins
        except RequestError:
            return origin in self._apps.origins
