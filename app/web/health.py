"""The ops port: /healthz (the loop answers), /readyz (texts can be moderated), /metrics. Never behind the client port's limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app import metrics
from app.web import asgi


class Ops:
    """The ASGI app. `readiness` gives (ready, reasons and versions); Redis being down is told there and is no reason."""

    def __init__(self, readiness: Callable[[], tuple[bool, dict[str, Any]]]) -> None:
        self._readiness = readiness

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/healthz":
            await asgi.respond_json(send, 200, {"ok": True})
        elif scope["path"] == "/readyz":
            ready, state = self._readiness()
            await asgi.respond_json(send, 200 if ready else 503, {"ready": ready, **state})
        elif scope["path"] == "/metrics":
            await asgi.respond(send, 200, metrics.render(), kind=b"text/plain; version=0.0.4; charset=utf-8")
        else:
            await asgi.respond_json(
                send, 404, {"error": {"message": "here are /healthz, /readyz and /metrics", "code": "unknown_route"}}
            )
