"""`python -m tests.bench.matching`: the cost of looking for terms in clean text, beside other matchers, in one run.

Every part runs in a process of its own; within it the ways are interleaved, and a figure is the best of the rounds, block
by block. Absolute figures differ from machine to machine: the ratios are what to read. pyahocorasick and flashtext are
compared if they are there: `pip install pyahocorasick flashtext`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from app import policy
from app.detectors import lexicon, rules
from app.streaming import Channel
from app.text import fold
from app.types import Scope
from tests.bench import rivals
from tests.bench.material import deltas, folder, prose, slices, terms

SCOPE = Scope("bench", "answer")
SIZES = (10_000, 100_000, 1_000_000)
_BLOCK = 50
"""Texts timed together."""
_STREAM = 2_000
"""Characters of a streamed answer."""

Row = dict[str, Any]


def best(
    ways: dict[str, Callable[[Any], Any]], texts: Sequence[Any], rounds: int, size: int = _BLOCK
) -> dict[str, float]:
    """µs a text by each way: of each block of texts the best round, the ways taking turns. `size`: texts in a block, timed together."""
    blocks = [texts[at : at + size] for at in range(0, len(texts), size)]
    took = {name: [float("inf")] * len(blocks) for name in ways}
    for way in ways.values():
        for text in texts:
            way(text)
    # What the rivals keep is millions of objects: the collector would walk them on another way's time.
    gc.collect()
    gc.freeze()
    gc.disable()
    for n in range(rounds):
        for name in ways if n % 2 else reversed(ways):
            way = ways[name]
            for i, block in enumerate(blocks):
                began = time.perf_counter()
                for text in block:
                    way(text)
                took[name][i] = min(took[name][i], time.perf_counter() - began)
    gc.enable()
    return {name: sum(times) / len(texts) * 1e6 for name, times in took.items()}


class Ways:
    """What is measured of us: one compiled list, as a gateway holds it."""

    def __init__(self, place: Path, kept: Path) -> None:
        self.lexicon = lexicon.compiled(place, kept)
        self.terms = self.lexicon._now.terms
        self.policy = policy.parse(b"").common

    def alone(self, text: str) -> Any:
        return self.terms.find(fold(text), 0, True)

    def views(self, text: str) -> Any:
        folded = fold(text)
        return self.terms.find(folded, 0, True), self.terms.read(folded, text, 0, True)

    def channel(self, readers: bool = True) -> Channel:
        return Channel([self.lexicon], self.policy, SCOPE, readers=[self.lexicon] if readers else [])

    def whole(self, text: str) -> Any:
        channel = self.channel()
        channel.push(text)
        channel.finish()
        return channel.findings


def speed(base: Path, size: int, rounds: int, few: bool) -> list[Row]:
    """Per text of 60 and of 500 characters."""
    text, listed = _material(base, size)
    ours = Ways(base / f"{size}", base / "kept")
    ways: dict[str, Callable[[str], Any]] = {name: build(listed) for name, build in rivals.HERE.items()}
    ways = {
        rivals.BARE: ways.pop(rivals.BARE),
        "fold": fold,
        "what acts alone": ours.alone,
        "all views": ours.views,
        "whole channel": ours.whole,
        **ways,
    }
    counts = {60: 200 if few else 2_000, 500: 50 if few else 400}
    took = {n: best(ways, slices(text, n, count), rounds) for n, count in counts.items()}
    found = {
        name: round(sum(_hits(way(t)) for t in slices(text, 500, counts[500])) / counts[500] / 500 * 1e6)
        for name, way in ways.items()
        if name != "fold"
    }
    return [
        {"terms": size, "way": name}
        | {f"µs / {n}": took[n][name] for n in counts}
        | {f"ratio / {n}": took[n][name] / took[n][rivals.BARE] for n in counts}
        | {"hits / million": found.get(name, "-")}
        for name in ways
    ]


def _hits(found: Any) -> int:
    if isinstance(found, tuple):
        return sum(_hits(part) for part in found)
    return len(found) if isinstance(found, list) else 0


def streams(base: Path, size: int, rounds: int, few: bool) -> list[Row]:
    """Per delta of an answer, beside what its characters and the held tail would cost by themselves."""
    text, _ = _material(base, size)
    ours = Ways(base / f"{size}", base / "kept")
    answers = [deltas(t) for t in slices(text, _STREAM, 10 if few else 60)]
    tails: list[list[str]] = []
    held: list[int] = []
    for answer in answers:
        channel, seen, tail = ours.channel(), "", []
        for delta in answer:
            seen += delta
            tail.append(seen[channel.released :])
            channel.push(delta)
            held.append(channel.screened - channel.released)
        tails.append(tail)

    def pushed(readers: bool) -> Callable[[tuple[list[str], list[str]]], None]:
        def way(answer: tuple[list[str], list[str]]) -> None:
            push = ours.channel(readers).push
            for delta in answer[0]:
                push(delta)

        return way

    def looked(final: bool) -> Callable[[tuple[list[str], list[str]]], None]:
        def way(answer: tuple[list[str], list[str]]) -> None:
            find = ours.terms.find
            for part in answer[1]:
                find(fold(part), 0, final)

        return way

    ways = {
        "delta and tail: fold, find": looked(True),
        "delta and tail: fold, find, hold": looked(False),
        "channel, what acts alone": pushed(False),
        "channel": pushed(True),
    }
    took = best(ways, list(zip(answers, tails, strict=True)), rounds)
    each = sum(map(len, answers)) / len(answers)
    yard = took["delta and tail: fold, find"]
    cuts = statistics.quantiles(held, n=100)
    return [
        {"terms": size, "way": name, "µs a delta": took[name] / each, "ratio": took[name] / yard}
        | {"held, mean": round(statistics.mean(held), 2), "held, p99": round(cuts[98]), "held, most": max(held)}
        for name in ways
    ]


def compile_(base: Path, size: int) -> float:
    """Seconds to build the list of a folder, as a gateway has it built: in another process, then loaded."""
    began = time.perf_counter()
    lexicon.compiled(base / f"{size}", base / "kept")
    return time.perf_counter() - began


def load(base: Path, size: int) -> Row:
    """A list that lies compiled on disk, in a fresh process."""
    place, kept = base / f"{size}", base / "kept"
    lexicon.Lexicon(())
    before, began = _resident("VmRSS"), time.perf_counter()
    loaded = lexicon.compiled(place, kept)
    took = time.perf_counter() - began
    after = _resident("VmRSS")
    loaded.scan(fold("看看"), 0, True, SCOPE)
    return {"load s": took, "RSS MB": after - before, "peak MB": _resident("VmHWM") - before}


def build(base: Path, size: int, name: str) -> Row:
    """A rival, in a fresh process."""
    listed = _listed(base, size)
    gc.collect()
    before, began = _resident("VmRSS"), time.perf_counter()
    matcher = rivals.HERE[name](listed)
    took = time.perf_counter() - began
    after = _resident("VmRSS")
    matcher("看看")
    return {"build s": took, "RSS MB": after - before, "peak MB": _resident("VmHWM") - before}


def _resident(field: str) -> float:
    """MB (2^20 bytes) of this process, now or at most."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def memory(base: Path, size: int) -> list[Row]:
    """Of the compiled list and of the rivals."""
    made = fresh(compile_, base, size)
    disk = max((base / "kept").glob("*.list"), key=lambda p: p.stat().st_mtime).stat().st_size / 2**20
    rows: list[Row] = [{"terms": size, "way": "Sluice", "build s": made, **fresh(load, base, size), "disk MB": disk}]
    return rows + [{"terms": size, "way": name, **fresh(build, base, size, name)} for name in rivals.HERE]


def reload(base: Path, size: int, rounds: int) -> list[Row]:
    """Texts of 500 characters, one after the other on an event loop, while a thread takes a new list into force."""
    text, listed = _material(base, size)
    texts = slices(text, 500, 400)
    ours = Ways(base / f"{size}", base / "kept")
    # Two folders by turns, so that every list is new.
    two = [folder(base / f"reload{n}", listed, note=f"synthetic {n}") for n in range(2)]
    kept = base / "kept-reload"
    enforced = rules.Rules(rules.load(two[0]))

    def taken(n: int) -> None:
        fresh_rules = rules.Rules(rules.load(two[n % 2]))
        ours.lexicon.take(lexicon.compiled(two[n % 2], kept))
        enforced.take(fresh_rules)

    async def screen(until: threading.Event) -> list[float]:
        times: list[float] = []
        last = time.perf_counter()
        while not until.is_set():
            ours.whole(texts[len(times) % len(texts)])
            await asyncio.sleep(0)
            now = time.perf_counter()
            times.append(now - last)
            last = now
        return times

    async def beside(work: Callable[[], object]) -> tuple[list[float], float]:
        until, began = threading.Event(), time.perf_counter()
        screening = asyncio.create_task(screen(until))
        try:
            await asyncio.to_thread(work)
        finally:
            until.set()
        return await screening, time.perf_counter() - began

    def built(n: int) -> None:
        for old in kept.glob("*.list"):
            old.unlink()
        taken(n)

    async def measured() -> list[Row]:
        rows = []
        taken(0)
        for name, work in (("built and loaded", built), ("loaded, already built", taken)):
            if work is taken:
                taken(1)
                taken(0)
            quiet: list[float] = []
            loud: list[float] = []
            spent = 0.0
            for n in range(1, (rounds if work is built else rounds * 8) + 1):
                times, took = await beside(lambda work=work, n=n: work(n))  # type: ignore[misc]
                loud += times
                spent += took
                # At least as many texts without: the tail of few is chance.
                times, _ = await beside(lambda took=took: time.sleep(max(took, 0.2)))  # type: ignore[misc]
                quiet += times
            rows.append(_tails(size, name, quiet, loud, spent / n))
        return rows

    return asyncio.run(measured())


def _tails(size: int, name: str, quiet: list[float], loud: list[float], took: float) -> Row:
    without, during = (statistics.quantiles(times, n=100)[98] * 1000 for times in (quiet, loud))
    return {
        "terms": size, "reload": name, "s a reload": took, "texts": len(loud),
        "p50 ms": statistics.median(quiet) * 1000, "p50 ms, reload": statistics.median(loud) * 1000,
        "p99 ms": without, "p99 ms, reload": during, "p99 ratio": during / without,
        "most ms": max(quiet) * 1000, "most ms, reload": max(loud) * 1000,
    }  # fmt: skip


def fresh(part: Callable[..., Any], *given: Any) -> Any:
    """`part(*given)` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part, *given).result()


def _material(base: Path, size: int) -> tuple[str, list[str]]:
    return (base / "text").read_text("utf-8"), _listed(base, size)


def _listed(base: Path, size: int) -> list[str]:
    return (base / f"{size}.terms").read_text("utf-8").split("\n")


def table(title: str, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print(f"\n{title}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(_cell(column, row.get(column, '-')) for column in columns)} |", flush=True)


def _cell(column: str, value: Any) -> str:
    if isinstance(value, float):
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> int:
    p = argparse.ArgumentParser(
        prog="python -m tests.bench.matching", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--sizes", type=lambda t: tuple(int(n) for n in t.split(",")), metavar="N,N", help="numbers of terms"
    )
    p.add_argument("--texts", type=Path, metavar="FILE", help="prose, UTF-8 (otherwise words drawn by frequency)")
    p.add_argument("--rounds", type=int, help="default 9, quick 2")
    p.add_argument(
        "--parts",
        type=lambda t: t.split(","),
        default=["memory", "speed", "streams", "reload"],
        metavar="NAME,NAME",
        help="memory, speed, streams, reload",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    p.add_argument("--quick", action="store_true", help="10,000 terms, few rounds: whether it runs, not how fast")
    args = p.parse_args()
    sizes = args.sizes or (SIZES[:1] if args.quick else SIZES)
    rounds = args.rounds or (2 if args.quick else 9)
    figures: dict[str, Any] = {
        "date": date.today().isoformat(), "cores": os.cpu_count(), "python": platform.python_version(),
        "texts": "file" if args.texts else "generated", "load": os.getloadavg()[0],
    }  # fmt: skip
    print(f"{figures['date']}, {figures['cores']} cores, Python {figures['python']}, {figures['texts']} texts", end="")
    print(f", load {figures['load']:.1f} at the start; best of {rounds} rounds")
    if rivals.MISSING:
        print(f"not installed, left out: {', '.join(rivals.MISSING)} (pip install pyahocorasick flashtext)")
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as made:
        base = Path(made)
        text = args.texts.read_text("utf-8") if args.texts else prose(100_000 if args.quick else 2_000_000)
        (base / "text").write_text(text, "utf-8")
        drawn = terms(text, max(sizes))
        for size in {*sizes, min(100_000, max(sizes))}:
            (base / f"{size}.terms").write_text("\n".join(drawn[:size]), "utf-8")
            folder(base / f"{size}", drawn[:size])
        parts: dict[str, tuple[str, Callable[[int], list[Row]]]] = {
            "memory": ("Memory and time to build (MB are 2^20 bytes of resident memory)", lambda n: memory(base, n)),
            "speed": ("Per text, clean", lambda n: fresh(speed, base, n, rounds, args.quick)),
            "streams": ("Per delta of a stream, clean", lambda n: fresh(streams, base, n, rounds, args.quick)),
        }
        for name, (title, part) in parts.items():
            if name in args.parts:
                table(title, figures.setdefault(name, [row for size in sizes for row in part(size)]))
        if "reload" in args.parts:
            size = min(100_000, max(sizes))
            figures["reload"] = fresh(reload, base, size, 1 if args.quick else 3)
            table("Reload under load, texts of 500 characters", figures["reload"])
    if args.json:
        args.json.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
