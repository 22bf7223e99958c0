"""The client towards the model, on real sockets: what goes out, what is taken for an answer, what is not, and when."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from app.errors import UpstreamError
from app.outbound import Outbound, Reply, Target, target

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Awaitable[Any]], Any]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def ran(coroutine: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)

    return ran


class Server:
    """Answers every connection by a function. `asked`: the requests, raw; `met`, `left`: connections that came, and that ended."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[bytes] = []
        self.met = self.left = self.port = 0

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """The next request. Raises IncompleteReadError where there is none."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        self.asked.append(head + await reader.readexactly(int(length or 0)))
        return self.asked[-1]

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.left += 1

    def target(self, path: str = "/v1/x", host: str = "127.0.0.1", scheme: str = "http") -> Target:
        return target(f"{scheme}://{host}:{self.port}{path}")


@asynccontextmanager
async def serving(answer: Answer | bytes, *, close: bool = False, tls: Any = None) -> AsyncIterator[Server]:
    """bytes: said to every request. `close`: and then closed."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.request(reader)
            assert isinstance(answer, bytes)
            writer.write(answer)
            if close:
                return

    server = Server(say if isinstance(answer, bytes) else answer)
    listener = await asyncio.start_server(server.meet, "127.0.0.1", 0, ssl=tls, backlog=1000)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def client(connect: float = 2.0, first: float = 2.0, idle: float = 2.0) -> AsyncIterator[Outbound]:
    outbound = Outbound(connect, first, idle)
    await outbound.start()
    try:
        yield outbound
    finally:
        await outbound.close()


async def ask(outbound: Outbound, to: Target, method: str = "POST", body: bytes | None = b"{}") -> tuple[int, bytes]:
    reply = await outbound.open(method, to, {}, body if method == "POST" else None)
    try:
        return reply.status, await reply.read(1 << 26)
    finally:
        reply.close()


async def fault(asking: Awaitable[Any]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await asking
    return caught.value


async def until(true: Callable[[], bool], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


# ---- what goes out


def test_a_request_is_what_it_should_be_and_no_more(run: Run) -> None:
    async def main() -> None:
        async with serving(OK) as server, client() as outbound:
            reply = await outbound.open("POST", server.target("/v1/对 话?a=b c&d=%20"), {"X-Key": "值"}, b"{}")
            assert await reply.read(2) == b"ok"
            await ask(outbound, server.target(), "GET")
            assert server.asked[0] == (
                f"POST /v1/%E5%AF%B9%20%E8%AF%9D?a=b%20c&d=%20 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
                "Accept-Encoding: identity\r\nX-Key: 值\r\nContent-Length: 2\r\n\r\n{}".encode()
            )
            assert b"ontent" not in server.asked[1]
            assert server.met == 1

    run(main())


def test_a_url_is_read_once_and_a_wrong_one_is_refused_without_being_repeated() -> None:
    at = {
        url: target(url).head.split("\r\n")[1]
        for url in ("http://a.example", "https://a.example:443/x", "https://a.example:80", "http://[::1]:9")
    }
    assert list(at.values()) == ["Host: a.example", "Host: a.example", "Host: a.example:80", "Host: [::1]:9"]
    assert target("http://a.example#x").head.startswith("/ HTTP/1.1")
    assert target("http://例子.example").host == "xn--fsqu00a.example"
    assert "Authorization: Basic dTpwQA==" in target("http://u:p%40@a.example").head
    for url in (
        "ftp://secret.example",
        "http://",
        "secret",
        "http://secret.example:0",
        "http://secret.example:99999",
        "",
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            target(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\r\n", "\ud800"])
def test_a_header_that_would_be_more_than_one_line_is_never_sent(run: Run, value: str) -> None:
    async def main() -> None:
        async with serving(OK) as server, client() as outbound:
            for headers in ({"X-A": value}, {value: "x"}):
                error = await fault(outbound.open("POST", server.target(), headers, b"{}"))
                assert (error.code, error.message) == ("upstream_reset", "the model broke off")
            assert not server.met

    run(main())


def test_a_large_body_arrives_whole_at_a_server_that_reads_slowly(run: Run) -> None:
    body = random.Random(1).randbytes(8 << 20)

    async def main() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.3)
            await server.request(reader)
            writer.write(OK)
            await server.request(reader)
            writer.write(OK)

        async with serving(slow) as server, client() as outbound:
            for _ in range(2):
                assert await ask(outbound, server.target(), body=body) == (200, b"ok")
                assert server.asked.pop().endswith(body)
            assert server.met == 1

    run(main())


def test_an_answer_that_comes_before_the_body_is_read_is_an_answer_and_the_connection_is_not_used_again(
    run: Run,
) -> None:
    async def main() -> None:
        async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK.replace(b"200 OK", b"413 Too Large"))
            await asyncio.sleep(0.5)

        async with serving(early) as server, client() as outbound:
            for met in (1, 2):
                assert await ask(outbound, server.target(), body=bytes(32 << 20)) == (413, b"ok")
                assert server.met == met

    run(main())


# ---- what is an answer


GOOD: dict[str, tuple[bytes, str, int, bytes, bool]] = {
    # raw, method, status, body, whether the connection is used again
    "length": (OK, "POST", 200, b"ok", True),
    "nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "POST", 200, b"", True),
    "chunks": (CHUNKED + b"1\r\no\r\n1;a=b\r\nk\r\n0\r\nX-Trailer: y\r\n\r\n", "POST", 200, b"ok", True),
    "until it closes": (b"HTTP/1.1 200 OK\r\n\r\nok", "POST", 200, b"ok", False),
    "of old": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "POST", 200, b"ok", False),
    "told to close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "POST", 200, b"ok", False),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "POST", 204, b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET", 304, b"", True),
    "HEAD": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD", 200, b"", False),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "POST", 302, b"", True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n" + OK, "POST", 200, b"ok", True
    ),
    "two answers": (OK + OK.replace(b"ok", b"no"), "POST", 200, b"ok", False),
    "an answer and more": (OK + b"HT", "POST", 200, b"ok", False),
}  # fmt: skip


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", GOOD)
def test_an_answer_is_read_as_rfc_9112_says(run: Run, name: str, cut: bool) -> None:
    raw, method, status, body, again = GOOD[name]

    async def main() -> None:
        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.request(reader)
                for part in [bytes((b,)) for b in raw] if cut else [raw]:
                    writer.write(part)
                    if cut:
                        await asyncio.sleep(0)
                if name == "until it closes":
                    return

        async with serving(say) as server, client() as outbound:
            for _ in range(2):
                assert await ask(outbound, server.target(), method) == (status, body)
                if cut and not again:
                    await asyncio.sleep(0.05)
            assert server.met == (1 if again else 2)

    run(main())


BAD: dict[str, bytes] = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-none\r\n",
    "a head cut short": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding nobody decodes": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a change of protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes",
    "a body cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
    "a chunk cut short": CHUNKED + b"5\r\n{",
    "chunks without an end": CHUNKED + b"1\r\n{\r\n",
    "a chunk that is none": CHUNKED + b"x\r\n{\r\n0\r\n\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "a header without an end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    "interim answers without an end": b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
    "an extension without an end": CHUNKED + b"1;" + b"x" * 600_000,
    "trailers without an end": CHUNKED + b"1\r\n{\r\n0\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_answer_breaks_off(run: Run, name: str) -> None:
    async def main() -> None:
        async with serving(BAD[name], close=True) as server, client() as outbound:
            error = await fault(ask(outbound, server.target()))
            assert (error.code, error.status) == ("upstream_reset", 502)
            assert error.message in ("the model broke off", "the model broke off its answer")
            assert len(server.asked) == 1

    run(main())


def test_what_came_before_a_break_is_handed_over_first(run: Run) -> None:
    async def main() -> None:
        async with serving(CHUNKED + b"2\r\nok\r\n", close=True) as server, client() as outbound:
            reply = await outbound.open("POST", server.target(), {}, b"{}")
            await until(lambda: server.left == 1)
            await asyncio.sleep(0.05)
            got = reply.chunks()
            assert await anext(got) == b"ok"
            assert (await fault(anext(got))).code == "upstream_reset"

    run(main())


def test_headers_are_read_by_small_letters_and_several_are_joined(run: Run) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-TYPE:  text/x \t\r\nX-A: 1\r\nx-a: 2\r\nX-B: \xe9\r\nContent-Length: 0\r\n\r\n"

    async def main() -> None:
        async with serving(raw) as server, client() as outbound:
            reply = await outbound.open("POST", server.target(), {}, b"{}")
            assert dict(reply.headers) == {"content-type": "text/x", "x-a": "1, 2", "x-b": "é", "content-length": "0"}

    run(main())


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_a_coding_of_the_content_that_nobody_asked_for_is_refused(run: Run, coding: str) -> None:
    raw = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 2\r\n\r\nok".encode()

    async def main() -> None:
        async with serving(raw) as server, client() as outbound:
            assert (await fault(ask(outbound, server.target()))).code == "upstream_protocol_error"
            await until(lambda: server.left == 1)

    run(main())


def test_an_answer_that_is_larger_than_the_reader_takes_is_refused(run: Run) -> None:
    async def main() -> None:
        async with serving(OK) as server, client() as outbound:
            reply = await outbound.open("POST", server.target(), {}, b"{}")
            error = await fault(reply.read(1))
            assert (error.code, error.message) == (
                "upstream_protocol_error",
                "the model's answer is larger than 1 bytes",
            )

    run(main())


# ---- connections


def test_a_connection_serves_one_request_after_the_other_and_many_serve_many(run: Run) -> None:
    async def main() -> None:
        async with serving(OK) as server, client() as outbound:
            for _ in range(50):
                assert await ask(outbound, server.target()) == (200, b"ok")
            assert server.met == 1
            assert await asyncio.gather(*(ask(outbound, server.target()) for _ in range(200))) == [(200, b"ok")] * 200
            assert server.met == 200
            assert await asyncio.gather(*(ask(outbound, server.target()) for _ in range(200))) == [(200, b"ok")] * 200
            assert server.met == 200

    run(main())


def test_a_connection_that_nobody_uses_is_closed_after_a_while(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.outbound._KEPT", 0.2)

    async def main() -> None:
        async with serving(OK) as server, client() as outbound:
            for _ in range(5):
                await ask(outbound, server.target())
                await asyncio.sleep(0.1)
            assert (server.met, server.left) == (1, 0)
            await until(lambda: server.left == 1, 0.5)
            assert await ask(outbound, server.target()) == (200, b"ok")

    run(main())


def test_a_connection_that_the_server_closed_while_it_was_idle_fails_no_request(run: Run) -> None:
    async def main() -> None:
        async with serving(OK, close=True) as server, client() as outbound:
            for met in range(1, 6):
                assert await ask(outbound, server.target()) == (200, b"ok")
                await until(lambda: server.left == met)  # noqa: B023
            assert server.met == 5

    run(main())


def test_an_end_that_the_event_loop_has_not_seen_yet_is_seen(run: Run) -> None:
    closed = threading.Event()

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(OK)
                time.sleep(0.1)
            closed.set()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
            to = target(f"http://127.0.0.1:{listener.getsockname()[1]}/")
            async with client() as outbound:
                for _ in range(3):
                    closed.clear()
                    assert await ask(outbound, to) == (200, b"ok")
                    closed.wait()  # and the loop with it
                    time.sleep(0.02)  # noqa: ASYNC251
            listener.shutdown(socket.SHUT_RDWR)

    run(main())


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("HEAD", True), ("POST", False)])
def test_a_request_that_a_used_connection_lost_is_sent_again_only_where_that_changes_nothing(
    run: Run, method: str, again: bool
) -> None:
    async def main() -> None:
        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            if not lost:
                return
            writer.write(OK if method != "HEAD" else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await server.request(reader)  # and closes on it

        lost = [True]
        async with serving(once) as server, client() as outbound:
            first = await ask(outbound, server.target(), method)
            if again:
                assert await ask(outbound, server.target(), method) == first
                assert (len(server.asked), server.met) == (3, 2)
            else:
                assert (await fault(ask(outbound, server.target(), method))).code == "upstream_reset"
                assert (len(server.asked), server.met) == (2, 1)
            lost.clear()
            server.asked.clear()
            await outbound.close()
            await outbound.start()
            # On a new connection: that is no accident.
            assert (await fault(ask(outbound, server.target(), method))).code == "upstream_reset"
            assert len(server.asked) == 1

    run(main())


def test_a_request_of_which_some_answer_came_is_not_sent_again(run: Run) -> None:
    async def main() -> None:
        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(OK)
            await server.request(reader)
            writer.write(b"HTTP/1.1 2")

        async with serving(half) as server, client() as outbound:
            assert await ask(outbound, server.target(), "GET") == (200, b"ok")
            assert (await fault(ask(outbound, server.target(), "GET"))).code == "upstream_reset"
            assert (len(server.asked), server.met) == (2, 1)

    run(main())


def test_bytes_that_nobody_asked_for_are_nobodys_answer(run: Run) -> None:
    async def main() -> None:
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(OK)
            await asyncio.sleep(0.05)
            writer.write(OK.replace(b"ok", b"no"))
            await server.request(reader)

        async with serving(forward) as server, client() as outbound:
            assert await ask(outbound, server.target()) == (200, b"ok")
            await until(lambda: server.left == 1)
            assert await ask(outbound, server.target()) == (200, b"ok")
            assert (len(server.asked), server.met) == (2, 2)

    run(main())


def test_closing_before_the_end_is_seen_by_the_server_at_once(run: Run) -> None:
    async def main() -> None:
        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(CHUNKED + b"2\r\nok\r\n")
            await reader.read()

        async with serving(stream) as server, client() as outbound:
            reply = await outbound.open("POST", server.target(), {}, b"{}")
            assert await anext(reply.chunks()) == b"ok"
            reply.close()
            reply.close()
            await until(lambda: server.left == 1, 0.5)

    run(main())


def test_an_end_that_comes_a_moment_later_is_waited_for_and_no_longer(run: Run) -> None:
    async def main() -> None:
        wait = 0.01

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.request(reader)
                writer.write(CHUNKED + b"2\r\nok\r\n")
                await asyncio.sleep(wait)
                writer.write(b"0\r\n\r\n")

        async with serving(stream) as server, client() as outbound:
            for met, seconds in ((1, 0.01), (1, 0.5), (2, 0.01)):
                wait = seconds
                reply = await outbound.open("POST", server.target(), {}, b"{}")
                assert await anext(reply.chunks()) == b"ok"
                began = time.monotonic()
                await reply.drain()
                assert time.monotonic() - began < 0.3
                reply.close()
                await reply.drain()
                assert server.met == met

    run(main())


def test_an_answer_that_is_over_gives_its_connection_back_before_it_is_closed(run: Run) -> None:
    async def main() -> None:
        async with serving(OK) as server, client() as outbound:
            replies: list[Reply] = []
            for _ in range(5):
                replies.append(await outbound.open("POST", server.target(), {}, b"{}"))
                assert await replies[-1].read(2) == b"ok"
            for reply in replies:
                reply.close()
            assert await ask(outbound, server.target()) == (200, b"ok")
            assert server.met == 1

    run(main())


def test_closing_the_door_ends_what_is_under_way(run: Run) -> None:
    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            await reader.read()

        async with serving(silent) as server, client() as outbound:
            asking = asyncio.create_task(ask(outbound, server.target()))
            await until(lambda: len(server.asked) == 1)
            await outbound.close()
            assert (await fault(asking)).code == "upstream_reset"
            await until(lambda: server.left == 1)

    run(main())


def test_clients_that_leave_at_any_moment_leave_nothing_behind(run: Run) -> None:
    chance = random.Random(7)

    async def main() -> None:
        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.request(reader)
                await asyncio.sleep(0.002)
                writer.write(CHUNKED)
                for _ in range(5):
                    writer.write(b"2\r\nok\r\n")
                    await asyncio.sleep(0.002)
                writer.write(b"0\r\n\r\n")

        async with serving(stream) as server, client(5.0, 10.0, 10.0) as outbound:
            for _ in range(10):
                asking = [asyncio.create_task(ask(outbound, server.target())) for _ in range(50)]
                for task in asking:
                    asyncio.get_running_loop().call_later(chance.random() * 0.06, task.cancel)
                for outcome in await asyncio.gather(*asking, return_exceptions=True):
                    assert outcome == (200, b"ok" * 5) or isinstance(outcome, asyncio.CancelledError)
            assert await asyncio.gather(*(ask(outbound, server.target()) for _ in range(50))) == [(200, b"ok" * 5)] * 50
            before = server.met
            assert await asyncio.gather(*(ask(outbound, server.target()) for _ in range(50))) == [(200, b"ok" * 5)] * 50
            assert server.met == before, "all are in the pool"
            await outbound.close()
            await until(lambda: server.left == server.met)

    run(main())


# ---- times and sizes


def test_a_server_that_says_nothing_is_late(run: Run) -> None:
    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with serving(silent) as server, client(first=0.2, idle=5.0) as outbound:
            began = time.monotonic()
            error = await fault(ask(outbound, server.target()))
            assert (error.code, error.status, error.message) == (
                "upstream_timeout",
                504,
                "the model did not answer in time",
            )
            assert 0.15 < time.monotonic() - began < 1.0
            await until(lambda: server.left == 1)

    run(main())


def test_a_head_that_comes_drop_by_drop_is_late_all_the_same(run: Run) -> None:
    async def main() -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
                writer.write(bytes((byte,)))
                await asyncio.sleep(0.02)

        async with serving(drip) as server, client(first=0.3) as outbound:
            assert (await fault(ask(outbound, server.target()))).code == "upstream_timeout"

    run(main())


def test_until_the_first_byte_one_limit_holds_and_then_the_other(run: Run) -> None:
    async def main() -> None:
        pauses: list[float] = []

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.request(reader)
                writer.write(CHUNKED)
                for pause in pauses:
                    await asyncio.sleep(pause)
                    writer.write(b"2\r\nok\r\n")
                writer.write(b"0\r\n\r\n")

        async with serving(stream) as server, client(first=0.6, idle=0.2) as outbound:
            for good in ([0.4, 0.1], [0.1] * 6):
                pauses = good
                assert await ask(outbound, server.target()) == (200, b"ok" * len(good))
            assert server.met == 1
            for bad in ([0.9], [0.1, 0.4]):
                pauses = bad
                error = await fault(ask(outbound, server.target()))
                assert (error.code, error.status, error.message) == ("upstream_timeout", 504, "the model fell silent")
        async with serving(stream) as server, client(first=0.2, idle=0.6) as outbound:
            pauses = [0.1, 0.4]
            assert await ask(outbound, server.target()) == (200, b"okok")
            pauses = [0.4]
            assert (await fault(ask(outbound, server.target()))).code == "upstream_timeout"

    run(main())


def test_a_reader_that_takes_its_time_holds_the_server_back_and_is_no_silence_of_the_server(run: Run) -> None:
    size = 48 << 20

    async def main() -> None:
        sent = 0

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await server.request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size >> 16):
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16

        async with serving(pour) as server, client(idle=0.2) as outbound:
            reply = await outbound.open("POST", server.target(), {}, b"{}")
            await asyncio.sleep(0.6)
            assert sent < size / 2
            largest = got = 0
            async for chunk in reply.chunks():
                largest, got = max(largest, len(chunk)), got + len(chunk)
            assert got == size
            assert largest < 1 << 20

    run(main())


def test_what_came_since_the_last_time_is_handed_over_at_once(run: Run) -> None:
    async def main() -> None:
        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.request(reader)
            writer.write(CHUNKED)
            for _ in range(20):
                writer.write(b"2\r\nok\r\n")
                await asyncio.sleep(0.001)
            await reader.read()

        async with serving(stream) as server, client() as outbound:
            reply = await outbound.open("POST", server.target(), {}, b"{}")
            await asyncio.sleep(0.3)
            assert await anext(reply.chunks()) == b"ok" * 20
            reply.close()

    run(main())


# ---- where it connects to


def test_nobody_there_is_said_to_be_unreachable(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        async with client() as outbound:
            for host in ("127.0.0.1", "localhost", "no-such-name.invalid", "a" * 70):
                error = await fault(ask(outbound, target(f"http://{host}:{port}/")))
                assert (error.code, error.status, error.message) == (
                    "upstream_unreachable",
                    502,
                    "the model cannot be reached",
                )

    run(main())


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "2852039166", "0xa9.254.43518", "0.0.0.0", "0", "[fe80::1]", "[::ffff:169.254.169.254]", "224.0.0.1",
        "[fd00:ec2::254]",
    ],
)  # fmt: skip
def test_an_address_that_nobody_means_is_never_connected_to_whatever_it_is_called(run: Run, host: str) -> None:
    async def main() -> None:
        async with client() as outbound:
            error = await fault(ask(outbound, target(f"http://{host}:80/")))
            assert error.code == "upstream_unreachable"
            assert error.message == "the model's address is of a forbidden kind"

    run(main())


class Names(asyncio.SelectorEventLoop):
    """A loop with a name service of its own: every name stands for `addresses`, `asked` times so far."""

    addresses: tuple[str, ...] = ()
    asked = 0

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


def test_every_address_of_a_name_is_tried_and_one_that_is_forbidden_forbids_all() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Names)
        async with serving(OK) as server, client() as outbound:
            loop.addresses = "127.0.0.3", "127.0.0.2", "127.0.0.1"
            assert await ask(outbound, server.target(host="model.example")) == (200, b"ok")
            assert loop.asked == 1, "what was looked at is what is connected to"
            assert f"Host: model.example:{server.port}".encode() in server.asked[0]
            loop.addresses = "127.0.0.1", "169.254.169.254"
            assert (await fault(ask(outbound, server.target(host="other.example")))).code == "upstream_unreachable"
            assert server.met == 1

    with asyncio.Runner(loop_factory=Names) as runner:
        runner.run(main())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of localhost, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


def test_tls_is_verified_by_name_and_chain(run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def main() -> None:
        async with serving(OK, tls=context) as server:
            async with client() as outbound:
                error = await fault(ask(outbound, server.target(host="localhost", scheme="https")))
                assert (error.code, error.message) == ("upstream_unreachable", "the model cannot be reached")
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            async with client() as outbound:
                for _ in range(20):
                    assert await ask(
                        outbound, server.target(host="localhost", scheme="https"), body=bytes(200_000)
                    ) == (200, b"ok")
                error = await fault(ask(outbound, server.target(host="127.0.0.1", scheme="https")))
                assert error.code == "upstream_unreachable"
            assert (len(server.asked), server.met) == (20, 1)

    run(main())


def test_a_handshake_that_never_ends_counts_as_connecting_and_leaves_nothing(run: Run) -> None:
    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1 << 16):
                pass

        async with serving(silent) as server, client(connect=0.5) as outbound:
            error = await fault(ask(outbound, server.target(scheme="https")))
            assert (error.code, error.status, error.message) == (
                "upstream_unreachable",
                502,
                "the model cannot be reached in time",
            )
            await until(lambda: server.left == server.met == 1)
            asking = asyncio.create_task(ask(outbound, server.target(scheme="https")))
            await until(lambda: server.met == 2)
            asking.cancel()
            await until(lambda: server.left == 2)

    run(main())
