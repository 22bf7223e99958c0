"""`python -m tests.bench.queue [N] [--http]`: a page of the review queue with N open reports (default 100,000), beside an empty store and
one page.

Three stores on servers of their own, asked in turn in one run: `Review.queue`, without HTTP; with `--http` the console's own page, of a
`sluice serve` before each store, by somebody logged in. The cases are written by the code that writes them at intake, many to a commit.
The ratio is that of the 95th percentiles to the empty store's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx

from app import clock, deadlines
from app.clean import Clean
from app.detectors.blocklist import pack
from app.keys import Keys
from app.likeness import bands
from app.passages import fingerprint
from app.remediation import Case
from app.review import PAGE, Review
from app.store.cases import Cases, Writes
from app.store.client import SCHEMA, Store
from app.store.queue import Queue
from app.store.tables import Entries, Shadows
from app.taxonomy import taxonomy
from tests.conftest import SECRET, RedisServer, redis_binaries, whole_gateway
from tests.people import first

_COMMIT = 100
_ROUNDS = 200


def cases(n: int, keys: Keys, seed: int = 1) -> Iterator[Case]:
    """Open cases of one month: one in ten anonymous, the others of reporters some of whom report much more than most."""
    draw, now = random.Random(seed), clock.now()
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 2000)))
    categories = list(taxonomy())
    for number in range(n):
        passage = "".join(draw.choices(letters, k=60))
        who = f"0.reporter-{int(draw.paretovariate(0.5)) % 20_000}" if draw.random() > 0.1 else ""
        received = now - draw.random() * 30 * 86400
        confirmed = draw.random() < 0.1
        due = deadlines.due(received - 60 * 86400 * confirmed, 3)
        yield Case(
            id=f"case_{number:020x}", app="default", category=draw.choice(categories), state="confirmed" if confirmed else "verified",
            received=received, due=due.at, rule=due.rule, length=60,
            fingerprint=pack(fingerprint(passage, keys.kid, keys.derive("fingerprint"))),
            subjects=1, reporters=(who,) if who else (), proved=True, evidence=True, like=bands(keys, "default", passage),
        )  # fmt: skip


async def review(server: RedisServer, folder: Path, n: int) -> tuple[Review, float, float]:
    """A desk on a store with so many open cases; how long it took to write one of them, and to build the indexes anew, seconds."""
    store, keys = Store(server.url, "default", patience=30), Keys(SECRET)
    entries = Entries(store, folder, lambda rows, version, whole: None)
    kept = Cases(store, entries)
    await store.run("SET", store.key("schema"), SCHEMA)
    await Queue(kept).mend()
    began, writes = time.perf_counter(), Writes()
    for number, case in enumerate(cases(n, keys), 1):
        writes.case(None, case)
        if number % _COMMIT == 0 or number == n:
            assert await kept.put(writes)
            writes = Writes()
    took = (time.perf_counter() - began) / max(1, n)
    desk = Review(kept, keys, Clean.of([]), Shadows(store, folder, lambda rows, version, whole: None))
    await store.run("DEL", store.key("cases:indexed"))
    began = time.perf_counter()
    await Queue(kept).mend()
    built = time.perf_counter() - began
    assert (await desk.queue())["total"] == n
    return desk, took, built


Ask = Callable[[], Awaitable[object]]


async def _pages(servers: list[RedisServer], under: Path, n: int, until: ExitStack) -> dict[str, Ask]:
    """The console's page of each store, over HTTP."""
    asked: dict[str, Ask] = {}
    for part, server in zip(("empty store", "one page of cases", f"{n} open"), servers, strict=True):
        whole = until.enter_context(
            whole_gateway(under / f"gateway-{server.port}", "http://127.0.0.1:9/v1", REDIS_URL=server.url)
        )
        link = re.findall(r"\S+/setup\?token=\S+", (whole.folder / "log").read_text("utf-8"))[-1]
        http = first(whole.admin, link).http

        def get(path: str, http: httpx.Client = http) -> Ask:
            async def ask() -> None:
                answer = await asyncio.to_thread(http.get, path)
                assert answer.status_code == 200 and "data-key-for" in answer.text, answer.status_code

            return ask

        asked[f"{part}, queue"] = get("/console/cases")
        if part.startswith(str(n)):
            asked[f"{part}, deep"] = get(f"/console/cases?from={n // 2}")
            asked[f"{part}, in remediation"] = get("/console/cases?lane=duty")
    return asked


async def measured(n: int, http: bool) -> list[str]:
    """The lines of the table."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as until:
        servers = []
        for part in ("empty", "page", "full"):
            (Path(name) / part).mkdir()
            servers.append(RedisServer(list(redis_binaries().values())[-1], Path(name) / part, "--appendfsync", "no"))
            until.callback(servers[-1].kill)
        empty, page, full = [await review(s, Path(name), size) for s, size in zip(servers, (0, PAGE, n), strict=True)]
        deep = max(1, n // PAGE // 2)
        asked: dict[str, Ask] = {
            "empty store": empty[0].queue, "one page of cases": page[0].queue, f"{n} open, page 1": full[0].queue,
            f"{n} open, page {deep}": lambda: full[0].queue(page=deep),
            f"{n} open, last page": lambda: full[0].queue(page=-(-n // PAGE)), f"{n} open, lanes": full[0].lanes,
        }  # fmt: skip
        if http:
            asked = await _pages(servers, Path(name), n, until)
        took: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(_ROUNDS):
            for name_, ask in asked.items():
                began = time.perf_counter()
                await ask()
                took[name_].append(time.perf_counter() - began)
    base = sorted(next(iter(took.values())))[int(0.95 * _ROUNDS)]
    lines = [f"written in {full[1] * 1000:.2f} ms each, {_COMMIT} to a commit; indexes built anew in {full[2]:.1f} s"]
    for name_, times in took.items():
        times.sort()
        p50, p95 = times[_ROUNDS // 2], times[int(0.95 * _ROUNDS)]
        lines.append(f"{name_:30} p50 {p50 * 1000:7.2f} ms   p95 {p95 * 1000:7.2f} ms   ratio {p95 / base:6.2f}")
    return lines


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="tests.bench.queue", description=(__doc__ or "").splitlines()[0])
    options.add_argument("n", nargs="?", type=int, default=100_000)
    options.add_argument("--http", action="store_true", help="the console's page, by a browser's request")
    given = options.parse_args()
    print("\n".join(asyncio.run(measured(given.n, given.http))))
