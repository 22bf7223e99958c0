"""Patterns of personal information: exact spans of what is one, and silence about what only looks like one."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.detectors import patterns
from app.detectors.patterns import CATEGORY, Patterns
from app.text import fold
from app.types import Candidate, Scan, Scope

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def found(text: str) -> set[tuple[str, str]]:
    """(rule, folded text) of every candidate."""
    folded = fold(text)
    candidates = Patterns().scan(folded, 0, True, Scope("default", "answer")).candidates
    assert {c.category for c in candidates} <= {CATEGORY}
    return {(c.rule.removeprefix("pi."), folded[c.start : c.end]) for c in candidates}


def id_card(area: str, born: date, serial: str) -> str:
    body = area + born.strftime("%Y%m%d") + serial
    return body + "10X98765432"[sum(int(d) * w for d, w in zip(body, WEIGHTS, strict=True)) % 11]


def card(body: str) -> str:
    """A card number: the body and its Luhn digit."""
    doubled = (int(d) * (2 - i % 2) for i, d in enumerate(reversed(body)))
    return body + str(-sum(n // 10 + n % 10 for n in doubled) % 10)


def grouped(number: str, separator: str) -> str:
    return separator.join(number[i : i + 4] for i in range(0, len(number), 4))


ID = id_card("110105", date(1949, 12, 31), "002")
OLD_ID = id_card("440308", date(2003, 2, 28), "513")
CARDS = [card("411111111111111"), card("555555555555444"), card("622202020011223344"), card("356600202036050")]
PEOPLE = st.builds(
    id_card,
    st.from_regex("[1-9][0-9]{5}", fullmatch=True).filter(str.isascii),
    st.dates(date(1900, 1, 1), date(2099, 12, 31)),
    st.integers(0, 999).map("{:03}".format),
)

HITS = [
    ("id_card", ID), ("id_card", ID.lower()), ("id_card", OLD_ID), ("id_card", f"{ID[:6]} {ID[6:14]} {ID[14:]}"),
    ("id_card", f"{ID[:6]}-{ID[6:14]}-{ID[14:]}"), *(("bank_card", number) for number in CARDS),
    *(("bank_card", grouped(number, s)) for number in CARDS for s in " -"), ("mobile", "13912345678"),
    ("mobile", "19900001111"), ("mobile", "+8613912345678"), ("mobile", "008613912345678"),
    ("mobile", "+86 139 1234 5678"), ("mobile", "+86-139-1234-5678"), ("mobile", "0086 13912345678"),
    ("mobile", "139-1234-5678"), ("mobile", "139 1234 5678"), ("mobile", "139.1234.5678"),
    ("mobile", "1391 234 5678"), ("email", "ann.lee@example.com"), ("email", "Ann.Lee+news@mail.example.co.uk"),
    ("email", "a_b%c-d@example.cn"), ("email", "10086@example.com"), ("email", "a" * 64 + "@example.com"),
    ("ipv4", "8.8.8.8"), ("ipv4", "1.2.4.8"), ("ipv4", "172.32.0.1"), ("ipv4", "100.128.0.1"),
    ("ipv4", "192.169.1.1"), ("ipv4", "223.255.255.255"), ("ipv6", "2400:da00::8"),
    ("ipv6", "2001:4860:4860:0:0:0:0:8888"), ("ipv6", "2A00:1450::1"), ("ipv6", "3ffe::1"),
]  # fmt: skip
AROUND = [
    ("", ""), ("他的是", "，请记下。"), ("(", ")"), ("“", "”"), ("x=", ";"), ("\n", "\n"), ("<", ">"), ("是：", "！"),
    ("，", " 谢谢"), ("to ", ". Thanks"),
]  # fmt: skip

CLEAN = [
    "¥13,912,345,678", "合计 12,345,678.90 元", "15000000000 元", "13900000000", "圆周率 3.14159265358979",
    "0.4111111111111111", "13912345678.50", "1.13912345678", "v8.8.8.8", "version 8.8.8.8", "release: 8.8.4.4",
    "版本 8.8.8.8", "版本号：8.8.8.8", "1.2.3.4.5", "3.11.7", "8.8.8", "08.008.8.888", "2023-12-31 13:45:59",
    "12:34:56", "2023:10:10 12:00:00", "1700000000", "1700000000000", "20231231134559123",
    "订单号 202312311345591391234567", "订单号13912345678901", "2139123456781234567890", "1391234567813912345678",
    "4111111111111111" * 2, "7" * 40, "192.168.1.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "127.0.0.1",
    "169.254.1.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "100.64.0.1", "256.1.1.1", "8.8.8.256", "::1",
    "fe80::1", "fc00::1", "fd12:3456::1", "ff02::1", "2400:da00", "2400::da00::8", "2400:da00::8:zz", "std::vector",
    "2a::b", "cafe::bad", "0000::2400", "00:1a:2b:3c:4d:5e", "20:1a:2b:3c:4d:5e", "2a00-1b2c-3d4e", "2400:1",
    "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "41111111-1111-4111-8111-111111111111",
    "13912345-6781-4111-8111-111111111111", "git@example.com:sluice/sluice.git", "ann@localhost", "@example.com",
    "ann@example", "ann @example.com", "ann@@example.com", "ann@example.c", "a@-", "型号 E12345678", "part EA1234567",
    "护照丢了怎么办", "护照有 7 页", "护照 E1234567", "护照 E123456789", "护照 AE12345678", "passport no. 12345678",
    "12345678901", "12912345678", "1391234567", "139123456789", "139 1234 56789", "1-3-9-1-2-3-4-5-6-7-8",
    "+1 415 555 2671", "400-123-4567", "010-12345678", "ISBN 9787111213826", "一三九一二三四五六七八",
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), AROUND)
def test_what_is_personal_information_is_found_whole(before: str, after: str) -> None:
    for rule, text in HITS:
        assert (rule, fold(text)) in found(before + text + after), (rule, text)


@pytest.mark.parametrize(
    "text", ["护照 E12345678", "护照号码：EA1234567", "Passport No. G12345678", "ｐａｓｓｐｏｒｔ：D12345678。"]
)
def test_a_passport_number_is_one_after_the_word(text: str) -> None:
    ((rule, number),) = found(text)
    assert rule == "passport" and number in fold(text) and len(number) == 9


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("１３９１２３４５６７８", "mobile"),
        ("＋８６　１３９　１２３４　５６７８", "mobile"),
        ("139\u200b1234\u200d5678", "mobile"),
        ("ann＠example．com", "email"),
        ("".join(chr(ord(d) + 0xFEE0) for d in ID), "id_card"),
        ("①③⑨①②③④⑤⑥⑦⑧", "mobile"),
    ],
)
def test_other_forms_of_digits_and_signs_hide_nothing(text: str, rule: str) -> None:
    assert (rule, fold(text)) in found(text)


@pytest.mark.parametrize(("before", "after"), [("", ""), ("他说 ", "，对吗？"), ("(", ")")])
def test_what_only_looks_like_it_is_left_alone(before: str, after: str) -> None:
    for text in CLEAN:
        assert found(before + text + after) == set(), text


def test_two_things_in_one_text_are_both_found_and_nothing_between() -> None:
    text = f"电话 13912345678，邮箱 ann@example.com，身份证 {ID}，卡号 {grouped(CARDS[0], ' ')}。"
    assert {rule for rule, _ in found(text)} == {"mobile", "email", "id_card", "bank_card"}
    assert found(f"{CARDS[0]} 13912345678") >= {("bank_card", CARDS[0]), ("mobile", "13912345678")}


@pytest.mark.parametrize("code", ["123", " 123", " 1234", " 12/27"])
def test_a_card_number_is_found_before_its_security_code_or_month(code: str) -> None:
    numbers = {
        number
        for rule, number in found(grouped(CARDS[0], " ") + (code if code[0] == " " else ""))
        if rule == "bank_card"
    }
    assert grouped(CARDS[0], " ") in numbers


@settings(max_examples=60, deadline=None)
@given(PEOPLE)
def test_every_valid_id_card_is_found(number: str) -> None:
    assert ("id_card", number.lower()) in found(number)


@settings(max_examples=30, deadline=None)
@given(PEOPLE, st.data())
def test_an_id_card_with_any_one_digit_changed_is_none(number: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, 17))
    other = data.draw(st.sampled_from("0123456789X"))
    assume(other != number[at])
    assert "id_card" not in {rule for rule, _ in found(number[:at] + other + number[at + 1 :])}


def test_no_change_of_one_character_of_an_id_card_is_another() -> None:
    for at in range(18):
        for other in set("0123456789X") - {ID[at]}:
            assert "id_card" not in {rule for rule, _ in found(ID[:at] + other + ID[at + 1 :])}


@pytest.mark.parametrize("born", ["19490231", "19491301", "19490001", "19490100", "00000000"])
def test_an_id_card_with_a_day_that_never_was_is_none(born: str) -> None:
    body = "110105" + born + "002"
    check = "10X98765432"[sum(int(d) * w for d, w in zip(body, WEIGHTS, strict=True)) % 11]
    assert "id_card" not in {rule for rule, _ in found(body + check)}


@settings(max_examples=40, deadline=None)
@given(
    st.from_regex("(4[0-9]|5[1-5]|62)[0-9]{13}", fullmatch=True).filter(str.isascii),
    st.integers(0, 15),
    st.integers(1, 9),
)
def test_a_card_is_found_by_its_check_digit_and_not_with_one_digit_changed(body: str, at: int, more: int) -> None:
    number = card(body)
    assert ("bank_card", number) in found(number)
    changed = number[:at] + str((int(number[at]) + more) % 10) + number[at + 1 :]
    assert "bank_card" not in {rule for rule, _ in found(changed)}


@settings(max_examples=60, deadline=None)
@given(
    st.text("0123456789", min_size=1, max_size=6), st.sampled_from([ID[:-1] + "0", *CARDS, "13912345678", "8.8.8.8"])
)
def test_a_number_inside_a_longer_one_is_none(digits: str, number: str) -> None:
    assert number not in {n for _, n in found(digits + number + digits)}


# ---- looking only where a match may be changes nothing

_PARTS = [
    "13800138000", "138 0013 8000", "+86 138-0013-8000", "demo.user@example.com", "a@b.co", "4111 1111 1111 1111", "11010519491231002x",
    "8.8.8.8", "2400:3200::1", "护照 e12345678", "v1.2.3.4", "5", "5b", "x ", " ", ".", "-", "–", ":", "的", "=", "]", "\n", "3 chunks",
    "2024-01-01 12:00:00", "b1", "0", "@", "+", "%",
]  # fmt: skip


def _everywhere(text: str, since: int, final: bool) -> Scan:
    """Every shape tried at every character."""
    hold = len(text) if final else patterns._open(text, since)
    found = {
        Candidate(*m.span(1), patterns.CATEGORY, "patterns", p.rule): None
        for p in patterns._PATTERNS
        for m in p.shape.finditer(text, since)
        if m.start(1) < hold and p.valid(m[1], text[max(0, m.start(1) - patterns._BEFORE) : m.start(1)])
    }
    return Scan(list(found), hold)


@settings(max_examples=2_000, deadline=None)
@given(st.lists(st.sampled_from(_PARTS), max_size=14).map("".join), st.integers(0, 60), st.booleans())
def test_what_is_found_is_what_trying_every_shape_everywhere_finds(text: str, since: int, final: bool) -> None:
    since = min(since, len(text))
    one, all = Patterns().scan(text, since, final, Scope("d", "answer")), _everywhere(text, since, final)
    assert (set(one.candidates), one.hold) == (set(all.candidates), all.hold)
