"""HTTP/1.1 on a socket of ours: uvicorn's protocol, with deadlines and limits of its own (docs/adr/0008).

Law: who sends too slowly, sends too much, or reads nothing is cut off at a time and a size that are stated, and is counted. An answer
that is under way is never broken off for what its client sends beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
import sys
import termios
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app import metrics, strictjson
from app.dialects import openai
from app.web import asgi

HEAD_MAX = 65_536
"""Bytes of a request's line and headers; trailers count too. Also the most that may come between two pieces of a body."""
_OVER = 64
"""Connections beyond the limit that still get an answer; any more are closed at once."""
_AHEAD = 16
"""Requests that a client may send ahead of their answers on one connection."""
_BREAKS = re.compile(rb"[\0\r\n]")
_OURS = "/sluice/"
"""Reports, complaints, what is public, and the pages for them: not turned away with chats."""


class Bounds(NamedTuple):
    """Seconds for a whole head, for a whole body, and for a client that reads nothing; connections at once, 0 for any number."""

    head: float = 10.0
    body: float = 60.0
    stall: float = 60.0
    connections: int = 0


class Cycle(RequestResponseCycle):
    """uvicorn's exchange; a head goes out with the beginning of its body, in one write."""

    _head = b""

    async def send(self, message: Any) -> None:
        if self.scope["method"] == "HEAD" or message.get("status") in (204, 304) or self.response_complete:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.chunked_encoding:
            out = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                out += b"0\r\n\r\n"
        else:
            out = body
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("the body is not as long as was said")
        if self._head:
            out, self._head = self._head + out, b""
        if out:
            self.transport.write(out)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _start(self, message: Any) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"an answer begins with http.response.start, not {message['type']}")
        lines, closes = [STATUS_LINE[message["status"]]], False
        for name, value in [*self.default_headers, *message.get("headers", ())]:
            if _BREAKS.search(name) or _BREAKS.search(value):
                raise RuntimeError("a header of more than one line")
            known = name.lower()
            if known == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif known == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length, self.chunked_encoding = 0, True
            elif known == b"connection" and b"close" in value.lower():
                self.keep_alive, closes = False, True
            lines.append(b"%b: %b\r\n" % (known, value))
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        self._head = b"".join([*lines, b"\r\n"])
        self.response_started, self.waiting_for_100_continue = True, False
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Where the body takes its time, the head does not wait for it."""
        if self._head and not self.disconnected:
            self.transport.write(self._head)
        self._head = b""


class Protocol(HttpToolsProtocol):
    """A connection. What is read now is one of: nothing, a head, a body, nothing more until the answer is out."""

    bounds = Bounds()
    _reading = "head"
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _heard = False
    """A byte has come."""
    _head = 0
    """Bytes of the head so far."""
    _beside = 0
    """Bytes since the last that belonged to a head that is complete, or to a body."""
    _progress = False
    _refused = False
    _over = False
    _left = 0
    """Bytes that a client had yet to read when it was last looked at."""
    _leaves: Callable[[], None] | None = None
    _serving: Any = None
    """The exchange that is under way, or was the last."""

    # ---- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self.bounds.connections
        if most and len(self.connections) > most:
            self._over = True
            if len(self.connections) > most + _OVER:
                metrics.CUT_OFF.labels("connections").inc()
                self._refused = True
                transport.abort()
                return
        self._expect("head", self.bounds.head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget(self._deadline)
        self._forget(self._stalled)
        super().connection_lost(exc)
        if self._leaves is not None:
            self._leaves()

    def _left_to(self, leaves: Callable[[], None] | None) -> None:
        """What is to be called when the client leaves."""
        self._leaves = leaves
        if leaves is not None and self.transport.is_closing():
            leaves()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._heard, self._progress = True, False
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as e:
            self._passed_over(data[e.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("")
        if self._progress:
            self._beside = 0
        else:
            self._beside += len(data)
            if self._beside > HEAD_MAX:
                self._refuse(431 if self._reading == "head" else 400, "large_head", "header fields are too large")
        if self._deadline is None and self._reading == "nothing":
            # Blank lines between two requests begin nothing, and stop the clock of an idle connection.
            self._expect("nothing", self.bounds.head)

    # ---- deadlines

    def _expect(self, what: str, seconds: float) -> None:
        self._reading = what
        self._forget(self._deadline)
        self._deadline = self.loop.call_later(seconds, self._late, seconds)

    def _forget(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()

    def _late(self, seconds: float) -> None:
        if self._reading == "nothing" and self.timeout_keep_alive_task is not None:
            self._deadline = None  # an idle connection has its own clock
            return
        # We read nothing ourselves, or something was begun while the request before it is answered.
        if self.flow.read_paused or (self._answering() and self._reading != "body"):
            self._expect(self._reading, seconds)
        elif not self._heard or self._reading == "nothing":
            self.transport.close()
        else:
            self._refuse(408, f"slow_{self._reading}", f"the request's {self._reading} did not arrive in time")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._left = self._unread()
        self._stalled = self.loop.call_later(self.bounds.stall, self._stall)

    def resume_writing(self) -> None:
        self._forget(self._stalled)
        super().resume_writing()

    def _unread(self) -> int:
        """Bytes that the client has yet to take: ours, and those that the kernel has of us (tcp(7), SIOCOUTQ)."""
        left = self.transport.get_write_buffer_size()
        with contextlib.suppress(OSError, AttributeError):
            queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            left += int.from_bytes(queued, sys.byteorder)
        return left

    def _stall(self) -> None:
        left = self._unread()
        if left < self._left:  # slow, but it reads
            self._left = left
            self._stalled = self.loop.call_later(self.bounds.stall, self._stall)
            return
        # What is written to it would wait for ever, and the model with it.
        metrics.CUT_OFF.labels("stalled").inc()
        self.transport.abort()

    # ---- the parser's calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {asgi.LEFT: self._left_to}  # type: ignore[dict-item]
        self._head = 0
        self._expect("head", self.bounds.head)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        # What follows a body tells nothing that anybody reads.
        if self._reading == "head" and not self._refused:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_MAX:
            self._refuse(431, "large_head", "header fields are too large")

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        self._progress = True
        if self.parser.should_upgrade():
            return
        if self._ambiguous():
            raise ValueError  # the parser's callback: answered as malformed
        # First: it may find the target to be none.
        self._begin()
        self._expect("body", self.bounds.body)
        if len(self.pipeline) > _AHEAD:
            self._refuse(400, "pipelined", "too many requests ahead of their answers")

    def _begin(self) -> None:
        """An exchange: uvicorn's, with a cycle of ours. Raises what makes the target none."""
        parser, scope = self.parser, self.scope
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["raw_path"] = url.path
        scope["path"] = unquote(path) if "%" in path else path
        scope["query_string"] = url.query or b""
        before, self.cycle = self.cycle, Cycle(
            scope=scope, transport=self.transport, flow=self.flow, logger=self.logger, access_logger=self.access_logger, access_log=False,
            default_headers=self.server_state.default_headers, message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue, keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )  # fmt: skip
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _passed_over(self, rest: bytes) -> None:
        """Read the request again without its offer of another protocol, which nobody here speaks (RFC 9110, 7.8): the parser took what
        is behind the head for that protocol, and would read a body as the next request."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("")
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # as uvicorn has it: what is behind a close is not read
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _ambiguous(self) -> bool:
        """What the parser takes and RFC 9112 does not: 2.3 the version, 3.2 one Host, 6.1 a coding that nobody decodes."""
        version, names = self.parser.get_http_version(), [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if version not in ("1.0", "1.1") or hosts > 1 or (version == "1.1" and not hosts):
            return True
        if b"transfer-encoding" not in names:
            return False
        return [v.strip().lower() for name, v in self.headers if name == b"transfer-encoding"] != [b"chunked"]

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused or self.parser.should_upgrade():
            return
        self._progress = True
        self._forget(self._deadline)
        self._deadline, self._reading = None, "nothing"
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._serving = cycle
        ours = cycle.scope["path"].startswith(_OURS)
        chosen: Any = _overloaded if self._over and not ours else app
        super()._start_asgi_task(cycle, chosen)

    def on_response_complete(self) -> None:
        if self.expect_100_continue and self._reading == "body":
            # Answered before its body came: what comes next may be that body, or the next request (RFC 9110, 10.1.1).
            self._refused = True
            self.transport.close()
        super().on_response_complete()

    def _answering(self) -> bool:
        return self._serving is not None and not self._serving.response_complete

    def shutdown(self) -> None:
        super().shutdown()
        if self.flow.write_paused and self._answering():
            self.transport.abort()  # it has had its time, and reads nothing

    # ---- refusing

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "malformed", "this is no HTTP/1.1 request that can be read in one way only")

    def _refuse(self, status: int, reason: str, message: str) -> None:
        """Say why and close: at once, or when what came before is answered."""
        if self._refused:
            return
        self._refused = True
        metrics.CUT_OFF.labels(reason).inc()
        if self._answering() and (self.pipeline or self._reading != "body"):
            self.pipeline.clear()
            self._serving.keep_alive = False
            return
        if not self._answering() or not self._serving.response_started:
            code = {408: "request_timeout", 431: "head_too_large"}.get(status, "bad_request")
            body = strictjson.dumps(openai.error(message, code, None, status))
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


async def _overloaded(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
    """Too many connections: before anything of the request is looked at."""
    metrics.SHED.labels("connections").inc()
    error = openai.error(
        "this gateway has too many connections; send it again (服务繁忙，请稍后重试)", "overloaded", None, 503
    )
    await asgi.respond_json(send, 503, error, [(b"retry-after", b"1"), (b"connection", b"close")])
