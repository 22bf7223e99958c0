"""Random answers for the tests: made of what matches, what nearly matches, what hides, and ordinary words."""

from __future__ import annotations

import random

from tests.conftest import WORD

PHONE = "13800138000"
MAIL = "demo.user@example.com"

_PARTS = [
    WORD, WORD[:3], WORD[:-1], WORD[1:], "示例\u200b违禁短语", "示\u202e例违禁短语", "示例違禁短語", WORD.replace("违", "违\ufe0f"),
    PHONE, PHONE[:7], "138 0013 8000", "１３８００１３８０００", MAIL, "demo.user@", "4111 1111 1111 1111", "11010519491231002X",
    "警惕刷单返佣", "刷单返佣", "包治百病", "不能包治百病", "出售仿真枪支弹药",
    "今天天气很好。",
    "他说：“", "”\n", "The cat sat on the mat. ", "a", "7", " ", "\u200b", "👍🏽", "𠮷", "é", "e\u0301", "，", "\r\n", "ﬁ",
]  # fmt: skip
"""WORD is on the blocklist; 出售… is a shipped certain term, 刷单返佣 a suspect one with allow phrases."""


def answer(dice: random.Random) -> str:
    """A random answer of up to a dozen parts; one in three has nothing that stops."""
    quiet = dice.random() < 0.4
    parts = [p for p in _PARTS if not quiet or not stops(p)]
    return "".join(dice.choice(parts) for _ in range(dice.randint(1, 12))) or "空"


def stops(part: str) -> bool:
    return part.startswith(("示", "出售"))


def cut(text: str, dice: random.Random) -> list[str]:
    """The text in random pieces, many of them single characters."""
    pieces, at = [], 0
    while at < len(text):
        size = dice.choice((1, 1, 1, 2, 3, 8, 40))
        pieces.append(text[at : at + size])
        at += size
    return pieces
