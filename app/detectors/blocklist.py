"""The blocklist: live entries of operators, and later of confirmed reports, as the store's table gives them.

Law: an entry acts as its owner chose, in its scope, until it expires; no stance cue and no shipped allow phrase lowers it.
What is in force is one immutable generation, swapped whole: the bulk, and beside it what changed since it was compiled, so
that one new entry acts at once however long the list is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from app.compiling import compiled
from app.copies import Copies, Runs
from app.passages import Fingerprint, Passages
from app.terms import Hit, Terms
from app.text import fold
from app.types import Action, Candidate, Scan, Scope

_ACTION = {a.word: a for a in Action}
_NONE: frozenset[str] = frozenset()
_COPY = frozenset({"copy"})
_VERSIONS = count(1)
_FRESH = 256
"""Changed rows that are compiled apart from the bulk: 8 ms at most, some 40 where all have runs."""

Row = Mapping[str, Any]


class _Part:
    """Some rows, compiled. Immutable."""

    def __init__(self, rows: Iterable[Row], keys: dict[str, bytes], folder: Path | None = None) -> None:
        self.rows = {row["id"]: row for row in rows}
        by_term: dict[str, list[Row]] = {}
        self.passage_rows: list[Row] = []
        prints: list[Fingerprint] = []
        copied: list[tuple[int, Runs]] = []
        for row in self.rows.values():
            if "term" in row:
                by_term.setdefault(fold(row["term"].strip()), []).append(row)
            else:
                if (runs := unpack_runs(row["fingerprint"])) is not None:
                    copied.append((len(self.passage_rows), runs))
                self.passage_rows.append(row)
                prints.append(unpack(row["fingerprint"]))
        self.term_rows = list(by_term.values())
        self.terms = compiled(list(by_term), folder=folder)
        self.passages = Passages(prints, keys) if prints else None
        self.copies = Copies(copied, keys) if copied else None


class _Generation(NamedTuple):
    """What is in force: the bulk of the list, what came after it was compiled, and which of its rows no longer hold."""

    base: _Part
    fresh: _Part
    gone: frozenset[str]

    def parts(self) -> tuple[tuple[_Part, frozenset[str]], ...]:
        return (self.base, self.gone), (self.fresh, _NONE)


class Blocklist:
    """The detector of entries that are terms; `passages` is the one of those that are passages. `keys`: fingerprint
    keys by kid. `folder`: where long lists are kept compiled."""

    name = "blocklist"

    def __init__(self, keys: dict[str, bytes] | None = None, folder: Path | None = None) -> None:
        self._keys, self._folder = keys or {}, folder
        self._empty = _Part((), self._keys)
        self._put(_Generation(self._empty, self._empty, _NONE))
        self.passages = _Passages(self)

    def __len__(self) -> int:
        return len(self.now.base.rows) - len(self.now.gone) + len(self.now.fresh.rows)

    @property
    def foreign(self) -> int:
        """Passages whose key this replica does not have, and so cannot find."""
        return sum(
            row["fingerprint"]["kid"] not in self._keys
            for part, gone in self.now.parts()
            for row in part.passage_rows
            if row["id"] not in gone
        )

    def correction(self, rule: str) -> Mapping[str, str] | None:
        """What the owner of the entry says is right (zh, en, maybe source), where that is said. `rule`: of a finding."""
        for part, gone in self.now.parts():
            if rule in part.rows and rule not in gone:
                found: Mapping[str, str] | None = part.rows[rule].get("correction")
                return found
        return None

    def corrections(self) -> list[str]:
        """The words of all of them."""
        rows = (row for part, gone in self.now.parts() for id, row in part.rows.items() if id not in gone)
        return [row["correction"][language] for row in rows if "correction" in row for language in ("zh", "en")]

    def load(self, rows: Iterable[Row]) -> None:
        """Replace the whole list by the unexpired `rows` of the entries table."""
        self._put(_Generation(_Part(rows, self._keys, self._folder), self._empty, _NONE))

    def change(self, rows: Mapping[str, Row | None], whole: bool) -> None:
        """Put changed rows into force (None: no longer), or the `whole` list. A few are compiled by themselves, at once;
        many, with all the others. What it raises leaves the old list in force."""
        if whole:
            self.load(row for row in rows.values() if row is not None)
            return
        base, fresh, gone = self.now
        later = {id: row for id, row in {**fresh.rows, **rows}.items() if row is not None}
        gone |= {id for id in rows if id in base.rows}
        if len(later) + len(gone) > _FRESH:
            self.load([row for id, row in base.rows.items() if id not in gone] + list(later.values()))
        else:
            self._put(_Generation(base, _Part(later.values(), self._keys), gone))

    def _put(self, generation: _Generation) -> None:
        self.now, self.version = generation, str(next(_VERSIONS))

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        return self._both(lambda terms: terms.find(text, since, final), len(text), scope)

    def read(self, text: str, original: str, since: int, final: bool, scope: Scope) -> Scan:
        found = self._both(lambda terms: terms.read(text, original, since, final), len(text), scope)
        return Scan([replace(c, tier="suspect") for c in found.candidates], found.hold)

    def _both(self, look: Callable[[Terms], tuple[list[Hit], int]], size: int, scope: Scope) -> Scan:
        candidates: list[Candidate] = []
        hold = size
        for part, gone in self.now.parts():
            if not part.term_rows:
                continue
            hits, until = look(part.terms)
            if until < hold:
                hold = until
            if hits:
                candidates += [
                    _candidate(h.start, h.end, row, h.techniques)
                    for h in hits
                    for row in part.term_rows[h.number]
                    if row["id"] not in gone and _covers(row, scope)
                ]
        return Scan(candidates, hold)


class _Passages:
    """The detector of passages, whole and in near copies. Apart from that of terms, for it can sleep while a long passage is still open."""

    name = "passages"

    def __init__(self, blocklist: Blocklist) -> None:
        self._blocklist = blocklist

    @property
    def version(self) -> str:
        return self._blocklist.version

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        now = self._blocklist.now
        if now.base.passages is None and now.fresh.passages is None:
            return Scan([], len(text))
        candidates, hold, wake = [], len(text), 0
        for part, gone in now.parts():
            for searched, how in ((part.passages, _NONE), (part.copies, _COPY)):
                if searched is None:
                    continue
                found, until, later = searched.find(text, since, final)
                if until < hold:
                    hold, wake = until, later
                elif until == hold and later:
                    wake = min(wake or later, later)
                rows = part.passage_rows
                candidates += [
                    _candidate(start, end, rows[i], how)
                    for start, end, i in found
                    if rows[i]["id"] not in gone and _covers(rows[i], scope)
                ]
        return Scan(candidates, hold, wake)


def _candidate(start: int, end: int, row: Mapping[str, Any], techniques: frozenset[str] = frozenset()) -> Candidate:
    # A suspect entry flags at most, as a suspect term does: its owner said so.
    action = _ACTION[row["action"]]
    tier = row.get("tier", "certain")
    if tier == "suspect":
        action = min(action, Action.FLAG)
    return Candidate(start, end, row["category"], Blocklist.name, row["id"], "entry", 1.0, action, techniques)


def _covers(row: Mapping[str, Any], scope: Scope) -> bool:
    readers = row["scope"].get("readers")
    return (
        row["scope"]["app"] in ("*", scope.app)
        and scope.direction in row["scope"]["directions"]
        and (readers is None or not scope.readers.isdisjoint(readers))
    )


def pack(print_: Fingerprint, runs: Runs | None = None) -> dict[str, Any]:
    """A fingerprint as JSON; with the `runs` of the same passage, under the same kid, near copies are found too."""
    assert runs is None or runs.kid == print_.kid
    packed = {"kid": print_.kid, "marks": [[n, base64.b64encode(mac).decode()] for n, mac in print_.marks]}
    return packed | {"runs": base64.b64encode(runs.sealed).decode()} if runs else packed


def unpack(value: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint that was packed."""
    return Fingerprint(value["kid"], tuple((n, base64.b64decode(mac)) for n, mac in value["marks"]))


def unpack_runs(value: Mapping[str, Any]) -> Runs | None:
    """The runs that were packed with it, if any."""
    return Runs(value["kid"], base64.b64decode(value["runs"])) if "runs" in value else None
