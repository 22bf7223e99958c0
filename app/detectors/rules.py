"""Rules of an operator beyond literals: an anchor, and an RE2 expression for what follows it. The only importer of re2.

Law: a pure function of the text. A match begins with its anchor and spans at most `within` characters, so without the
anchor a rule costs nothing; where it stands, the start is held until the text is one character longer than a match could
be (an expression may ask whether the text ends or a word does), and then decided for good.
Format of `lexicons/<category>/rules.tsv`: docs/rules.md; why it is so: docs/adr/0012.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

import re2

from app import clock
from app.detectors.lexicon import rows
from app.errors import LexiconError
from app.lookup import Lookup
from app.taxonomy import taxonomy
from app.text import fold, is_word
from app.types import Candidate, Scan, Scope, Tier

COLUMNS = (
    "name", "anchor", "rest", "within", "tier", "owner", "reason", "basis", "added", "expires", "hit", "clean",
)  # fmt: skip
MOST = 10_000
"""Rules over all folders."""
TOGETHER = 4
"""Rules that may begin at one place of a text: what a place costs at most."""
_VERSIONS = count(1)
_ANCHOR, _REST = 100, 500
"""Characters at most."""
_WITHIN, _WIDEST = 64, 200
_MEMORY = 1 << 16
"""Bytes that RE2 may take for one rule: its program, and the states it keeps."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_PIECE = re.compile(
    r"\\[pP]\{\^?\w*\}|\\[pP].|\\x\{\w*\}|\\x..|\\[QE]|\\.|\(\?P?<\w+>|\(\?[A-Za-z-]*|\[:\^?\w+:\]|.", re.DOTALL
)
"""What an expression is made of: escapes, openings of groups, classes, and characters that stand for themselves."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `anchor`: folded. `rest`: compiled. `within`: folded characters of a match at most, its anchor included."""

    name: str
    category: str
    anchor: str
    rest: Any
    within: int = _WITHIN
    tier: Tier = "certain"
    expires: date | None = None

    @property
    def id(self) -> str:
        return f"rule.{self.category}.{self.name}"

    @property
    def over(self) -> bool:
        """Its last day has passed."""
        return self.expires is not None and self.expires < datetime.fromtimestamp(clock.now()).date()

    def end(self, text: str, start: int) -> int | None:
        """Where its longest match ends, if one begins with the anchor that stands at `start`."""
        stop = start + self.within
        # Bytes of just this place: RE2 counts in bytes, and a match costs the same however long the text is. It sees the
        # anchor before it and one character after it, for `\b` and `$`.
        near = text[start : stop + 1].encode()
        found = self.rest.match(near, len(self.anchor.encode()), len(near) - len(text[stop : stop + 1].encode()))
        return None if found is None else start + len(near[: found.end()].decode())

    def finds(self, text: str) -> bool:
        """It matches somewhere in folded `text`."""
        at = text.find(self.anchor)
        while at >= 0:
            if not _inside_word(text, at) and self.end(text, at) is not None:
                return True
            at = text.find(self.anchor, at + 1)
        return False


class Rules:
    """The detector. A rule that is over neither finds nor holds."""

    name = "rules"

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self.version = str(next(_VERSIONS))
        self._anchors = Lookup(((r.anchor, i) for i, r in enumerate(self._rules)), live=True)

    def __len__(self) -> int:
        return len(self._rules)

    def take(self, other: Rules) -> None:
        """Enforce `other`'s rules from now on."""
        self._rules, self._anchors, self.version = other._rules, other._anchors, other.version

    def scan(self, text: str, since: int, final: bool, scope: Scope) -> Scan:
        size = len(text)
        if not self._rules:
            return Scan([], size)
        hold, wake = size, 0
        found, live = self._anchors.watch(text, since)
        if live is not None and not final:
            for at in live.starts:
                if not _inside_word(text, live.places[at]):
                    hold = live.places[at]
                    break
        if not found:
            return Scan([], hold)
        candidates: list[Candidate] = []
        for number, places in found:
            start = places[0]
            if _inside_word(text, start):
                continue
            for rule in map(self._rules.__getitem__, self._anchors.owners(number)):
                stop = start + rule.within
                if rule.over:
                    continue
                if stop >= size and not final:
                    # Nothing learnt before this place is decided can move the hold, so until then there is no need to ask.
                    if start < hold:
                        hold, wake = start, stop + 1
                    elif start == hold:
                        wake = max(wake, stop + 1)
                elif (end := rule.end(text, start)) is not None:
                    candidates.append(Candidate(start, end, rule.category, self.name, rule.id, rule.tier))
        return Scan(candidates, hold, wake)


def _inside_word(text: str, start: int) -> bool:
    """A Latin anchor begins a word."""
    return start > 0 and is_word(text[start]) and is_word(text[start - 1])


def rule_of(row: Mapping[str, str], category: str, where: str) -> Rule:
    """A checked rule from its cells. Raises LexiconError that names the column."""
    name = row.get("name", "").strip()
    if not _NAME.fullmatch(name):
        raise LexiconError(f"{where}: column name: must be 1 to 40 of a-z, 0-9, _ and -, a letter first")
    anchor = fold(row.get("anchor", "").strip())
    if not 2 <= len(anchor) <= _ANCHOR:
        raise LexiconError(
            f"{where}: column anchor: must have 2 to {_ANCHOR} characters after folding; every match begins with it"
        )
    cell = row.get("within", "").strip() or str(_WITHIN)
    within = int(cell) if re.fullmatch("[0-9]{1,4}", cell) else 0
    if not 2 <= within <= _WIDEST:
        raise LexiconError(f"{where}: column within: must be a number from 2 to {_WIDEST}")
    if within < len(anchor):
        raise LexiconError(f"{where}: column within: less than the {len(anchor)} characters of the anchor")
    tier = row.get("tier") or "certain"
    if tier not in ("certain", "suspect"):
        raise LexiconError(f"{where}: column tier: must be 'certain' or 'suspect'")
    try:
        expires = date.fromisoformat(row["expires"]) if row.get("expires") else None
    except ValueError:
        raise LexiconError(f"{where}: column expires: must be a date like 2027-06-30") from None
    rest = _compiled(row.get("rest", ""), where)
    rule = Rule(name, category, anchor, rest, within, cast(Tier, tier), expires)
    if row.get("hit") and not rule.finds(fold(row["hit"])):
        raise LexiconError(f"{where}: column hit: the rule does not find this sentence; mend the rule or the sentence")
    if row.get("clean") and rule.finds(fold(row["clean"])):
        raise LexiconError(f"{where}: column clean: the rule finds this sentence; make it narrower")
    return rule


def _compiled(rest: str, where: str) -> Any:
    """Raises LexiconError with RE2's own reason."""
    where = f"{where}: column rest"
    if len(rest) > _REST:
        raise LexiconError(f"{where}: longer than {_REST} characters; make two rules of it")
    for piece in _PIECE.findall(rest):
        if piece == r"\C":
            raise LexiconError(rf"{where}: \C matches bytes, not characters; write (?s:.)")
        if piece.startswith("(?") and "<" not in piece and "i" in piece:
            raise LexiconError(f"{where}: the flag i has no use, text is folded already; leave it out")
        if len(piece) == 1 and fold(piece) != piece:
            way = f"write {fold(piece)!r}" if fold(piece) else "leave it out"
            raise LexiconError(f"{where}: {piece!r} never stands in folded text; {way}")
    options = re2.Options()
    options.max_mem = _MEMORY
    options.longest_match = True
    options.never_capture = True
    options.log_errors = False
    try:
        return re2.compile(rest, options)
    except re2.error as e:
        reason = e.args[0].decode("utf-8", "replace") if e.args and isinstance(e.args[0], bytes) else str(e)
        if "too large" in reason:
            raise LexiconError(
                f"{where}: takes more than {_MEMORY >> 10} KiB compiled; repeat less, or narrower classes"
            ) from None
        raise LexiconError(f"{where}: RE2 does not take it ({reason}); what it takes stands in docs/rules.md") from None


def load(folder: Path) -> list[Rule]:
    """Every `<category>/rules.tsv` below `folder`; none is shipped. Raises LexiconError with file, line and column."""
    found: dict[str, tuple[str, Rule]] = {}
    for file in sorted(folder.glob("*/rules.tsv")):
        category = file.parent.name
        if category not in taxonomy():
            raise LexiconError(f"{file}: the folder {category!r} is not a category; the ids are in docs/categories.md")
        for where, row in rows(file, COLUMNS, "anchor"):
            rule = rule_of(row, category, where)
            if rule.id in found:
                raise LexiconError(f"{where}: column name: the same as of {found[rule.id][0]}; give it another")
            if len(found) == MOST:
                raise LexiconError(f"{where}: more than {MOST:,} rules; join some with |, or make terms of them")
            found[rule.id] = where, rule
    begin = Counter(rule.anchor for _, rule in found.values())
    for where, rule in found.values():
        if sum(begin[rule.anchor[:n]] for n in range(2, len(rule.anchor) + 1)) > TOGETHER:
            raise LexiconError(f"{where}: column anchor: more than {TOGETHER} rules begin like this; join some with |")
    return [rule for _, rule in found.values()]
