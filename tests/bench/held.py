"""`python -m tests.bench.held`: characters that a clean stream holds after each character, and after each delta of a model.

Three views of the same texts: the bare automaton over folded terms (what any hold must keep), the lexicon with all that acts alone,
and the whole gateway (lexicon, as many live entries again, patterns, rules). What a fixed window of the longest term would hold stands
beside them. `over`: held characters beyond the Latin or digit token that the text ends in; `within`: how often no more is held
than that token, or 4 characters.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from app import policy
from app.detectors import lexicon, shipped
from app.detectors.blocklist import Blocklist
from app.lookup import Lookup
from app.streaming import Channel
from app.text import fold
from app.types import Detector, Scan, Scope
from tests.bench.matching import Row, table
from tests.bench.material import deltas, folder, prose, slices, terms

_SCOPE = Scope("bench", "answer")
_SIZE = 2_000
_TOKEN = re.compile(r"[A-Za-z0-9@._+\-]+\Z")


class Bare:
    """The terms as they stand: the hold is the longest suffix that begins one."""

    name, version = "bare", "1"

    def __init__(self, listed: Sequence[str]) -> None:
        self._lookup = Lookup(((fold(t), i) for i, t in enumerate(listed)), live=True)

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        _, live = self._lookup.watch(text, since)
        hold = len(text) if live is None or final else min(live.places[at] for at in live.starts)
        return Scan([], hold)


def held(detectors: Sequence[Detector], texts: Sequence[Sequence[str]], rules: policy.Policy) -> list[tuple[int, int]]:
    """(characters held after a piece, length of the token that the text ends in)."""
    found = []
    for pieces in texts:
        channel, seen = Channel(detectors, rules, _SCOPE), ""
        for piece in pieces:
            channel.push(piece)
            if channel.stopped is not None:
                break
            seen += piece
            token = _TOKEN.search(seen)
            found.append((channel.screened - channel.released, len(token[0]) if token else 0))
    return found


def figures(found: list[tuple[int, int]]) -> Row:
    values = [kept for kept, _ in found]
    cuts = statistics.quantiles(values, n=1000)
    beyond = statistics.quantiles((max(0, kept - token) for kept, token in found), n=1000)
    within = sum(kept <= max(token, 4) for kept, token in found) / len(found)
    return {
        "mean": round(statistics.mean(values), 2), "p50": round(cuts[499]), "p95": round(cuts[949]), "p99": round(cuts[989]),
        "most": max(values), "over, p95": round(beyond[949]), "over, p99": round(beyond[989]), "within %": round(100 * within, 1),
    }  # fmt: skip


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--terms", type=int, default=100_000)
    p.add_argument(
        "--texts", type=Path, metavar="FILE", help="Chinese prose, UTF-8 (otherwise words drawn by frequency)"
    )
    p.add_argument("--english", type=Path, metavar="FILE", help="English prose (otherwise the project's documents)")
    p.add_argument("--count", type=int, default=40, help="texts of 2,000 characters of each kind")
    args = p.parse_args()
    root = Path(__file__).parents[2]
    chinese = args.texts.read_text("utf-8") if args.texts else prose(1_000_000)
    documents = "\n".join(path.read_text("utf-8") for path in sorted((root / "docs" / "adr").glob("*.md")))
    english = args.english.read_text("utf-8") if args.english else documents
    code = "\n".join(path.read_text("utf-8") for path in sorted((root / "app").rglob("*.py")))
    rules = policy.parse(b"").common
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as made:
        drawn = terms(chinese, args.terms)
        base = Path(made)
        ours = lexicon.compiled(folder(base / "lexicon", drawn), base / "kept")
        entries = Blocklist({}, base / "kept")
        entries.load(
            {"id": f"ent_{i}", "term": t, "category": "other_prohibited", "action": "flag", "tier": "certain",
             "scope": {"app": "*", "directions": ["answer"]}}
            for i, t in enumerate(drawn)
        )  # fmt: skip
        views: dict[str, list[Detector]] = {
            "terms, strict view": [Bare(drawn)],
            "terms, all that acts alone": [ours],
            "gateway: terms, entries, patterns, rules": shipped(ours, entries),
        }
        cuts: dict[str, Callable[[str], Sequence[str]]] = {"character": list, "delta": deltas}
        for kind, text in (("Chinese", chinese), ("English", english), ("code", code)):
            for name, detectors in views.items():
                for each, cut in cuts.items():
                    texts = [cut(t) for t in slices(text, _SIZE, args.count)]
                    rows.append(
                        {"text": kind, "view": name, "after each": each, **figures(held(detectors, texts, rules))}
                    )
    longest = max(map(len, drawn))
    table(f"Held characters, {args.terms:,} terms; a fixed window would hold {longest - 1} and more", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
