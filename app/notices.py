"""Notices: what an answer tells its reader besides the answer. Draft Measures, Articles 4(4), 10 and 19.

Law: words of ours, each once, never in the middle of the model's; they pass our own detectors. Which there are is known at the end of the
answer, and depends on what went out alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from app import cautions, labels
from app.sessions import Use


class Notice(NamedTuple):
    """`kind`: reliance, usage, standing, correction."""

    kind: str
    text: str
    more: Mapping[str, Any] = {}

    def public(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, **self.more}


def usage(use: Use, language: str) -> Notice:
    """The reminder of somebody who has been at it for long."""
    hours = f"{use.hours:.1f}".removesuffix(".0")
    long = use.hours >= 0.1
    text = {
        "zh": f"您已连续使用{f'约 {hours} 小时，' if long else ''}共 {use.turns} 条消息，建议休息一下。"
        "您正在与人工智能对话，请合理安排使用时间。",
        "en": f"You have sent {use.turns} messages{f' in about {hours} hours' if long else ''}: time for a break. "
        "You are talking to an AI.",
    }[language]
    return Notice("usage", text, {"hours": round(use.hours, 2), "turns": use.turns})


def reliance(topics: Iterable[str], language: str) -> Notice:
    """What an answer of these topics is no substitute for."""
    named = sorted(topics)
    return Notice("reliance", cautions.notice(named, language), {"topics": named})


def correction(rule: str, words: Mapping[str, str], language: str) -> Notice:
    """What an operator has confirmed to be the truth about a rumour that the answer holds."""
    return Notice("correction", words[language], {"rule": rule})


def trailing(notices: Iterable[Notice], language: str) -> str:
    """Notices as they stand at the end of an answer."""
    texts = [n.text for n in notices]
    return labels.MARK[language] + ("".join(texts) if language == "zh" else " ".join(texts)) if texts else ""
