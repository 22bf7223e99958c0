"""`scripts/soak [MINUTES]`: a gateway under 70% of what it can carry, for half an hour: no memory or file descriptor that is not given
back, and no error.

The load is a mix: plain and streamed chats, prompts that are refused, clients that leave in mid-stream, bodies that are no JSON, reports,
entries that come and go. First as many at once as get through, to know what 100% is; then paced.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil

from app.demo.story import free_port, running
from tests.bench.load import _Client
from tests.conftest import WORD, Whole, wait_for, whole_gateway

CLIENTS = 16
SHARE = 0.7
WARM = 0.25
"""Of the time, that is not looked at: caches fill."""
_MIX = ("plain", "stream", "plain", "stream", "plain", "refused", "stream", "leaves", "plain", "nonsense")
EXPECTED = {"plain": 200, "stream": 200, "refused": 200, "leaves": 200, "nonsense": 400, "report": 202, "entry": 201}


def _request(kind: str, n: int) -> bytes:
    said = f"第{n}个问题，请写一段春天的文字。{WORD if kind == 'refused' else ''}"
    asked = {"model": "bench", "stream": kind in ("stream", "leaves"), "messages": [{"role": "user", "content": said}]}
    body = b"{nonsense" if kind == "nonsense" else orjson.dumps(asked)
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    return head % len(body) + body


class Soak:
    def __init__(self, whole: Whole) -> None:
        self.whole = whole
        self.port = int(whole.url.rsplit(":", 1)[1])
        self.done: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.took: list[float] = []
        self.samples: list[tuple[float, dict[str, tuple[int, int]]]] = []
        self._numbers = itertools.count()

    # ---- the load

    async def _connect(self) -> _Client:
        _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", self.port)
        return client

    async def _client(self, seconds: float, each: float) -> None:
        """One client; `each`: seconds from one request to the next, 0 for none."""
        loop = asyncio.get_running_loop()
        end, due = loop.time() + seconds, loop.time()
        client = await self._connect()
        while loop.time() < end:
            n = next(self._numbers)
            kind = _MIX[n % len(_MIX)]
            started = time.perf_counter()
            try:
                if kind == "leaves":
                    leaving = await self._connect()
                    asking = asyncio.ensure_future(leaving.ask(_request(kind, n)))
                    await asyncio.sleep(0.005)
                    leaving.transport.abort()
                    await asyncio.gather(asking, return_exceptions=True)
                else:
                    await asyncio.wait_for(client.ask(_request(kind, n)), 30)
                    if client.parser.get_status_code() != EXPECTED[kind]:
                        self.wrong[f"{kind}: {client.parser.get_status_code()}"] += 1
                    self.took.append(time.perf_counter() - started)
                self.done[kind] += 1
            except (OSError, TimeoutError) as e:
                self.wrong[f"{kind}: {type(e).__name__}"] += 1
                client = await self._connect()
            due += each
            await asyncio.sleep(max(0.0, due - loop.time()) if each else 0)
        client.transport.close()

    async def _desk(self, seconds: float) -> None:
        """A report and an entry a second, and the entry before it removed."""
        end, last = time.monotonic() + seconds, ""
        async with httpx.AsyncClient(timeout=20) as http:
            while time.monotonic() < end:
                n = next(self._numbers)
                try:
                    text = f"第{n}号，请把编号{n}的东西搬到河边，再用绳子捆好，最后写上日期和名字，交给夜班。"
                    report = await http.post(
                        self.whole.url + "/sluice/v1/reports", json={"text": text}, headers={"x-user": f"u{n}"}
                    )
                    entry = await asyncio.to_thread(self.whole.add, {"term": f"只出现一次的{n}号词条"})
                    for kind, answer in (("report", report), ("entry", entry)):
                        self.done[kind] += 1
                        if answer.status_code != EXPECTED[kind]:
                            self.wrong[f"{kind}: {answer.status_code}"] += 1
                    if last:
                        await asyncio.to_thread(self.whole.call, "DELETE", f"/entries/{last}")
                    last = entry.json()["id"]
                except (httpx.HTTPError, KeyError) as e:
                    self.wrong[f"desk: {type(e).__name__}"] += 1
                await asyncio.sleep(1)

    # ---- what is looked at

    def _look(self) -> None:
        family = [
            psutil.Process(self.whole.process.pid),
            *psutil.Process(self.whole.process.pid).children(recursive=True),
        ]
        names = Counter[str]()
        now: dict[str, tuple[int, int]] = {}
        for process in family:
            name = "parent" if process.pid == self.whole.process.pid else process.name()
            names[name] += 1
            now[f"{name} {names[name]}"] = process.memory_info().rss, process.num_fds()
        self.samples.append((time.monotonic(), now))

    async def _watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look()
            await asyncio.sleep(5)

    async def run(self, minutes: float) -> int:
        """Exit status: 1 where something grew, or was answered wrongly."""
        await asyncio.gather(*[self._client(5, 0) for _ in range(CLIENTS)])
        self.done.clear()
        await asyncio.gather(*[self._client(20, 0) for _ in range(CLIENTS)])
        most = sum(self.done.values()) / 20
        print(
            f"at most {most:.0f} requests a second of {CLIENTS} clients; now {SHARE:.0%} of it for {minutes:g} minutes",
            flush=True,
        )
        self.done.clear()
        self.wrong.clear()
        self.took.clear()
        seconds = minutes * 60
        clients = [self._client(seconds, CLIENTS / (most * SHARE)) for _ in range(CLIENTS)]
        await asyncio.gather(*clients, self._desk(seconds), self._watch(seconds))
        return self._tell(seconds)

    def _tell(self, seconds: float) -> int:
        took = np.array(self.took)
        print(
            f"{sum(self.done.values())} answered ({sum(self.done.values()) / seconds:.0f} a second): {dict(sorted(self.done.items()))}"
        )
        print(
            f"p50 {np.quantile(took, 0.5) * 1000:.1f} ms, p99 {np.quantile(took, 0.99) * 1000:.1f} ms, most {took.max() * 1000:.0f} ms"
        )
        print(f"wrong: {dict(self.wrong) or 'none'}")
        start = self.samples[0][0]
        grown = False
        for name in self.samples[-1][1]:
            seen = [(at - start, *now[name]) for at, now in self.samples if name in now and at - start > seconds * WARM]
            at, memory, files = (np.array(column, dtype=float) for column in zip(*seen, strict=True))
            mib = memory / (1 << 20)
            slope = float(np.polyfit(at, mib, 1)[0]) * 3600
            edge = max(1, len(mib) // 5)
            more = float(mib[-edge:].mean() - mib[:edge].mean())
            wide = float(files[-edge:].mean() - files[:edge].mean())
            # The store grows by what it is given to keep.
            own = not name.startswith("redis")
            grew = own and (more > max(4.0, 0.02 * float(mib[0])) or wide > 4)
            grown = grown or grew
            print(
                f"{name}: {mib[0]:.1f} MiB, at the end {mib[-1]:.1f} ({more:+.1f} from the first fifth to the last, {slope:+.1f} an hour); "
                f"file descriptors {files.min():.0f} to {files.max():.0f} ({wide:+.1f}){' GREW' if grew else ''}"
            )
        restarts = self.whole.ready()["worker_restarts"]
        metrics = httpx.get(self.whole.ops + "/metrics").text.splitlines()
        for name in (
            "sluice_shed_total",
            "sluice_journal_dropped_total",
            "sluice_unscreened_characters_total",
            "sluice_degraded_total",
        ):
            value = sum(float(m.rsplit(" ", 1)[1]) for m in metrics if m.startswith((name + " ", name + "{")))
            print(f"{name} {value:.0f}")
            if value:
                self.wrong[name] += 1
        log = (self.whole.folder / "log").read_text("utf-8")
        errors = sum('"level": "error"' in line or '"level": "critical"' in line for line in log.splitlines())
        print(f"worker restarts {restarts}, errors in the log {errors}")
        bad = grown or bool(self.wrong) or restarts or errors
        print("grew, or was wrong" if bad else "nothing grew, nothing was wrong")
        return int(bool(bad))


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    at = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.bench.model:app", "--port", str(at), "--log-level", "warning"]
    with tempfile.TemporaryDirectory() as folder, running(command, f"http://127.0.0.1:{at}/") as model:
        assert model
        policy = Path(folder) / "policy.yaml"
        policy.write_text("reports: {per_reporter: 1000, per_source: 100000}\n")
        apps = Path(folder) / "apps.yaml"
        apps.write_text(
            "apps: [{id: default, trusted_headers: {subject: x-user}, limits: {per_minute: 0, concurrent: 0}}]\n"
        )
        settings: dict[str, Any] = {"POLICY": str(policy), "APPS": str(apps)}
        with whole_gateway(Path(folder) / "gateway", f"http://127.0.0.1:{at}/v1", **settings) as whole:
            assert whole.add({"term": WORD}).status_code == 201
            wait_for(lambda: whole.ready()["workers"][0]["entries"] == 1)
            return asyncio.run(Soak(whole).run(minutes))


if __name__ == "__main__":
    sys.exit(main())
