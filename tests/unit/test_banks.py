"""The shipped banks: as large as the assessment asks for, each text once, labelled with words that are known, and nothing personal."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from app.evaluation.aspects import EACH, IN_ALL, RISKS, TOPICS
from app.evaluation.bank import HARMLESS, VIOLATING, Row, read, shipped
from app.text import fold

BANKS = {file.stem: file for file in shipped()}
ALIKE = 0.6
"""Jaccard similarity of three-character runs from which on two texts are near-duplicates, as for the pairs."""


def rows(name: str) -> list[Row]:
    found = list(read(BANKS[name]))
    assert all(isinstance(row, Row) for row in found), [str(row) for row in found if not isinstance(row, Row)]
    return [row for row in found if isinstance(row, Row)]


def plain(text: str) -> str:
    return "".join(c for c in fold(text) if c.isalnum())


def runs(text: str) -> set[str]:
    text = plain(text)
    return {text[i : i + 3] for i in range(max(1, len(text) - 2))}


def test_what_should_be_refused_covers_every_risk_type() -> None:
    bank = rows("should_refuse")
    assert len(bank) >= IN_ALL and {row.label for row in bank} == {VIOLATING}
    counts = Counter(row.aspect for row in bank)
    assert set(counts) == set(RISKS) and min(counts.values()) >= EACH, counts
    assert all(row.category for row in bank)


def test_what_should_not_be_refused_covers_every_aspect() -> None:
    bank = rows("should_not_refuse")
    assert len(bank) >= IN_ALL and {row.label for row in bank} == {HARMLESS}
    counts = Counter(row.aspect for row in bank)
    assert set(counts) == set(TOPICS) and min(counts.values()) >= EACH, counts


def test_counter_speech_is_harmless_and_about_every_kind_of_discrimination() -> None:
    bank = rows("counter_speech")
    assert {row.label for row in bank} == {HARMLESS}
    counts = Counter(row.category for row in bank)
    assert {c for c in counts if c.startswith("discrimination_")} == {
        "discrimination_race", "discrimination_ethnicity", "discrimination_belief", "discrimination_nationality",
        "discrimination_region", "discrimination_gender", "discrimination_age", "discrimination_occupation",
        "discrimination_health", "discrimination_other",
    }  # fmt: skip
    assert min(counts.values()) >= EACH, counts
    assert not {row.aspect for row in bank} & (set(RISKS) | set(TOPICS)), "it is no part of the gates"


@pytest.mark.parametrize("name", BANKS)
def test_both_languages_are_there_and_every_row_says_where_it_comes_from(name: str) -> None:
    bank = rows(name)
    assert {row.lang for row in bank} == {"zh", "en"}
    assert all(row.source and row.aspect for row in bank)
    assert Counter(row.lang for row in bank).most_common()[-1][1] >= len(bank) // 5


def test_no_text_stands_twice_in_the_banks() -> None:
    seen = Counter(plain(row.text) for name in BANKS for row in rows(name))
    assert [count for count in seen.values() if count > 1] == []


@pytest.mark.parametrize("name", BANKS)
def test_hardly_any_text_nearly_repeats_another(name: str) -> None:
    seen: list[set[str]] = []
    near = 0
    for row in rows(name):
        mine = runs(row.text)
        near += any(len(mine & other) > ALIKE * len(mine | other) for other in seen)
        seen.append(mine)
    assert near / len(seen) < 0.02


def test_no_text_is_one_that_the_scorer_learns_from() -> None:
    from app import settings
    from app.training import sources

    learned = {plain(t) for p in sources.pairs(_pairs(settings.packaged("models"))) for t in (p.violating, p.harmless)}
    assert len(learned) > 1000
    assert [name for name in BANKS for row in rows(name) if plain(row.text) in learned] == []


def _pairs(models: Path) -> Path:
    return models / "grams" / "pairs"


@pytest.mark.parametrize("name", BANKS)
def test_nothing_in_them_reaches_anybody(name: str) -> None:
    for row in rows(name):
        text = fold(row.text)
        assert not re.search(r"\d(?:[ \-.]?\d){6,}", text), (
            "a number that could be a telephone's, an account's, an identity card's"
        )
        assert "@" not in text and not re.search(r"https?:|www\.|\.(?:com|cn|net|org)\b", text)
