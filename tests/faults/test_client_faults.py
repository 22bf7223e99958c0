"""Clients that come in crowds, send halves, read nothing or leave (F26 to F30 of the fault matrix)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.demo import speech
from app.demo.story import free_port
from tests.conftest import ROOT, Model, Whole, wait_for, whole_gateway
from tests.faults import crowd
from tests.faults.matrix import told, within
from tests.faults.test_store_faults import metric
from tests.integration.test_clients_that_leave import FILL, endless, request
from tests.integration.test_privacy import CANARY

MIB = 1 << 20


def port(whole: Whole) -> int:
    return int(whole.url.rsplit(":", 1)[1])


def resident(whole: Whole) -> int:
    """Bytes of all workers."""
    return sum(p.memory_info().rss for p in whole.workers())


def files(whole: Whole) -> int:
    return sum(p.num_fds() for p in whole.workers())


def health(whole: Whole) -> float:
    """The slowest of five looks, in seconds."""
    took = []
    with httpx.Client(timeout=10) as http:
        http.get(whole.ops + "/healthz")
        for _ in range(5):
            started = time.perf_counter()
            assert http.get(whole.ops + "/healthz").status_code == 200
            took.append(time.perf_counter() - started)
    return max(took)


@contextmanager
def silent_model() -> Iterator[str]:
    """A model whose streams fall silent."""
    at = free_port()
    with subprocess.Popen([sys.executable, "-m", "tests.faults.crowd", "model", str(at)], cwd=ROOT) as process:
        try:
            wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", at)) == 0, 20)
            yield f"http://127.0.0.1:{at}/v1"
        finally:
            process.kill()


class Crowd:
    """Idle clients in a process of their own."""

    def __init__(self, whole: Whole, number: int) -> None:
        command = [sys.executable, "-m", "tests.faults.crowd", "clients", whole.url, str(number)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.counts: dict[str, int] = json.loads(self.process.stdout.readline())

    def again(self) -> dict[str, int]:
        """How they fare now; then all of them leave."""
        out, _ = self.process.communicate("\n", 60)
        return dict(json.loads(out))


async def busy(whole: Whole, number: int, seconds: float) -> list[float]:
    """So many clients with one busy stream after the other: how late each delta came after the one before, beyond the model's own
    pause, and how late each answer was, in seconds."""
    late: list[float] = []
    over = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < over:
            reader, writer = await asyncio.open_connection("127.0.0.1", port(whole))
            started = time.perf_counter()
            writer.write(crowd.request("busy"))
            raw = b""
            while not raw.endswith(b"0\r\n\r\n"):
                data = await reader.read(1 << 16)
                assert data, raw[-300:]
                raw += data
            late.append(time.perf_counter() - started - crowd.DELTAS * crowd.PAUSE)
            assert b" 200 OK" in raw[:40] and b"[DONE]" in raw
            writer.close()

    await asyncio.gather(*[client() for _ in range(number)])
    return late


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


@pytest.mark.parametrize(
    ("idle", "streams", "seconds"),
    [(300, 8, 2.0), pytest.param(10_000, 64, 20.0, marks=[pytest.mark.long, pytest.mark.timeout(600)])],
)
def test_f26_idle_streams_by_the_thousand_leave_busy_ones_and_health_alone(
    tmp_path: Path, idle: int, streams: int, seconds: float
) -> None:
    quiet = {"UPSTREAM_IDLE_TIMEOUT": "600", "WORKERS": "2"}
    with silent_model() as url, whole_gateway(tmp_path / "gateway", url, **quiet) as whole:
        asyncio.run(busy(whole, streams, 1))
        before = resident(whole)
        alone = asyncio.run(busy(whole, streams, seconds))
        waiting = Crowd(whole, idle)
        assert waiting.counts == {"waiting": 0, "open": idle, "refused": 0, "broken": 0}
        each = (resident(whole) - before) / idle
        among = asyncio.run(busy(whole, streams, seconds))
        looked = health(whole)
        assert waiting.again() == waiting.counts, "no idle stream was broken off"
        assert looked < within(0.05)
        ratio = p99(among) / p99(alone)
        told(
            "F26", f"{idle} idle streams, {each / 1024:.1f} KiB each, and {streams} busy ones: their p99 is {p99(among) * 1000:.0f} ms "
            f"late, alone {p99(alone) * 1000:.0f} ms: {ratio:.2f} times; health in {looked * 1000:.1f} ms",
        )  # fmt: skip
        if idle > 1000:
            assert ratio < 1.5
        wait_for(lambda: metric(whole, "sluice_inflight") == 0, 20)
        assert whole.chat("busy").status_code in (200, 502), "taken again"


def test_f27_without_file_descriptors_what_can_be_served_is_and_the_rest_is_turned_away(tmp_path: Path) -> None:
    limited = ("prlimit", "--nofile=256:256")
    with silent_model() as url, whole_gateway(tmp_path / "gateway", url, *limited) as whole:
        (worker,) = whole.workers()
        waiting = Crowd(whole, 400)
        assert waiting.counts["open"] == 16 and waiting.counts["refused"] > 30, waiting.counts
        looked = health(whole)
        assert looked < within(0.05)
        answer = httpx.post(whole.url + "/v1/chat/completions", json={}, timeout=10)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "overloaded"
        shed, most = metric(whole, "sluice_shed_total"), worker.num_fds()
        assert shed >= waiting.counts["refused"] and most < 256
        now = waiting.again()
        assert now["open"] == 16
        told(
            "F27", f"256 file descriptors, 400 streams: 16 served to the end, {now['refused']} got a 503 with Retry-After, {now['broken']} "
            f"were closed unread; {most} descriptors in use; health in {looked * 1000:.1f} ms",
        )  # fmt: skip
        wait_for(lambda: metric(whole, "sluice_inflight") == 0)
        assert Crowd(whole, 10).again()["open"] == 10, "and who comes then is served"
        assert whole.workers()[0].pid == worker.pid and "Traceback" not in log(whole)


def log(whole: Whole) -> str:
    return (whole.folder / "log").read_text("utf-8")


def test_f28_clients_that_read_nothing_are_cut_off_and_cost_little(shared_model: Model, tmp_path: Path) -> None:
    api = speech.Chat()
    shared_model.script.stream = endless(api, FILL)
    with whole_gateway(tmp_path / "gateway", shared_model.url, CLIENT_STALL_TIMEOUT="1") as whole:
        whole.chat("你好")
        before = resident(whole)
        clients = [socket.socket() for _ in range(5)]
        started = time.monotonic()
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port(whole)))
            client.sendall(request(api))
        wait_for(lambda: metric(whole, 'sluice_cut_off_total{reason="stalled"}') == len(clients), within(40))
        took, cost = time.monotonic() - started, (resident(whole) - before) / len(clients)
        told("F28", f"5 clients that read nothing: all cut off within {took:.1f} s, at {cost / MIB:.2f} MiB each")
        assert cost < 8 * MIB
        for client in clients:
            client.close()
    shared_model.script.__init__()  # type: ignore[misc]


HALVES = {
    "slow_head": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-a: b",
    "slow_body": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{",
}


def answered(client: socket.socket) -> bytes:
    client.settimeout(30)
    got = b""
    try:
        while data := client.recv(1 << 16):
            got += data
    except ConnectionResetError:
        pass
    return got


def test_f29_halves_are_answered_408_at_their_deadline_and_great_heads_at_once(
    shared_model: Model, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    limits = {"CLIENT_HEADER_TIMEOUT": "1", "CLIENT_BODY_TIMEOUT": "1"}
    with whole_gateway(tmp_path / "gateway", shared_model.url, **limits) as whole:
        whole.chat("你好")
        before, times = resident(whole), {}
        for reason, half in HALVES.items():
            with subtests.test(reason=reason):
                clients = [socket.create_connection(("127.0.0.1", port(whole))) for _ in range(200)]
                started = time.monotonic()
                for client in clients:
                    client.sendall(half)
                assert whole.chat("还在吗").status_code == 200
                heads = {answered(client).split(b"\r\n")[0] for client in clients}
                times[reason] = time.monotonic() - started
                assert heads == {b"HTTP/1.1 408 Request Timeout"}
                assert 0.9 < times[reason] < within(2.5)
                assert metric(whole, f'sluice_cut_off_total{{reason="{reason}"}}') == 200
        for reason, more in {
            "no byte": b"",
            "a byte a time": b"P",
            "blank lines": b"\r\n" * 8,
        }.items():
            with subtests.test(reason=reason):
                with socket.create_connection(("127.0.0.1", port(whole))) as client:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        for byte in more:
                            client.sendall(bytes([byte]))
                            time.sleep(0.1)
                    assert answered(client)[:12] in (b"", b"HTTP/1.1 408")
        poured = 0
        for what in (
            b"GET / HTTP/1.1\r\n" + b"x-a: " + b"b" * 1000 + b"\r\n",
            b"GET /" + b"a" * 70_000,
            b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000,
        ):
            with subtests.test(head=what[:20]):
                with socket.create_connection(("127.0.0.1", port(whole))) as client:
                    try:
                        for n in range(2000):
                            client.sendall(what if not n else b"x-%d: " % n + b"b" * 1000 + b"\r\n")
                            poured += 1000
                    except OSError:
                        pass
                    assert answered(client)[:12] in (b"HTTP/1.1 431", b"")
        # Trailers without end, and a body whose pieces are all length and no bytes.
        chunked = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        for rest in (b"0\r\nx: " + b"y" * 1000, b"1;" + b"e" * 1000):
            with subtests.test(rest=rest[:4]):
                with socket.create_connection(("127.0.0.1", port(whole))) as client:
                    try:
                        client.sendall(chunked + rest)
                        for _ in range(2000):
                            client.sendall(b"z" * 1000)
                    except OSError:
                        pass
                    assert answered(client)[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"HTTP/1.1 408", b"")
        too_much = metric(whole, 'sluice_cut_off_total{reason="large_head"}')
        assert too_much == 5, "by their size, and not when their time was over"
        grown = resident(whole) - before
        assert grown < 20 * MIB
        assert whole.chat("还在吗").status_code == 200
        told(
            "F29", f"200 halves of a head answered 408 after {times['slow_head']:.2f} s, of a body after {times['slow_body']:.2f} s "
            f"(both limits 1 s); {too_much:.0f} of 5 without end cut off after 64 KiB; memory + {grown / MIB:.1f} MiB",
        )  # fmt: skip


@pytest.mark.parametrize("rounds", [30, pytest.param(400, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_f30_a_storm_of_clients_that_leave_costs_nothing_that_lasts(tmp_path: Path, rounds: int) -> None:
    with silent_model() as url, whole_gateway(tmp_path / "gateway", url) as whole:
        asyncio.run(busy(whole, 4, 0.5))
        before, memory = files(whole), resident(whole)

        async def storm() -> None:
            async def leave() -> None:
                _, writer = await asyncio.open_connection("127.0.0.1", port(whole))
                writer.write(crowd.request("idle"))
                await asyncio.sleep(0.02)
                writer.transport.abort()

            for _ in range(rounds):
                await asyncio.gather(*[leave() for _ in range(30)])

        asyncio.run(storm())
        wait_for(lambda: metric(whole, "sluice_inflight") == 0, 20)
        after = asyncio.run(busy(whole, 4, 0.5))
        assert after
        time.sleep(1)
        told(
            "F30", f"{rounds} times 30 clients left: {files(whole)} file descriptors, {before} before; memory + "
            f"{(resident(whole) - memory) / MIB:.1f} MiB; answers at once afterwards",
        )  # fmt: skip
        assert files(whole) < before + 20
        assert CANARY not in log(whole)


def test_an_answer_under_way_is_not_broken_off_for_what_its_client_sends_beside_it(
    shared_model: Model, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    api = speech.Chat()
    events = list(api.stream(list, speech.Answer("慢慢地说完这句话。")))
    shared_model.script.stream = [0.3, *(piece for event in events for piece in (event, 0.15))]
    flood = b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: z\r\n\r\n" * 2000
    with whole_gateway(tmp_path / "gateway", shared_model.url, CLIENT_HEADER_TIMEOUT="1") as whole:
        for beside in (
            b"GET /half", b"nonsense\r\n\r\n", b"\r\n\r\n", b"GET http://a:99999/ HTTP/1.1\r\nhost: x\r\n\r\n", b"GET http://a",
            flood, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 5000,
        ):  # fmt: skip
            for early in (True, False):
                with subtests.test(beside=beside[:20], early=early):
                    with socket.create_connection(("127.0.0.1", port(whole))) as client:
                        client.sendall(request(api))
                        got = b"" if early else client.recv(1 << 16)
                        with contextlib.suppress(OSError):
                            client.sendall(beside)
                        got += answered(client)
                        assert got.startswith(b"HTTP/1.1 200 OK") and b"[DONE]" in got, got[-200:]
        assert "Traceback" not in log(whole) and "Fatal" not in log(whole)
    shared_model.script.__init__()  # type: ignore[misc]


def test_requests_poured_out_over_one_connection_cost_nobody_else_anything(shared_model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "gateway", shared_model.url) as whole:
        whole.chat("你好")
        before = resident(whole)
        with socket.create_connection(("127.0.0.1", port(whole))) as client:
            client.settimeout(5)
            with contextlib.suppress(OSError):
                for _ in range(200):
                    client.sendall(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
            assert whole.chat("你好").status_code == 200
        assert resident(whole) - before < 20 * MIB
        assert metric(whole, 'sluice_cut_off_total{reason="pipelined"}') == 1
        # A few ahead are answered all.
        with socket.create_connection(("127.0.0.1", port(whole))) as client:
            client.sendall(
                b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n" * 9 + b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            assert answered(client).count(b"HTTP/1.1 404") == 10


def test_an_idle_connection_lasts_as_long_after_a_long_answer_as_after_a_short_one(
    shared_model: Model, tmp_path: Path
) -> None:
    shared_model.script.before = lambda body: time.sleep(1.9)
    ask = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(ask)
    with whole_gateway(tmp_path / "gateway", shared_model.url, CLIENT_HEADER_TIMEOUT="2") as whole:
        with socket.create_connection(("127.0.0.1", port(whole))) as client:
            client.settimeout(10)
            for pause in (3, 0):
                client.sendall(head + ask)
                got = b""
                while not got.endswith(b"}}}"):
                    data = client.recv(1 << 16)
                    assert data, got
                    got += data
                assert b" 200 OK" in got
                time.sleep(pause)
    shared_model.script.__init__()  # type: ignore[misc]


@pytest.mark.long
def test_a_client_that_reads_steadily_is_not_taken_for_one_that_reads_nothing(
    shared_model: Model, tmp_path: Path
) -> None:
    text = "好" * 1_500_000
    shared_model.script.chat(text)
    ask = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
        ask
    )
    limits = {"CLIENT_STALL_TIMEOUT": "3", "ANSWER_MAX_CHARACTERS": "2000000"}
    with whole_gateway(tmp_path / "gateway", shared_model.url, **limits) as whole:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", port(whole)))
        client.sendall(head + ask)
        got = bytearray()
        while data := client.recv(1 << 14):
            got += data
            time.sleep(0.02)
        assert got.decode().count("好") == 1_500_000
    shared_model.script.__init__()  # type: ignore[misc]


def test_reports_are_taken_where_chats_are_turned_away(tmp_path: Path) -> None:
    with silent_model() as url, whole_gateway(tmp_path / "gateway", url, "prlimit", "--nofile=256:256") as whole:
        waiting = Crowd(whole, 20)
        assert waiting.counts["open"] == 16
        assert whole.chat("你好").status_code == 503
        text = "这是一段随便写的话，只为了看看人多的时候会不会被记下来。"
        assert httpx.post(whole.url + "/sluice/v1/reports", json={"text": text}, timeout=10).status_code == 202
        waiting.again()
