"""OpenAI legacy completions. https://platform.openai.com/docs/api-reference/completions"""

from __future__ import annotations

from typing import Any

from app.dialects import Delta, Events, Prompt, Said, Shown, Tokens, fields, openai
from app.errors import RequestError
from app.types import Slot

_CHOICES_MAX = 2048
_CHOICE = frozenset({"index", "finish_reason", "text", "logprobs"})


class Completions(openai.Choices):
    """The dialect."""

    name = "openai_completions"
    route = "/v1/completions"
    kind = "text_completion"

    def prompt(self, body: Any) -> Prompt:
        body = fields.request(body)
        prompt = body.get("prompt")
        prompts = prompt if isinstance(prompt, list) else [prompt]
        if not prompts or not all(isinstance(p, str) for p in prompts):
            raise RequestError(
                "'prompt' must be a string or a list of strings; token ids cannot be screened",
                code="invalid_type",
                param="prompt",
            )
        stream = fields.field(body, "stream", bool, "true or false", False)
        if stream and body.get("echo"):
            raise RequestError(
                "'echo' cannot be streamed through a moderated route; leave it out, or ask with stream: false",
                code="unsupported_parameter", param="echo",
            )  # fmt: skip
        slots = [
            Slot(("prompt", i) if isinstance(prompt, list) else ("prompt",), p, "user") for i, p in enumerate(prompts)
        ]
        slots += fields.rest(body, "prompt")
        choices = openai.choices_asked(body) * len(prompts)
        if choices > _CHOICES_MAX:
            raise RequestError(
                f"'n' times the number of prompts must be at most {_CHOICES_MAX}", code="invalid_value", param="prompt"
            )
        structured = fields.wants_json(body.get("response_format"))
        return Prompt(body, slots, body["model"], stream, choices, openai.asked(body.get("logprobs")), structured)

    def events(self, prompt: Prompt, said: Said) -> Events:
        return _Events(self, prompt, self.kind)

    def texts(self, body: dict[str, Any], prompt: Prompt) -> list[Delta]:
        found = []
        for i, choice in enumerate(self.choices(body, prompt)):
            index = openai.choice_index(choice, prompt.choices)
            openai.clean_choice(choice, _CHOICE, self.name)
            text = choice.get("text")
            if text is not None:
                if not isinstance(text, str):
                    raise fields.broken("the model sent a text that is no string")
                found.append(
                    Delta(index, ("content",), ("choices", i, "text"), text, json=prompt.structured, visible=True)
                )
        return found

    def spoken(self, prompt: Prompt, index: int, shown: Shown) -> dict[str, Any]:
        return _choice(index, shown.text, openai.finish_word(shown))


class _Events(openai.ChoiceEvents):
    def tokens(self, event: dict[str, Any]) -> list[Tokens]:
        found = []
        for i, c in enumerate(event["choices"]):
            if (given := c.get("logprobs")) is None:
                continue
            c["logprobs"] = None
            said = given.get("tokens") if isinstance(given, dict) else None
            kept = spoken = None
            if isinstance(said, list) and all(isinstance(t, str) for t in said):
                spoken = "".join(said).encode("utf-8", "surrogatepass")
                kept = {"tokens": said, "top_logprobs": None} | {
                    name: [n for n in given[name] if isinstance(n, (int, float, type(None)))]
                    for name in ("token_logprobs", "text_offset")
                    if isinstance(given.get(name), list)
                }
            if said is not None:
                found.append(Tokens(openai.place(c), ("choices", i, "text"), kept, spoken))
        return found

    def tail(self, delta: Delta, text: str) -> dict[str, Any]:
        return self.like([_choice(delta.choice, text, None)])

    def ending(self, choice: int, shown: Shown, begun: bool) -> list[dict[str, Any]]:
        text = f"\n\n{shown.text}" if begun else shown.text
        return [
            self.like([_choice(choice, text, None)]),
            self.like([_choice(choice, "", openai.finish_word(shown))]),
        ]

    def mute(self, choice: dict[str, Any]) -> bool:
        return choice.get("logprobs") is None and not choice.get("text")


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
