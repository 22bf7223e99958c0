"""Llama Guard 3 and 4, by Meta's model cards: the chat template holds the task, and the conversation's last turn is judged. It says
`safe`, or `unsafe` and on a second line the violated hazards of the MLCommons taxonomy, S1 to S14, with commas between."""

from __future__ import annotations

import re

from app.errors import GuardError
from app.guards.formats.asking import Opinion, Request, turns, words
from app.modelfile import GuardFile
from app.types import Direction

_HAZARDS = frozenset(f"S{n}" for n in range(1, 15))
_UNSAFE = re.compile(r"unsafe\n(S\d+(?:, ?S\d+)*)")


class LlamaGuard:
    """Llama-Guard-3-1B, Llama-Guard-3-8B, Llama-Guard-4-12B."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> tuple[Request]:
        return (Request("chat", text, turns(text, direction), max_tokens=64),)

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        answer = words(said)
        if answer == "safe":
            return {}
        unsafe = _UNSAFE.fullmatch(answer)
        hazards = re.split(", ?", unsafe[1]) if unsafe else []
        if not hazards or not _HAZARDS.issuperset(hazards):
            raise GuardError("garbage")
        return dict.fromkeys(hazards, 1.0)
