"""`scripts/bench curves [BENCH]`: how cost grows: with the length of a text, the lexicon, live entries, passages, and workers.

In one process, of clean texts: a whole text is one that is there at once (a prompt, a plain answer), pushed and finished; a streamed one
comes as a model's deltas. All detectors of the gateway run, readers too. What is not varied is 100,000 terms, no entries, no passages, no
scorer. A figure is the best of the rounds, block by block, the sizes taking turns.

With BENCH, the folder of a gateway benchmark, also the whole gateway with one worker and with two, gateway and load on all cores: what a
request costs the workers tells whether they scale; how many requests there are depends on what model and load leave them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app import policy, settings
from app.detectors import classifier, lexicon, readers, shipped
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon
from app.streaming import Channel
from app.types import Scope, Scorer
from tests.bench import copies, stand
from tests.bench.matching import Row, best, fresh, table
from tests.bench.material import CATEGORY, deltas, folder, prose, slices, terms

_SCOPE = Scope("bench", "answer")
_LENGTHS = (60, 250, 1_000, 4_000, 16_000, 64_000)
_LEXICONS: tuple[int, ...] = (10_000, 100_000, 1_000_000)
_ENTRIES = (0, 1_000, 10_000, 100_000)
_PASSAGES = (0, 100, 1_000, 10_000)
_TERMS = 100_000
"""Of the lexicon, where it is not what varies."""
_LENGTH = 250
"""Characters of a text, where they are not what varies."""
_TEXTS = 200
"""Of that length."""
_BUNDLES, _AT_ONCE = 4, 64
"""Where the length varies: how many times texts are drawn, and how many of a length at most are timed together."""
_READING = """The cores are shared: a second worker can only add what load and model leave. Workers scale as far as what a request costs
them stays the same; workers / CPU per request is what they would serve with a core each, load and model elsewhere."""

Way = Callable[[Any], Any]


class Sluice:
    """What a gateway holds, for whole texts and for streams."""

    def __init__(self, listed: Lexicon, entries: Blocklist | None = None, scorers: Sequence[Scorer] = ()) -> None:
        entries = entries or Blocklist()
        self._detectors, self._readers, self._scorers = shipped(listed, entries), readers(listed, entries), scorers
        self._policy = policy.parse(b"").common

    def _channel(self) -> Channel:
        return Channel(self._detectors, self._policy, _SCOPE, readers=self._readers, scorers=self._scorers)

    def whole(self, text: str) -> None:
        self.streamed([text])

    def streamed(self, pieces: Sequence[str]) -> None:
        """Raises RuntimeError where the text is stopped: then it is not clean, and what is measured is not what is meant."""
        channel = self._channel()
        for piece in pieces:
            channel.push(piece)
        channel.finish()
        if channel.stopped is not None:
            raise RuntimeError("a text of the bench was stopped")


def _listed(base: Path, size: int) -> Lexicon:
    return lexicon.compiled(base / f"{size}", base / "kept")


def _texts(base: Path) -> list[str]:
    return slices((base / "text").read_text("utf-8"), _LENGTH, _TEXTS)


def by_length(base: Path, rounds: int) -> list[Row]:
    """Linear is: the same µs per 1,000 characters at every length. The lengths take turns, each with as many texts at a time as make a
    like number of characters, up to _AT_ONCE."""
    plain = Sluice(_listed(base, _TERMS))
    scored = Sluice(_listed(base, _TERMS), scorers=[classifier.load(settings.packaged("models"))])
    at_once = {size: min(_AT_ONCE, _LENGTHS[-1] // size) for size in _LENGTHS}
    text = (base / "text").read_text("utf-8")
    whole = {size: [slices(text[n:], size, at_once[size]) for n in range(_BUNDLES)] for size in _LENGTHS}
    cut = {size: [[deltas(t) for t in bundle] for bundle in whole[size]] for size in _LENGTHS}

    def each(of: Way, bundles: dict[int, list[Any]]) -> dict[str, Way]:
        def way(size: int) -> Way:
            return lambda n: [of(text) for text in bundles[size][n]]

        return {str(size): way(size) for size in _LENGTHS}

    ways = {
        "whole": each(plain.whole, whole), "whole, scorer": each(scored.whole, whole), "streamed": each(plain.streamed, cut)
    }  # fmt: skip
    took = {name: best(by_size, range(_BUNDLES), rounds, 1) for name, by_size in ways.items()}
    rows: list[Row] = []
    for size in _LENGTHS:
        row: Row = {"characters": size}
        for name, costs in took.items():
            cost = costs[str(size)] / at_once[size]
            row |= {f"{name}, µs": cost, f"{name}, µs per 1,000": cost / size * 1000}
        rows.append(row)
    return rows


def by_lexicon(base: Path, rounds: int, sizes: Sequence[int]) -> list[Row]:
    return _rows("terms", {size: Sluice(_listed(base, size)) for size in sizes}, base, rounds)


def by_entries(base: Path, rounds: int, sizes: Sequence[int]) -> list[Row]:
    """Live entries that are terms. Some are terms of the lexicon as well: a text holds neither."""
    drawn = (base / "drawn").read_text("utf-8").split("\n")
    listed, made = _listed(base, _TERMS), {}
    for size in sizes:
        entries = Blocklist({}, base / "kept")
        entries.load({"term": term, **_row(n)} for n, term in enumerate(drawn[:size]))
        made[size] = Sluice(listed, entries)
    return _rows("entries", made, base, rounds)


def by_passages(base: Path, rounds: int, sizes: Sequence[int]) -> list[Row]:
    """Live entries that are passages of some 100 to 250 characters: their fingerprints, and the runs by which near copies are found."""
    passages = [copies.joined(sentences) for sentences in copies.passages(max(sizes), random.Random(1))]
    rows = [copies.row(passage, n) for n, passage in enumerate(passages)]
    listed, made = _listed(base, _TERMS), {}
    for size in sizes:
        entries = Blocklist({copies.KID: copies.KEY}, base / "kept")
        entries.load(rows[:size])
        made[size] = Sluice(listed, entries)
    return _rows("passages", made, base, rounds)


def _row(number: int) -> dict[str, Any]:
    return {
        "id": f"ent_{number}", "category": CATEGORY, "action": "flag", "tier": "certain",
        "scope": {"app": "*", "directions": ["prompt", "answer"]},
    }  # fmt: skip


def _rows(what: str, sluices: dict[int, Sluice], base: Path, rounds: int) -> list[Row]:
    """µs a text of 250 characters, and the ratio to the first size."""
    texts = _texts(base)
    whole = best({str(size): of.whole for size, of in sluices.items()}, texts, rounds)
    streamed = best({str(size): of.streamed for size, of in sluices.items()}, [deltas(t) for t in texts], rounds)
    first = str(next(iter(sluices)))
    return [
        {
            what: size, "whole, µs": whole[str(size)], "whole, ratio": whole[str(size)] / whole[first],
            "streamed, µs": streamed[str(size)], "streamed, ratio": streamed[str(size)] / streamed[first],
        }
        for size in sluices
    ]  # fmt: skip


def by_workers(bench: Path, rounds: int, seconds: float) -> list[Row]:
    """Requests of 32 connections at once, gateway, model and load on all cores; medians over the rounds."""
    seen: dict[tuple[str, int], list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as temporary, ExitStack() as stack:
        place = Path(temporary)
        texts = stand.lines(bench, 3_000)
        (place / "texts.txt").write_text("\n".join(texts) + "\n", "utf-8")
        terms_ = str(stand.lexicon(place / "lexicon", texts, _TERMS))
        gateways = {}
        for count in (1, 2):
            of = stand.setup(place / f"{count}", True, SLUICE_LEXICONS=terms_, SLUICE_WORKERS=str(count))
            gateways[count] = stack.enter_context(stand.stand(bench, place / "texts.txt", of))
        for n in range(rounds):
            for count, gateway in gateways.items() if n % 2 else reversed(gateways.items()):
                for kind in ("plain", "burst"):
                    seen.setdefault((kind, count), []).append(_served(gateway, kind, seconds))
    rows: list[Row] = []
    for (kind, count), each in sorted(seen.items(), key=lambda of: (of[0][0] != "plain", of[0][1])):
        middle = {key: statistics.median(row[key] for row in each) for key in each[0]}
        rows.append({"": "plain" if kind == "plain" else "streamed", "workers": count, **middle})
    return rows


def _served(gateway: stand.Stand, kind: str, seconds: float) -> Row:
    """The load's own figures, and the workers' CPU over all requests that the model had, those that warm up too."""
    pids = stand.workers(gateway.pid)
    before, asked = stand.cpu(pids), gateway.asked()
    seen = gateway.loaded(kind, 32, seconds)
    requests = gateway.asked() - asked
    spent = (stand.cpu(pids) - before) / requests * 1e6
    rate = seen["rps"] if kind == "plain" else seen["streams_ps"]
    return {
        "req/s": rate, "workers' CPU, µs/req": spent, "all of the gateway, µs/req": seen["cpu_s_per_1k"] * 1000,
        "load, µs/req": seen["load_cpu"] / rate * 1e6, "model, µs/req": seen["backend_cpu"] / rate * 1e6,
        "gateway, cores": seen["gw_cpu"], "load and model, cores": seen["load_cpu"] + seen["backend_cpu"],
        "others, cores": seen["foreign_cpu"],
    }  # fmt: skip


def main() -> int:
    p = argparse.ArgumentParser(
        prog="scripts/bench curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "bench", type=Path, nargs="?", help="the folder of a gateway benchmark; without it workers are left out"
    )
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=4.0, help="that a number of workers is measured in a round")
    p.add_argument("--parts", default="length,lexicon,entries,passages,workers", metavar="NAME,NAME")
    p.add_argument(
        "--quick", action="store_true", help="no million terms, no 100,000 entries, no 10,000 passages: whether it runs"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - {"length", "lexicon", "entries", "passages", "workers"}:
        p.error(f"--parts: {', '.join(sorted(unknown))}: no such part")
    few: slice = slice(None, -1 if args.quick else None)
    machine = stand.machine()
    print(f"{machine}; best of {args.rounds} rounds")
    figures: dict[str, list[Row]] = {}

    def told(name: str, title: str, rows: list[Row]) -> None:
        figures[name] = rows
        table(title, rows)

    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as made:
        base = Path(made)
        if set(parts) - {"workers"}:
            text = prose(400_000)
            (base / "text").write_text(text, "utf-8")
            sizes = {_TERMS}
            if "lexicon" in parts:
                sizes.update(_LEXICONS[few])
            drawn = terms(text, max(sizes))
            (base / "drawn").write_text("\n".join(drawn[: max(_ENTRIES)]), "utf-8")
            for size in sizes:
                folder(base / f"{size}", drawn[:size])
        if "length" in parts:
            told("length", "By length of the text", fresh(by_length, base, args.rounds))
        if "lexicon" in parts:
            told(
                "lexicon",
                f"By terms of the lexicon, texts of {_LENGTH} characters",
                fresh(by_lexicon, base, args.rounds, _LEXICONS[few]),
            )
        if "entries" in parts:
            told(
                "entries",
                f"By live entries, texts of {_LENGTH} characters",
                fresh(by_entries, base, args.rounds, _ENTRIES[few]),
            )
        if "passages" in parts:
            title = f"By passages among the live entries, texts of {_LENGTH} characters"
            told("passages", title, fresh(by_passages, base, args.rounds, _PASSAGES[few]))
    if "workers" in parts and args.bench is None:
        print("\nWorkers are left out: they take the folder of a gateway benchmark (scripts/bench curves BENCH_FOLDER)")
    elif "workers" in parts:
        title = f"By workers, 32 at a time, {_TERMS:,} terms, the shipped scorer; load, model and gateway share {os.cpu_count()} cores"
        told("workers", title, by_workers(args.bench.resolve(), args.rounds, args.seconds))
        print(f"\n{_READING}")
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, **figures}, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
