"""Routes that carry no text to screen (/v1/models), and those that policy passes unscreened, each counted."""

from __future__ import annotations

from app import metrics
from app.apps import Apps
from app.dialects import openai
from app.errors import RequestError, UpstreamError
from app.moderation import Moderator
from app.upstream import ANSWER_MAX, Upstream
from app.web import asgi


class Passing:
    """The ASGI app. `screened`: False for a route of `unmoderated_routes`."""

    def __init__(self, moderator: Moderator, apps: Apps, upstream: Upstream) -> None:
        self._moderator, self._apps, self._upstream = moderator, apps, upstream

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        try:
            head = asgi.headers(scope)
            app = self._apps.identify(head)
            policy = self._moderator.policies.of(app.policy)
            body = (
                await asgi.read_body(receive, head, policy.rules.max_body_bytes) if scope["method"] == "POST" else None
            )
            reply = await self._upstream.send(scope["method"], scope["path"], head, body)
            try:
                raw = await reply.read(ANSWER_MAX)
            finally:
                reply.close()
            if scope["path"] in policy.unmoderated_routes:
                metrics.UNMODERATED.labels(scope["path"]).inc()
            kind = reply.headers.get("content-type", "application/json").encode("latin-1", "replace")
            await asgi.respond(send, reply.status, raw, kind=kind)
        except (RequestError, UpstreamError) as e:
            await asgi.respond_json(send, e.status, openai.error(str(e), e.code, getattr(e, "param", None), e.status))
        except asgi.Disconnected:
            pass
