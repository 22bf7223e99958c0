"""What OpenAI's two older wire formats share: choices, errors, and walking a JSON tree for every string in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from app import clock, metrics
from app.dialects import Delta, Key, Shown
from app.errors import RequestError, UpstreamError
from app.types import Action, Origin, Path, Slot

_BLIND = frozenset(["input_ids", "prompt_token_ids", "prompt_embeds", "chat_template"])
"""Fields by which text reaches some models in a form that no screen can read."""

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
"""Top-level fields by which other gateways have been sent elsewhere."""

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
_KNOWN = _STRUCTURE | frozenset({
    "messages", "prompt", "suffix", "content", "text", "name", "refusal", "stop", "metadata",
    "function", "functions", "function_call", "tools", "tool_calls", "arguments", "parameters", "properties",
    "required", "description", "strict", "enum", "items", "additionalProperties", "schema", "json_schema",
    "image_url", "input_audio", "file", "url", "data", "file_data", "filename", "file_id",
    "stream", "stream_options", "include_usage", "response_format", "n", "best_of", "echo", "seed", "logprobs",
    "top_logprobs", "logit_bias", "temperature", "top_p", "max_tokens", "max_completion_tokens",
    "presence_penalty", "frequency_penalty", "parallel_tool_calls",
})  # fmt: skip
"""Names of fields that need no look; any other is a text that the model may read."""
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.:/@+-]{0,128}\Z")
_BYTES = r"(?:(?:[A-Za-z0-9+/]{4})++(?:\r?\n)?)*+(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?(?:\r?\n)?\Z"
_BINARY_URL = re.compile(
    rf"data:(?:image|audio|video|application/(?:pdf|octet-stream))[a-z0-9.+/;=-]*;base64,{_BYTES}", re.ASCII
)
_ENCODED_URL = re.compile(r"data:[a-z0-9.+/;=-]*;base64,[A-Za-z0-9+/=\s]*\Z", re.ASCII | re.IGNORECASE)
_BASE64 = re.compile(_BYTES, re.ASCII)

_SHAPED = frozenset({"model", "usage", "choices"})
_NUMBER = (int, float)
TOP = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"})
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
        if not _PLAIN_WORD.match(name):
            raise RequestError(
                "the name of a top-level field must be plain ASCII (letters, digits, _ . : / @ + -)",
                code="invalid_value",
            )
        if name.lower() in _BLIND:
            raise RequestError(
                f"'{name}' cannot be screened; send the text itself", code="unsupported_parameter", param=name
            )
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


def leaves(value: Any, path: Path, origin: Origin, age: int) -> Iterator[Slot]:
    """A slot for every string below `value` that can carry text, names of fields among them."""
    if isinstance(value, str):
        if _binary(value, path):
            metrics.NOT_EXAMINED.labels("binary").inc()
        elif value and not (path[-1] in _STRUCTURE and _PLAIN_WORD.match(value)):
            yield Slot(path, value, origin, age)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in _KNOWN:
                yield Slot((*path, Key(key)), key, origin, age)
            yield from leaves(inner, (*path, key), origin, age)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i), origin, age)


def _binary(value: str, path: Path) -> bool:
    """Bytes of an image, a sound or a file: nothing in them is text that could be read here. Raises RequestError for
    text that is wrapped as if it were."""
    if path[-1] in ("url", "image_url", "file_data", "b64_json"):
        if _BINARY_URL.match(value):
            return True
        if _ENCODED_URL.match(value):
            name = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)[1:]
            raise RequestError(
                f"'{name}' wraps what is no image, sound or PDF in base64; send text as text",
                code="unsupported_value",
                param=name,
            )
    return path[-2:] == ("input_audio", "data") and bool(_BASE64.match(value))


def rest(body: dict[str, Any], screened: str) -> Iterator[Slot]:
    """Slots of every other field of the request (tools, stop strings, metadata, vendor fields)."""
    for name, value in body.items():
        if name not in _KNOWN and name != screened:
            yield Slot((Key(name),), name, "user", 0)
        if name != screened and isinstance(value, (str, dict, list)):
            yield from leaves(value, (name,), "user", 0)


def choice_index(choice: Any, choices: int) -> int:
    """Missing or null means 0: some servers leave it out. Raises UpstreamError for what is no index."""
    index = choice.get("index") if isinstance(choice, dict) else "none"
    index = 0 if index is None else index
    if type(index) is not int or not 0 <= index < choices:
        raise UpstreamError("the model sent a choice that was not asked for", code="upstream_protocol_error")
    return index


def clean_top(body: dict[str, Any], dialect: str, model: str) -> list[Any]:
    """Drop top-level fields that no rule lets through; return the choices. `model`: the name the client asked for, for
    one that is no plain word. Raises UpstreamError."""
    if not _plain(body.get("model")):
        body["model"] = model
    if "usage" in body:
        body["usage"] = _counts(body["usage"])
    for name in [
        n
        for n, v in body.items()
        if n not in TOP or (n not in _SHAPED and not isinstance(v, _NUMBER) and not _plain(v))
    ]:
        if isinstance(body[name], (str, dict, list)) or not _plain(name):
            del body[name]
            metrics.DROPPED_FIELDS.labels(dialect).inc()
    choices = body.get("choices")
    if choices is None and body.get("usage"):
        choices = body["choices"] = []
    if not isinstance(choices, list):
        raise UpstreamError("the model's answer has no list of choices", code="upstream_protocol_error")
    return choices


def clean_choice(choice: dict[str, Any], keep: frozenset[str], dialect: str) -> None:
    if not _plain(choice.get("finish_reason")):
        choice["finish_reason"] = "stop" if choice["finish_reason"] else None
    for name in [n for n in choice if n not in keep]:
        if isinstance(choice[name], (str, dict, list)) or not _plain(name):
            del choice[name]
            metrics.DROPPED_FIELDS.labels(dialect).inc()


def _plain(value: Any) -> bool:
    """Absent, or a word that carries no text of a model."""
    return value is None or (isinstance(value, str) and len(value) <= 128 and _plain_word(value))


@lru_cache(4096)
def _plain_word(value: str) -> bool:
    # The same few words stand in every event of a stream.
    return bool(_PLAIN_WORD.match(value))


def _counts(value: Any) -> Any:
    """Only numbers under plain names."""
    if isinstance(value, dict):
        return {k: _counts(v) for k, v in value.items() if _plain(k) and isinstance(v, (dict, int, float, type(None)))}
    return value if isinstance(value, (int, float, type(None))) else None


def finished(event: dict[str, Any]) -> list[int]:
    # Some servers send "" in every chunk until the end.
    return [_index(c) for c in event.get("choices", ()) if c.get("finish_reason")]


def unfinish(event: dict[str, Any], choice: int) -> None:
    for c in event["choices"]:
        if _index(c) == choice:
            c["finish_reason"] = None


def without(event: dict[str, Any], choices: Collection[int]) -> None:
    if isinstance(event.get("choices"), list):
        event["choices"] = [
            c
            for c in event["choices"]
            if not isinstance(c, dict) or type(_index(c)) is not int or _index(c) not in choices
        ]


def _index(choice: dict[str, Any]) -> Any:
    return choice.get("index") or 0


def asked(value: Any) -> bool:
    """Is a field of log probabilities set? 0 is: it asks for the tokens without alternatives."""
    return value is not None and value is not False


def tokens(body: dict[str, Any]) -> list[tuple[int, str]]:
    """Per choice with log probabilities: its tokens run together, once as texts and once from their bytes, then every
    token and alternative on a line of its own."""
    found = []
    for choice in body["choices"]:
        if given := choice.get("logprobs"):
            lists = [v for v in given.values() if isinstance(v, list)] if isinstance(given, dict) else []
            runs = []
            for spoken in lists:
                runs.append(
                    "".join(
                        str(t.get("token")) if isinstance(t, dict) else t for t in spoken if isinstance(t, (dict, str))
                    )
                )
                raw = [
                    b
                    for t in spoken
                    if isinstance(t, dict)
                    for b in (t["bytes"] if isinstance(t.get("bytes"), list) else ())
                    if type(b) is int and 0 <= b < 256
                ]
                runs.append(bytes(raw).decode("utf-8", "replace"))
            found.append((_index(choice), "\n".join([*runs, *_strings(given)])))
    return found


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


def without_tokens(body: dict[str, Any], choice: int | None = None) -> None:
    for c in body["choices"]:
        if c.get("logprobs") is not None and choice in (None, _index(c)):
            c["logprobs"] = None


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


def texts_below(
    value: Any, path: Path, channel: Path, choice: int, skip: frozenset[str], call: tuple[Path, str] | None = None
) -> Iterator[Delta]:
    """Every string below `value`, as channels of `choice`. A list's element is known by its own `index`, if it has one.

    Raises UpstreamError for a field name or a word of the structure that could carry text past the screen.
    """
    if isinstance(value, str):
        yield Delta(choice, channel, path, value, call=call)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not _plain(key):
                raise UpstreamError(
                    "the model sent a field whose name is no plain word", code="upstream_protocol_error"
                )
            if key in skip and isinstance(inner, str) and _plain(inner):
                continue
            if key == "name" and isinstance(inner, str):
                # Clients read a name at once. Where arguments stand beside it, nothing of it is still to come.
                yield Delta(choice, (*channel, key), (*path, key), inner, "arguments" in value, call)
            else:
                yield from texts_below(inner, (*path, key), (*channel, key), choice, skip, call)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            own = inner.get("index") if isinstance(inner, dict) else None
            own = i if own is None else own
            if type(own) is not int:
                raise UpstreamError("the model sent an index that is no number", code="upstream_protocol_error")
            here = (*channel, own)
            id = inner.get("id") if isinstance(inner, dict) else None
            made = inner.get("function") if isinstance(inner, dict) else None
            # A new call says its name; an id alone may stand in every chunk of one call.
            named = call
            if isinstance(id, str) and id and isinstance(made, dict) and made.get("name"):
                named = (here, id)
            yield from texts_below(inner, (*path, i), here, choice, skip, named)
