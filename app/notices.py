"""Notices: what an answer tells its reader besides the answer. Draft Measures, Articles 4(4), 10 and 19.

Law: words of ours, each once, never inside a text of the model's (where an answer comes in several, they stand after the first); they pass
our own detectors. Which there are is known at the end of the answer, and depends on what went out alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

from app import cautions, labels
from app.policyfile import Rules
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


def correction(words: Mapping[str, str], language: str) -> Notice:
    """What an operator has confirmed to be the truth about a rumour that the answer holds."""
    return Notice("correction", words[language], {"source": words["source"]} if "source" in words else {})


def trailing(notices: Iterable[Notice], language: str) -> str:
    """Notices as they stand at the end of an answer."""
    texts = [n.text for n in notices]
    return labels.MARK[language] + ("".join(texts) if language == "zh" else " ".join(texts)) if texts else ""


_FORMS = re.compile(
    r"您已连续使用(?:约 [\d.]+ 小时，)?共 \d+ 条消息，建议休息一下。您正在与人工智能对话，请合理安排使用时间。"
    r"|You have sent \d+ messages(?: in about [\d.]+ hours)?: time for a break\. You are talking to an AI\."
    r"|(?:提醒：您的部分请求|您的使用)[^\n]{0,300}?编号申诉：std_[0-9a-f]{24}"
    r"|(?:A warning: some|Your use is)[^\n]{0,400}?with the number std_[0-9a-f]{24}"
)
"""Notices whose numbers change."""


@cache
def _fixed() -> tuple[str, ...]:
    topics = [c for n in range(1, len(cautions.TOPICS) + 1) for c in combinations(cautions.TOPICS, n)]
    return tuple(cautions.notice(t, language) for language in ("zh", "en") for t in topics)


def _end(text: str, at: int, corrections: Sequence[str]) -> int:
    """Where the notices end that begin `at`."""
    while True:
        first = at + (text[at : at + 1] == " ")
        known = next((n for n in (*_fixed(), *corrections) if text.startswith(n, first)), None)
        form = _FORMS.match(text, first)
        if known is None and form is None:
            return at
        at = first + len(known) if known is not None else form.end() if form is not None else at


def without(text: str, rules: Rules, corrections: Callable[[], Sequence[str]] = list) -> str:
    """An answer as the model gave it: without words of ours, by their exact form; where policy has none put into texts, as it is.
    `corrections`: those that there may be, asked for where there may be one."""
    if rules.notices.show == "end" and any(mark in text for mark in labels.MARK.values()):
        known = corrections()
        for mark in labels.MARK.values():
            at = text.find(mark)
            while at >= 0:
                first = at + len(mark)
                end = _end(text, first, known)
                if end > first:
                    text = text[:at] + text[end:]
                at = text.find(mark, at if end > first else first)
    shown = rules.labels
    return labels.unlabelled(text, shown.text.zh, shown.text.en) if shown.mode != "interface" else text
