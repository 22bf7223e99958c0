"""The list of detectors. One place to add one: a file here and a line in `shipped`; the contract suite runs over it.

A detector finds, never decides; it is a pure function of folded text (app.types.Detector).
"""

from __future__ import annotations

from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon
from app.detectors.patterns import Patterns
from app.detectors.rules import Rules
from app.types import Detector, Reader


def readers(lexicon: Lexicon, blocklist: Blocklist) -> list[Reader]:
    """Those that follow behind with weaker evidence."""
    return [blocklist, lexicon]


def shipped(lexicon: Lexicon, blocklist: Blocklist, rules: Rules | None = None) -> list[Detector]:
    """All detectors, cheapest first."""
    return [blocklist, blocklist.passages, lexicon, Patterns(), Rules(()) if rules is None else rules]
