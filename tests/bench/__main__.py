"""`scripts/bench`: direct, two bare pass-throughs and Sluice, interleaved in one run; `--check PATH`: cost per line.

The target runs on one core, model and load on the other, so that a figure is the target's own. CPU is that of the
target's processes (user and system) divided by the requests it served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.demo.story import free_port, running
from tests.bench.load import run

_UVICORN = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]


@dataclass
class Target:
    """`pid` 0: the model itself."""

    name: str
    url: str
    pid: int


def pin(pid: int, core: int) -> None:
    if (os.cpu_count() or 1) > 1:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            process.cpu_affinity([core])


def _cpu(pid: int) -> float:
    if not pid:
        return 0.0
    processes = (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    return sum(t.user + t.system for t in (p.cpu_times() for p in processes))


def served(stack: ExitStack, app: str, path: str, **env: str) -> tuple[int, int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), *_UVICORN]
    process = stack.enter_context(running(command, f"http://127.0.0.1:{port}{path}", os.environ | env))
    return port, process.pid


def _targets(stack: ExitStack, folder: Path) -> list[Target]:
    port, model = served(stack, "tests.bench.model:app", "/v1/models")
    pin(model, 1)
    base = f"http://127.0.0.1:{port}"
    targets = [Target("direct", f"{base}/v1", 0)]
    for name, parse in (("pass-through, bytes", "0"), ("pass-through, parsing", "1")):
        own, pid = served(stack, "tests.bench.passthrough:app", "/v1/models", BENCH_UPSTREAM=base, BENCH_PARSE=parse)
        targets.append(Target(name, f"http://127.0.0.1:{own}/v1", pid))
    ports = {name: str(free_port()) for name in ("PORT", "OPS_PORT", "ADMIN_PORT")}
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env |= {f"SLUICE_{k}": v for k, v in ports.items()}
    env |= {"SLUICE_UPSTREAM_URL": f"{base}/v1", "SLUICE_DATA_DIR": str(folder / "data"), "SLUICE_WORKERS": "1"}
    ready = f"http://127.0.0.1:{ports['OPS_PORT']}/readyz"
    sluice = stack.enter_context(running([sys.executable, "-m", "app.cli", "serve"], ready, env, folder / "log"))
    targets.append(Target("Sluice", f"http://127.0.0.1:{ports['PORT']}/v1", sluice.pid))
    for target in targets[1:]:
        pin(target.pid, 0)
    os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
    return targets


def gateway(rounds: int, seconds: float, connections: int) -> int:
    """Print one table per mode; exit status 1 if a reply was wrong."""
    figures: dict[tuple[bool, str], list[tuple[float, float, float, float]]] = defaultdict(list)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, ExitStack() as stack:
        targets = _targets(stack, Path(folder))
        for n in range(rounds + 1):
            for target in targets if n % 2 else reversed(targets):
                for stream in (False, True):
                    before = _cpu(target.pid)
                    load = asyncio.run(run(target.url, stream, connections, seconds if n else 0.5))
                    spent = _cpu(target.pid) - before
                    wrong += load.wrong
                    if n:  # the first round warms up
                        times = load.firsts if stream else load.totals
                        cuts = statistics.quantiles(times, n=100)
                        figures[stream, target.name].append((load.rate, cuts[49], cuts[98], spent / len(load.totals)))
    for stream in (False, True):
        _table(stream, connections, {t.name: figures[stream, t.name] for t in targets})
    if wrong:
        print(f"\n{wrong} replies were not what the model sent", file=sys.stderr)
    return 1 if wrong else 0


def _table(stream: bool, connections: int, figures: dict[str, list[tuple[float, float, float, float]]]) -> None:
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in figures.items()
    }
    yard = medians["pass-through, parsing"]
    what = "streamed, times to first text" if stream else "plain"
    print(f"\n{what}; {connections} connections, median of {len(next(iter(figures.values())))} rounds")
    print("| | req/s | p50 ms | p99 ms | CPU µs/req | req/s ratio | p50 ratio | p99 ratio | CPU ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (rate, p50, p99, cpu) in medians.items():
        ratios = f"{rate / yard[0]:.2f} | {p50 / yard[1]:.2f} | {p99 / yard[2]:.2f} | " + (
            f"{cpu / yard[3]:.2f}" if cpu else "-"
        )
        cost = f"{cpu * 1e6:.0f}" if cpu else "-"
        print(f"| {name} | {rate:.0f} | {p50 * 1000:.1f} | {p99 * 1000:.1f} | {cost} | {ratios} |")


def check(path: Path, lines: int) -> int:
    """Cost per line of `sluice check` over the first `lines` of a text file, its start taken off."""
    texts = [t for t in path.read_text("utf-8").splitlines() if t.strip()][:lines]
    rows = "\n".join(json.dumps({"id": i, "text": t}, ensure_ascii=False) for i, t in enumerate(texts)).encode()
    times = {}
    for name, given in (("start", b""), ("all", rows)):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "app.cli", "check"], input=given, capture_output=True)
        times[name] = time.perf_counter() - started
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if [a.get("id") for a in answers] != list(range(len(texts))):
        print("answers are missing or out of order", file=sys.stderr)
        return 1
    cost = (times["all"] - times["start"]) / len(texts)
    actions = {word: sum(a["action"] == word for a in answers) for word in ("pass", "flag", "mask", "replace", "block")}
    print(
        f"sluice check: {len(texts)} lines, {statistics.mean(map(len, texts)):.0f} characters each on average, one process"
    )
    print(f"  {cost * 1e6:.0f} µs a line, start {times['start'] * 1000:.0f} ms, in order; actions {actions}")
    return 0


def main() -> int:
    p = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=2.0)
    p.add_argument("--connections", type=int, default=16)
    p.add_argument(
        "--check", type=Path, metavar="PATH", help="a text file, one text a line: cost per line of sluice check"
    )
    p.add_argument("--lines", type=int, default=10_000)
    args = p.parse_args()
    return check(args.check, args.lines) if args.check else gateway(args.rounds, args.seconds, args.connections)


if __name__ == "__main__":
    sys.exit(main())
