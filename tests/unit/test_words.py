"""Word boundaries, held against jieba itself."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import jieba
import pytest

from app.words import crosses

LIST = """
我们 你们 大家 今天 明天 昨天 早上 晚上 北方 南方 学校 学生 老师 大学 大学生 研究 研究生 生命
命题 科学 科学家 家庭 工作 工人 人民 民间 时间 间隔 天气 气候 候鸟 鸟类 类型 型号 号码 电话
电脑 电影 影院 医院 医生 生产 产品 品质 质量 量变 变化 化学 学习 习惯 惯性 性质 城市 市场 市长
长江 大桥 桥梁 交通 通过 过程 程序 序列 语言 言论 论文 文章 文化 图书 图书馆 书馆 馆长 音乐
乐器 器材 材料 料理 理论 理解 解决 决定 的 了 和 在 是 不 也 很 都 就 把 被 从 到 一个
这个 那个 可以 没有 如果 因为 所以 但是 不过 开始 结束 发现 现在 在线 线上 上海 海水 水果 果园
"""
WORDS = LIST.split()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> jieba.Tokenizer:
    """jieba with a cache of its own."""
    jieba.setLogLevel(logging.WARNING)
    folder: Path = tmp_path_factory.mktemp("jieba")
    tokenizer = jieba.Tokenizer()
    tokenizer.tmp_dir = str(folder)
    tokenizer.initialize()
    return tokenizer


def sentences(seed: int, count: int) -> list[str]:
    """Sentences of the words above; every fifth with what is no Han text in it."""
    dice = random.Random(seed)
    made = []
    for number in range(count):
        words = dice.choices(WORDS, k=dice.randint(2, 9))
        if number % 5 == 4:
            words.insert(
                dice.randrange(len(words)),
                dice.choice(["，", "。", " ", "abc", "42", "㐀", "〇", "\U00020000", "😀", "a-b"]),
            )
        made.append("".join(words))
    return made


def edges(tokens: list[str]) -> set[int]:
    """Where words begin or end."""
    places, at = {0}, 0
    for token in tokens:
        at += len(token)
        places.add(at)
    return places


def crosses_by(tokens: list[str], start: int, end: int) -> bool:
    """The definition: a word with one part outside [start, end) and one inside, that does not hold all of it."""
    at = 0
    for token in tokens:
        inside = set(range(at, at + len(token))) & set(range(start, end))
        holds = at <= start and end <= at + len(token)
        if inside and len(inside) < len(token) and not holds:
            return True
        at += len(token)
    return False


@pytest.mark.parametrize("part", range(6))
def test_boundaries_are_those_of_jieba(real: jieba.Tokenizer, part: int) -> None:
    for window in sentences(part, 50):
        tokens = list(real.cut(window, HMM=False))
        assert "".join(tokens) == window
        for start in range(len(window)):
            for end in range(start + 1, min(len(window), start + 4) + 1):
                assert crosses(window, start, end) == crosses_by(tokens, start, end), (window, start, end, tokens)


def test_the_sentences_decide_both_ways(real: jieba.Tokenizer) -> None:
    """A comparison on text without crossings would prove nothing."""
    spans = [(w, i, i + 2) for w in sentences(0, 50) for i in range(len(w) - 1)]
    share = sum(crosses(*span) for span in spans) / len(spans)
    assert 0.1 < share < 0.9


@pytest.mark.parametrize(
    ("window", "word", "crossed"),
    [
        ("大学生活", "大学", False),
        ("研究生命", "究生", True),
        ("北京大学生", "学生", False),
        ("城市长江大桥", "市长", True),
        ("在科学家里", "学家", False),
        ("和大家一起", "家一", True),
        ("图书馆", "书馆", False),
        ("学习", "学习", False),
    ],
)
def test_a_word_that_holds_the_span_does_not_cross_it(
    real: jieba.Tokenizer, window: str, word: str, crossed: bool
) -> None:
    start = window.index(word)
    assert crosses_by(list(real.cut(window, HMM=False)), start, start + len(word)) == crossed
    assert crosses(window, start, start + len(word)) == crossed


def test_nothing_crosses_a_window_that_is_the_span() -> None:
    assert not any(crosses(w, 0, len(w)) for w in [*WORDS, "", "a", "，", "😀"])
