"""`scripts/bench memory [BENCH]`: what a gateway's processes take, with one worker and with two, and 100,000 terms.

From /proc/PID/smaps_rollup, MB are 2^20 bytes. PSS: a page that several processes share counts for each by its share, so that a gateway's
processes add up. USS: what a process has for itself alone, and what the machine gets back if it ends. RSS: all that it sees. The scorer is
there. With BENCH, the folder of a gateway benchmark, also after load: plain requests, then streams, 16 at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench import material, stand
from tests.bench.matching import Row, table

_COUNTS = (1, 2)


def taken(pid: int) -> Row:
    """MB of one process. Raises OSError where there is no such file (Linux before 4.14) or it is another user's."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        fields[name.rstrip(":")] = int(size) / 1024
    own = sum(size for name, size in fields.items() if name.startswith("Private_"))
    return {"PSS MB": fields["Pss"], "USS MB": own, "RSS MB": fields["Rss"]}


def processes(pid: int, workers: int, when: str) -> list[Row]:
    """Of each process of a gateway, and of all."""
    head: Row = {"workers": workers, "when": when}
    rows = [head | {"process": role} | taken(of) for of, role in stand.roles(pid).items()]
    return [*rows, head | {"process": "all"} | {key: sum(row[key] for row in rows) for key in ("PSS MB", "USS MB")}]


def figures(bench: Path | None, count: int, entries: int, seconds: float) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as temporary:
        place = Path(temporary)
        texts = stand.lines(bench, 9_000) if bench else material.slices(material.prose(100_000), 100, 1_000)
        (place / "texts.txt").write_text("\n".join(texts) + "\n", "utf-8")
        listed = str(stand.lexicon(place / "lexicon", texts, count))
        for workers in _COUNTS:
            folder = place / f"{workers}"
            settings = {"SLUICE_LEXICONS": listed, "SLUICE_WORKERS": str(workers)}
            if entries:
                stand.filled(folder, texts, entries, **settings)
            of = stand.setup(folder, True, **settings)
            with ExitStack() as stack:
                if bench is None:
                    rows += processes(stack.enter_context(stand.serving(of)), workers, "ready")
                    continue
                gateway = stack.enter_context(stand.stand(bench, place / "texts.txt", of))
                rows += processes(gateway.pid, workers, "ready")
                for kind in ("plain", "burst"):
                    gateway.loaded(kind, 16, seconds)
                rows += processes(gateway.pid, workers, "after load")
    return rows


def main() -> int:
    p = argparse.ArgumentParser(
        prog="scripts/bench memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "bench", type=Path, nargs="?", help="the folder of a gateway benchmark; without it only gateways that are ready"
    )
    p.add_argument("--terms", type=int, default=100_000)
    p.add_argument("--entries", type=int, default=1_000)
    p.add_argument("--seconds", type=float, default=10.0, help="of load of each kind")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    machine = stand.machine()
    print(machine)
    rows = figures(args.bench.resolve() if args.bench else None, args.terms, args.entries, args.seconds)
    table(f"Memory, {args.terms:,} terms, {args.entries:,} live entries, the shipped scorer", rows)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "memory": rows}, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
