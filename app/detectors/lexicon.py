"""The lexicon: terms that ship with Sluice or that an operator keeps in files, by category.

Law: a line that cannot be read is an error that names file, line and column; nothing is skipped in silence.
Format of `lexicons/<category>/terms.tsv`: docs/lexicons.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import cast

from app import clock
from app.errors import LexiconError
from app.policy import taxonomy
from app.terms import CONTEXT, Hit, Terms
from app.text import fold
from app.types import TECHNIQUES, Candidate, Scan, Scope, Tier

COLUMNS = ("term", "tier", "off", "allow", "owner", "reason", "added", "expires", "hit", "clean")


@dataclass(frozen=True, slots=True)
class Term:
    """One lexicon entry. `term` and `allow` as written; they are folded when compiled."""

    term: str
    category: str
    tier: Tier = "certain"
    off: frozenset[str] = frozenset()
    allow: tuple[str, ...] = ()
    expires: date | None = None
    hit: str = ""
    clean: str = ""

    @property
    def rule(self) -> str:
        """Stable across edits of other lines, and no text."""
        return f"lex.{self.category}.{hashlib.sha256(self.term.encode()).hexdigest()[:8]}"


class Lexicon:
    """The detector."""

    name = "lexicon"

    def __init__(self, terms: Iterable[Term], phrases: Iterable[str] = ()) -> None:
        """`phrases`: as written; whatever one of them covers whole is none of our terms."""
        today = datetime.fromtimestamp(clock.now()).date()
        by_text: dict[str, list[Term]] = {}
        for term in terms:
            if term.expires is None or term.expires >= today:
                by_text.setdefault(fold(term.term), []).append(term)
        self._rows = list(by_text.values())
        allow = [sorted({fold(a) for t in rows for a in t.allow}) for rows in self._rows]
        self._terms = Terms(list(by_text), allow, sorted({fold(p) for p in phrases}))
        self.version = hashlib.sha256(
            "\n".join(sorted(f"{f}\t{t.category}\t{t.tier}" for f, r in by_text.items() for t in r)).encode()
        ).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self._terms)

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        hits, hold = self._terms.find(text, since, final)
        return Scan([c for h in hits for c in self._candidates(h)], hold)

    def read(self, text: str, original: str, since: int, final: bool, scope: Scope) -> Scan:
        hits, hold = self._terms.read(text, original, since, final)
        return Scan([replace(c, tier="suspect") for h in hits for c in self._candidates(h)], hold)

    def _candidates(self, hit: Hit) -> Iterator[Candidate]:
        for t in self._rows[hit.number]:
            yield Candidate(
                hit.start, hit.end, t.category, self.name, t.rule, t.tier, techniques=hit.techniques, off=t.off
            )


def check(term: Term, where: str) -> Term:
    """Raises LexiconError for a term that cannot be matched."""
    folded = fold(term.term)
    if term.category not in taxonomy():
        raise LexiconError(f"{where}: column category: no such category; the ids are in docs/categories.md")
    if term.tier not in ("certain", "suspect"):
        raise LexiconError(f"{where}: column tier: must be 'certain' or 'suspect'")
    if len(folded) < 2:
        raise LexiconError(f"{where}: column term: shorter than 2 characters after folding")
    if len(folded) > 100:
        raise LexiconError(f"{where}: column term: longer than 100 characters after folding")
    for phrase in term.allow:
        if folded not in fold(phrase) or fold(phrase) == folded or fold(phrase).rfind(folded) > CONTEXT:
            raise LexiconError(
                f"{where}: column allow: a phrase must hold the term and more, the term at most {CONTEXT} characters in"
            )
    return term


def rows(path: Path, columns: Sequence[str], required: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, cells by column) of each line of a tab-separated file. Raises LexiconError with file and line."""
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise LexiconError(f"{path}: cannot be read ({e.strerror})") from None
    try:
        lines = raw.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as e:
        raise LexiconError(f"{path}:{raw[: e.start].count(10) + 1}: not UTF-8 (byte {e.start})") from None
    header = lines[0].rstrip("\r").split("\t")
    if unknown := [c for c in header if c not in columns]:
        raise LexiconError(f"{path}:1: column {unknown[0]!r} is unknown; the columns are {', '.join(columns)}")
    if twice := next((c for c in header if header.count(c) > 1), None):
        raise LexiconError(f"{path}:1: column {twice!r} stands twice")
    if required not in header:
        raise LexiconError(f"{path}:1: the first line must name the columns, {required!r} among them")
    for number, line in enumerate(lines[1:], 2):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) > len(header):
            raise LexiconError(f"{path}:{number}: {len(cells)} cells, but the first line names {len(header)} columns")
        yield f"{path}:{number}", dict(zip(header, cells, strict=False))


def read(path: Path, category: str) -> list[Term]:
    """The terms of one file. Raises LexiconError with file, line and column."""
    return [term_of(row, category, where) for where, row in rows(path, COLUMNS, "term")]


def term_of(row: Mapping[str, str], category: str, where: str) -> Term:
    """A checked term from its cells. Raises LexiconError that names the column."""
    try:
        expires = date.fromisoformat(row["expires"]) if row.get("expires") else None
    except ValueError:
        raise LexiconError(f"{where}: column expires: must be a date like 2027-06-30") from None
    off = frozenset(row.get("off", "").replace(",", " ").split())
    if unknown := sorted(off.difference(TECHNIQUES)):
        raise LexiconError(f"{where}: column off: {unknown[0]!r} is no technique; they are {', '.join(TECHNIQUES)}")
    term = Term(
        row["term"].strip(),
        category,
        cast(Tier, row.get("tier") or "certain"),
        off,
        tuple(a for a in row.get("allow", "").split("|") if a),
        expires,
        row.get("hit", ""),
        row.get("clean", ""),
    )
    return check(term, where)


def phrases(folder: Path) -> list[str]:
    """The allow phrases of `folder`/allow.tsv (phrase, reason), if there is one. Raises LexiconError."""
    path = folder / "allow.tsv"
    made = []
    for where, row in rows(path, ("phrase", "reason"), "phrase") if path.exists() else ():
        if not 2 <= len(fold(row["phrase"])) <= CONTEXT:
            raise LexiconError(f"{where}: column phrase: must have 2 to {CONTEXT} characters after folding")
        made.append(row["phrase"])
    return made


def load(folder: Path) -> list[Term]:
    """Every `<category>/terms.tsv` below `folder`. Raises LexiconError."""
    if not folder.is_dir():
        raise LexiconError(f"{folder}: no such folder; set SLUICE_LEXICONS to one with <category>/terms.tsv in it")
    terms: list[Term] = []
    for file in sorted(folder.glob("*/terms.tsv")):
        if file.parent.name not in taxonomy():
            raise LexiconError(
                f"{file}: the folder {file.parent.name!r} is not a category; the ids are in docs/categories.md"
            )
        terms += read(file, file.parent.name)
    seen: dict[str, Term] = {}
    for term in terms:
        if (other := seen.setdefault(fold(term.term), term)) is not term:
            raise LexiconError(
                f"{folder}: a term of {term.category} stands in {other.category} too ({term.rule}); keep one"
            )
    return terms
