"""What looks for the weaker views' findings in C finds what the Python does."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import codes, native, pinyin, redrawn, views
from app.lookup import Index

ANY = st.text(st.characters(), max_size=60)
LISTED = [
    "蓝色信号",
    "土木工程",
    "赌博机",
    "末日",
    "未来",
    "王土",
    "三二一",
    "人口大国",
    "天天天",
    "丶人口",
    "\U00020000木",
]


def test_the_suite_runs_on_the_compiled_views() -> None:
    assert native.views is not None, "app/_views.c was not compiled: scripts/install says why"
    assert isinstance(_drawn(tuple(LISTED))[0], redrawn.Redrawn)


# Redrawn terms.


@cache
def _drawn(terms: tuple[str, ...]) -> tuple[redrawn.Native, redrawn.Pure]:
    index = Index(redrawn.anchors(terms))
    return redrawn.Native(index, terms), redrawn.Pure(index, terms)


def _near(terms: list[str]) -> str:
    """The terms' characters, and some that are taken for them."""
    chars = sorted({ch for term in terms for ch in term})
    return "".join(dict.fromkeys(c for ch in chars for c in ch + views.same_look(ch)[:6] + views.same_sound(ch)[:2]))


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(_near(LISTED) + "丶丨一 a，\U00034000", max_size=40), ANY))
def test_the_same_terms_may_stand_redrawn(text: str) -> None:
    compiled, pure = _drawn(tuple(LISTED))
    assert list(compiled.find(text)) == pure.find(text)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_term_with_characters_drawn_as_others_is_found_alike(data: st.DataObject) -> None:
    compiled, pure = _drawn(tuple(LISTED))
    term = data.draw(st.sampled_from(LISTED))
    text = "".join(
        data.draw(st.sampled_from(ch + views.same_look(ch)[:8] + views.same_sound(ch)[:2] + "书")) for ch in term
    )
    for shown in (text, f"请看：{text}。", "丶".join(text), text[:-1]):
        assert list(compiled.find(shown)) == pure.find(shown)


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.text("末未土士王壬人入大太犬木术", min_size=1, max_size=6), max_size=12),
    st.text("末未土士王壬人入大太犬木术丶a", max_size=40),
)
def test_any_list_is_looked_for_alike(terms: set[str], text: str) -> None:
    listed = sorted(terms)
    index = Index(redrawn.anchors(listed))
    compiled, pure = redrawn.Native(index, listed), redrawn.Pure(index, listed)
    assert list(compiled.find(text)) == pure.find(text)
    assert bool(compiled) == bool(pure) == any(len(t) > 1 for t in terms)


def test_what_is_longer_than_a_page_is_looked_at_to_its_end() -> None:
    compiled, pure = _drawn(tuple(LISTED))
    text = "一二三，" * 2000 + "士术王程" + "好" * 3000 + "睹搏机"
    assert list(compiled.find(text)) == pure.find(text)
    assert {number for number, _ in compiled.find(text)} >= {LISTED.index("土木工程"), LISTED.index("赌博机")}


# Pinyin.

PIECES = ["du", "bo", "zhuang", "xi", "an", "ng", "hm", "m", "r", "e", *"'’1560 x的üA", "zz"]


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
        st.text("aeinguhzxbdr'’15 9好", max_size=30),
        st.from_regex("([a-z]{1,7}[1-6]){1,3}[a-z ]?"),
        ANY,
    )
)
def test_the_same_tokens_are_pinyin(text: str) -> None:
    assert list(pinyin.tokens()(text) or ()) == list(pinyin.parsed(text))


@pytest.mark.parametrize(
    ("text", "syllables"),
    [
        ("du bo ji", 3),
        ("dubo", 2),
        ("xi'an’", 2),
        ("du2bo2", 2),
        ("du2bo2x", 2),  # the digits are none of it
        ("ng2", 1),
        ("ng", 0),
        ("hello world", 0),
        ("a" * 25, 0),
        ("a" * 24, 24),
        ("zhuangz", 0),
        ("a1", 0),
    ],
)
def test_a_token_is_pinyin_as_a_whole_or_not_at_all(text: str, syllables: int) -> None:
    assert len(pinyin.Spelt(text).syllables) == syllables


# Codes.

BASE64 = "YWJjZGVm aGVsbG8gd29ybGQ= U2x1aWNl SGVsbG8 Ab1 =/+-_ aB Title lower UPPER"
MADE = st.one_of(
    st.lists(st.sampled_from([*BASE64.split(), "=", " ", "，", "é", "Zm9v", "a", "A", "0"]), max_size=10).map("".join),
    st.lists(
        st.sampled_from(["0x", "0X", "x", "41", "6a", "F", "0", "e4bda0", " ", ", ", ":", "   ", "g", "好"]),
        max_size=24,
    ).map("".join),
    st.lists(
        st.sampled_from(["\U000e0041", "\U000e007e\U000e0020", "\U000e007f", "\U000e001f", "a", "好"]), max_size=12
    ).map("".join),
    ANY,
)


@settings(max_examples=800, deadline=None)
@given(MADE)
def test_the_same_codes_are_undone(text: str) -> None:
    assert list(codes.coded(text)) == list(codes.undone(text, codes.shaped(text)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("YWJjZGVm。", ["abcdef"]),
        ("0x61 0x62, 0X63:64。", ["abcd"]),
        ("61626364" * 105 + "。", ["abcd" * 100 + "a", "bcd" + "abcd" * 4]),
        ("\U000e0061\U000e0062\U000e0063", ["abc"]),
        ("Another sentence of plain words, 2026-01-01 and 138 0000 0000 too.", []),
        ("好的YWJjZGVmZw==", ["abcdefg"]),
        ("好的abcdefg", [""]),  # what follows may make it one
        ("好的。", []),
    ],
)
def test_what_stands_in_a_code_is_told(text: str, found: list[str]) -> None:
    assert [code.text for code in codes.coded(text)] == found


def test_plain_prose_has_nothing_to_look_at() -> None:
    assert native.views is not None
    prose = "The Council met on Monday; Understanding grew, 50% of it by e-mail. 会议在星期一开始，共有１２人参加。" * 9
    assert native.views.codes(prose) is None
    assert not list(pinyin.tokens()("the council met on monday; understanding grew。") or ())


def test_a_text_of_nothing_else_is_looked_at_once() -> None:
    for text in (
        "a" * 200_000,
        "a'" * 100_000,
        "0" * 199_999,
        "0x" * 100_000,
        "Aa" * 100_000 + "。",
        "ab1" * 1_000 + "x",
    ):
        assert list(codes.coded(text)) == list(codes.undone(text, codes.shaped(text)))
        assert list(pinyin.tokens()(text) or ()) == list(pinyin.parsed(text))
    assert not pinyin.tokens()("zz1" * 100_000 + "x")
