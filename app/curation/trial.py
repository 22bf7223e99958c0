"""What the engine makes of a sentence, and of the hit and clean sentences that terms bring along.

Law: a sentence is asked of the engine that serves, in both views (Lexicon.scan and .read), never of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.curation.files import Line, Problem, sound
from app.detectors import lexicon as lexicons
from app.detectors.lexicon import Lexicon, Term
from app.text import fold
from app.types import Candidate, Scope

SCOPE = Scope("default", "answer")


@dataclass(slots=True)
class Sentences:
    """Every hit and clean sentence of a lexicon through the engine."""

    hits: int = 0
    clean: int = 0
    failed: list[Problem] = field(default_factory=list)


def test(folder: Path) -> Sentences:
    """Each live term of `folder` on its own sentences. Raises LexiconError."""
    lines, lexicon = live(folder)
    return Sentences(
        sum(bool(line.term.hit) for line in lines),
        sum(bool(line.term.clean) for line in lines),
        [problem for line in lines for problem in sentences(lexicon, line)],
    )


def live(folder: Path) -> tuple[list[Line], Lexicon]:
    """The lines of `folder` that are not over, and the engine with them. Raises LexiconError."""
    lines = [line for line in sound(folder) if not line.over]
    return lines, Lexicon([line.term for line in lines], lexicons.phrases(folder), lexicons.cues(folder))


def sentences(lexicon: Lexicon, line: Line) -> Iterator[Problem]:
    """What is wrong with a line's own sentences, by the whole engine."""
    term = line.term
    if term.hit and not finds(lexicon, term, term.hit):
        yield line.problem("hit", f"「{term.term}」 is not found in its sentence 「{term.hit}」")
    if term.clean and finds(lexicon, term, term.clean):
        yield line.problem("clean", f"「{term.term}」 is found in its clean sentence 「{term.clean}」")


def finds(lexicon: Lexicon, term: Term, text: str) -> bool:
    return any(c.rule == term.rule for c in found(lexicon, text))


def found(lexicon: Lexicon, text: str) -> list[Candidate]:
    """What the engine finds in original text and policy would not let pass, in either view."""
    folded = fold(text)
    strong = _acting(lexicon.scan(folded, 0, True, SCOPE).candidates)
    weak = _acting(lexicon.read(folded, text, 0, True, SCOPE).candidates)
    return strong + [
        w for w in weak if not any(s.rule == w.rule and s.start < w.end and w.start < s.end for s in strong)
    ]


def _acting(candidates: Iterable[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.tier != "cleared" and c.techniques.isdisjoint(c.off)]
