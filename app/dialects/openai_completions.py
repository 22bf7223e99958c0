"""OpenAI legacy completions. https://platform.openai.com/docs/api-reference/completions"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from app.dialects import Delta, Prompt, Shown, openai
from app.errors import RequestError, UpstreamError
from app.types import Slot

_CHOICES_MAX = 2048
_CHOICE = frozenset({"index", "finish_reason", "text", "logprobs"})


class Completions:
    """The dialect."""

    name = "openai_completions"
    route = "/v1/completions"

    def prompt(self, body: Any) -> Prompt:
        body = openai.request(body)
        prompt = body.get("prompt")
        prompts = prompt if isinstance(prompt, list) else [prompt]
        if not prompts or not all(isinstance(p, str) for p in prompts):
            raise RequestError(
                "'prompt' must be a string or a list of strings; token ids cannot be screened",
                code="invalid_type",
                param="prompt",
            )
        stream = openai.field(body, "stream", bool, "true or false", False)
        asked = openai.asked(body.get("logprobs"))
        for name, given in (("logprobs", asked), ("echo", body.get("echo"))):
            if stream and given:
                raise RequestError(
                    f"'{name}' cannot be streamed through a moderated route; leave it out, or ask with stream: false",
                    code="unsupported_parameter", param=name,
                )  # fmt: skip
        slots = [
            Slot(("prompt", i) if isinstance(prompt, list) else ("prompt",), p, "user") for i, p in enumerate(prompts)
        ]
        slots += openai.rest(body, "prompt")
        choices = openai.choices_asked(body) * len(prompts)
        if choices > _CHOICES_MAX:
            raise RequestError(
                f"'n' times the number of prompts must be at most {_CHOICES_MAX}", code="invalid_value", param="prompt"
            )
        return Prompt(body, slots, body["model"], stream, choices, asked)

    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]:
        found = []
        for i, choice in enumerate(openai.clean_top(body, self.name, prompt.model)):
            index = openai.choice_index(choice, prompt.choices)
            openai.clean_choice(choice, _CHOICE, self.name)
            text = choice.get("text")
            if text is not None:
                if not isinstance(text, str):
                    raise UpstreamError("the model sent a text that is no string", code="upstream_protocol_error")
                found.append(Delta(index, ("content",), ("choices", i, "text"), text))
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
                body["choices"][i] = _choice(choice, shown.text, openai.finish_word(shown))

    def answer(self, prompt: Prompt, shown: Shown) -> dict[str, Any]:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        choices = [_choice(i, shown.text, openai.finish_word(shown)) for i in range(prompt.choices)]
        return openai.envelope(prompt.model, "text_completion") | {"choices": choices, "usage": usage}

    def opening(self, prompt: Prompt) -> dict[str, Any]:
        return openai.envelope(prompt.model, "text_completion")

    def tail(self, event: dict[str, Any], delta: Delta, text: str) -> dict[str, Any]:
        return openai.like(event) | {"choices": [_choice(delta.choice, text, None)]}

    def ending(self, event: dict[str, Any], choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        head = openai.like(event)
        text = f"\n\n{shown.text}" if begun else shown.text
        return [
            head | {"choices": [_choice(choice, text, None)]},
            head | {"choices": [_choice(choice, "", openai.finish_word(shown))]},
        ]

    def silent(self, event: dict[str, Any]) -> bool:
        return not event.get("usage") and all(
            c.get("finish_reason") is None and not c.get("text") for c in event["choices"]
        )

    def error(self, message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
        return openai.error(message, code, param, status)


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
