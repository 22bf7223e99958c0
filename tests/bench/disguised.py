"""`python -m tests.bench.disguised`: what disguises cost the shipped scorer, with folding before it and without.

The should-refuse bank, each text disguised as a whole; the share that the scorer alone would flag at its thresholds. Text that nobody
disguised stands first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from app import settings
from app.detectors import classifier
from app.text import fold, is_han
from tests.bench.matching import Row, table


@cache
def _traditional() -> dict[int, str]:
    """Simplified -> a traditional form."""
    made: dict[int, str] = {}
    for line in (files("app") / "data" / "traditional.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            made.setdefault(ord(line[1]), line[0])
    return made


def _wide(text: str) -> str:
    return "".join(chr(ord(ch) + 0xFEE0) if "!" <= ch <= "~" else ch for ch in text)


DISGUISES: dict[str, Callable[[str], str]] = {
    "none": str,
    "upper case": str.upper,
    "full width": _wide,
    "traditional": lambda text: text.translate(_traditional()),
    "zero-width between characters": "\u200b".join,
    "combining marks": lambda text: "".join(ch + "\u0336" if ch.isalnum() else ch for ch in text),
    "spaces between Han": lambda text: "".join(ch + " " if is_han(ch) else ch for ch in text),
    "dots between Han": lambda text: "".join(ch + "·" if is_han(ch) else ch for ch in text),
}


def main() -> int:
    scorer = classifier.load(settings.packaged("models"))
    bank = (files("app") / "data" / "banks" / "should_refuse.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in bank]

    def share(before: Callable[[str], str], disguise: Callable[[str], str]) -> str:
        told = 0
        for text in texts:
            found, _ = scorer.score(before(disguise(text)), None, None)  # type: ignore[arg-type]
            told += any(c.tier == "suspect" for c in found)
        return f"{told / len(texts):.1%}"

    rows: list[Row] = [
        {"disguise": name, "folded": share(fold, make), "as it stands": share(str.lower, make)}
        for name, make in DISGUISES.items()
    ]
    table(f"{len(texts)} texts that should be refused: flagged by the scorer alone", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
