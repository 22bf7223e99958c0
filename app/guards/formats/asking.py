"""What a guard model is asked, what it says, and the few ways in which all families read it. Law: strict where it reads; a text
that is shown in a chat cannot end its own turn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app import strictjson
from app.errors import GuardError, RequestError
from app.modelfile import OTHER, GuardFile
from app.types import Direction

Opinion = Mapping[str, float]
"""The model's labels that it finds harmful, with its own scores (1.0 where it gives none); empty: harmless."""

_MARK = re.compile(r"<(?=[|/A-Za-z])")
_ASKED = "Please go on."
"""The turn before an answer: templates want a user's first, and the prompt is judged by itself."""


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
    about: str = ""
    """The one label that it asks about; '': all of them."""
    cut: bool = False
    """What it says is all in the first token: that max_tokens cut the rest off is no failure."""


class Format(Protocol):
    """A family of guard models."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> Sequence[Request]:
        """What to ask about a text. One question, except of models that know one rule at a time: those are asked about each, and
        what is harmful by any is. Raises GuardError("missing") where model.toml lacks what it takes."""
        ...

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        """`said`: of a chat model its text, else the body it answered with. What is well-formed depends on what was `asked`. Raises
        GuardError("garbage")."""
        ...


def turns(text: str, direction: Direction) -> tuple[dict[str, Any], ...]:
    """The conversation that ends with the text, as its speaker's turn."""
    if direction == "prompt":
        return ({"role": "user", "content": shown(text)},)
    return ({"role": "user", "content": _ASKED}, {"role": "assistant", "content": shown(text)})


def shown(text: str) -> str:
    """The text for a chat template. Its marks (<|im_end|>, <end_of_turn>, <END CONVERSATION>) are read in the text too: taken apart, they
    end nobody's turn."""
    return _MARK.sub("< ", text)


def words(said: bytes) -> str:
    """What a chat model said, without the space around it."""
    try:
        return said.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise GuardError("garbage") from None


def document(said: bytes) -> dict[str, Any]:
    """A JSON object: no key twice, no NaN."""
    try:
        value: dict[str, Any] = checked(strictjson.loads(said), dict)
    except RequestError:
        raise GuardError("garbage") from None
    return value


def checked(value: Any, kind: type) -> Any:
    """The value, of just this type: true is no number."""
    if type(value) is not kind:
        raise GuardError("garbage")
    return value


def scores(values: Any) -> dict[str, float]:
    """An object of scores."""
    if any(type(v) not in (int, float) or not 0 <= v <= 1 for v in checked(values, dict).values()):
        raise GuardError("garbage")
    return {label: float(v) for label, v in values.items()}


def whole(given: Iterable[str], file: GuardFile, *pseudo: str) -> None:
    """A score is given for each label of model.toml, but for those that no model gives. Silence about one would clear its categories,
    and a misspelt label would be silent for ever."""
    named = set(given)
    if not named or not file.labels.keys() - {OTHER, *pseudo} <= named:
        raise GuardError("garbage")
