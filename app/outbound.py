"""What leaves the machine. Law: the only importer of aiohttp; no proxies from the environment, no redirects, no
compression, and never an address of the link-local or metadata kind, whatever a name resolves to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from app.errors import UpstreamError

_DRAIN = 0.05
"""Seconds that a finished answer gets to end its transfer."""


@lru_cache(256)
def forbidden(address: str) -> bool:
    """True for addresses nobody means: link-local (cloud metadata among them), multicast, unspecified, reserved."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return (
        ip.is_link_local
        or ip.is_multicast
        or ip.is_unspecified
        or (ip.is_reserved and not ip.is_loopback)
        or str(ip) == "fd00:ec2::254"
    )


class _Resolver(AbstractResolver):
    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if any(forbidden(r["host"]) for r in found):
            raise OSError("the name resolves to a forbidden address")
        return found

    async def close(self) -> None:
        await self._inner.close()


class Reply:
    """An open answer. Always closed by its opener: `close` frees the connection, and stops the model, at once."""

    def __init__(self, response: aiohttp.ClientResponse, idle: float) -> None:
        self._response, self._idle = response, idle
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            self.close()
            raise UpstreamError(
                "the model answered in a content-encoding nobody asked for", code="upstream_protocol_error"
            )

    async def read(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes. Raises UpstreamError."""
        parts, size = [], 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise UpstreamError(f"the model's answer is larger than {limit} bytes", code="upstream_protocol_error")
            parts.append(chunk)
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Bytes as they arrive. Raises UpstreamError on a reset or when nothing comes for the idle limit."""
        content = self._response.content
        first = True
        try:
            while chunk := await content.readany():
                if first:
                    first = False
                    connection = self._response.connection
                    if connection is not None and connection.protocol is not None:
                        # Until the first byte the first-token limit holds, afterwards the idle one.
                        connection.protocol.read_timeout = self._idle
                        connection.protocol.start_timeout()
                yield chunk
        except TimeoutError:
            raise UpstreamError("the model fell silent", code="upstream_timeout", status=504) from None
        except (aiohttp.ClientError, OSError):
            raise UpstreamError("the model broke off its answer", code="upstream_reset") from None

    async def drain(self) -> None:
        """Read the few bytes that may be left of a finished answer, so that the connection can be used again."""
        try:
            async with asyncio.timeout(_DRAIN):
                await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass

    def close(self) -> None:
        self._response.close()


class Outbound:
    """One pool for one origin. Times in seconds."""

    def __init__(self, connect: float, first: float, idle: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=first)
        self._idle = idle
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=_Resolver(), keepalive_timeout=30),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def open(self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Send a request; the answer's head has arrived. Raises UpstreamError, whose text names no URL and no header."""
        assert self._session is not None
        if url.host and forbidden(url.host):
            raise UpstreamError("the model's address is of a forbidden kind", code="upstream_unreachable")
        arguments: dict[str, Any] = {"allow_redirects": False, "headers": {**headers, "Accept-Encoding": "identity"}}
        try:
            response = await self._session.request(method, url, data=body, **arguments)
        except aiohttp.ServerTimeoutError as e:
            connecting = isinstance(e, aiohttp.ConnectionTimeoutError)
            raise UpstreamError(
                "the model cannot be reached in time" if connecting else "the model did not answer in time",
                code="upstream_unreachable" if connecting else "upstream_timeout",
                status=502 if connecting else 504,
            ) from None
        except aiohttp.ClientConnectorError:
            raise UpstreamError("the model cannot be reached", code="upstream_unreachable") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise UpstreamError("the model broke off", code="upstream_reset") from None
        return Reply(response, self._idle)
