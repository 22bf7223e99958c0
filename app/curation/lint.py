"""Lint: every fault of every file of a lexicon in one go, by file and line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from app.curation.files import Line, Problem, each, sheet, shipped, text
from app.curation.trial import SCOPE, found, sentences
from app.curation.wording import reads_as_name, short
from app.detectors import lexicon as lexicons
from app.detectors import rules
from app.detectors.lexicon import Lexicon
from app.types import Tier

BROAD: dict[Tier, float] = {"certain": 1, "suspect": 20}
"""Hits per 100,000 characters of clean text at most; from two hits on."""


def lint(folder: Path, corpus: Sequence[Path] = ()) -> list[Problem]:
    """Every problem of every file, in order of file and line. `corpus`: files of clean text, a text a line; without any,
    the clean sentences of this folder and of the shipped one. Raises LexiconError if a folder or corpus cannot be read."""
    lines, problems = sheet(folder)
    phrases, wrong = each(folder / "allow.tsv", folder, lexicons.phrases)
    cues, more = each(folder / "cues.tsv", folder, lexicons.cues)
    problems += wrong + more
    for file in sorted(folder.glob("*/rules.tsv")):
        problems += each(file, folder, rules.load)[1]
    for line in lines:
        problems += _cells(line)
    problems += _duplicates(lines)
    live = [line for line in lines if not line.over]
    lexicon = Lexicon({line.term.rule: line.term for line in live}.values(), phrases, cues)
    for line in live:
        problems += sentences(lexicon, line)
    problems += _shadowed(lexicon, live)
    problems += _broad(lexicon, live, _corpus(corpus) if corpus else _clean(lines))
    return sorted(set(problems))


def _cells(line: Line) -> Iterator[Problem]:
    """Faults that a line shows by itself."""
    term, row = line.term, line.row

    def empty(*names: str) -> list[str]:
        return [name for name in names if not row.get(name, "").strip()]

    if line.over:
        yield line.problem("expired", f"「{term.term}」 since {term.expires}; take it out or give it a later day")
    if missing := empty("owner", "reason"):
        yield line.problem("missing", f"「{term.term}」 has no {' and no '.join(missing)}")
    if term.tier == "certain" and short(term.term):
        said = f"「{term.term}」 is certain with less than 4 Han characters and 2 words; make it suspect"
        yield line.problem("short", said)
    if reads_as_name(term.term):
        if term.tier == "certain":
            said = f"「{term.term}」 is certain; make it suspect, with a reason and a legal basis"
            yield line.problem("name", said)
        elif wants := empty("reason", "basis"):
            yield line.problem("name", f"「{term.term}」 needs a {' and a '.join(wants)} (column {', '.join(wants)})")
    for phrase in term.allow:
        alone = Lexicon([replace(term, allow=(), stances=frozenset(), expires=None)])
        if not found(alone, phrase):
            said = f"「{phrase}」 covers nothing: 「{term.term}」 is not found in it anyway; take it out"
            yield line.problem("allow", said)


def _duplicates(lines: Iterable[Line]) -> Iterator[Problem]:
    first: dict[str, Line] = {}
    for line in lines:
        if (other := first.setdefault(line.folded, line)) is not line:
            said = f"「{line.term.term}」 is the same as {other.where} after folding; keep one"
            yield line.problem("duplicate", said)


def _shadowed(lexicon: Lexicon, lines: Sequence[Line]) -> Iterator[Problem]:
    """Terms that never matter, since another of the category is found wherever they are and does as much."""
    by_rule: dict[str, list[Line]] = defaultdict(list)  # two terms in some hundred thousand share a rule
    for line in lines:
        by_rule[line.term.rule].append(line)
    for line in lines:
        inner = {c.rule for c in lexicon.scan(line.folded, 0, True, SCOPE).candidates if not c.techniques}
        for other in (other for rule in sorted(inner) for other in by_rule[rule]):
            inside = other.folded != line.folded and other.folded in line.folded
            if inside and line.term.category == other.term.category and _covers(other, line):
                said = f"「{line.term.term}」 never matters: it contains 「{other.term.term}」 ({other.where}); take one out"
                yield line.problem("shadowed", said)
                break


def _covers(inner: Line, outer: Line) -> bool:
    a, b = inner.term, outer.term
    return (
        (a.tier == "certain" or b.tier == "suspect")
        and a.stances <= b.stances
        and a.off <= b.off
        and (a.expires is None or (b.expires is not None and a.expires >= b.expires))
    )


def _broad(lexicon: Lexicon, lines: Iterable[Line], texts: Iterable[str]) -> Iterator[Problem]:
    hits: Counter[str] = Counter()
    size = 0
    for clean in texts:
        size += len(clean)
        hits.update(c.rule for c in found(lexicon, clean))
    for line in lines:
        count, most = hits[line.term.rule], BROAD[line.term.tier]
        rate = count * 100_000 / size if size else 0.0
        if count >= 2 and rate > most:
            weaker = ", or make it suspect" if line.term.tier == "certain" else ""
            said = (
                f"「{line.term.term}」 hits {count} times in {size:,} characters of clean text: {rate:.1f} per 100,000, at most "
                f"{most} for {line.term.tier}; make it longer, give it allow phrases{weaker}"
            )
            yield line.problem("broad", said)


def _clean(lines: Iterable[Line]) -> list[str]:
    """Every clean sentence of these lines and of the shipped ones, once."""
    return sorted({t.clean for t in [*(line.term for line in lines), *lexicons.load(shipped())] if t.clean})


def _corpus(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        yield from text(file).splitlines()
