"""The generation backend. Law: its address comes from the operator alone; only listed headers go there or come back."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from app.errors import UpstreamError
from app.outbound import Outbound, Reply, Target, target
from app.settings import Settings

_FORWARD = (
    "authorization",
    "x-api-key",
    "openai-organization",
    "openai-project",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
)
_CREDENTIALS = ("authorization", "x-api-key", "openai-organization", "openai-project")
ANSWER_MAX = 16 << 20
"""Bytes of a plain answer at most."""


class Upstream:
    """A model behind a base URL. `credentials`: the client's own are passed on where there is no `key`."""

    def __init__(self, url: str, key: str | None, settings: Settings, *, credentials: bool) -> None:
        self._base = url.rstrip("/").removesuffix("/v1")
        self._key = key
        self._pass = credentials and key is None
        self._targets: dict[str, Target] = {}
        self.outbound = Outbound(
            settings.upstream_connect_timeout, settings.upstream_first_token_timeout, settings.upstream_idle_timeout
        )

    def _headers(self, path: str, client: Mapping[str, str]) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        # A name listed in Connection belongs to that hop alone (RFC 9110 7.6.1).
        hop = {name.strip().lower() for name in client.get("connection", "").split(",")}
        for name in _FORWARD:
            # With the operator's key, nothing of the client's may say whose account it is.
            if name in client and name not in hop and (self._pass or name not in _CREDENTIALS):
                headers[name] = client[name]
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
            if path.startswith("/v1/messages"):
                headers["x-api-key"] = self._key  # where Anthropic looks for it
        return headers

    async def send(self, method: str, path: str, client: Mapping[str, str], body: bytes | None = None) -> Reply:
        """`path` begins with /v1/. Raises UpstreamError, for a path that would lead elsewhere too."""
        to = self._targets.get(path)
        if to is None:
            if not {"", ".", ".."}.isdisjoint(path.split("/")[1:]) or not path.isascii():
                raise UpstreamError("no such path", code="unknown_route", status=404)
            to = target(self._base + quote(path, safe="/:@"))
            if len(self._targets) < 64:
                self._targets[path] = to
        return await self.outbound.open(method, to, self._headers(path, client), body)
