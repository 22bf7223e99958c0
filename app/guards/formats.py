"""How families of guard models are asked, and how their answers read. Law: pure; prompts and outputs are those of the model cards,
named at each; an answer that does not read so raises GuardError("garbage"), and is never taken for a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.errors import GuardError
from app.modelfile import GuardFile
from app.types import Direction

Opinion = Mapping[str, float]
"""The model's labels that it finds harmful, with its own scores (1.0 where it gives none); empty: harmless."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a guard model is asked. `kind`: chat (OpenAI's chat completions, or a local generative model through its chat template),
    moderations (OpenAI's moderations API), hook (plain HTTP), scores (a local sequence classifier)."""

    kind: Literal["chat", "moderations", "hook", "scores"]
    text: str
    messages: tuple[dict[str, Any], ...] = ()
    max_tokens: int = 0
    template: Mapping[str, Any] | None = None
    """Keyword arguments of the chat template."""
    body: Mapping[str, Any] | None = None
    """The whole body, for hooks and moderations."""


class Format(Protocol):
    """A family of guard models."""

    def request(self, text: str, direction: Direction, file: GuardFile) -> Request: ...

    def read(self, said: bytes, file: GuardFile) -> Opinion:
        """`said`: of a chat model its text, else the body it answered with. Raises GuardError("garbage")."""
        ...


FORMATS: dict[str, Format] = {}
"""By the name that stands in model.toml."""


def of(name: str) -> Format:
    """Raises GuardError("missing") for a name that is none."""
    if name not in FORMATS:
        raise GuardError("missing")
    return FORMATS[name]
