"""What OpenAI's formats share: errors, log probabilities, and, for the two older ones, an answer made of choices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any

from app import clock, sse, strictjson
from app.dialects import Delta, Prompt, Shown, Tokens, fields, put
from app.errors import RequestError
from app.types import Action, Path, Slot

_TOP = frozenset({"id", "object", "created", "system_fingerprint", "service_tier"})
_SHAPED = frozenset({"model", "usage", "choices"})
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def error(message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
    kind = (
        "authentication_error" if status == 401 else "not_found_error" if status == 404 else "invalid_request_error" if status < 429
        else "rate_limit_error" if status == 429 else "service_unavailable" if status == 503 else "upstream_error"
    )  # fmt: skip
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# ---- log probabilities


def asked(value: Any) -> bool:
    """Is a field of log probabilities set? 0 is: it asks for the tokens without alternatives."""
    return value is not None and value is not False


def runs(given: Any) -> list[str]:
    """The texts of log probabilities: their tokens run together, once as texts and once from their bytes, then every token
    and alternative on a line of its own."""
    lists = [v for v in (given.values() if isinstance(given, dict) else [given]) if isinstance(v, list)]
    found = []
    for tokens in lists:
        found.append(
            "".join(str(t.get("token")) if isinstance(t, dict) else t for t in tokens if isinstance(t, (dict, str)))
        )
        raw = [
            b
            for t in tokens
            if isinstance(t, dict)
            for b in (t["bytes"] if isinstance(t.get("bytes"), list) else ())
            if type(b) is int and 0 <= b < 256
        ]
        found.append(bytes(raw).decode("utf-8", "replace"))
    return [*found, *_strings(given)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        # The older shape has alternatives as names of fields.
        yield from value
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def spoken(tokens: Any) -> bytes | None:
    """The text that tokens make together: from their bytes, else from their texts; None where they are no tokens."""
    if not isinstance(tokens, list) or not all(isinstance(t, dict) and isinstance(t.get("token"), str) for t in tokens):
        return None
    parts = [_bytes(t) for t in tokens]
    return None if None in parts else b"".join(filter(None, parts))


def _bytes(token: dict[str, Any]) -> bytes | None:
    given = token.get("bytes")
    if given is None:
        return str(token["token"]).encode("utf-8", "surrogatepass")
    if isinstance(given, list) and len(given) < 1024 and all(type(b) is int and 0 <= b < 256 for b in given):
        return bytes(given)
    return None


def bare(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens without their alternatives, which nobody said; a token says what its bytes do."""
    return [
        {"token": (_bytes(t) or b"").decode("utf-8", "replace"), "bytes": t.get("bytes"), "top_logprobs": [],
         "logprob": t.get("logprob") if isinstance(t.get("logprob"), (int, float)) else None}
        for t in tokens
    ]  # fmt: skip


# ---- choices


class Choices(ABC):
    """A dialect whose answers are a list of choices."""

    name: str
    kind: str
    """The object of a plain answer."""

    def choices(self, body: dict[str, Any], prompt: Prompt) -> list[Any]:
        """The choices of an answer or an event, what stands beside them cleaned. Raises UpstreamError."""
        if not fields.plain(body.get("model")):
            body["model"] = prompt.model
        if "usage" in body:
            body["usage"] = fields.counts(body["usage"])
        fields.clean(body, _TOP, _SHAPED, self.name)
        choices = body.get("choices")
        if choices is None and body.get("usage"):
            choices = body["choices"] = []
        if not isinstance(choices, list):
            raise fields.broken("the model's answer has no list of choices")
        return choices

    @abstractmethod
    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]: ...

    @abstractmethod
    def spoken(self, prompt: Prompt, index: int, shown: Shown) -> dict[str, Any]:
        """A whole choice that says what is shown."""

    def tokens(self, body: dict[str, Any]) -> list[tuple[int, str]]:
        return [(place(c), "\n".join(runs(c["logprobs"]))) for c in body["choices"] if c.get("logprobs")]

    def without_tokens(self, body: dict[str, Any], choice: int) -> None:
        for c in body["choices"]:
            if c.get("logprobs") is not None and place(c) == choice:
                c["logprobs"] = None

    def masked(self, body: dict[str, Any], delta: Delta) -> None:
        return  # nothing vouches for a text here

    def stop(self, body: dict[str, Any], prompt: Prompt, choice: int, shown: Shown) -> None:
        body["choices"] = [self.spoken(prompt, choice, shown) if place(c) == choice else c for c in body["choices"]]

    def answer(self, prompt: Prompt, shown: Shown) -> dict[str, Any]:
        return envelope(prompt.model, self.kind) | {
            "choices": [self.spoken(prompt, i, shown) for i in range(prompt.choices)],
            "usage": dict(NO_USAGE),
        }

    def refinish(self, body: dict[str, Any], shown: Shown) -> None:
        refinish(body, shown)

    def rewrite(self, prompt: Prompt, slot: Slot, text: str) -> None:
        put(prompt.body, slot.path, text)

    def error(self, message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
        return error(message, code, param, status)


class ChoiceEvents(ABC):
    """A stream of events that each hold some choices."""

    done = sse.write(b"[DONE]")
    repeats = False
    parts = False
    alike = True
    event_max = 1 << 20

    def __init__(self, dialect: Choices, prompt: Prompt, kind: str) -> None:
        self._dialect, self._prompt = dialect, prompt
        self._event = envelope(prompt.model, kind)

    def texts(self, event: dict[str, Any]) -> list[Delta]:
        found = self.read(event)
        self._event = event
        return found

    def read(self, event: dict[str, Any]) -> list[Delta]:
        """Every text of an event. Raises UpstreamError."""
        return self._dialect.texts(event, self._prompt)

    def failed(self, event: dict[str, Any]) -> bool:
        return bool(event.get("error"))

    def ended(self, event: dict[str, Any]) -> list[tuple[int, Path]]:
        # Some servers send "" in every chunk until the end.
        return [(place(c), ()) for c in event["choices"] if c.get("finish_reason")]

    def last(self, event: dict[str, Any]) -> bool:
        return False

    @abstractmethod
    def tokens(self, event: dict[str, Any]) -> list[Tokens]: ...

    def give(self, event: dict[str, Any], tokens: Tokens) -> None:
        for c in event["choices"]:
            if place(c) == tokens.choice:
                c["logprobs"] = tokens.given
                break

    def unfinish(self, event: dict[str, Any], choice: int) -> None:
        for c in event.get("choices", ()):
            if place(c) == choice:
                c["finish_reason"] = None

    def refinish(self, event: dict[str, Any], shown: Shown) -> None:
        refinish(event, shown)

    def without(self, event: dict[str, Any], choices: Collection[int]) -> None:
        if isinstance(event.get("choices"), list):
            event["choices"] = [c for c in event["choices"] if not (isinstance(c, dict) and _among(c, choices))]

    def silent(self, event: dict[str, Any], stopped: bool) -> bool:
        return not event.get("usage") and all(c.get("finish_reason") is None and self.mute(c) for c in event["choices"])

    @abstractmethod
    def mute(self, choice: dict[str, Any]) -> bool:
        """The choice says nothing."""

    def sent(self, event: dict[str, Any]) -> None:
        return  # no event depends on an earlier one

    def closing(self) -> dict[str, Any] | None:
        return self.like([])

    def like(self, choices: list[Any]) -> dict[str, Any]:
        """An event in the envelope of the model's last, without its usage."""
        return {k: v for k, v in self._event.items() if k not in ("choices", "usage")} | {"choices": choices}

    def write(self, event: dict[str, Any], decision: str) -> bytes:
        event["id"] = decision
        return sse.write(strictjson.dumps(event))

    def error(self, message: str, code: str, status: int) -> bytes:
        return sse.write(strictjson.dumps(error(message, code, None, status)))


def choices_asked(body: dict[str, Any]) -> int:
    n = fields.field(body, "n", int, "an integer from 1 to 128", 1)
    if not 1 <= n <= 128:
        raise RequestError("'n' must be an integer from 1 to 128", code="invalid_value", param="n")
    return int(n)


def choice_index(choice: Any, choices: int) -> int:
    """Missing or null means 0: some servers leave it out. Raises UpstreamError for what is no index."""
    index = choice.get("index") if isinstance(choice, dict) else "none"
    index = 0 if index is None else index
    if type(index) is not int or not 0 <= index < choices:
        raise fields.broken("the model sent a choice that was not asked for")
    return index


def clean_choice(choice: dict[str, Any], keep: frozenset[str], dialect: str) -> None:
    if not fields.plain(choice.get("finish_reason")):
        choice["finish_reason"] = "stop" if choice["finish_reason"] else None
    fields.clean(choice, (), keep, dialect)


def place(choice: dict[str, Any]) -> Any:
    return choice.get("index") or 0


def _among(choice: dict[str, Any], choices: Collection[int]) -> bool:
    return type(place(choice)) is int and place(choice) in choices


def finish_word(shown: Shown) -> str:
    return "stop" if shown.action is Action.REPLACE else "content_filter"


def refinish(body: dict[str, Any], shown: Shown) -> None:
    for c in body["choices"]:
        if c.get("finish_reason"):
            c["finish_reason"] = finish_word(shown)


def envelope(model: str, kind: str) -> dict[str, Any]:
    return {"id": "", "object": kind, "created": int(clock.now()), "model": model}
