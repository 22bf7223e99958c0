"""The list of dialects: one upstream API's wire format each. One place to add one: a file here and a line in `shipped`.

Law: a dialect reads and writes shapes and decides nothing; it does no I/O. What goes on is built from what was parsed
and screened, never the bytes that came in. Dialects are never translated into one another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from app.types import Action, Path, Slot


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request, parsed: `body` is what will be rebuilt and sent on."""

    body: dict[str, Any]
    slots: list[Slot]
    model: str
    stream: bool
    choices: int = 1
    tokens: bool = False
    """Log probabilities were asked for."""


class Key(str):
    """The last step of a path to a field's name itself, where that may be any text: it is screened, never rewritten."""


class Delta(NamedTuple):
    """A text inside an answer or an event. `channel` names it within its choice and is the same streamed and plain;
    `whole`: it never continues in a later event. `call`: (the channel's first steps, id) of the tool call it is part
    of, where the event names one."""

    choice: int
    channel: Path
    path: Path
    text: str
    whole: bool = False
    call: tuple[Path, str] | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person sees instead of what was stopped."""

    action: Action
    text: str


class Dialect(Protocol):
    """What the straight path needs to know of a wire format."""

    name: str
    route: str

    def prompt(self, body: Any) -> Prompt:
        """Raises RequestError naming the field."""
        ...

    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]:
        """Every text of a plain answer (or of one event), fields nobody vouches for dropped. Raises UpstreamError."""
        ...

    def finished(self, event: dict[str, Any]) -> list[int]:
        """The choices that end with this event."""
        ...

    def unfinish(self, event: dict[str, Any], choice: int) -> None:
        """Take one choice's ending out of an event."""
        ...

    def without(self, event: dict[str, Any], choices: Collection[int]) -> None:
        """Take whole choices out of an event."""
        ...

    def tokens(self, body: dict[str, Any]) -> list[tuple[int, str]]:
        """(choice, the texts of its log probabilities): the model's words beside its answer."""
        ...

    def without_tokens(self, body: dict[str, Any], choice: int | None = None) -> None:
        """Take the log probabilities of one choice, or of all, out of an answer or an event."""
        ...

    def stop(self, body: dict[str, Any], choice: int, shown: Shown) -> None:
        """Turn one choice of a plain answer into what is shown instead."""
        ...

    def answer(self, prompt: Prompt, shown: Shown) -> dict[str, Any]:
        """A whole plain answer without the model: for a refused prompt."""
        ...

    def opening(self, prompt: Prompt) -> dict[str, Any]:
        """An event without choices, for a stream that the model has no part in."""
        ...

    def tail(self, event: dict[str, Any], delta: Delta, text: str) -> dict[str, Any]:
        """An event like `event` that carries only `text` for the channel of `delta`."""
        ...

    def ending(self, event: dict[str, Any], choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        """The events that end one choice with what is shown instead. `begun`: the client has some of its text."""
        ...

    def silent(self, event: dict[str, Any]) -> bool:
        """True for an event that tells the client nothing."""
        ...

    def error(self, message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
        """An error in the dialect's own shape."""
        ...


def put(body: Any, path: Path, text: str) -> None:
    """Set the text at `path`."""
    for key in path[:-1]:
        body = body[key]
    body[path[-1]] = text


def shipped() -> Sequence[Dialect]:
    """All dialects that are moderated."""
    from app.dialects.openai_chat import Chat
    from app.dialects.openai_completions import Completions

    return [Chat(), Completions()]
