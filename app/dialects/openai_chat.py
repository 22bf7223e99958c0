"""OpenAI chat completions. https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from app.dialects import Delta, Events, Prompt, Said, Shown, Tokens, fields, openai
from app.errors import RequestError
from app.types import Origin, Slot

_ORIGIN: dict[str, Origin] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip
_CHOICE = frozenset({"index", "finish_reason", "delta", "message", "logprobs"})
_CONTENT = ("content",)


class Chat(openai.Choices):
    """The dialect."""

    name = "openai_chat"
    route = "/v1/chat/completions"
    kind = "chat.completion"

    def prompt(self, body: Any) -> Prompt:
        body = fields.request(body)
        messages = fields.required_list(body, "messages")
        stream = fields.field(body, "stream", bool, "true or false", False)
        slots: list[Slot] = []
        for i, message in enumerate(messages):
            slots += self._slots(message, i, len(messages) - 1 - i)
        slots += fields.rest(body, "messages")
        structured = fields.wants_json(body.get("response_format"))
        return Prompt(
            body, slots, body["model"], stream, openai.choices_asked(body), openai.asked(body.get("logprobs")), structured
        )  # fmt: skip

    def _slots(self, message: Any, i: int, age: int) -> list[Slot]:
        at = f"messages[{i}]"
        if not isinstance(message, dict):
            raise RequestError(f"'{at}' must be an object", code="invalid_type", param=at)
        origin = _ORIGIN[fields.one_of(message.get("role"), _ORIGIN, f"{at}.role")]
        return fields.spoken(message, ("messages", i), message.get("content"), ("content",), ("text",), origin, age, i)

    def events(self, prompt: Prompt, said: Said) -> Events:
        return _Events(self, prompt)

    def texts(self, body: dict[str, Any], prompt: Prompt, number: Iterator[int] | None = None) -> list[Delta]:
        found: list[Delta] = []
        for i, choice in enumerate(self.choices(body, prompt)):
            index = openai.choice_index(choice, prompt.choices)
            openai.clean_choice(choice, _CHOICE, self.name)
            for name in ("delta", "message"):
                part = choice.get(name)
                if part is None:
                    continue
                if not isinstance(part, dict):
                    raise fields.broken(f"the model sent a {name} that is no object")
                for delta in fields.texts_below(part, ("choices", i, name), (), index, own_index=True, number=number):
                    # Some servers give the content in parts.
                    if delta.channel == _CONTENT or (delta.channel[0], delta.channel[-1]) == ("content", "text"):
                        delta = delta._replace(visible=True, json=prompt.structured)
                    found.append(delta)
        return sorted(found, key=_order)

    def spoken(self, prompt: Prompt, index: int, shown: Shown) -> dict[str, Any]:
        # Where JSON is wanted, words in its place would fail as JSON: clients look for them here.
        content, refusal = (None, shown.text) if prompt.structured else (shown.text, None)
        return {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": refusal},
            "logprobs": None,
            "finish_reason": openai.finish_word(shown),
        }


def _order(delta: Delta) -> int:
    """As a model says them: its thoughts, its answer, its calls."""
    first = delta.channel[0]
    return 0 if str(first).startswith("reasoning") else 2 if first in ("tool_calls", "function_call") else 1


class _Events(openai.ChoiceEvents):
    def __init__(self, dialect: Chat, prompt: Prompt) -> None:
        super().__init__(dialect, prompt, "chat.completion.chunk")
        self._numbers = count(1_000_000)  # of elements that bring none

    def read(self, event: dict[str, Any]) -> list[Delta]:
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("message") is not None:
                # Some servers call a delta so. A client joins deltas: what is none must not stand between two of them.
                message = choice.pop("message")
                if choice.get("delta") is None:
                    choice["delta"] = message
        assert isinstance(self._dialect, Chat)
        return self._dialect.texts(event, self._prompt, self._numbers)

    def tokens(self, event: dict[str, Any]) -> list[Tokens]:
        found = []
        for i, c in enumerate(event["choices"]):
            if (given := c.get("logprobs")) is None:
                continue
            c["logprobs"] = None
            content = given.get("content") if isinstance(given, dict) else None
            spoken = openai.spoken(content)
            if content is not None:
                kept = {"content": openai.bare(content), "refusal": None} if spoken is not None else None
                found.append(Tokens(openai.place(c), ("choices", i, "delta", "content"), kept, spoken))
        return found

    def tail(self, delta: Delta, text: str) -> dict[str, Any]:
        node: Any = text
        for key in reversed(delta.channel):
            # A list's element comes back under its own index.
            node = {key: node} if isinstance(key, str) else [{"index": key, **node} if isinstance(node, dict) else node]
        return self.like([{"index": delta.choice, "delta": node, "finish_reason": None}])

    def ending(self, choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        delta = {"content": f"\n\n{shown.text}"} if begun else {"role": "assistant", "content": shown.text}
        if self._prompt.structured:
            delta = {"refusal": shown.text} if begun else {"role": "assistant", "refusal": shown.text}
        return [
            self.like([{"index": choice, "delta": delta, "finish_reason": None}]),
            self.like([{"index": choice, "delta": {}, "finish_reason": openai.finish_word(shown)}]),
        ]

    def mute(self, choice: dict[str, Any]) -> bool:
        return choice.get("logprobs") is None and _nothing(choice.get("delta"))


def _nothing(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_nothing(v) for v in value.values())
    if isinstance(value, list):
        return all(_nothing(v) for v in value)
    return value is None or value == "" or isinstance(value, int)
