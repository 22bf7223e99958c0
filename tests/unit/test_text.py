"""Folding: what is the same to a reader becomes the same text, character by character, with the way back."""

from __future__ import annotations

import sys
import unicodedata
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.text import SENTINEL, fold, is_han, is_word, origins, techniques

PAIRS = [
    (line[0], line[1:].strip())
    for line in (files("app") / "data" / "traditional.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
AWKWARD = (
    "aBcＡｂＣ１①㍿㈱½ﬁßİıſ示例違禁開臺語頭髮ｶﾞガが한각\u200b\u200d\u202e\u2067\ufe0f\U000e0041\u0301é \t\n\u3000"
    + SENTINEL
)
TEXTS = st.text(
    st.one_of(
        st.sampled_from(AWKWARD), st.sampled_from([t for t, _ in PAIRS]), st.characters(), st.characters(categories=["Cs"])
    ),
    max_size=30,
)  # fmt: skip


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    """Every assigned character with what it folds to; of the later Han planes those with a compatibility form."""
    codes = [*range(0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200), 0xF0000, sys.maxunicode]
    return {ch: fold(ch) for ch in map(chr, codes) if unicodedata.category(ch) != "Cn" or ch >= "\U000e0000"}


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_folding_twice_changes_nothing_for_any_character(table: dict[str, str]) -> None:
    assert [hex(ord(ch)) for ch, folded in table.items() if fold(folded) != folded] == []


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_a_text_may_be_cut_anywhere(a: str, b: str) -> None:
    assert fold(a + b) == fold(a) + fold(b)
    assert list(origins(a + b)) == list(origins(a)) + [len(a) + i for i in origins(b)]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_every_folded_character_knows_where_it_comes_from(text: str) -> None:
    way_back = origins(text)
    assert len(way_back) == len(fold(text))
    assert list(way_back) == [i for i, ch in enumerate(text) for _ in fold(ch)]


@pytest.mark.parametrize(
    ("text", "way_back"),
    [
        ("", []),
        ("a\u200bb", [0, 2]),
        ("㍿x", [0, 0, 0, 0, 1]),
        ("½", [0, 0, 0]),
        ("\ufeffｅ\u0301", [1]),
        ("語ﬁ言", [0, 1, 1, 2]),
        ("\U000e0061示", [1]),
    ],
)
def test_origins_count_characters_of_the_original(text: str, way_back: list[int]) -> None:
    assert list(origins(text)) == way_back


@pytest.mark.parametrize(
    ("text", "folded", "technique"),
    [
        ("plain text 示例，123", "plain text 示例,123", "width"),
        ("plain text 示例。123\t\r\n", "plain text 示例。123\t\r\n", "plain"),
        ("", "", "plain"),
        ("ABC", "abc", "case"),
        ("Straße", "strasse", "case"),
        ("ΣΑΣ", "σασ", "case"),
        ("ｓａｍｐｌｅ１２３", "sample123", "width"),
        ("ＡＢ", "ab", "width"),
        ("ｶ", "カ", "width"),
        ("\u3000", " ", "width"),
        ("①②", "12", "circled"),
        ("㍿", "株式会社", "compat"),
        ("𝐬𝐚𝐦𝐩𝐥𝐞", "sample", "math"),
        ("ⓢⓐⓜⓟⓛⓔ", "sample", "circled"),
        ("ﬁ", "fi", "compat"),
        ("示\u200b例", "示例", "zero_width"),
        ("示\u2060\ufeff\u00ad例", "示例", "zero_width"),
        ("示\x00\x07\x85例", "示例", "zero_width"),
        ("示\u3164\u2800例", "示例", "zero_width"),
        ("示\u202e\u2066\u2069\u200f例", "示例", "bidi"),
        ("示\U000e0041\U000e007f例", "示例", "tag"),
        ("示\ufe0f\U000e0100\u180b例", "示例", "variation"),
        ("e\u0301x\u20dd", "ex", "combining"),
        ("éÅ", "ea", "combining"),
        ("é", "e", "combining"),
        ("違禁短語", "违禁短语", "traditional"),
        ("臺灣", "台湾", "traditional"),
        ("ＡB\u200b違①", "ab违1", "case+circled+traditional+width+zero_width"),
    ],
)
def test_a_disguise_is_folded_away_and_named(text: str, folded: str, technique: str) -> None:
    assert fold(text) == folded
    assert "+".join(sorted(techniques(text))) == technique.removeprefix("plain")


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_plain_means_that_nothing_was_folded(text: str) -> None:
    assert (techniques(text) == set()) == (fold(text) == text)


def test_the_sentinel_never_occurs_in_folded_text(table: dict[str, str]) -> None:
    assert fold(f"示{SENTINEL}例{SENTINEL}") == "示例"
    assert not any(SENTINEL in folded for folded in table.values())


def test_no_character_folds_to_one_that_draws_nothing(table: dict[str, str]) -> None:
    assert [
        hex(ord(ch)) for ch, folded in table.items() for c in folded
        if unicodedata.category(c) in ("Cf", "Cc") and c not in "\t\n\r"
    ] == []  # fmt: skip


def test_traditional_is_folded_as_the_table_says() -> None:
    """A second implementation, a dictionary looked up until it says nothing more, over every row of the table."""
    simplified = dict(PAIRS)
    assert len(simplified) == len(PAIRS) > 2000
    wrong = []
    for traditional, to in PAIRS:
        seen = [traditional]
        while to in simplified and to not in seen:
            seen.append(to)
            to = simplified[to]
        if fold(traditional) != unicodedata.normalize("NFKC", to):
            wrong.append((traditional, fold(traditional), to))
    assert wrong == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(PAIRS), min_size=1, max_size=20))
def test_traditional_and_simplified_spellings_fold_to_one(pairs: list[tuple[str, str]]) -> None:
    traditional, simplified = ("".join(column) for column in zip(*pairs, strict=True))
    assert fold(traditional) == fold(simplified)
    assert len(fold(traditional)) == len(traditional)
    assert techniques(traditional) == {"traditional"}


@pytest.mark.parametrize("ch", ["示", "㐀", "\u9fff", "\U00020000", "\U0002a6df", "\U000323af", "〇", "々"])
def test_han_ideographs_are_han(ch: str) -> None:
    assert is_han(ch) and not is_word(ch)


@pytest.mark.parametrize("ch", ["a", "é", "7", "я", "α", "ש", "ع", "ह"])
def test_letters_between_spaces_are_of_words(ch: str) -> None:
    assert is_word(ch) and not is_han(ch)


@pytest.mark.parametrize("ch", [" ", "，", "-", "_", "あ", "ア", "한", "\n", "😀"])
def test_the_rest_is_neither(ch: str) -> None:
    assert not is_word(ch) and not is_han(ch)
