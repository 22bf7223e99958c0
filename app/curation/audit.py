"""Audit: each risk type as its files stand, what was counted beside what was measured. It judges neither."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from app.curation.files import Line, today
from app.curation.trial import finds, found, live
from app.taxonomy import taxonomy

SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Account:
    """One category as its files stand. Counts of sentences are pairs: (those found, all)."""

    category: str
    zh: str
    en: str
    clause: str
    certain: int
    suspect: int
    recall: tuple[int, int]
    """Its hit sentences."""
    false_own: tuple[int, int]
    """Its own clean sentences, found by any of its terms."""
    false_other: tuple[int, int]
    """The clean sentences of all other categories, found by any of its terms."""
    newest: date | None
    age_days: int | None
    expiring: list[tuple[str, date]]
    """(term, day) of those that expire within SOON."""


def audit(folder: Path) -> list[Account]:
    """Every risk type of the taxonomy, in its order. Raises LexiconError."""
    lines, lexicon = live(folder)
    by_category: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_category[line.term.category].append(line)
    recalled = Counter(
        line.term.category for line in lines if line.term.hit and finds(lexicon, line.term, line.term.hit)
    )
    own: Counter[str] = Counter()
    other: Counter[str] = Counter()
    sentences = [(line.term.category, line.term.clean) for line in lines if line.term.clean]
    for category, sentence in sentences:
        for hit in {c.category for c in found(lexicon, sentence)}:
            (own if hit == category else other)[hit] += 1
    made = []
    for row in taxonomy().values():
        mine = by_category[row.id]
        tiers = Counter(line.term.tier for line in mine)
        newest = max((date.fromisoformat(line.row["added"]) for line in mine if line.row.get("added")), default=None)
        clean = sum(category == row.id for category, _ in sentences)
        ends = [(line.term.term, line.term.expires) for line in mine if line.term.expires]
        made.append(
            Account(
                row.id, row.zh, row.en, row.clause, tiers["certain"], tiers["suspect"],
                recall=(recalled[row.id], sum(bool(line.term.hit) for line in mine)),
                false_own=(own[row.id], clean),
                false_other=(other[row.id], len(sentences) - clean),
                newest=newest,
                age_days=(today() - newest).days if newest else None,
                expiring=sorted((e for e in ends if e[1] <= today() + SOON), key=lambda pair: (pair[1], pair[0])),
            )
        )  # fmt: skip
    return made
