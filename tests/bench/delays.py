"""`python -m tests.bench.delays`: what a reader of a stream waits for, in both modes, beside a bare pass-through.

A model sends a delta every so many milliseconds; for every character the delay is the time from its sending to its arrival. Model and
client share a process, and so a clock, on one core; the target runs on the other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import orjson

from app.demo.story import free_port
from tests.bench.__main__ import Target, pin, served
from tests.bench.matching import Row, table
from tests.bench.model import CHARS, TEXT

_HEAD = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
_MODELS = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n{"object":"list","data":[]}'


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    data = (
        b"data: " + orjson.dumps(_HEAD | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + b"\n\n"
    )
    return b"%x\r\n%s\r\n" % (len(data), data)


class Model(asyncio.Protocol):
    """A model that knows when it sent what: `sent[id]` is the time of every delta."""

    sent: dict[str, list[float]] = {}  # noqa: RUF012
    pause = 0.01

    def connection_made(self, transport: Any) -> None:
        self.transport, self.body = transport, b""

    def data_received(self, data: bytes) -> None:
        self.body += data
        head, _, rest = self.body.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if head.startswith(b"GET"):
            self.transport.write(_MODELS)
            self.body = b""
        elif length is not None and len(rest) >= int(length[1]):
            asked = orjson.loads(rest)["messages"][-1]["content"]
            self.body = b""
            self.task = asyncio.get_running_loop().create_task(self._answer(asked.rsplit(" ", 1)[1]))

    async def _answer(self, id: str) -> None:
        times = self.sent[id] = []
        write = self.transport.write
        write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        write(_event({"role": "assistant", "content": ""}))
        for at in range(0, len(TEXT), CHARS):
            await asyncio.sleep(self.pause)
            times.append(time.perf_counter())
            write(_event({"content": TEXT[at : at + CHARS]}))
        done = b"data: [DONE]\n\n"
        write(_event({}, "stop") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done))


class _Client(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[list[tuple[float, int]]]:
        self.parser, self.rest, self.seen, self.arrived = httptools.HttpResponseParser(self), b"", 0, []
        self.done: asyncio.Future[list[tuple[float, int]]] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.now = time.perf_counter()
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        *events, self.rest = (self.rest + body).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: {"):
                for choice in orjson.loads(event[6:])["choices"]:
                    if text := choice["delta"].get("content"):
                        self.seen += len(text)
                        self.arrived.append((self.now, self.seen))

    def on_message_complete(self) -> None:
        self.done.set_result(self.arrived)


async def _run(url: str, streams: int, connections: int) -> tuple[list[float], list[float]]:
    """(seconds to the first text, from the request), (seconds of delay of every character)."""
    place = urlsplit(url)
    firsts, delays = [], []
    loop = asyncio.get_running_loop()

    async def client(number: int) -> None:
        _, connection = await loop.create_connection(_Client, place.hostname, place.port)
        for n in range(streams):
            id = f"{number}-{n}-{time.perf_counter()}"
            asked = {"role": "user", "content": f"请写一段 {id}"}
            body = orjson.dumps({"model": "bench", "stream": True, "messages": [asked]})
            head = f"POST {place.path}/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            began = time.perf_counter()
            arrived = await connection.ask(head.encode() + body)
            sent = Model.sent.pop(id)
            assert arrived[-1][1] == len(TEXT), "an answer is not what the model sent"
            firsts.append(arrived[0][0] - began - Model.pause)
            at = 0
            for now, until in arrived:
                delays.extend(now - sent[i // CHARS] for i in range(at, until))
                at = until
        connection.transport.close()

    await asyncio.gather(*[client(i) for i in range(connections)])
    return firsts, delays


def _targets(stack: ExitStack, folder: Path, base: str) -> list[Target]:
    port, pid = served(stack, "tests.bench.passthrough:app", "/v1/models", BENCH_UPSTREAM=base, BENCH_PARSE="1")
    targets = [Target("pass-through, parsing", f"http://127.0.0.1:{port}/v1", pid)]
    clean = {f"SLUICE_{name}": "" for name in ("REDIS_URL", "POLICY", "APPS")}
    for name, mode in (
        ("Sluice, no scorer", ""),
        ("Sluice with a scorer, prompt", "prompt"),
        ("Sluice with a scorer, strict", "strict"),
    ):
        env = clean | {"SLUICE_UPSTREAM_URL": f"{base}/v1", "SLUICE_DATA_DIR": str(folder / (mode or "none"))}
        if mode:
            env["SLUICE_POLICY"] = str(folder / f"{mode}.yaml")
            Path(env["SLUICE_POLICY"]).write_text(f"stream: {{mode: {mode}}}\n")
        app = "tests.bench.scored:app" if mode else "tests.bench.unscored:app"
        port, pid = served(stack, app, "/v1/models", **env)
        targets.append(Target(name, f"http://127.0.0.1:{port}/v1", pid))
    return targets


async def _measure(rounds: int, streams: int, connections: int) -> list[Row]:
    loop = asyncio.get_running_loop()
    port = free_port()
    await loop.create_server(Model, "127.0.0.1", port)
    figures: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, ExitStack() as stack:
        targets = await asyncio.to_thread(_targets, stack, Path(folder), f"http://127.0.0.1:{port}")
        for target in targets:
            pin(target.pid, 0)
        os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
        for n in range(rounds + 1):
            for target in targets if n % 2 else reversed(targets):
                firsts, delays = await _run(target.url, streams, connections)
                if n:
                    figures[target.name][0].extend(firsts)
                    figures[target.name][1].extend(delays)
        rows: list[Row] = []
        for target in targets:
            firsts, delays = ([1000 * t for t in times] for times in figures[target.name])
            first, delay = statistics.quantiles(firsts, n=100), statistics.quantiles(delays, n=100)
            rows.append(
                {
                    "target": target.name,
                    "first text p50 ms": first[49],
                    "first text p99 ms": first[98],
                    "delay mean ms": statistics.mean(delays),
                    "delay p50 ms": delay[49],
                    "delay p95 ms": delay[94],
                    "delay p99 ms": delay[98],
                }
            )
        for row in rows:
            for name in ("first text p50 ms", "delay mean ms", "delay p50 ms"):
                row[name.replace(" ms", " ratio")] = row[name] / rows[0][name]
        return rows


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--streams", type=int, default=10, help="per connection and round")
    p.add_argument("--connections", type=int, default=1)
    p.add_argument("--pause", type=float, default=0.01, help="seconds between deltas")
    args = p.parse_args()
    Model.pause = args.pause
    rows = asyncio.run(_measure(args.rounds, args.streams, args.connections))
    table(f"A delta of {CHARS} characters every {args.pause * 1000:.0f} ms, {args.connections} at a time", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
