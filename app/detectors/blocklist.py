"""The blocklist: live entries of operators, and later of confirmed reports, as the store's table gives them.

Law: an entry acts as its owner chose, in its scope, until it expires; no stance cue and no shipped allow phrase lowers it.
`load` replaces everything at once; requests in flight keep what they began with.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from app.passages import Fingerprint, Passages
from app.terms import Hit, Terms
from app.text import fold
from app.types import Action, Candidate, Scan, Scope

_ACTION = {a.word: a for a in Action}


class _Compiled:
    """One immutable generation of the list."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], keys: dict[str, bytes]) -> None:
        by_term: dict[str, list[Mapping[str, Any]]] = {}
        self.passage_rows: list[Mapping[str, Any]] = []
        prints = []
        for row in rows:
            if "term" in row:
                by_term.setdefault(fold(row["term"].strip()), []).append(row)
            else:
                self.passage_rows.append(row)
                prints.append(unpack(row["fingerprint"]))
        self.term_rows = list(by_term.values())
        self.terms = Terms(list(by_term))
        self.passages = Passages(prints, keys) if prints else None
        self.size = len(self.passage_rows) + sum(map(len, self.term_rows))
        self.foreign = sum(p.kid not in keys for p in prints)


class Blocklist:
    """The detector of entries that are terms; `passages` is the one of those that are passages. `keys`: fingerprint
    keys by kid."""

    name = "blocklist"

    def __init__(self, keys: dict[str, bytes] | None = None) -> None:
        self._keys = keys or {}
        self.now = _Compiled([], self._keys)
        self.passages = _Passages(self)

    def __len__(self) -> int:
        return self.now.size

    @property
    def foreign(self) -> int:
        """Passages whose key this replica does not have, and so cannot find."""
        return self.now.foreign

    def load(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the whole list by the unexpired `rows` of the entries table."""
        self.now = _Compiled(rows, self._keys)

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        now = self.now
        if not now.term_rows:
            return Scan([], len(text))
        hits, hold = now.terms.find(text, since, final)
        return Scan(self._candidates(now, hits, scope), hold)

    def read(self, text: str, original: str, since: int, final: bool, scope: Scope) -> Scan:
        now = self.now
        if not now.term_rows:
            return Scan([], len(text))
        hits, hold = now.terms.read(text, original, since, final)
        return Scan([replace(c, tier="suspect") for c in self._candidates(now, hits, scope)], hold)

    def _candidates(self, now: _Compiled, hits: Iterable[Hit], scope: Scope) -> list[Candidate]:
        return [
            _candidate(h.start, h.end, row, h.techniques)
            for h in hits
            for row in now.term_rows[h.number]
            if _covers(row, scope)
        ]


class _Passages:
    """The detector of passages. Apart from that of terms, for it can sleep while a long passage is still open."""

    name = "passages"

    def __init__(self, blocklist: Blocklist) -> None:
        self._blocklist = blocklist

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        now = self._blocklist.now
        if now.passages is None:
            return Scan([], len(text))
        found, hold, wake = now.passages.find(text, since, final)
        rows = now.passage_rows
        return Scan([_candidate(start, end, rows[i]) for start, end, i in found if _covers(rows[i], scope)], hold, wake)


def _candidate(start: int, end: int, row: Mapping[str, Any], techniques: frozenset[str] = frozenset()) -> Candidate:
    # A suspect entry flags at most, as a suspect term does: its owner said so.
    action = _ACTION[row["action"]]
    tier = row.get("tier", "certain")
    if tier == "suspect":
        action = min(action, Action.FLAG)
    return Candidate(start, end, row["category"], Blocklist.name, row["id"], "entry", 1.0, action, techniques)


def _covers(row: Mapping[str, Any], scope: Scope) -> bool:
    return row["scope"]["app"] in ("*", scope.app) and scope.direction in row["scope"]["directions"]


def pack(print_: Fingerprint) -> dict[str, Any]:
    """A fingerprint as JSON."""
    return {"kid": print_.kid, "marks": [[n, base64.b64encode(mac).decode()] for n, mac in print_.marks]}


def unpack(value: Mapping[str, Any]) -> Fingerprint:
    """The inverse of `pack`."""
    return Fingerprint(value["kid"], tuple((n, base64.b64decode(mac)) for n, mac in value["marks"]))
