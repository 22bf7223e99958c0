"""Fields of JSON bodies: the checks that every request needs, and every string of a tree as a text to screen.

Law: a string is screened, or it is a plain word under a known name, or it is bytes (counted); there is no fourth kind. Knows
no dialect: the names below are those of all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from app import metrics
from app.dialects import Delta, Key
from app.errors import RequestError, UpstreamError
from app.types import Origin, Path, Slot

_BLIND = frozenset({"input_ids", "prompt_token_ids", "prompt_embeds", "chat_template"})
"""Fields by which text reaches some models in a form that no screen can read."""

_REFUSED = frozenset({
    "api_base", "api_key", "api_version", "base_url", "custom_llm_provider", "extra_body", "extra_headers", "headers",
    "host", "organization", "proxy", "proxies", "url",
})  # fmt: skip
"""Top-level fields by which other gateways have been sent elsewhere."""

_STRUCTURE = frozenset({
    "model", "role", "type", "id", "tool_call_id", "object", "mode", "effort", "reasoning_effort", "verbosity",
    "service_tier", "detail", "format", "modality", "modalities", "tool_choice", "prompt_cache_key", "safety_identifier",
    "user", "call_id", "status", "include", "truncation", "summary", "generate_summary", "tool_use_id", "media_type",
    "ttl", "output_index", "phase",
})  # fmt: skip
_KNOWN = _STRUCTURE | frozenset({
    "messages", "prompt", "suffix", "content", "text", "name", "refusal", "stop", "metadata",
    "function", "functions", "function_call", "tools", "tool_calls", "arguments", "parameters", "properties",
    "required", "description", "strict", "enum", "items", "additionalProperties", "schema", "json_schema",
    "image_url", "input_audio", "file", "url", "data", "file_data", "filename", "file_id",
    "stream", "stream_options", "include_usage", "response_format", "n", "best_of", "echo", "seed", "logprobs",
    "top_logprobs", "logit_bias", "temperature", "top_p", "max_tokens", "max_completion_tokens",
    "presence_penalty", "frequency_penalty", "parallel_tool_calls",
    "input", "instructions", "reasoning", "store", "max_output_tokens", "max_tool_calls", "output", "annotations",
    "encrypted_content", "background", "include_obfuscation",
    "system", "stop_sequences", "top_k", "thinking", "budget_tokens", "signature", "source", "title", "context",
    "citations", "enabled", "is_error", "cache_control", "input_schema", "disable_parallel_tool_use", "user_id", "output_config",
})  # fmt: skip
"""Names of fields that need no look; any other is a text that the model may read."""
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.:/@+-]{0,128}\Z")
_BYTES = r"(?:(?:[A-Za-z0-9+/]{4})++(?:\r?\n)?)*+(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?(?:\r?\n)?\Z"
_BINARY_URL = re.compile(
    rf"data:(?:image|audio|video|application/(?:pdf|octet-stream))[a-z0-9.+/;=-]*;base64,{_BYTES}", re.ASCII
)
_ENCODED_URL = re.compile(r"data:[a-z0-9.+/;=-]*;base64,[A-Za-z0-9+/=\s]*\Z", re.ASCII | re.IGNORECASE)
_BASE64 = re.compile(_BYTES, re.ASCII)
_SEALED = re.compile(r"[A-Za-z0-9+/=_-]*\Z", re.ASCII)
_SEALED_BY: dict[str, Collection[str]] = {
    "encrypted_content": ("reasoning", "compaction", "web_search_result", "web_fetch_result"),
    "encrypted_index": ("web_search_result_location",),
    "signature": ("thinking", "signature_delta", "reasoning.text"),
    "data": ("redacted_thinking", "reasoning.encrypted"),
    "result": ("image_generation_call",),
    "partial_image_b64": ("response.image_generation_call.partial_image",),
}
"""What a model's server encrypts or encodes -> the types it stands in: nobody reads it as text, and a changed one is worth
nothing."""
_SEALED_LEAST = 64
"""Characters: anything shorter is screened as text."""
_STRUCTURAL = frozenset({
    "role", "format", "id", "type", "status", "call_id", "item_id", "tool_use_id", "object", "phase", "media_type",
})  # fmt: skip
"""Of an answer: kept unscreened where it is a plain word."""
_FREE = frozenset({"input", "arguments", "parameters", "input_schema", "schema", "properties", "metadata", "output"})
"""Below these any name is anybody's: no word under one is the structure's own."""
_SCHEMA_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_MEDIA = ("image/", "audio/", "video/", "application/pdf")
_MAGIC = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "JVBERi")
"""PNG, JPEG, GIF, WebP and PDF begin so in base64."""
_NUMBER = (int, float)
_WORDS = frozenset({"role", "content"})
_USUAL = frozenset({
    "model", "messages", "stream", "temperature", "max_tokens", "max_completion_tokens", "top_p", "stream_options", "user", "n", "stop",
    "tools", "tool_choice", "response_format", "seed", "presence_penalty", "frequency_penalty", "metadata", "input", "prompt", "system",
})  # fmt: skip
"""Names of top-level fields that are neither refused nor blind."""


# ---- requests


def field(body: dict[str, Any], name: str, kind: type | tuple[type, ...], words: str, default: Any = None) -> Any:
    """body[name], checked. Raises RequestError that names it."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RequestError(f"'{name}' must be {words}", code="invalid_type", param=name)
    return value


def request(body: Any) -> dict[str, Any]:
    """The checks every request needs."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object", code="invalid_type")
    for name in body.keys() - _USUAL:
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


def required_list(body: dict[str, Any], name: str) -> list[Any]:
    """body[name], a list that holds something. Raises RequestError."""
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise RequestError(f"'{name}' is required: a non-empty list", code="missing_required_parameter", param=name)
    return value


def wants_json(form: Any) -> bool:
    """The answer's own text is to be JSON: `form` as OpenAI's requests write it."""
    return isinstance(form, dict) and form.get("type") in ("json_object", "json_schema")


def one_of(value: Any, allowed: Collection[str], at: str) -> str:
    """Raises RequestError that names the field and what it may be."""
    if not isinstance(value, str) or value not in allowed:
        raise RequestError(f"'{at}' must be one of {', '.join(allowed)}", code="invalid_value", param=at)
    return value


def parts(content: Any, at: str, texts: Collection[str]) -> Iterator[tuple[Path, str]]:
    """(path below the content, text) of what is spoken in it: a string, or the parts of the types in `texts`. Raises
    RequestError for what is neither a string nor a list of parts."""
    if not isinstance(content, (str, list, type(None))):
        raise RequestError(f"'{at}' must be a string or a list of parts", code="invalid_type", param=at)
    if isinstance(content, str):
        if content:
            yield (), content
        return
    for j, part in enumerate(content or ()):
        here = f"{at}[{j}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise RequestError(f"'{here}' must be an object with a type", code="invalid_type", param=here)
        text = part.get("text")
        if part["type"] in texts and not isinstance(text, str):
            raise RequestError(f"'{here}.text' must be a string", code="invalid_type", param=f"{here}.text")
        if isinstance(text, str) and text:
            yield (j, "text"), text


def spoken(
    message: Any, path: Path, content: Any, below: Path, texts: Collection[str], origin: Origin, age: int, number: int
) -> list[Slot]:
    """The slots of one message: what is spoken in its `content` (which sits at path + below) first, by which neighbouring
    messages are joined, then every other string of it."""
    if (
        content
        and type(content) is str
        and type(message) is dict
        and message.keys() == _WORDS
        and plain(message["role"])
    ):
        return [Slot((*path, *below), content, origin, age, number)]  # nothing else is in it
    at = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in (*path, *below))[1:]
    said = [Slot((*path, *below, *where), text, origin, age, number) for where, text in parts(content, at, texts)]
    known = {slot.path for slot in said}
    return said + [slot for slot in leaves(message, path, origin, age) if slot.path not in known]


def leaves(
    value: Any, path: Path, origin: Origin, age: int, *, free: bool = False, result: bool = False
) -> Iterator[Slot]:
    """A slot for every string below `value` that can carry text, names of fields among them. `free`: what stands here has names
    of its own, so that none tells what is structure; `result`: a tool answered it, perhaps with a picture."""
    if isinstance(value, str):
        name = path[-1]
        structure = (
            name in _STRUCTURE and _PLAIN_WORD.match(value) if not free else name == "type" and value in _SCHEMA_TYPES
        )
        if not free and _binary(value, path):
            metrics.NOT_EXAMINED.labels("binary").inc()
        elif value and not structure:
            if name in ("file_id", "file_url"):
                metrics.NOT_EXAMINED.labels("file").inc()
            yield Slot(path, value, origin, age, json=name == "arguments" and not free)
    elif isinstance(value, dict):
        kind = value.get("type")
        for key, inner in value.items():
            if free or key not in _KNOWN:
                yield Slot((*path, Key(key)), key, origin, age)
            if isinstance(inner, str) and (
                _picture(key, inner, value)
                if result
                else not free and (sealed(key, inner, value) or _media(key, inner, value))
            ):
                metrics.NOT_EXAMINED.labels("binary").inc()
            elif key == "input" and isinstance(inner, dict) and not free and str(kind).endswith("tool_use"):
                # The arguments of a call, numbers among them: as the text that other APIs send.
                yield Slot((*path, key), json.dumps(inner, ensure_ascii=False), origin, age, json=True)
            else:
                answered = result or kind == "tool_result" or (key == "output" and isinstance(inner, (dict, list)))
                deeper = free or answered or (key in _FREE and not isinstance(inner, str))
                yield from leaves(inner, (*path, key), origin, age, free=deeper, result=answered)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i), origin, age, free=free, result=result)


def _binary(value: str, path: Path) -> bool:
    """Bytes of an image, a sound or a file: nothing in them is text that could be read here. Raises RequestError for text that is
    wrapped as if it were."""
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


def _media(key: str, value: str, holder: dict[str, Any]) -> bool:
    """The bytes of a source that says it is an image, a sound or a PDF."""
    kind = holder.get("media_type")
    return (
        key == "data" and holder.get("type") == "base64" and isinstance(kind, str) and kind.startswith(_MEDIA)
        and bool(_BASE64.match(value))
    )  # fmt: skip


def _picture(key: str, value: str, holder: dict[str, Any]) -> bool:
    """The bytes of a picture or a PDF in what a tool answered: where an API puts them, and by how they begin."""
    if key == "data":
        return _media(key, value, holder) and value.startswith(_MAGIC)
    return key in ("image_url", "url") and bool(_BINARY_URL.match(value)) and value.partition(",")[2].startswith(_MAGIC)


_UNREAD = {
    "image_url": "image", "input_image": "image", "image": "image", "input_audio": "audio", "audio": "audio",
    "video_url": "video", "input_video": "video", "video": "video", "file": "file", "input_file": "file", "document": "file",
}  # fmt: skip
"""Types of parts that are no text."""


def media(body: dict[str, Any]) -> tuple[str, ...]:
    """Kinds of what the messages of a request hold that is no text, each once."""
    found: dict[str, None] = {}
    messages = next((body[n] for n in ("messages", "input") if isinstance(body.get(n), list)), ())
    for message in messages:
        content = message.get("content", message.get("output")) if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                inner = part.get("content")
                for one in (part, *(inner if isinstance(inner, list) else ())):
                    kind = (
                        _UNREAD.get(one["type"]) if isinstance(one, dict) and isinstance(one.get("type"), str) else None
                    )
                    # Of a document, the text that stands in it is read.
                    if kind is not None and not (
                        isinstance(one.get("source"), dict) and one["source"].get("type") == "text"
                    ):
                        found[kind] = None
    return tuple(found)


def unread(body: dict[str, Any]) -> list[str]:
    """Kinds of what an answer, or an event of one, holds that is no text."""
    found: list[str] = []
    choices = body.get("choices")
    for choice in choices or ():
        part = (choice.get("delta") or choice.get("message")) if isinstance(choice, dict) else None
        if isinstance(part, dict):
            found += [kind for name, kind in (("audio", "audio"), ("images", "image")) if part.get(name)]
    kind = body.get("type")
    if choices and kind is None and "output" not in body and "item" not in body and "response" not in body:
        return found
    if isinstance(kind, str) and kind.startswith(("response.image_generation_call", "response.audio")):
        found.append("audio" if kind.startswith("response.audio") else "image")
    response = body.get("response")
    items = [
        body.get("item"),
        *(body.get("output") or ()),
        *((response.get("output") or ()) if isinstance(response, dict) else ()),
    ]
    if any(isinstance(item, dict) and item.get("type") == "image_generation_call" for item in items):
        found.append("image")
    return found


def paints(body: dict[str, Any]) -> bool:
    """A request has the model make pictures within a text's answer, where nobody could label them."""
    tools, modalities = body.get("tools"), body.get("modalities")
    return (isinstance(modalities, list) and "image" in modalities) or any(
        isinstance(tool, dict) and tool.get("type") == "image_generation"
        for tool in (tools if isinstance(tools, list) else ())
    )


def rest(body: dict[str, Any], *screened: str) -> Iterator[Slot]:
    """Slots of every other field of the request (tools, stop strings, metadata, vendor fields)."""
    for name, value in body.items():
        if name in screened:
            continue
        if name not in _KNOWN:
            yield Slot((Key(name),), name, "user", 0)
        if isinstance(value, (str, dict, list)):
            yield from leaves(value, (name,), "user", 0)


# ---- answers


def broken(message: str) -> UpstreamError:
    """The model does not speak its dialect."""
    return UpstreamError(message, code="upstream_protocol_error")


def plain(value: Any) -> bool:
    """Absent, or a word that carries no text of a model."""
    return value is None or (isinstance(value, str) and len(value) <= 128 and _plain_word(value))


@lru_cache(4096)
def _plain_word(value: str) -> bool:
    # The same few words stand in every event of a stream.
    return bool(_PLAIN_WORD.match(value))


def sealed(name: str, value: str, holder: dict[str, Any]) -> bool:
    """Bytes where a model's server puts them: passed on as they are."""
    kinds = _SEALED_BY.get(name)
    return (
        kinds is not None and holder.get("type") in kinds and len(value) >= _SEALED_LEAST and bool(_SEALED.match(value))
    )


def counts(value: Any) -> Any:
    """Only numbers under plain names."""
    if isinstance(value, dict):
        return {
            k: counts(v) if isinstance(v, dict) else v
            for k, v in value.items()
            if plain(k) and isinstance(v, (dict, int, float, type(None)))
        }
    return value if isinstance(value, (int, float, type(None))) else None


def clean(body: dict[str, Any], keep: Collection[str], shaped: Collection[str], dialect: str) -> None:
    """Drop the fields that no rule lets through. `keep`: plain words and numbers; `shaped`: their callers look after."""
    for name in [
        n for n, v in body.items() if n not in shaped and (n not in keep or not (isinstance(v, _NUMBER) or plain(v)))
    ]:
        if isinstance(body[name], (str, dict, list)) or not plain(name):
            del body[name]
            metrics.DROPPED_FIELDS.labels(dialect).inc()


def texts_below(
    value: Any,
    path: Path,
    channel: Path,
    choice: int = 0,
    call: tuple[Path, str] | None = None,
    *,
    own_index: bool = False,
    number: Iterator[int] | None = None,
) -> Iterator[Delta]:
    """Every string below `value`, as channels of `choice`. `own_index`: a list's element is known by its own `index`, if it
    has one, else by its place; an annotation, which comes whole, by `number`.

    Raises UpstreamError for a field name or a word of the structure that could carry text past the screen.
    """
    if isinstance(value, str):
        yield Delta(choice, channel, path, value, call=call, json=channel[-1:] == ("arguments",))
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not plain(key):
                raise broken("the model sent a field whose name is no plain word")
            if isinstance(inner, str):
                if key in _STRUCTURAL and plain(inner):
                    continue
                if sealed(key, inner, value) or (key == "data" and path[-1:] == ("audio",) and _BASE64.match(inner)):
                    metrics.NOT_EXAMINED.labels("binary").inc()
                    continue
            if key == "name" and isinstance(inner, str):
                # Clients read a name at once. Where arguments stand beside it, nothing of it is still to come.
                yield Delta(choice, (*channel, key), (*path, key), inner, "arguments" in value, call)
            elif key == "arguments" and isinstance(inner, (dict, list)):
                yield written(choice, (*channel, key), (*path, key), inner)._replace(call=call)
            else:
                more = texts_below(
                    inner, (*path, key), (*channel, key), choice, call, own_index=own_index, number=number
                )
                yield from more
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            own = inner.get("index") if own_index and isinstance(inner, dict) else None
            whole = own is None and number is not None and channel[-1:] == ("annotations",)
            own = (next(number) if whole and number is not None else i) if own is None else own
            if type(own) is not int:
                raise broken("the model sent an index that is no number")
            here = (*channel, own)
            id = inner.get("id") if isinstance(inner, dict) else None
            made = inner.get("function") if isinstance(inner, dict) else None
            # A new call says its name; an id alone may stand in every chunk of one call.
            named = call
            if isinstance(id, str) and id and isinstance(made, dict) and made.get("name"):
                named = (here, id)
            below = texts_below(inner, (*path, i), here, choice, named, own_index=own_index, number=number)
            yield from (delta._replace(whole=True) for delta in below) if whole else below


def written(choice: int, channel: Path, path: Path, value: Any) -> Delta:
    """What is sent as a JSON value where a stream sends its text: screened, and put back, as that text."""
    return Delta(choice, channel, path, json.dumps(value, ensure_ascii=False), whole=True, json=True)
