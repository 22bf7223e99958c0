"""What OpenAI's two older wire formats share: choices, errors, and walking a JSON tree for every string in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from app import clock, metrics
from app.dialects import Delta, Shown
from app.errors import RequestError, UpstreamError
from app.types import Action, Origin, Path, Slot

_REFUSED = frozenset(
    [
        "api_base",
        "api_key",
        "api_version",
        "base_url",
        "custom_llm_provider",
        "extra_body",
        "extra_headers",
        "headers",
        "host",
        "organization",
        "proxy",
        "proxies",
        "url",
    ]
)
"""Top-level fields by which other gateways have been sent elsewhere (reliability I10)."""

_STRUCTURE = frozenset(
    [
        "model",
        "role",
        "type",
        "id",
        "tool_call_id",
        "object",
        "mode",
        "effort",
        "reasoning_effort",
        "verbosity",
        "service_tier",
        "detail",
        "format",
        "modality",
        "modalities",
        "tool_choice",
        "prompt_cache_key",
        "safety_identifier",
        "user",
    ]
)
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.:/@+-]{0,128}\Z")
_BINARY = frozenset({"data", "url", "file_data", "b64_json", "image_url"})

TOP = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "error"})
"""Fields of an answer that are forwarded; of others numbers and booleans only."""


def field(body: dict[str, Any], name: str, kind: type | tuple[type, ...], words: str, default: Any = None) -> Any:
    """body[name], checked. Raises RequestError that names it."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RequestError(f"'{name}' must be {words}", code="invalid_type", param=name)
    return value


def request(body: Any) -> dict[str, Any]:
    """The checks every request of this family needs."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object", code="invalid_type")
    for name in body:
        if name.lower() in _REFUSED:
            raise RequestError(
                f"'{name}' is not accepted: the model's address and credentials are the operator's",
                code="unsupported_parameter",
                param=name,
            )
    if not field(body, "model", str, "a string"):
        raise RequestError("'model' is required: a non-empty string", code="missing_required_parameter", param="model")
    return body


def choices_asked(body: dict[str, Any]) -> int:
    n = field(body, "n", int, "an integer from 1 to 128", 1)
    if not 1 <= n <= 128:
        raise RequestError("'n' must be an integer from 1 to 128", code="invalid_value", param="n")
    return int(n)


def leaves(value: Any, path: Path, origin: Origin, age: int, message: int) -> Iterator[Slot]:
    """A slot for every string below `value` that can carry text."""
    if isinstance(value, str):
        key = path[-1]
        if (value.startswith("data:") and key in _BINARY) or key == "data":
            metrics.NOT_EXAMINED.labels("binary").inc()
        elif value and not (key in _STRUCTURE and _PLAIN_WORD.match(value)):
            yield Slot(path, value, origin, age, message)
    elif isinstance(value, dict):
        for key, inner in value.items():
            # A key is a string too; the model reads those of schemas and of tool definitions.
            if not _PLAIN_WORD.match(key):
                raise RequestError(
                    "a field name must be plain ASCII (letters, digits, _ . : / @ + -)",
                    code="invalid_value",
                    param=str(path[0]),
                )
            yield from leaves(inner, (*path, key), origin, age, message)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i), origin, age, message)


def rest(body: dict[str, Any], screened: str) -> Iterator[Slot]:
    """Slots of every other field of the request (tools, stop strings, metadata, vendor fields)."""
    for i, (name, value) in enumerate(body.items()):
        if name != screened and isinstance(value, (str, dict, list)):
            # Numbered apart from the messages and from each other: these are never joined.
            yield from leaves(value, (name,), "user", 0, -2 * (i + 1))
        elif not isinstance(name, str) or not _PLAIN_WORD.match(name):
            raise RequestError("a field name must be plain ASCII", code="invalid_value")


def choice_index(choice: Any, choices: int) -> int:
    """Missing means 0 (reliability S10). Raises UpstreamError for what is no index."""
    index = choice.get("index", 0) if isinstance(choice, dict) else None
    if type(index) is not int or not 0 <= index < choices:
        raise UpstreamError("the model sent a choice that was not asked for", code="upstream_protocol_error")
    return index


def clean_top(body: dict[str, Any], dialect: str) -> list[Any]:
    """Drop top-level fields that no rule lets through; return the choices. Raises UpstreamError."""
    for name in [n for n in body if n not in TOP]:
        if not isinstance(body[name], (int, float, bool, type(None))):
            del body[name]
            metrics.DROPPED_FIELDS.labels(dialect).inc()
    choices = body.get("choices")
    if not isinstance(choices, list):
        raise UpstreamError("the model's answer has no list of choices", code="upstream_protocol_error")
    return choices


def clean_choice(choice: dict[str, Any], keep: frozenset[str], dialect: str) -> None:
    for name in [n for n in choice if n not in keep]:
        if not isinstance(choice[name], (int, float, bool, type(None))):
            del choice[name]
            metrics.DROPPED_FIELDS.labels(dialect).inc()


def finished(event: dict[str, Any]) -> list[int]:
    return [c.get("index", 0) for c in event.get("choices", ()) if c.get("finish_reason") is not None]


def unfinish(event: dict[str, Any], choice: int) -> None:
    for c in event["choices"]:
        if c.get("index", 0) == choice:
            c["finish_reason"] = None


def without(event: dict[str, Any], choices: Collection[int]) -> None:
    event["choices"] = [
        c for c in event.get("choices") or () if not isinstance(c, dict) or c.get("index", 0) not in choices
    ]


def finish_word(shown: Shown) -> str:
    return "stop" if shown.action is Action.REPLACE else "content_filter"


def error(message: str, code: str, param: str | None, status: int) -> dict[str, Any]:
    kind = (
        "authentication_error" if status == 401 else "not_found_error" if status == 404 else "invalid_request_error" if status < 429
        else "rate_limit_error" if status == 429 else "service_unavailable" if status == 503 else "upstream_error"
    )  # fmt: skip
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def envelope(model: str, kind: str) -> dict[str, Any]:
    return {"id": "", "object": kind, "created": int(clock.now()), "model": model}


def like(event: dict[str, Any]) -> dict[str, Any]:
    """The event's envelope without its choices and its usage."""
    return {k: v for k, v in event.items() if k not in ("choices", "usage")}


def texts_below(value: Any, path: Path, channel: Path, choice: int, skip: frozenset[str]) -> Iterator[Delta]:
    """Every string below `value`, as channels of `choice`. A list's element is known by its own `index`, if it has one."""
    if isinstance(value, str):
        yield Delta(choice, channel, path, value, whole=channel[-1] == "name")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in skip or not isinstance(inner, str):
                yield from texts_below(inner, (*path, key), (*channel, key), choice, skip)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            own = inner.get("index", i) if isinstance(inner, dict) else i
            if type(own) is not int:
                raise UpstreamError("the model sent an index that is no number", code="upstream_protocol_error")
            yield from texts_below(inner, (*path, i), (*channel, own), choice, skip)
