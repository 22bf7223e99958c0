"""Qwen3Guard, by the model cards of Qwen3Guard-Gen and Qwen3Guard-Stream (0.6B, 4B, 8B).

Gen is a chat model whose template holds the task; it says, of an answer with the third line and of a prompt without:

    Safety: Unsafe
    Categories: Violent, Non-violent Illegal Acts
    Refusal: No

Stream has classification heads, which no inference server runs yet: whoever runs it puts an HTTP hook before it, that answers
{"risk_level": "Unsafe", "category": "Violent"} for a text, what the card's `stream_moderate_from_ids` gives for its last token.
"""

from __future__ import annotations

import re

from app.errors import GuardError
from app.guards.formats.asking import Opinion, Request, document, turns, words
from app.modelfile import GuardFile
from app.types import Direction

_SAID = re.compile(r"Safety: (Safe|Controversial|Unsafe)\nCategories: ([^\n]+)(?:\nRefusal: (Yes|No))?")
_LEVELS = {"Safe": 0.0, "Controversial": 0.5, "Unsafe": 1.0}
"""Controversial: harmful or not as one sees it. The threshold of model.toml does: up to 0.5 it counts, above it does not."""
_CATEGORIES = {
    name: name
    for name in (
        "Violent", "Non-violent Illegal Acts", "Sexual Content or Sexual Acts", "Personally Identifiable Information",
        "Suicide & Self-Harm", "Unethical Acts", "Politically Sensitive Topics", "Copyright Violation",
    )
} | {"PII": "Personally Identifiable Information"}  # fmt: skip
"""As they are said -> as they stand in the card's policy and in model.toml."""
_OF_PROMPTS = {"Jailbreak": "Jailbreak"}
_HEADS = {
    "Sexual Content": "Sexual Content or Sexual Acts",
    "Self-Harm": "Suicide & Self-Harm",
    "Political": "Politically Sensitive Topics",
    "Copyright": "Copyright Violation",
    "Illegal Acts": "Non-violent Illegal Acts",
    "Unethical": "Unethical Acts",
}
"""The short names in Stream's configuration."""


def _of(names: list[str], level: str, known: dict[str, str], file: GuardFile) -> Opinion:
    if not names or any(name not in known for name in names):
        raise GuardError("garbage")
    score = _LEVELS[level]
    return dict.fromkeys((known[name] for name in names), score) if score >= file.threshold else {}


class Gen:
    """Qwen3Guard-Gen."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> tuple[Request]:
        return (Request("chat", text, turns(text, direction), max_tokens=128),)

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        of_answer = asked.messages[-1]["role"] == "assistant"
        read = _SAID.fullmatch(words(said))
        if read is None or (read[3] is not None) != of_answer:
            raise GuardError("garbage")
        if (read[1] == "Safe") != (read[2] == "None"):
            raise GuardError("garbage")  # safe of something, or unsafe of nothing
        if read[1] == "Safe":
            return {}
        known = _CATEGORIES if of_answer else _CATEGORIES | _OF_PROMPTS
        return _of(re.split(", ?", read[2]), read[1], known, file)


class Stream:
    """Qwen3Guard-Stream behind a hook."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> tuple[Request]:
        return (Request("hook", text, body={"text": text, "direction": direction}),)

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        answer = document(said)
        if answer.keys() != {"risk_level", "category"}:
            raise GuardError("garbage")
        level, category = answer["risk_level"], answer["category"]
        known = _CATEGORIES | _HEADS | ({} if asked.body and asked.body["direction"] == "answer" else _OF_PROMPTS)
        if not isinstance(level, str) or level not in _LEVELS:
            raise GuardError("garbage")
        if level == "Safe":
            # The head for categories names one of a harmless text too; it means nothing there.
            if category is None or category == "None" or (isinstance(category, str) and category in known):
                return {}
            raise GuardError("garbage")
        if not isinstance(category, str):
            raise GuardError("garbage")
        return _of([category], level, known, file)
