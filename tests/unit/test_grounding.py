"""Grounding: what the references do not say is told sentence by sentence, with numbers by their value; in time that grows with the text."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.grounding import checked
from tests.conftest import ROOT

BANK = [json.loads(line) for line in (ROOT / "tests" / "unit" / "grounding.jsonl").read_text("utf-8").splitlines()]
"""References with an answer, sentence by sentence: supported, unsupported, not counted. Two rows about the same references stand together;
every second such pair is what nothing was tuned on."""


def told(answer: str, *references: str) -> list[str]:
    """The unsupported sentences."""
    return [answer[start:end] for start, end in checked(answer, references).unsupported]


def _counts(rows: list[dict[str, Any]], more: list[str]) -> tuple[int, int, int, int]:
    """Unsupported and told, unsupported and not told, told without being so, and whether sentences were miscounted."""
    right = missed = wrong = miscounted = 0
    for row in rows:
        between = "" if row["lang"] == "zh" else " "
        answer = between.join(said for said, _ in row["answer"])
        found = checked(answer, [*row["references"], *more])
        miscounted += found.sentences != sum(kind != "not counted" for _, kind in row["answer"])
        at = 0
        for said, kind in row["answer"]:
            bad = any(start < at + len(said) and at < end for start, end in found.unsupported)
            right += bad and kind == "unsupported"
            missed += not bad and kind == "unsupported"
            wrong += bad and kind != "unsupported"
            at += len(said) + len(between)
    return right, missed, wrong, miscounted


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("long", [False, True])
def test_unsupported_sentences_of_the_bank_are_told_and_others_are_not(half: int, long: bool) -> None:
    assert len(BANK) >= 40
    rows = [row for i, row in enumerate(BANK) if i // 2 % 2 == half]
    more = [(ROOT / "app" / "data" / "clean" / "law.txt").read_text("utf-8")[:20_000]] if long else []
    right, missed, wrong, miscounted = _counts(rows, more)
    assert right / (right + missed) >= 0.85, "recall"
    assert right / (right + wrong) >= 0.85, "precision"
    assert miscounted <= 1


@pytest.mark.parametrize(
    ("said", "reference"),
    [
        ("全长120公里。", "全长一百二十公里"),
        ("全长一百二十公里。", "全长１２０公里"),
        ("共1000人。", "共1,000人"),
        ("共1,000人。", "共一千人"),
        ("占比30%。", "占比三成"),
        ("占比三成五。", "占比三成五"),
        ("占比百分之三十。", "占比30％"),
        ("收入3.6亿元。", "收入360,000,000元"),
        ("收入两亿三千万元。", "收入2.3亿元"),
        ("人口一万二。", "人口12,000"),
        ("共一百零二人。", "共102人"),
        ("在二〇二六年三月五日举行。", "举行：2026-03-05"),
        ("在3月5日举行。", "2026年3月5日举行"),
        ("下午三点开会。", "下午3点开会"),
        ("15:00开会。", "下午3点开会"),
        ("约1.2万人参加。", "12,345人参加"),
        ("三分之二的人参加。", "参加的人占2/3"),
        ("第三章讲水。", "第3章讲水"),
        ("It has 31 rooms.", "It has thirty-one rooms."),
        ("It cost 2,300,000 dollars.", "It cost 2.3 million dollars."),
        ("It opens on 5 March 2026.", "It opens on March 5, 2026."),
        ("About 12,000 people came.", "12,345 people came."),
        ("A hundred and twenty people came.", "120 people came; a 100"),
    ],
)
def test_a_number_is_the_same_however_it_is_written(said: str, reference: str) -> None:
    assert told(said, reference) == []


@pytest.mark.parametrize(
    ("said", "reference"),
    [
        ("全长150公里。", "全长一百二十公里"),
        ("占比四成。", "占比三成"),
        ("占比30%。", "共30人，占比大"),
        ("在5月3日举行。", "3月5日举行，5月开放"),
        ("收入3.6万元。", "收入3.6亿元"),
        ("12,000人参加。", "12,345人参加"),
        ("约9,000人参加。", "12,345人参加"),
        ("共三人参加。", "共两人参加"),
        ("It has 13 rooms.", "It has thirty-one rooms."),
        ("It cost 2.3 billion.", "It cost 2.3 million."),
        ("编号12345678901234567890。", "编号12345678901234567891"),
    ],
)
def test_a_number_that_no_reference_holds_is_told(said: str, reference: str) -> None:
    assert told(said, reference) == [said]


def test_a_quoted_passage_stands_letter_by_letter_or_is_told() -> None:
    reference = "馆长说：“我们希望每个孩子都能摸到真正的化石。”"
    assert told("馆长说：“我们希望每个孩子都能摸到真正的化石。”", reference) == []
    assert told("馆长说：「每个孩子都能摸到真正的化石」。", reference) == []
    assert told("馆长说：“我们希望每个孩子都能看到真正的化石。”", reference) != []
    assert told("馆长希望孩子摸到“化石”。", reference) == [], "a word in quotation marks is no passage"


@pytest.mark.parametrize(
    "said",
    [
        "您好！",
        "希望对您有帮助。",
        "如有其他问题，欢迎随时提问。",
        "根据您提供的资料，回答如下：",
        "资料中没有提到价格。",
        "Hello!",
        "I hope this helps.",
        "Let me know if you have any other questions.",
        "The references do not mention a price.",
        "",
        "。。。！？",
        " \n\t ",
        "\u200b\u0301",
        "**",
        "1. ",
    ],
)
def test_what_claims_nothing_is_not_counted(said: str) -> None:
    assert checked(said, ["水壶容量为1.5升。"]) == (1.0, 0, [])


def test_a_greeting_hides_no_claim() -> None:
    assert told("根据资料，湖水里发现了大量重金属污染。", "湖泊面积四十五平方公里。") != []
    assert told("您好，湖水里发现了大量重金属污染。", "湖泊面积四十五平方公里。") != []


def test_a_list_is_told_by_item_and_its_numbers_are_none() -> None:
    reference = "先加水，再加面粉，最后放酵母。"
    assert told("1. 先加水\n2. 再加面粉\n③ 最后放酵母\n第四，放酵母", reference) == []
    assert told("1. 先加水\n2. 倒进一整瓶浓缩橙汁\n", reference) == ["倒进一整瓶浓缩橙汁"]
    assert told("Step 1: add the water.\n- Step 2: sing to the yeast loudly.", "Add the water.") == [
        "sing to the yeast loudly."
    ]


def test_spans_are_code_points_of_the_answer_as_it_was_written() -> None:
    answer = "水壶容量１．５升。\u200b𠀀𠀁ﬃ㍿壶身采用钛合金！\u200b"
    assert told(answer, "水壶容量为1.5升。") == ["𠀀𠀁ﬃ㍿壶身采用钛合金！"]


def test_without_references_every_claim_is_unsupported() -> None:
    found = checked("您好！水壶容量为1.5升。", [])
    assert (found.score, found.sentences) == (0.0, 1)


@given(
    st.text(
        alphabet='云岭步道一二十百千万亿零〇点分之成第约3 ,.:-/%年月日。！“”"「」\n\u200b①ab五five one may', max_size=80
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_its_own_reference_is_supported_and_spans_lie_within(text: str) -> None:
    found = checked(text, [text])
    assert found.unsupported == [] and found.score == 1.0
    other = checked(text, ["云岭"])
    assert other.sentences == found.sentences
    assert all(0 <= start < end <= len(text) for start, end in other.unsupported)
    assert other.unsupported == sorted(other.unsupported)


HOSTILE = {
    "prose": "云岭步道全长一百二十公里，共设十二个驿站。最高点海拔3,450米。",
    "no space": "\u4e00\u4e8c文字",
    "letter": "a",
    "marks": "。",
    "open quotes": "“",
    "quotes": "“一二三四五”",
    "digits": "1",
    "commas": "1,000",
    "numerals": "一百二十万",
    "points": "一点",
    "spelt": "thirty-one and ",
    "times": "1:22:33",
    "dates": "2024-",
    "months": "may 5 ",
    "brackets": "(1)",
    "stock": "根据您提供的",
    "invisible": "\u200b",
    "dots": "1.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_text_and_not_faster(name: str) -> None:
    def spent(size: int) -> float:
        piece = HOSTILE[name]
        text = piece * (size // len(piece))
        begun = process_time()
        checked(text, [text])
        return process_time() - begun

    spent(1000)
    long = min(spent(60_000) for _ in range(2))
    assert long < 2.0
    assert long < 3 * 4 * spent(15_000) + 0.05
