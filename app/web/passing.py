"""Routes that carry no text to screen (/v1/models), and those that policy passes unscreened, each counted."""

from __future__ import annotations

from app import metrics
from app.callers import Callers
from app.dialects import openai
from app.errors import RequestError, UpstreamError
from app.upstream import ANSWER_MAX, Upstream
from app.web import asgi


class Passing:
    """The ASGI app."""

    def __init__(self, callers: Callers, upstream: Upstream) -> None:
        self._callers, self._upstream = callers, upstream

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        try:
            head = asgi.headers(scope)
            caller = self._callers.admitted(head, asgi.peer(scope))
            policy = caller.policy
            with self._callers.inside(caller):
                most = policy.rules.max_body_bytes
                body = await asgi.read_body(receive, head, most) if scope["method"] == "POST" else None
                reply = await self._upstream.send(scope["method"], scope["path"], head, body)
                try:
                    raw = await reply.read(ANSWER_MAX)
                finally:
                    reply.close()
            more: asgi.Headers = []
            if scope["path"] in policy.unmoderated_routes:
                metrics.UNMODERATED.labels(scope["path"]).inc()
                more = [(b"x-sluice-not-examined", b"route")]
            kind = reply.headers.get("content-type", "application/json").encode("latin-1", "replace")
            await asgi.respond(send, reply.status, raw, more, kind=kind)
        except RequestError as e:
            await asgi.respond_json(send, e.status, openai.error(e.message, e.code, e.param, e.status), asgi.retry(e))
        except UpstreamError as e:
            await asgi.respond_json(send, e.status, openai.error(e.message, e.code, None, e.status), asgi.later(e))
        except asgi.Disconnected:
            pass
