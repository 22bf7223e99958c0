"""A guard model behind a URL: an OpenAI-compatible server, the moderations API, or a hook. Law: its address comes from the operator
alone; one request a question, never again by itself; what is late, too large or not what was asked for is a GuardError."""

from __future__ import annotations

import asyncio
from typing import Any

from app import strictjson
from app.errors import GuardError, UpstreamError
from app.guards.formats import Request
from app.guards.formats.asking import document
from app.modelfile import GuardFile
from app.outbound import Outbound, Target, target

ANSWER_MAX = 256 << 10
"""Bytes of an answer at most."""
_CONNECT = 5.0
_REASONS = {
    "upstream_unreachable": "unreachable",
    "upstream_reset": "unreachable",
    "upstream_timeout": "late",
    "upstream_protocol_error": "garbage",
}
_REFUSALS = {400: "refused", 413: "refused", 422: "refused", 429: "busy"}
"""Of this text (too long for the model, as a rule), and of one more at this time; neither says that the place is down."""


class Remote:
    """Answers (app.guards.guard) over HTTP. `url`: of a hook itself, else the base that the OpenAI client takes. `seconds`: what a
    question may take at most, however patient whoever asks."""

    def __init__(self, url: str, key: str | None, file: GuardFile, seconds: float = 30.0) -> None:
        base = url.rstrip("/")
        self._targets = {
            "chat": target(f"{base}/chat/completions"), "moderations": target(f"{base}/moderations"), "hook": target(url)
        }  # fmt: skip
        self._model, self._seconds = file.model, seconds
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._outbound = Outbound(min(_CONNECT, seconds), seconds, seconds)

    async def start(self) -> None:
        await self._outbound.start()

    async def close(self) -> None:
        await self._outbound.close()

    async def ask(self, request: Request) -> bytes:
        """See app.guards.guard.Answers."""
        to = self._targets.get(request.kind)
        if to is None:
            raise GuardError("missing")  # a classifier that runs on this machine alone
        body = strictjson.dumps(self._chat(request) if request.kind == "chat" else request.body)
        try:
            async with asyncio.timeout(self._seconds):
                raw = await self._send(to, body)
        except TimeoutError:
            raise GuardError("late") from None
        except UpstreamError as e:
            raise GuardError(_REASONS[e.code]) from None
        return _spoken(raw, request) if request.kind == "chat" else raw

    async def _send(self, to: Target, body: bytes) -> bytes:
        reply = await self._outbound.open("POST", to, self._headers, body)
        try:
            if reply.status != 200:
                raise GuardError(_REFUSALS.get(reply.status, "status"))
            return await reply.read(ANSWER_MAX)
        finally:
            reply.close()

    def _chat(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": request.messages, "temperature": 0, "max_tokens": request.max_tokens}
        if self._model:
            body["model"] = self._model
        if request.template is not None:
            body["chat_template_kwargs"] = request.template
        return body


def _spoken(raw: bytes, request: Request) -> bytes:
    """The text of a chat completion that came to its end."""
    endings = ("stop", "length") if request.cut else ("stop",)
    match document(raw):
        case {"choices": [{"finish_reason": str(ending), "message": {"content": str(text)}}]} if ending in endings:
            return text.encode("utf-8", "surrogatepass")
    raise GuardError("garbage")
