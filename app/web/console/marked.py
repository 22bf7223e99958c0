"""A text as reviewers see it: what was found is marked in the original, what cannot be seen is a badge, personal information is covered.

Law: pure; cut at every edge, so that marks may overlap; what stands in a piece is the text itself, never markup. Every piece is shown apart
from the direction of its neighbours (bidi), and what would turn it is a badge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from app.detectors.patterns import Patterns
from app.text import fold, origins
from app.types import Scope

COVER = "●"


class Span(NamedTuple):
    """`start`, `end`: code points. `kind`: passage, finding or personal."""

    start: int
    end: int
    kind: str
    title: str = ""


class Piece(NamedTuple):
    """`badge`: the name of a character that cannot be seen, '' for text."""

    text: str
    kinds: frozenset[str]
    title: str = ""
    badge: str = ""


def personal(text: str) -> list[Span]:
    """Where personal information stands in a text, whatever else is found there."""
    folded_, places = fold(text), origins(text)
    found = Patterns().scan(folded_, 0, True, Scope("*", "answer")).candidates
    return [Span(places[c.start], places[c.end - 1] + 1, "personal") for c in found if c.start < c.end]


def pieces(text: str, spans: Iterable[Span], invisible: Mapping[int, str], start: int = 0) -> list[Piece]:
    """`text` cut at every edge. `invisible`: where a character stands that cannot be seen, and its name. `start`: of `text`, in what
    spans and `invisible` count in."""
    marks = [s for s in spans if s.start < start + len(text) and s.end > start and s.start < s.end]
    edges = {start, start + len(text)}
    for s in marks:
        edges |= {max(s.start, start), min(s.end, start + len(text))}
    for at in invisible:
        if start <= at < start + len(text):
            edges |= {at, at + 1}
    cut = sorted(edges)
    found: list[Piece] = []
    for a, b in pairwise(cut):
        on = [s for s in marks if s.start <= a and b <= s.end]
        kinds = frozenset(s.kind for s in on)
        title = " · ".join(dict.fromkeys(s.title for s in on if s.title))
        if a in invisible:
            found.append(Piece("", kinds, title, invisible[a]))
        else:
            said = text[a - start : b - start]
            found.append(Piece(COVER * len(said) if "personal" in kinds else said, kinds, title))
    return found


def folded(runs: Sequence[Mapping[str, Any]], covered: Sequence[Span]) -> list[Piece]:
    """The folded view, covered where the original is: of a run that folding changed, all of it. `runs`: the playground's."""
    out = []
    for run in runs:
        a, b = run["from"]
        changed = frozenset({"changed"} if run["changed"] else ())
        if not changed and len(run["text"]) == b - a:
            out += [Piece(p.text, p.kinds) for p in pieces(run["text"], covered, {}, a)]
        elif any(s.start < b and a < s.end for s in covered):
            out.append(Piece(COVER * len(run["text"]), changed | {"personal"}))
        else:
            out.append(Piece(run["text"], changed))
    return out
