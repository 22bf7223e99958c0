"""The lexicon: terms that ship with Sluice or that an operator keeps in files, by category.

Law: a line that cannot be read is an error that names file, line and column; nothing is skipped in silence.
Format of `lexicons/<category>/terms.tsv`: docs/lexicons.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from app import clock, compiling
from app.automaton import Array
from app.errors import LexiconError
from app.stance import STANCES, Cues
from app.taxonomy import taxonomy
from app.terms import CONTEXT, Hit, Terms
from app.text import fold
from app.types import TECHNIQUES, Candidate, Scan, Scope, Tier

COLUMNS = ("term", "tier", "off", "allow", "owner", "reason", "added", "expires", "hit", "clean")
OPTIONAL = ("basis",)
"""Columns that shipped files have no use for: the legal basis of an entry that reads as a person, place or organisation."""


@dataclass(frozen=True, slots=True)
class Term:
    """One lexicon entry. `term` and `allow` as written; they are folded when compiled."""

    term: str
    category: str
    tier: Tier = "certain"
    off: frozenset[str] = frozenset()
    allow: tuple[str, ...] = ()
    stances: frozenset[str] = frozenset()
    """Kinds of sentence that lower the term: one cue of theirs in it lowers a suspect one, two a certain one."""
    expires: date | None = None
    hit: str = ""
    clean: str = ""

    @property
    def rule(self) -> str:
        """Stable across edits of other lines, and no text."""
        return f"lex.{self.category}.{hashlib.sha256(self.term.encode()).hexdigest()[:12]}"


class Lexicon:
    """The detector. Immutable but for `take`, which puts another list into force whole."""

    name = "lexicon"

    def __init__(
        self, terms: Iterable[Term], phrases: Iterable[str] = (), cues: Iterable[tuple[str, str]] = ()
    ) -> None:
        """`phrases`: as written; whatever one of them covers whole is none of our terms. `cues`: (stance, words)."""
        phrases = list(phrases)
        by_text: dict[str, list[Term]] = {}
        for term in terms:
            by_text.setdefault(fold(term.term), []).append(term)
        allow = {i: sorted({fold(a) for t in rows for a in t.allow}) for i, rows in enumerate(by_text.values())}
        rows = [t for same in by_text.values() for t in same]
        ids = list(taxonomy())
        self._now = _List(
            Terms(list(by_text), {i: own for i, own in allow.items() if own}, sorted({fold(p) for p in phrases})),
            np.cumsum([0, *map(len, by_text.values())]),
            np.array([ids.index(t.category) for t in rows], np.uint8),
            np.array([t.tier == "suspect" for t in rows], np.bool_),
            np.array([t.rule.rpartition(".")[2].encode() for t in rows], "S12"),
            np.array([t.expires.toordinal() if t.expires else _NEVER for t in rows], np.int32),
            np.array([sum(1 << STANCES.index(name) for name in t.stances) for t in rows], np.uint8),
            {i: t.off for i, t in enumerate(rows) if t.off},
            Cues(cues),
        )
        said = [
            f"{fold(t.term)}\t{t.category}\t{t.tier}\t{sorted(t.off)}\t{sorted(t.allow)}\t{sorted(t.stances)}\t{t.expires}"
            for t in rows
        ]
        parts = [sorted(said), sorted(phrases), self._now.cues.rows]
        self.version = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self._now.terms)

    @property
    def cues(self) -> Cues:
        """By which a sentence shows its stance."""
        return self._now.cues

    def take(self, other: Lexicon) -> None:
        """Enforce `other`'s list from now on. Raises LexiconError, and keeps the old one, if it does not find its terms."""
        if not other._now.terms.works():
            raise LexiconError("the new list does not find its own terms; the old one stays")
        self._now, self.version = other._now, other.version

    def arrays(self) -> dict[str, Array]:
        """The compiled list, for `of`."""
        now = self._now
        texts = {
            "off": json.dumps([(i, sorted(names)) for i, names in now.off.items()]),
            "cues": json.dumps(now.cues.rows),
            "version": self.version,
        }
        return (
            {f"terms.{name}": value for name, value in now.terms.arrays().items()}
            | {name: getattr(now, name) for name in _COLUMNS}
            | {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}
        )

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Lexicon:
        """The inverse of `arrays`."""
        made = cls(())
        off, cues, version = (arrays[name].tobytes().decode() for name in ("off", "cues", "version"))
        made._now = _List(
            Terms.of({name.removeprefix("terms."): value for name, value in arrays.items() if "terms." in name}),
            **{name: arrays[name] for name in _COLUMNS},
            off={i: frozenset(names) for i, names in json.loads(off)},
            cues=Cues((stance, cue) for stance, cue in json.loads(cues)),
        )
        made.version = version
        return made

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        now = self._now
        hits, hold = now.terms.find(text, since, final)
        candidates = []
        for hit in hits:
            found = self._candidates(now, hit, text, final)
            if found is None:
                hold = min(hold, hit.start)
            else:
                candidates += found
        return Scan(candidates, hold)

    def read(self, text: str, original: str, since: int, final: bool, scope: Scope) -> Scan:
        now = self._now
        hits, hold = now.terms.read(text, original, since, final)
        found = [c for h in hits for c in self._candidates(now, h, text, True, weak=True) or ()]
        return Scan(found, hold)

    def _candidates(self, now: _List, hit: Hit, text: str, final: bool, weak: bool = False) -> list[Candidate] | None:
        """A candidate per row of the term; None if the rest of its sentence decides."""
        today = datetime.fromtimestamp(clock.now()).toordinal()
        made = []
        for row in range(now.first[hit.number], now.first[hit.number + 1]):
            if now.expires[row] < today:
                continue
            tier: Tier = "suspect" if weak or now.suspect[row] else "certain"
            if now.stances[row]:
                cues = now.cues.around(text, hit.start, hit.end, final)
                if cues is None:
                    return None
                tier = _lowered(tier, sum(bool(mask & int(now.stances[row])) for mask in cues))
            category = _categories()[now.category[row]]
            rule = f"lex.{category}.{now.rule[row].decode()}"
            off = now.off.get(row, _NOTHING)
            made.append(
                Candidate(hit.start, hit.end, category, self.name, rule, tier, techniques=hit.techniques, off=off)
            )
        return made


def _lowered(tier: Tier, cues: int) -> Tier:
    """What so many cues in the sentence leave of a tier."""
    if tier == "certain":
        return "suspect" if cues >= 2 else tier
    return "cleared" if cues else tier


class _List(NamedTuple):
    """A compiled list: the terms, and by column their rows (those of term i are first[i]:first[i + 1])."""

    terms: Terms
    first: Array
    category: Array
    suspect: Array
    rule: Array
    expires: Array
    stances: Array
    off: dict[int, frozenset[str]]
    cues: Cues


_COLUMNS = ("first", "category", "suspect", "rule", "expires", "stances")
_NOTHING: frozenset[str] = frozenset()

_SMALL = 1 << 18
"""Bytes of files that are compiled where they are needed."""
_NEVER = np.iinfo(np.int32).max


@cache
def _categories() -> list[str]:
    return list(taxonomy())


def compiled(folder: Path, kept: Path) -> Lexicon:
    """The lexicon of `folder`, from `kept` if it lies there compiled; else built in another process. Blocks. Raises LexiconError."""
    if sum(file.stat().st_size for file in sources(folder)) <= _SMALL:
        return Lexicon(load(folder), phrases(folder), cues(folder))
    path = compiling.place(kept, (raw for file in sources(folder) for raw in (str(file).encode(), file.read_bytes())))
    with compiling.alone(kept):
        arrays = compiling.fetch(path)
        if arrays is None:
            arrays = compiling.elsewhere("app.detectors.lexicon", path, str(folder))
    return Lexicon.of(arrays)


def sources(folder: Path) -> list[Path]:
    """The files that make the lexicon of `folder`."""
    return sorted([*folder.glob("*/*.tsv"), *folder.glob("*/category.toml"), *folder.glob("*.tsv")])


def stamps(paths: Iterable[Path]) -> list[tuple[str, int, int, int]]:
    """What tells a changed file, of files and of the files of lexicon folders."""
    found = []
    for path in paths:
        for file in sources(path) if path.is_dir() else [path]:
            with contextlib.suppress(OSError):
                s = file.stat()
                found.append((str(file), s.st_mtime_ns, s.st_size, s.st_ino))
    return found


def main() -> int:
    """Build the lexicon of a folder into the file named."""
    os.nice(19)
    path, folder = map(Path, sys.argv[1:])
    try:
        compiling.keep(path, Lexicon(load(folder), phrases(folder), cues(folder)).arrays())
    except LexiconError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


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
    if (nul := raw.find(0)) >= 0:
        # So a crash leaves a file whose bytes never reached the disk.
        raise LexiconError(
            f"{path}:{raw.count(10, 0, nul) + 1}: a NUL byte stands there (byte {nul}); write the file anew"
        )
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
    stances = stances_of(path.parent / "category.toml")
    return [term_of(row, category, where, stances) for where, row in rows(path, COLUMNS + OPTIONAL, "term")]


def stances_of(path: Path) -> frozenset[str]:
    """The stances that lower every term of a category."""
    try:
        named = tomllib.loads(path.read_text("utf-8")).get("stances", []) if path.exists() else []
    except (OSError, ValueError):
        raise LexiconError(f"{path}: cannot be read as TOML") from None
    if not isinstance(named, list) or not set(STANCES).issuperset(named):
        raise LexiconError(f"{path}: stances: must be a list out of {', '.join(STANCES)}")
    return frozenset(named)


def term_of(row: Mapping[str, str], category: str, where: str, stances: frozenset[str] = frozenset()) -> Term:
    """A checked term from its cells. Raises LexiconError that names the column."""
    try:
        expires = date.fromisoformat(row["expires"]) if row.get("expires") else None
    except ValueError:
        raise LexiconError(f"{where}: column expires: must be a date like 2027-06-30") from None
    off = frozenset(row.get("off", "").replace(",", " ").split())
    if unknown := sorted(off.difference(TECHNIQUES)):
        raise LexiconError(f"{where}: column off: {unknown[0]!r} is no technique; they are {', '.join(TECHNIQUES)}")
    allow = [a for a in row.get("allow", "").split("|") if a]
    named = {a[1:] for a in allow if a.startswith("@")}
    if wrong := sorted(named.difference(STANCES)):
        raise LexiconError(f"{where}: column allow: @{wrong[0]} is no stance; they are @{', @'.join(STANCES)}")
    term = Term(
        row["term"].strip(),
        category,
        cast(Tier, row.get("tier") or "certain"),
        off,
        tuple(a for a in allow if not a.startswith("@")),
        stances | named,
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


def cues(folder: Path) -> list[tuple[str, str]]:
    """The cues of `folder`/cues.tsv (stance, cue), if there is one. Raises LexiconError."""
    path = folder / "cues.tsv"
    made = []
    for where, row in rows(path, ("stance", "cue"), "cue") if path.exists() else ():
        if row.get("stance") not in STANCES:
            raise LexiconError(f"{where}: column stance: must be one of {', '.join(STANCES)}")
        if not 2 <= len(fold(row["cue"])) <= CONTEXT:
            raise LexiconError(f"{where}: column cue: must have 2 to {CONTEXT} characters after folding")
        made.append((row["stance"], row["cue"]))
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


if __name__ == "__main__":
    sys.exit(main())
