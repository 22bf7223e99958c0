"""What leaves the machine. Law: no proxies from the environment, no redirects, no cookies, no compression, and never an address of the
link-local or metadata kind, whatever a name resolves to: the addresses that are looked at are those that are connected to.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from app.errors import UpstreamError
from app.wire import Bounds, Connection

_DRAIN = 0.05
"""Seconds that a finished answer gets to end its transfer."""
_KEPT = 30.0
"""Seconds for which a connection that nobody uses is kept."""
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
"""RFC 9110, 9.2.2: what may be sent again by itself."""
_BODILESS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Requests that say no length where they have no body (RFC 9110, 8.6)."""
_SAFE = "!$&'()*+,;=:@/%-._~"
"""What a path may hold as it stands (RFC 3986, 3.3), and what is encoded already."""


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


class Target(NamedTuple):
    """Where a request goes: a URL that was read once, by `target`. `head`: what every request there says."""

    origin: str
    host: str
    port: int
    secure: bool
    head: str


def target(url: str) -> Target:
    """Read an http or https URL. Raises ValueError, whose text does not hold it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("not an http or https URL")
    secure = parts.scheme == "https"
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    name = f"[{host}]" if ":" in host else host
    port = parts.port or (443 if secure else 80)
    at = name if port == (443 if secure else 80) else f"{name}:{port}"
    path = quote(parts.path, safe=_SAFE) or "/"
    if parts.query:
        path += "?" + quote(parts.query, safe=_SAFE + "?")
    head = f"{path} HTTP/1.1\r\nHost: {at}\r\nAccept-Encoding: identity"
    if parts.username is not None:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        head += f"\r\nAuthorization: Basic {base64.b64encode(account.encode()).decode()}"
    return Target(f"{parts.scheme}://{name}:{port}", host, port, secure, head)


def _verified() -> ssl.SSLContext:
    """Names and chains are checked, by the machine's certificates; reading those takes some 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Reply:
    """An open answer. Always closed by its opener: `close` stops the model at once where the answer is not over. `headers`: names in
    small letters."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: Connection) -> None:
        """Raises UpstreamError; the connection is then closed."""
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        if self.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
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
        """Bytes as they arrive, all at once that came since the last. Raises UpstreamError on a reset or when nothing comes for the idle
        limit; until the first byte the first-token limit holds."""
        try:
            while (connection := self._connection) is not None:
                chunk = connection.take()
                if chunk is None:
                    await connection.news()
                    continue
                if connection.over:
                    self._connection = None
                    connection.release()
                if chunk:
                    yield chunk
        except TimeoutError:
            raise UpstreamError("the model fell silent", code="upstream_timeout", status=504) from None
        except OSError:
            raise UpstreamError("the model broke off its answer", code="upstream_reset") from None

    async def drain(self) -> None:
        """Read the few bytes that may be left of a finished answer, so that the connection can be used again."""
        if self._connection is None:
            return
        try:
            async with asyncio.timeout(_DRAIN):
                async for _ in self.chunks():
                    pass
        except (TimeoutError, UpstreamError):
            pass

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.over:
            connection.release()
        else:
            connection.abort()


class Outbound:
    """Connections that are used again, by origin and without a limit. Times in seconds: `connect` for finding the address, connecting and
    TLS; `first` from the request to the head of the answer, and from there to the first byte of its body; `idle` between two reads."""

    def __init__(self, connect: float, first: float, idle: float) -> None:
        self._connect, self._bounds = connect, Bounds(first, idle, _KEPT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alive: set[Connection] = set()
        self._spare: dict[str, dict[Connection, None]] = {}
        self._tls: ssl.SSLContext | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Requests under way break off."""
        self._loop = None
        for connection in list(self._alive):
            connection.abort()
        await asyncio.sleep(0)

    async def open(self, method: str, target: Target, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Send a request; the answer's head has arrived. Raises UpstreamError, whose text names no URL and no header."""
        try:
            data = _request(method, target, headers, body)
        except ValueError:
            raise UpstreamError("the model broke off", code="upstream_reset") from None
        connection = self._taken(target)
        again = connection is not None and method in _IDEMPOTENT
        while True:
            if connection is None:
                connection = await self._connected(target)
            try:
                connection.send(data, bodiless=method == "HEAD")
                while not connection.answered():
                    await connection.news()
                return Reply(connection)
            except TimeoutError:
                connection.abort()
                raise UpstreamError("the model did not answer in time", code="upstream_timeout", status=504) from None
            except OSError:
                connection.abort()
                # RFC 9112, 9.3.1: the server closed it as we wrote, so that nobody knows whether the request was taken.
                if not again or connection.heard:
                    raise UpstreamError("the model broke off", code="upstream_reset") from None
                connection, again = None, False
            except BaseException:
                connection.abort()
                raise

    def _taken(self, target: Target) -> Connection | None:
        """The spare connection that was used last, where it is still good."""
        spare = self._spare.get(target.origin)
        while spare:
            connection, _ = spare.popitem()
            if connection.usable():
                return connection
            connection.abort()
        return None

    async def _connected(self, target: Target) -> Connection:
        """A new connection. Raises UpstreamError."""
        assert self._loop is not None, "not started, or closed"
        try:
            async with asyncio.timeout(self._connect):
                return await self._reached(target, self._loop)
        except TimeoutError:
            raise UpstreamError("the model cannot be reached in time", code="upstream_unreachable") from None
        except (OSError, UnicodeError):
            raise UpstreamError("the model cannot be reached", code="upstream_unreachable") from None

    async def _reached(self, target: Target, loop: asyncio.AbstractEventLoop) -> Connection:
        addresses = await _addresses(target, loop)
        if any(map(forbidden, addresses)):
            raise UpstreamError("the model's address is of a forbidden kind", code="upstream_unreachable")
        if target.secure and self._tls is None:
            self._tls = await asyncio.to_thread(_verified)
        tls, name = (self._tls, target.host) if target.secure else (None, None)
        spare = self._spare.setdefault(target.origin, {})
        until = loop.time() + self._connect
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            connection = Connection(loop, self._bounds, self._alive, spare)
            try:
                # None takes the time of all; the last has what is left.
                async with asyncio.timeout((until - loop.time()) / left if left > 1 else None):
                    await loop.create_connection(
                        lambda: connection,  # noqa: B023
                        address, target.port, ssl=tls, server_hostname=name,
                    )  # fmt: skip
                if self._loop is None:
                    raise UpstreamError("the model cannot be reached", code="upstream_unreachable")  # closed meanwhile
                return connection
            except OSError:
                connection.abort()
                if left == 1:
                    raise
            except BaseException:
                connection.abort()
                raise
        raise OSError


async def _addresses(target: Target, loop: asyncio.AbstractEventLoop) -> list[str]:
    """What the host stands for, as literals: who connects to them looks nothing up again. Raises OSError, UnicodeError."""
    try:
        return [str(ipaddress.ip_address(target.host))]
    except ValueError:
        pass
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def _request(method: str, target: Target, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """RFC 9112, 3. Raises ValueError where a header would be more than one line."""
    lines = [f"{method} {target.head}", *[f"{name}: {value}" for name, value in headers.items()]]
    if body is not None or method not in _BODILESS:
        lines.append(f"Content-Length: {len(body or b'')}")
    head = "\r\n".join(lines)
    ends = target.head.count("\n") + len(lines) - 1
    if head.count("\n") != ends or head.count("\r") != ends or "\0" in head:
        raise ValueError("a header of more than one line")
    return f"{head}\r\n\r\n".encode() + (body or b"")
