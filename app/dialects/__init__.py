"""The list of dialects: one upstream API's wire format each. One place to add one: a file here and a line in `shipped`.

Law: a dialect reads and writes shapes and decides nothing; it does no I/O. What goes on is built from what was parsed
and screened, never the bytes that came in. Dialects are never translated into one another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from app import strictjson
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
    structured: bool = False
    """The answer's own text is to be JSON."""


class Key(str):
    """The last step of a path to a field's name itself, where that may be any text: it is screened, never rewritten."""


class Delta(NamedTuple):
    """A text inside an answer or an event. `channel` names it within its choice and is the same streamed and plain.

    `whole`: it never continues in a later event. `call`: (the channel's first steps, id) of the tool call it is part of,
    where the event names one. `json`: a JSON text, that masks must leave one. `visible`: of the answer's own text, which a
    receipt covers. `repeat`: it says again all that the channel has said so far.
    """

    choice: int
    channel: Path
    path: Path
    text: str
    whole: bool = False
    call: tuple[Path, str] | None = None
    json: bool = False
    visible: bool = False
    repeat: bool = False


class Tokens(NamedTuple):
    """The log probabilities of one text: a list of the model's tokens at `path`. `spoken`: the text they make together, None
    where they do not say."""

    choice: int
    path: Path
    given: Any
    spoken: bytes | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person sees instead of what was stopped."""

    action: Action
    text: str


class Said(Protocol):
    """What the client has of a stream's channels, as events that repeat it need to know."""

    def __call__(self, channel: Path) -> str:
        """All that was let go of it."""
        ...

    def masked(self, channel: Path) -> bool:
        """True where that is not what the model said."""
        ...


class Events(Protocol):
    """The events of one stream: the model's, read, and ours, written. Keeps what later events must repeat, never text that is
    held back."""

    done: bytes
    """What ends a stream after its last event; nothing where that event is known by its type."""
    repeats: bool
    """Later events say again what was said: what the client was given must be kept."""
    parts: bool
    """The answer's own text may come in several parts, which clients join."""
    alike: bool
    """Events that differ in one text alone are read and written alike, whatever went before."""
    event_max: int
    """Bytes of one event of the model at most."""

    def texts(self, event: dict[str, Any]) -> list[Delta] | None:
        """Every text of an event, fields nobody vouches for dropped; None: nobody vouches for the event. Raises
        UpstreamError."""
        ...

    def failed(self, event: dict[str, Any]) -> bool:
        """The model reports an error."""
        ...

    def ended(self, event: dict[str, Any]) -> list[tuple[int, Path]]:
        """(choice, first steps of its channels) of what ends with this event; no steps: the choice does."""
        ...

    def last(self, event: dict[str, Any]) -> bool:
        """The model has no more to say."""
        ...

    def tokens(self, event: dict[str, Any]) -> list[Tokens]:
        """The log probabilities of an event, taken out of it."""
        ...

    def give(self, event: dict[str, Any], tokens: Tokens) -> None:
        """Put log probabilities into an event of the same choice."""
        ...

    def unfinish(self, event: dict[str, Any], choice: int) -> None:
        """Take one choice's ending out of an event."""
        ...

    def refinish(self, event: dict[str, Any], shown: Shown) -> None:
        """Where the event ends the answer, let it end like one of which `shown` was shown."""
        ...

    def without(self, event: dict[str, Any], choices: Collection[int]) -> None:
        """Take whole choices out of an event."""
        ...

    def tail(self, delta: Delta, text: str) -> dict[str, Any] | None:
        """An event that carries only `text` for the channel of `delta`; None where the dialect has none."""
        ...

    def silent(self, event: dict[str, Any], stopped: bool) -> bool:
        """True for an event that tells the client nothing; `stopped`: a choice was stopped in it."""
        ...

    def sent(self, event: dict[str, Any]) -> None:
        """The event goes out next."""
        ...

    def ending(self, choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        """The events that end one choice with what is shown instead, after those that were sent. `begun`: the client has some
        of its text."""
        ...

    def closing(self) -> dict[str, Any] | None:
        """A last event, where a model may leave it out."""
        ...

    def write(self, event: dict[str, Any], decision: str) -> bytes:
        """The event on the wire, under our decision id."""
        ...

    def error(self, message: str, code: str, status: int) -> bytes:
        """An error in the middle of a stream."""
        ...


class Dialect(Protocol):
    """What the straight path needs to know of a wire format."""

    name: str
    route: str

    def prompt(self, body: Any) -> Prompt:
        """Raises RequestError naming the field."""
        ...

    def events(self, prompt: Prompt, said: Said) -> Events:
        """A fresh reader and writer of one stream."""
        ...

    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]:
        """Every text of a plain answer, fields nobody vouches for dropped. Raises UpstreamError."""
        ...

    def tokens(self, body: dict[str, Any]) -> list[tuple[int, str]]:
        """(choice, the texts of its log probabilities): the model's words beside its answer."""
        ...

    def without_tokens(self, body: dict[str, Any], choice: int) -> None:
        """Take the log probabilities of one choice out of a plain answer."""
        ...

    def masked(self, body: dict[str, Any], delta: Delta) -> None:
        """A text of a plain answer is no longer what the model said: take away what vouches that it is."""
        ...

    def stop(self, body: dict[str, Any], prompt: Prompt, choice: int, shown: Shown) -> None:
        """Turn one choice of a plain answer into what is shown instead."""
        ...

    def refinish(self, body: dict[str, Any], shown: Shown) -> None:
        """Let a plain answer end like one of which `shown` was shown."""
        ...

    def answer(self, prompt: Prompt, shown: Shown) -> dict[str, Any]:
        """A whole plain answer without the model: for a refused prompt."""
        ...

    def rewrite(self, prompt: Prompt, slot: Slot, text: str) -> None:
        """Let `text` stand upstream for what a slot says."""
        ...

    def error(self, message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
        """An error in the dialect's own shape."""
        ...


def put(body: Any, path: Path, text: str) -> None:
    """Set the text at `path`; where a JSON value stands there, the one that `text` writes down, or an empty one if it was cut."""
    for key in path[:-1]:
        body = body[key]
    if isinstance(body[path[-1]], str):
        body[path[-1]] = text
    else:
        try:
            body[path[-1]] = strictjson.loads_upstream(text.encode("utf-8", "surrogatepass"))
        except ValueError:
            body[path[-1]] = type(body[path[-1]])()


def shipped() -> Sequence[Dialect]:
    """All dialects that are moderated."""
    from app.dialects.anthropic_messages import Messages
    from app.dialects.openai_chat import Chat
    from app.dialects.openai_completions import Completions
    from app.dialects.openai_responses import Responses

    return [Chat(), Completions(), Responses(), Messages()]
