"""Strict JSON: what two parsers could read differently is refused, and no refusal repeats the text."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import RequestError
from app.strictjson import MAX_DEPTH, dumps, loads, loads_upstream
from tests.conftest import WORD

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


def refused(raw: bytes) -> RequestError:
    """The error that `raw` is refused with."""
    with pytest.raises(RequestError) as caught:
        loads(raw)
    assert caught.value.status == 400
    return caught.value


def nest(levels: int, inside: str = "", array: bool = True) -> bytes:
    """`levels` arrays (or objects) in each other."""
    opening, closing = ("[", "]") if array else ('{"a":', "}")
    return (opening * levels + inside + closing * levels).encode()


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    raw = dumps(value)
    assert loads(raw) == loads_upstream(raw) == value
    assert loads(json.dumps(value, indent=1).encode()) == value


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=20), st.text('[]{}",:0.e-truefalsn\\u d8\x00\ufeff', max_size=20).map(str.encode)))
def test_bytes_are_read_or_refused_and_nothing_else_escapes(raw: bytes) -> None:
    with suppress(RequestError):
        assert loads(raw) == json.loads(raw)
    with suppress(ValueError):
        dumps(loads_upstream(raw))


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ('{"model": 1, "model": 1}', "model"),
        ('{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "content"),
        ('{"stream": 1, "n": {}, "\\u0073tream": 2}', "stream"),
        ('{"a": {"n": 1}, "b": {"n": {"n": 1, "x": 2, "n": 3}}}', "n"),
        ('{"two words": 1, "two words": 2}', "(not printable)"),
        ('{"": 1, "": 2}', "(not printable)"),
        (f'{{"{"a" * 65}": 1, "{"a" * 65}": 2}}', "(not printable)"),
        (f'{{"{WORD}": 1, "{WORD}": 2}}', "(not printable)"),
    ],
)
def test_a_key_that_stands_twice_in_one_object_is_refused_by_name(raw: str, param: str) -> None:
    error = refused(raw.encode())
    assert (error.code, error.param) == ("duplicate_key", param)
    assert repr(param) in error.message


def test_a_key_may_stand_in_several_objects() -> None:
    value = {"a": {"a": [{"a": 1}, {"a": 2}]}}
    assert loads(orjson.dumps(value)) == value


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(constant: str) -> None:
    error = refused(f'{{"temperature": [{constant}]}}'.encode())
    assert error.code == "invalid_json"
    assert constant in error.message


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_that_would_become_infinite_is_refused(number: str) -> None:
    assert refused(f'{{"temperature": {number}}}'.encode()).code == "invalid_json"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 2**70 + 1])
def test_a_whole_number_beyond_64_bits_stays_exact(number: int) -> None:
    raw = dumps([number])
    assert raw == f"[{number}]".encode()
    assert dumps(loads(raw)) == raw
    assert dumps(loads_upstream(raw)) == raw


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    assert refused(b'{"n": ' + b"1" * 5000 + b"}").code == "invalid_json"


@pytest.mark.parametrize("array", [True, False])
def test_nests_are_read_down_to_the_limit_and_refused_below_it(array: bool) -> None:
    assert loads(nest(MAX_DEPTH, "1", array)) is not None
    assert refused(nest(MAX_DEPTH + 1, "1", array)).code == "too_deep"


@pytest.mark.parametrize("inside", ["[]", "{}"])
def test_an_empty_container_is_a_level_as_well(inside: str) -> None:
    assert loads(nest(MAX_DEPTH - 1, inside)) is not None
    assert refused(nest(MAX_DEPTH, inside)).code == "too_deep"


@pytest.mark.parametrize(
    "raw",
    [nest(100_000, "1"), nest(100_000, "1", array=False), b"[" * 100_000, b'{"a":' * 100_000, b'[{"a":' * 50_000],
)  # fmt: skip
def test_a_nest_that_would_exhaust_the_stack_is_refused(raw: bytes) -> None:
    assert refused(raw).code == "too_deep"
    with pytest.raises(ValueError, match=r"deep|depth|recursion|expected|EOF"):
        loads_upstream(raw)


@pytest.mark.parametrize("levels", [200, 300, 700, 900, 1000, 1030])
def test_what_of_a_model_can_be_read_can_be_written(levels: int) -> None:
    try:
        value = loads_upstream(nest(levels, "1"))
    except ValueError:
        return
    assert dumps(value) == nest(levels, "1")


def test_brackets_in_a_text_are_no_nest() -> None:
    text = "[{" * 500 + "}]" * 500
    assert loads(dumps({"content": text})) == {"content": text}


def test_many_brackets_side_by_side_are_no_nest() -> None:
    value: list[Any] = [[{}] for _ in range(500)]
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    ("raw", "byte"),
    [(b'"\xff"', 1), (b'{"a": "\xe7\xa4"}', 7), (b'"\xed\xa0\x80"', 1), (b'"\xc0\xaf"', 1), ('"示'.encode() + b"\x80", 4)],
)  # fmt: skip
def test_bytes_that_are_no_utf_8_are_refused_with_their_place(raw: bytes, byte: int) -> None:
    error = refused(raw)
    assert error.code == "invalid_json"
    assert f"byte {byte})" in error.message


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ("", "line 1 column 1"),
        ("\ufeff{}", "line 1 column 1"),
        ("{} {}", "line 1 column 4"),
        (f'{{"a": "{WORD}",\n "b": {WORD}}}', "line 2 column 7"),
        (f'{{"a": "{WORD}', "line 1 column 7"),
        (f'["{WORD}\n"]', "line 1 column 9"),
        (f'["{WORD}\\x"]', "line 1 column 9"),
        (f"['{WORD}']", "line 1 column 2"),
        ('{"a": 1,}', "line 1 column 9"),
        ("[1,]", "line 1 column 4"),
        ("[01]", "line 1 column 3"),
        ("[1] // comment", "line 1 column 5"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place_and_never_its_text(raw: str, place: str) -> None:
    error = refused(raw.encode())
    assert error.code == "invalid_json"
    assert place in error.message
    assert not set(WORD) & set(error.message)
    assert error.__cause__ is None and error.__suppress_context__


def test_half_an_emoji_of_a_model_is_kept_until_its_other_half_comes() -> None:
    halves = [loads_upstream(raw)["content"] for raw in (rb'{"content": "a\ud83d"}', rb'{"content": "\ude00b"}')]
    assert halves == ["a\ud83d", "\ude00b"]
    assert dumps("".join(halves)) == '"a😀b"'.encode()


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ("\ud83d", '"\ufffd"'),
        ("b\ude00", '"b\ufffd"'),
        ("\ude00\ud83d", '"\ufffd\ufffd"'),
        ("a\ud83db", '"a\ufffdb"'),
        ("😀\ud83d😀", '"😀\ufffd😀"'),
        ({"\ud83d": ["\udc00", 2**70]}, '{"\ufffd":["\ufffd",1180591620717411303424]}'),
    ],
)
def test_half_an_emoji_that_stays_alone_is_written_as_a_replacement_character(value: Any, raw: str) -> None:
    assert dumps(value) == raw.encode()
    assert orjson.loads(dumps(value)) is not None


@settings(max_examples=100, deadline=None)
@given(st.text(st.one_of(st.characters(), st.characters(categories=["Cs"])), max_size=12))
def test_any_text_is_written_as_valid_utf_8(text: str) -> None:
    written = orjson.loads(dumps([text]))[0]
    assert [c for c in written if c != "\ufffd"] == [c for c in orjson.loads(dumps(text)) if c != "\ufffd"]
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert written == text


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity"])
def test_what_is_written_is_json_even_where_the_model_sent_no_number(number: str) -> None:
    for raw in (f"[{number}]", f'[{number}, "\\ud83d"]', f"[{number}, {2**70}]"):
        try:
            value = loads_upstream(raw.encode())
        except ValueError:
            continue
        assert orjson.loads(dumps(value))[0] is None


def test_what_is_written_is_compact() -> None:
    assert dumps({"示例": [1, 2.5, None, True]}) == '{"示例":[1,2.5,null,true]}'.encode()
