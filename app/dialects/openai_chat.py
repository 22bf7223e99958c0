"""OpenAI chat completions. https://platform.openai.com/docs/api-reference/chat"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from app.dialects import Delta, Prompt, Shown, openai
from app.errors import RequestError, UpstreamError
from app.types import Origin, Slot

_ORIGIN: dict[str, Origin] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip
_CHOICE = frozenset({"index", "finish_reason", "delta", "message", "logprobs"})
_SKIP = frozenset({"role", "id", "type"})


class Chat:
    """The dialect."""

    name = "openai_chat"
    route = "/v1/chat/completions"

    def prompt(self, body: Any) -> Prompt:
        body = openai.request(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RequestError(
                "'messages' is required: a non-empty list", code="missing_required_parameter", param="messages"
            )
        stream = openai.field(body, "stream", bool, "true or false", False)
        asked = openai.asked(body.get("logprobs"))
        if stream and asked:
            raise RequestError(
                "'logprobs' cannot be streamed through a moderated route; leave it out, or ask with stream: false",
                code="unsupported_parameter", param="logprobs",
            )  # fmt: skip
        slots: list[Slot] = []
        for i, message in enumerate(messages):
            slots += self._slots(message, i, len(messages) - 1 - i)
        slots += openai.rest(body, "messages")
        return Prompt(body, slots, body["model"], stream, openai.choices_asked(body), asked)

    def _slots(self, message: Any, i: int, age: int) -> list[Slot]:
        at = f"messages[{i}]"
        if not isinstance(message, dict):
            raise RequestError(f"'{at}' must be an object", code="invalid_type", param=at)
        role = message.get("role")
        if not isinstance(role, str) or role not in _ORIGIN:
            raise RequestError(
                f"'{at}.role' must be one of {', '.join(_ORIGIN)}", code="invalid_value", param=f"{at}.role"
            )
        content = message.get("content")
        if not isinstance(content, (str, list, type(None))):
            raise RequestError(
                f"'{at}.content' must be a string or a list of parts", code="invalid_type", param=f"{at}.content"
            )
        for j, part in enumerate(content if isinstance(content, list) else ()):
            here = f"{at}.content[{j}]"
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise RequestError(f"'{here}' must be an object with a type", code="invalid_type", param=here)
            if part["type"] == "text" and not isinstance(part.get("text"), str):
                raise RequestError(f"'{here}.text' must be a string", code="invalid_type", param=f"{here}.text")
        # What is spoken comes first: neighbouring messages are joined by it, whatever else they hold between.
        spoken = [
            Slot(("messages", i, "content", *where), text, _ORIGIN[role], age, i)
            for where, text in (
                [((), content)] if isinstance(content, str)
                else [((j, "text"), part.get("text")) for j, part in enumerate(content or ())]
            )
            if isinstance(text, str) and text
        ]  # fmt: skip
        paths = {slot.path for slot in spoken}
        others = openai.leaves(message, ("messages", i), _ORIGIN[role], age)
        return spoken + [slot for slot in others if slot.path not in paths]

    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]:
        found: list[Delta] = []
        for i, choice in enumerate(openai.clean_top(body, self.name, prompt.model)):
            index = openai.choice_index(choice, prompt.choices)
            openai.clean_choice(choice, _CHOICE, self.name)
            for name in ("delta", "message"):
                part = choice.get(name)
                if part is not None:
                    if not isinstance(part, dict):
                        raise UpstreamError(
                            f"the model sent a {name} that is no object", code="upstream_protocol_error"
                        )
                    found += openai.texts_below(part, ("choices", i, name), (), index, _SKIP)
        return found

    def finished(self, event: dict[str, Any]) -> list[int]:
        return openai.finished(event)

    def unfinish(self, event: dict[str, Any], choice: int) -> None:
        openai.unfinish(event, choice)

    def without(self, event: dict[str, Any], choices: Collection[int]) -> None:
        openai.without(event, choices)

    def tokens(self, body: dict[str, Any]) -> list[tuple[int, str]]:
        return openai.tokens(body)

    def without_tokens(self, body: dict[str, Any], choice: int | None = None) -> None:
        openai.without_tokens(body, choice)

    def stop(self, body: dict[str, Any], choice: int, shown: Shown) -> None:
        for i, c in enumerate(body["choices"]):
            if (c.get("index") or 0) == choice:
                body["choices"][i] = self._choice(choice, shown)

    def _choice(self, index: int, shown: Shown) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": shown.text, "refusal": None},
            "logprobs": None,
            "finish_reason": openai.finish_word(shown),
        }

    def answer(self, prompt: Prompt, shown: Shown) -> dict[str, Any]:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return openai.envelope(prompt.model, "chat.completion") | {
            "choices": [self._choice(i, shown) for i in range(prompt.choices)],
            "usage": usage,
        }

    def opening(self, prompt: Prompt) -> dict[str, Any]:
        return openai.envelope(prompt.model, "chat.completion.chunk")

    def tail(self, event: dict[str, Any], delta: Delta, text: str) -> dict[str, Any]:
        node: Any = text
        for key in reversed(delta.channel):
            # A list's element comes back under its own index.
            node = {key: node} if isinstance(key, str) else [{"index": key, **node} if isinstance(node, dict) else node]
        return openai.like(event) | {"choices": [{"index": delta.choice, "delta": node, "finish_reason": None}]}

    def ending(self, event: dict[str, Any], choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        text = f"\n\n{shown.text}" if begun else shown.text
        head = openai.like(event)
        delta = {"content": text} if begun else {"role": "assistant", "content": text}
        return [
            head | {"choices": [{"index": choice, "delta": delta, "finish_reason": None}]},
            head | {"choices": [{"index": choice, "delta": {}, "finish_reason": openai.finish_word(shown)}]},
        ]

    def silent(self, event: dict[str, Any]) -> bool:
        return not event.get("usage") and all(
            c.get("finish_reason") is None and _nothing(c.get("delta")) for c in event["choices"]
        )

    def error(self, message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
        return openai.error(message, code, param, status)


def _nothing(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_nothing(v) for v in value.values())
    if isinstance(value, list):
        return all(_nothing(v) for v in value)
    return value is None or value == "" or isinstance(value, int)
