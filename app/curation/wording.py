"""What a term reads like, by itself. The segmenter's opinion: it knows Chinese only, and decides nothing here."""

from __future__ import annotations

import re

from app import words
from app.text import fold, is_han

_NAMES = ("nr", "ns", "nt")
_NOBODY = frozenset(
    "银行卡 明星 雷达 安乐死 象牙 老东西 老太婆 外国 山区 城市 老虎 老虎机 小姐 阿姨 高清 康复 包邮 钟点房 胡说 海洛因 王八蛋".split()
)
"""Ordinary words that the dictionary tags as names."""


def reads_as_name(term: str) -> bool:
    """Most of it is a name of a person, place or organisation to the segmenter. It knows Chinese names only."""
    folded = fold(term)
    named = sum(len(word) for word, tag in words.tags(folded) if tag.startswith(_NAMES) and word not in _NOBODY)
    return 2 * named > sum(not ch.isspace() for ch in folded)


def short(term: str) -> bool:
    """Too short to incite, instruct, sell or disclose: fewer than 4 Han characters and fewer than 2 words."""
    folded = fold(term)
    spoken = "".join(" " if is_han(ch) else ch for ch in folded)
    return sum(map(is_han, folded)) < 4 and len(re.findall(r"[^\W_]+(?:['’][^\W_]+)*", spoken)) < 2


def bare(term: str) -> bool:
    """Nothing but nouns and what describes them: no verb, no offer. It knows Chinese only."""
    tagged = [(word, tag) for word, tag in words.tags(fold(term)) if any(map(is_han, word))]
    return bool(tagged) and all(tag.startswith(("n", "a", "b", "m", "q", "uj")) for _, tag in tagged)
