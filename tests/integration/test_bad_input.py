"""What clients send wrong is refused through a real socket, in OpenAI's error shape, naming the field; the model is never asked."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WORD, Model, Running

ONE_GATEWAY = True

CHAT = "/v1/chat/completions"
LEGACY = "/v1/completions"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "你好"}]},
    LEGACY: {"model": "m", "prompt": "你好"},
}


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


BODIES: list[tuple[bytes, str]] = [
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
]


@pytest.mark.parametrize("route", GOOD)
def test_a_body_that_is_no_json_object_is_refused(
    gateway: Running, model: Model, subtests: pytest.Subtests, route: str
) -> None:
    for raw, code in BODIES:
        with subtests.test(body=raw[:24]):
            error = refusal(post(gateway, route, raw))
            assert error["code"] == code and error["type"] == "invalid_request_error"
    assert not model.script.asked


def test_the_place_of_a_mistake_is_told_and_the_text_is_not(gateway: Running) -> None:
    told = refusal(post(gateway, CHAT, b'{"model": "m",\n "secret words" }'))["message"]
    assert "line 2 column" in told and "secret" not in told


def test_a_number_that_no_machine_can_hold_is_refused_and_not_turned_into_another(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    good = json.dumps(GOOD[CHAT]).encode()[:-1]
    for number in (b"1" * 5000, b"1e999", b"-1e999"):
        with subtests.test(number=number[:8]):
            assert refusal(post(gateway, CHAT, good + b', "seed": ' + number + b"}"))["code"] == "invalid_json"
            assert not model.script.asked


def test_a_key_that_stands_twice_is_refused_by_name(gateway: Running, model: Model) -> None:
    for raw, name in [
        (b'{"model": "m", "model": "m"}', "model"),
        (b'{"model": "m", "mod\\u0065l": "n"}', "model"),
        (b'{"model": "m", "messages": [{"role": "user", "role": "system", "content": "a"}]}', "role"),
    ]:
        error = refusal(post(gateway, CHAT, raw))
        assert (error["code"], error["param"]) == ("duplicate_key", name) and f"'{name}'" in error["message"]
    assert not model.script.asked


def test_a_repeated_key_that_is_no_plain_name_is_not_repeated_back(gateway: Running, subtests: pytest.Subtests) -> None:
    for name in (WORD, "some words of a person", "k" * 80):
        with subtests.test(name=name):
            response = post(gateway, CHAT, f'{{"model": "m", "metadata": {{"{name}": 1, "{name}": 2}}}}'.encode())
            assert refusal(response)["code"] == "duplicate_key" and name not in response.text


WRONG: list[tuple[str, dict[str, Any], str]] = [
    *[(route, {"model": v}, "model") for route in GOOD for v in (None, "", 1, True, ["m"], {"id": "m"})],
    *[(route, {"n": v}, "n") for route in GOOD for v in (0, -1, 129, 10**30, "2", True, 1.5, [1])],
    *[(route, {"stream": v}, "stream") for route in GOOD for v in (1, "true", [], {})],
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


@pytest.mark.parametrize("mode", [{}, {"stream": True}], ids=["plain", "stream"])
def test_a_field_of_the_wrong_type_or_value_is_refused_by_name(
    gateway: Running, model: Model, subtests: pytest.Subtests, mode: dict[str, Any]
) -> None:
    for route, fields, param in WRONG:
        with subtests.test(route=route, fields=fields):
            error = refusal(gateway.http.post(route, json=GOOD[route] | mode | fields))
            assert error["param"] == param and f"'{param}" in error["message"]
            assert error["type"] == "invalid_request_error"
    assert not model.script.asked


def test_a_required_field_that_is_missing_is_named(gateway: Running) -> None:
    for route, good in GOOD.items():
        for name in good:
            error = refusal(gateway.http.post(route, json={k: v for k, v in good.items() if k != name}))
            assert error["param"] == name and name in error["message"]


ELSEWHERE = ["base_url", "api_key", "api_base", "API_Base", "extra_headers", "headers", "url", "host", "proxies"]


def test_a_field_that_would_send_the_request_elsewhere_is_refused_by_name(gateway: Running, model: Model) -> None:
    for route, name, value in product(GOOD, ELSEWHERE, ("http://127.0.0.1:1/v1", None, {"a": "b"})):
        error = refusal(gateway.http.post(route, json=GOOD[route] | {name: value}))
        assert (error["param"], error["code"]) == (name, "unsupported_parameter") and name in error["message"]
    assert not model.script.asked


def test_a_top_level_name_that_could_carry_text_is_refused(gateway: Running, model: Model) -> None:
    for route, value, name in product(GOOD, (1, "words", None, True, ["words"], {"a": "b"}, []), (WORD, "with space")):
        response = gateway.http.post(route, json=GOOD[route] | {name: value})
        assert "name of a top-level field" in refusal(response)["message"] and WORD not in response.text
    assert not model.script.asked


def test_names_further_down_are_screened_as_texts(gateway: Running, model: Model) -> None:
    for route, value in product(GOOD, (1, "words", None, {"a": "b"})):
        for fields in ({"metadata": {WORD: value}}, {"tools": [{"parameters": {"properties": {WORD: value}}}]}):
            answer = gateway.http.post(route, json=GOOD[route] | fields).json()
            assert answer["choices"][0]["finish_reason"] == "content_filter"
        assert not model.script.asked
        tools = [{"parameters": {"properties": {"城市": value}}}]
        assert gateway.http.post(route, json=GOOD[route] | {"tools": tools}).status_code == 200
        assert model.script.asked.pop()["tools"] == tools


def test_fields_that_no_screen_can_read_are_refused_by_name(gateway: Running, model: Model) -> None:
    for route, name in product(GOOD, ("input_ids", "prompt_token_ids", "prompt_embeds", "chat_template")):
        error = refusal(gateway.http.post(route, json=GOOD[route] | {name: [1, 2]}))
        assert error["param"] == name and "screened" in error["message"]
    assert not model.script.asked


def test_what_cannot_be_screened_in_a_stream_is_refused_with_the_way_out(gateway: Running, model: Model) -> None:
    for route, fields, param in [
        (LEGACY, {"echo": True}, "echo"),
    ]:
        error = refusal(gateway.http.post(route, json=GOOD[route] | {"stream": True} | fields))
        assert error["param"] == param and "stream: false" in error["message"]
    assert not model.script.asked


def test_a_body_of_ten_megabytes_is_refused_with_or_without_its_length(gateway: Running, model: Model) -> None:
    big = json.dumps(GOOD[CHAT] | {"user": "x" * (10 << 20)}).encode()
    pieces = [big[at : at + (1 << 16)] for at in range(0, len(big), 1 << 16)]
    for route, body in product(GOOD, (big, pieces)):
        error = refusal(gateway.http.post(route, content=body if body is big else iter(body)), 413)
        assert error["code"] == "body_too_large" and "4194304 bytes" in error["message"]
    assert not model.script.asked
    assert gateway.chat("你好").status_code == 200


def test_a_compressed_body_is_refused_by_the_header_s_name(gateway: Running) -> None:
    for route, encoding in product(GOOD, ("gzip", "br", "GZIP", "identity, gzip")):
        error = refusal(post(gateway, route, json.dumps(GOOD[route]).encode(), **{"content-encoding": encoding}), 415)
        assert error["code"] == "unsupported_encoding" and "content-encoding" in error["message"]


def test_another_method_on_a_route_that_takes_post_is_405(gateway: Running, subtests: pytest.Subtests) -> None:
    for route, method in product((*GOOD, "/v1/moderations"), ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")):
        with subtests.test(route=route, method=method):
            response = gateway.http.request(method, route)
            error = refusal(response, 405)
            assert error["code"] == "method_not_allowed" and "POST" in error["message"]
            assert response.headers.get("allow") == "POST"  # RFC 9110 15.5.6: a 405 names what is allowed


def test_an_unknown_route_is_404_and_names_the_moderated_ones(gateway: Running, model: Model) -> None:
    paths = ("/", "/v1", "/v1/nothing", "/v1/embeddings", CHAT + "/", CHAT + "/x", "/V1/models", "/v1/没有")
    for path, method in product(paths, ("GET", "POST")):
        error = refusal(gateway.http.request(method, path, json=GOOD[CHAT]), 404)
        assert error["code"] == "unknown_route" and (CHAT in error["message"] or not path.isascii())
    assert not model.script.asked


def test_the_list_of_models_is_no_way_to_other_routes_of_the_model_s_server(
    gateway: Running, subtests: pytest.Subtests
) -> None:
    for path in ("%2e%2e/files", "%2e%2e%2ffiles", "a/%2e%2e/%2e%2e/%2e%2e/metrics", "%2e/x", "a/..%2f..%2fb"):
        with subtests.test(path=path):
            response = gateway.http.get(httpx.URL(gateway.url + "/v1/models/" + path))
            assert refusal(response, 404)["code"] == "unknown_route"


def test_the_real_client_raises_the_field_by_name(gateway: Running) -> None:
    client = openai.OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0)
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="m", messages=[{"role": "robot", "content": "a"}])  # type: ignore[list-item,misc]
    assert e.value.param == "messages[0].role" and e.value.code == "invalid_value"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=6), v, max_size=3),
    max_leaves=8,
)
FIELDS = ["model", "messages", "prompt", "n", "stream", "tools", "stop", "user", "x"]
PARTS = st.sampled_from(
    ['{"model":"m",', '"messages":', "[", "]", "{", "}", '"role":"user"', ",", '"\\ud83d"', "1e9", "-"]
)
MODEST = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MODEST
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), route=st.sampled_from(list(GOOD)))
def test_no_value_of_any_field_is_a_server_error(gateway: Running, fields: dict[str, Any], route: str) -> None:
    response = post(gateway, route, json.dumps(GOOD[route] | fields).encode())
    if response.status_code != 200:
        refusal(response)


@MODEST
@given(raw=st.binary(max_size=60) | st.lists(PARTS).map(lambda parts: "".join(parts).encode()))
def test_no_bytes_are_a_server_error(gateway: Running, raw: bytes) -> None:
    refusal(post(gateway, CHAT, raw))
