"""JSON in and out, fuzzed against two other parsers: `python -m tests.fuzz.strictjson SECONDS`, or a file that was found."""

from __future__ import annotations

import json
import math
from typing import Any

import atheris
import orjson

with atheris.instrument_imports(include=["app"]):
    from app import strictjson

from app.errors import RequestError
from tests.fuzz.guided import ROOT, fuzz


class _Pairs(list[Any]):
    """An object as it was written: names may repeat."""


def _inner(value: Any) -> list[Any]:
    return [v for _, v in value] if isinstance(value, _Pairs) else value if isinstance(value, list) else []


def _all(value: Any) -> tuple[list[Any], int]:
    """Every value in `value`, itself first, and the levels of containers."""
    found, level, depth = [], [value], 0
    while level:
        found += level
        depth += any(isinstance(v, list) for v in level)
        level = [inner for v in level for inner in _inner(v)]
    return found, depth


def why(raw: bytes) -> set[str]:
    """The codes that the body may be refused with; none: it must be taken. By Python's parser, with nothing hooked in but what keeps
    objects as they were written."""
    try:
        text = raw.decode()
        value = json.loads(text, object_pairs_hook=_Pairs)
    except RecursionError:
        return {"too_deep", "invalid_json", "duplicate_key"}
    except ValueError:
        return {"invalid_json", "duplicate_key"}  # whatever comes first in the text
    values, depth = _all(value)
    codes = set()
    if any(isinstance(v, float) and not math.isfinite(v) for v in values):
        codes.add("invalid_json")
    if any(isinstance(v, _Pairs) and len({k for k, _ in v}) != len(v) for v in values):
        codes.add("duplicate_key")
    if depth > strictjson.MAX_DEPTH:
        codes.add("too_deep")
    return codes


def same(one: Any, other: Any) -> bool:
    """Equal in type, too, and in the sign of a zero."""
    return repr(one) == repr(other)


def _clients(raw: bytes) -> None:
    may = why(raw)
    refused = None
    try:
        value = strictjson.loads(raw)
    except RequestError as e:
        refused = e
    if refused is not None:
        assert refused.code in may, (refused.code, may)
        # What is given back of the client's own words is a plain name.
        assert refused.param is None or refused.code == "duplicate_key"
        assert refused.message.isascii() and len(refused.message) < 200, refused.message
        return
    assert not may, may
    assert same(value, json.loads(raw.decode()))
    written = strictjson.dumps(value)
    if "\ufffd" not in written.decode():
        assert same(strictjson.loads(written), value), written
    try:
        assert same(orjson.loads(raw), value) or b"0000000000" in raw.translate(_DIGITS)
    except orjson.JSONDecodeError:
        # It takes no half of a pair, and says so with the rest that it may not take.
        assert b"\\u" in raw


_DIGITS = bytes(0x30 if 0x30 <= b <= 0x39 else 0x20 for b in range(256))


def _models(raw: bytes) -> None:
    try:
        value = strictjson.loads_upstream(raw)
    except ValueError:
        return
    written = strictjson.dumps(value)
    again = strictjson.loads_upstream(written)
    if "\ufffd" not in written.decode():
        assert same(again, value), written
    assert strictjson.dumps(again) == written
    orjson.loads(written)


def check(data: bytes) -> None:
    _clients(data)
    _models(data)


if __name__ == "__main__":
    seeds = [
        b'{"a": [1, -0.0, 1e308, "\\ud83d\\udc4d", null, true], "a": {}}', b"[" * 70 + b"]" * 70, b"NaN", b"1e999", b'"\\ud83d"',
        b"123456789012345678901234567890", b'{"a":' * 66 + b"1" + b"}" * 66, *(
            file.read_bytes() for file in sorted((ROOT / "tests" / "transcripts").glob("*.json"))
        ),
    ]  # fmt: skip
    words = (
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"\\ud83d",
        b"\\udc4d",
        b"1e999",
        b"\xef\xbb\xbf",
        b"null",
        b'":',
        b"[[[[[[[[",
        b'{"":',
    )
    fuzz("strictjson", check, seeds, words)
