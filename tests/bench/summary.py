"""`python -m tests.bench.summary FILE.json`: the figures of a gateway bench as one small table per phase.

Law: a ratio is taken inside one round and one phase, and what is shown is the median of these; the other figures are medians over the
rounds. Cells that other processes disturbed are left out where three others remain.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.bench import litellm

BARE = "bare ASGI + aiohttp"
YARDS = {BARE: "bare", litellm.YARD: "LiteLLM"}
"""What ratios are to."""

_COLUMNS = {
    "plain": {"rps": "req/s", "p50": "p50 ms", "p99": "p99 ms", "cpu": "CPU µs/req", "pss_mib": "PSS MB"},
    "stream": {
        "chunks_ps": "deltas/s", "ttfc_p50": "first text p50 ms", "ttfc_p99": "first text p99 ms", "total_p50": "whole p50 ms",
        "total_p99": "whole p99 ms", "lag_p50": "delta's delay p50 ms", "lag_p99": "delta's delay p99 ms", "cpu": "CPU µs/delta",
        "pss_mib": "PSS MB",
    },
}  # fmt: skip
_WHOLE = {"rps", "chunks_ps", "cpu", "pss_mib"}

Cell = dict[str, Any]


def tables(figures: dict[str, Any]) -> str:
    """Markdown. `figures`: as compare.py writes them, with a `setting` of ours."""
    made = [_machine(figures), _reading()]
    for phase, of in figures["phases"].items():
        made.append(_phase(phase, of, [c for c in figures["cells"] if c["phase"] == phase], figures["targets"]))
    made.append(_remarks(figures))
    return "\n\n".join(made) + "\n"


def _machine(figures: dict[str, Any]) -> str:
    machine, bench = figures["machine"], figures["bench"]
    setting = ", ".join(
        f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in figures.get("setting", {}).items()
    )
    return (
        f"{figures['when']}; {machine['cpus']} cores, Python {machine['python']}, kernel {machine['kernel']}; "
        f"{bench['rounds']} rounds; {setting or 'setting not written down'}."
    )


def _reading() -> str:
    return (
        f"A cell: the median; in brackets the median ratio in the same round to {BARE} / to {litellm.YARD} (-: not measured). "
        "CPU and PSS are those of all processes of a gateway; MB are 2^20 bytes."
    )


def _phase(name: str, of: dict[str, Any], cells: list[Cell], targets: list[str]) -> str:
    columns = {
        key: title for key, title in _COLUMNS[of["kind"]].items() if any(_figure(c, key) is not None for c in cells)
    }
    what = (
        "plain"
        if of["kind"] == "plain"
        else f"streamed, a delta every {of['delay']} ms"
        if of.get("delay")
        else "streamed at once"
    )
    rows = [
        f"**{name}**: {what}, {of['conc']} at a time",
        "",
        f"| | {' | '.join(columns.values())} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for target in targets:
        if any(c["target"] == target for c in cells):
            rows.append(f"| {target} | {' | '.join(_cell(cells, target, key) for key in columns)} |")
    return "\n".join(rows)


def _cell(cells: list[Cell], target: str, key: str) -> str:
    own = _series(cells, target, key)
    if not own:
        return "-"
    median = statistics.median(own.values())
    shown = (
        f"{median:,.0f}" if key in _WHOLE and median >= 100 else f"{median:.1f}" if median >= 10 else f"{median:.2f}"
    )
    ratios = []
    for yard in YARDS:
        theirs = _series(cells, yard, key)
        each = [own[n] / theirs[n] for n in own if theirs.get(n)]
        ratios.append(_ratio(statistics.median(each)) if each and yard != target else "-")
    return shown if ratios == ["-"] * len(ratios) else f"{shown} ({' / '.join(ratios)})"


def _ratio(value: float) -> str:
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.2g}"
    )


def _series(cells: list[Cell], target: str, key: str) -> dict[int, float]:
    """Round -> figure."""
    own = [c for c in cells if c["target"] == target]
    clean = [c for c in own if not c["disturbed"]]
    of = clean if len(clean) >= 3 else own
    return {c["round"]: figure for c in of if (figure := _figure(c, key)) is not None}


def _figure(cell: Cell, key: str) -> float | None:
    if key == "cpu":
        per_thousand = cell.get("cpu_s_per_1k") if cell["kind"] == "plain" else None
        value = per_thousand * 1000 if per_thousand is not None else cell.get("cpu_us_per_chunk")
    else:
        value = cell.get(key)
    return None if value is None else float(value)


def _remarks(figures: dict[str, Any]) -> str:
    cells = figures["cells"]
    disturbed = sum(c["disturbed"] for c in cells)
    rows = [
        f"{disturbed} of {len(cells)} cells were disturbed by other processes (over {figures['bench']['foreign_limit']:.2f} cores)."
    ]
    for target, errors in figures.get("errors", {}).items():
        rows += [f"Errors, {target}: {what} {e['n']}, such as {str(e['sample'])[:200]}" for what, e in errors.items()]
    rows += [
        f"{target} is measured in {', '.join(some)} only: with more at once its replies run into the load's time limit."
        for target, some in litellm.PHASES.items()
        if target in figures["targets"]
    ]
    rows += [f"{target} logged {n} errors while it served" for target, n in figures.get("complaints", {}).items()]
    rows += [f"Left out, {target}: {why[:300]}" for target, why in figures["failed"].items()]
    return "\n".join(f"- {row}" for row in rows)


def main() -> int:
    if len(sys.argv) != 2:
        print("python -m tests.bench.summary OUT/gateways.json", file=sys.stderr)
        return 2
    print(tables(json.loads(Path(sys.argv[1]).read_text("utf-8"))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
