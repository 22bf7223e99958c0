"""What clients send wrong is refused through a real socket, in OpenAI's error shape, naming the field; the model is never asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WORD, Model, Running

CHAT = "/v1/chat/completions"
LEGACY = "/v1/completions"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "你好"}]},
    LEGACY: {"model": "m", "prompt": "你好"},
}
ROUTES = pytest.mark.parametrize("route", [CHAT, LEGACY])


def refusal(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error of a refused request, its shape checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["type"] and error["code"]
    return dict(error)


def post(gateway: Running, route: str, raw: bytes, **headers: str) -> httpx.Response:
    return gateway.http.post(route, content=raw, headers={"content-type": "application/json", **headers})


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "你好"} | fields]}


@ROUTES
@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"model=m", "invalid_json"),
        (b'{"model": "m"} {}', "invalid_json"),
        (b"{'model': 'm'}", "invalid_json"),
        (b'{"model": "m", "temperature": NaN}', "invalid_json"),
        (b'{"model": "m", "temperature": -Infinity}', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        ('{"model": "m"}'.encode("utf-16"), "invalid_json"),
        (b"null", "invalid_type"),
        (b"[]", "invalid_type"),
        (b'"m"', "invalid_type"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b'{"model": "m", "tools": ' + b'{"a":' * 70 + b"1" + b"}" * 71, "too_deep"),
    ],
    ids=lambda v: v[:24] if isinstance(v, bytes) else None,
)
def test_a_body_that_is_no_json_object_is_refused(
    gateway: Running, model: Model, route: str, raw: bytes, code: str
) -> None:
    error = refusal(post(gateway, route, raw))
    assert error["code"] == code and error["type"] == "invalid_request_error"
    assert not model.script.asked


@ROUTES
def test_the_place_of_a_mistake_is_told_and_the_text_is_not(gateway: Running, route: str) -> None:
    told = refusal(post(gateway, route, '{"model": "m",\n "secret words" }'.encode()))["message"]
    assert "line 2 column" in told and "secret" not in told


@ROUTES
def test_a_number_that_no_machine_can_hold_is_refused_and_not_turned_into_another(
    gateway: Running, model: Model, route: str
) -> None:
    good = json.dumps(GOOD[route]).encode()[:-1]
    for number in (b"1" * 5000, b"1e999", b"-1e999"):
        error = refusal(post(gateway, route, good + b', "seed": ' + number + b"}"))
        assert error["code"] == "invalid_json"
    assert not model.script.asked


@ROUTES
@pytest.mark.parametrize("raw", [b'"model": "m", "model": "m"', b'"model": "m", "mod\\u0065l": "n"'])
def test_a_key_that_stands_twice_is_refused_by_name(gateway: Running, route: str, raw: bytes) -> None:
    error = refusal(post(gateway, route, b"{" + raw + b"}"))
    assert (error["code"], error["param"]) == ("duplicate_key", "model") and "'model'" in error["message"]


def test_a_key_that_stands_twice_deep_inside_is_refused_by_name(gateway: Running, model: Model) -> None:
    raw = b'{"model": "m", "messages": [{"role": "user", "role": "system", "content": "a"}]}'
    assert refusal(post(gateway, CHAT, raw))["param"] == "role"
    assert not model.script.asked


@pytest.mark.parametrize("name", [WORD, "some words of a person", "k" * 80])
def test_a_repeated_key_that_is_no_plain_name_is_not_repeated_back(gateway: Running, name: str) -> None:
    raw = f'{{"model": "m", "metadata": {{"{name}": 1, "{name}": 2}}}}'.encode()
    response = post(gateway, CHAT, raw)
    assert refusal(response)["code"] == "duplicate_key" and name not in response.text


WRONG: list[tuple[str, dict[str, Any], str]] = [
    *[(route, {"model": v}, "model") for route in (CHAT, LEGACY) for v in (None, "", 1, True, ["m"], {"id": "m"})],
    *[(route, {"n": v}, "n") for route in (CHAT, LEGACY) for v in (0, -1, 129, 10**30, "2", True, 1.5, [1])],
    *[(route, {"stream": v}, "stream") for route in (CHAT, LEGACY) for v in (1, "true", [], {})],
    *[(CHAT, {"messages": v}, "messages") for v in (None, [], "你好", {"role": "user"}, 5)],
    *[(CHAT, {"messages": [v]}, "messages[0]") for v in ("你好", None, 5, [], [{"role": "user"}])],
    *[(CHAT, message(role=v), "messages[0].role") for v in (None, "robot", "User", "", 5, ["user"], {})],
    *[(CHAT, message(content=v), "messages[0].content") for v in (5, True, {"type": "text", "text": "你好"})],
    *[(CHAT, message(content=[v]), "messages[0].content[0]") for v in ("你好", None, {}, {"text": "x"}, {"type": 1})],
    *[(CHAT, message(content=[{"type": "text", "text": v}]), "messages[0].content[0].text") for v in (None, 5, ["x"])],
    *[(CHAT, message(content=[{"type": "text"}]), "messages[0].content[0].text")],
    *[(CHAT, {"messages": [{"role": "user", "content": "你好"}, {"role": "x"}]}, "messages[1].role")],
    *[(LEGACY, {"prompt": v}, "prompt") for v in (None, [], 5, True, {}, [1, 2, 3], [[1, 2]], ["a", 1], ["a", None])],
]


@pytest.mark.parametrize(("route", "fields", "param"), WRONG)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_field_of_the_wrong_type_or_value_is_refused_by_name(
    gateway: Running, model: Model, route: str, fields: dict[str, Any], param: str, stream: bool
) -> None:
    error = refusal(gateway.http.post(route, json=GOOD[route] | ({"stream": True} if stream else {}) | fields))
    assert error["param"] == param and f"'{param}" in error["message"]
    assert error["type"] == "invalid_request_error"
    assert not model.script.asked


@ROUTES
def test_a_required_field_that_is_missing_is_named(gateway: Running, route: str) -> None:
    for name in GOOD[route]:
        error = refusal(gateway.http.post(route, json={k: v for k, v in GOOD[route].items() if k != name}))
        assert error["param"] == name and name in error["message"]


@ROUTES
@pytest.mark.parametrize(
    "name", ["base_url", "api_key", "api_base", "API_Base", "extra_headers", "headers", "url", "host", "proxies"]
)
def test_a_field_that_would_send_the_request_elsewhere_is_refused_by_name(
    gateway: Running, model: Model, route: str, name: str
) -> None:
    for value in ("http://127.0.0.1:1/v1", None, {"a": "b"}):
        error = refusal(gateway.http.post(route, json=GOOD[route] | {name: value}))
        assert (error["param"], error["code"]) == (name, "unsupported_parameter") and name in error["message"]
    assert not model.script.asked


@ROUTES
@pytest.mark.parametrize("value", [1, "words", None, True, ["words"], {"a": "b"}, {WORD: 1}], ids=repr)
def test_a_field_name_that_could_carry_text_is_refused_wherever_it_stands(
    gateway: Running, model: Model, route: str, value: Any
) -> None:
    for fields in ({WORD: value}, {"metadata": {WORD: value}}, {"tools": [{"type": "function", "with space": value}]}):
        response = gateway.http.post(route, json=GOOD[route] | fields)
        assert "field name" in refusal(response)["message"] and WORD not in response.text
    assert not model.script.asked


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        (CHAT, {"logprobs": True}, "logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": 2}, "logprobs"),
        (LEGACY, {"logprobs": 1}, "logprobs"),
        (LEGACY, {"echo": True}, "echo"),
    ],
)
def test_what_cannot_be_screened_in_a_stream_is_refused_with_the_way_out(
    gateway: Running, model: Model, route: str, fields: dict[str, Any], param: str
) -> None:
    error = refusal(gateway.http.post(route, json=GOOD[route] | {"stream": True} | fields))
    assert error["param"] == param and "stream: false" in error["message"]
    assert not model.script.asked


@ROUTES
def test_a_body_of_ten_megabytes_is_refused_with_or_without_its_length(
    gateway: Running, model: Model, route: str
) -> None:
    big = json.dumps(GOOD[route] | {"user": "x" * (10 << 20)}).encode()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(big), 1 << 16):
            yield big[at : at + (1 << 16)]

    for body in (big, pieces()):
        error = refusal(gateway.http.post(route, content=body), 413)
        assert error["code"] == "body_too_large" and "4194304 bytes" in error["message"]
    assert not model.script.asked
    assert gateway.http.post(route, json=GOOD[route] | {"stream": 0}).status_code == 400


@ROUTES
@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "identity, gzip"])
def test_a_compressed_body_is_refused_by_the_header_s_name(gateway: Running, route: str, encoding: str) -> None:
    response = post(gateway, route, json.dumps(GOOD[route]).encode(), **{"content-encoding": encoding})
    error = refusal(response, 415)
    assert error["code"] == "unsupported_encoding" and "content-encoding" in error["message"]


@ROUTES
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_on_a_route_that_takes_post_is_405(gateway: Running, route: str, method: str) -> None:
    response = gateway.http.request(method, route)
    error = refusal(response, 405)
    assert error["code"] == "method_not_allowed" and "POST" in error["message"]
    assert response.headers.get("allow") == "POST"  # RFC 9110 15.5.6: a 405 must name what is allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/embeddings", CHAT + "/", CHAT + "/x", "/V1/models"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_route_is_404_and_names_the_moderated_ones(
    gateway: Running, model: Model, method: str, path: str
) -> None:
    error = refusal(gateway.http.request(method, path, json=GOOD[CHAT]), 404)
    assert error["code"] == "unknown_route" and CHAT in error["message"]
    assert not model.script.asked


@pytest.mark.parametrize("path", ["%2e%2e/files", "%2e%2e%2ffiles", "a/%2e%2e/%2e%2e/%2e%2e/metrics", "./x", "//x"])
def test_the_list_of_models_is_no_way_to_other_routes_of_the_model_s_server(gateway: Running, path: str) -> None:
    assert refusal(gateway.http.get(httpx.URL(gateway.url + "/v1/models/" + path)), 404)["code"] == "unknown_route"


def test_the_real_client_raises_the_field_by_name(gateway: Running) -> None:
    client = openai.OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0)
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="m", messages=[{"role": "robot", "content": "a"}])  # type: ignore[list-item]
    assert e.value.param == "messages[0].role" and e.value.code == "invalid_value"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=6), v, max_size=3),
    max_leaves=8,
)
FIELDS = ["model", "messages", "prompt", "n", "stream", "tools", "stop", "user", "x"]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), route=st.sampled_from([CHAT, LEGACY]))
def test_no_value_of_any_field_is_a_server_error(gateway: Running, fields: dict[str, Any], route: str) -> None:
    response = post(gateway, route, json.dumps(GOOD[route] | fields).encode())
    if response.status_code != 200:
        refusal(response)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=60), route=st.sampled_from([CHAT, LEGACY]))
def test_no_bytes_are_a_server_error(gateway: Running, raw: bytes, route: str) -> None:
    refusal(post(gateway, route, raw))
