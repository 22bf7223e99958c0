"""Answers of unusual shape, as real model servers send them: nothing slips past the screen by its shape, and nothing clean is lost."""

from __future__ import annotations

from itertools import product
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WORD, Model, Running, chunk, events

CHAT, LEGACY = "/v1/chat/completions", "/v1/completions"
ROUTES = [CHAT, LEGACY]
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
DONE = b"data: [DONE]\n\n"
STOPPED = "\n\n这部分内容"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps({"id": "up", "object": "o", "created": 1, "model": "m", **body}) + b"\n\n"


def piece(route: str, text: str | None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream with one choice; `more` stands in the choice."""
    part = {"delta": {} if text is None else {"content": text}} if route == CHAT else {"text": text or ""}
    return event({"choices": [{"index": 0, **part, "finish_reason": finish, **more}]})


def whole(model: Model, route: str, text: str, **more: Any) -> None:
    """Let the model answer plainly with one choice; `more` stands in the choice."""
    part = {"message": {"role": "assistant", "content": text}} if route == CHAT else {"text": text}
    body = {"id": "up", "object": "o", "created": 1, "model": "m"}
    choice = {"index": 0, **part, "finish_reason": "stop", **more}
    model.script.plain = (200, {}, orjson.dumps(body | {"choices": [choice]}))


def post(gateway: Running, route: str, stream: bool = True, **body: Any) -> httpx.Response:
    turn = {"messages": [{"role": "user", "content": "你好"}]} if route == CHAT else {"prompt": "你好"}
    return gateway.http.post(route, json={"model": "m", "stream": stream, **turn, **body})


def heard(response: httpx.Response) -> tuple[str, list[str]]:
    """All text of the only choice and how it ended, every ending listed; the stream ended cleanly, with a receipt."""
    assert response.status_code == 200, response.text
    streamed = response.headers["content-type"].startswith("text/event-stream")
    got = [e for e in events(response.content) if e != "[DONE]"] if streamed else [response.json()]
    assert got[-1]["sluice"]["receipt"]
    choices = [c for e in got for c in e["choices"]]
    parts = [c.get("delta") or c.get("message") or {"content": c.get("text")} for c in choices]
    return "".join(p.get("content") or "" for p in parts), [c["finish_reason"] for c in choices if c["finish_reason"]]


def errs(gateway: Running, code: str, stream: bool = False, **body: Any) -> httpx.Response:
    """The answer is an error of the model's, told before anything of it went out."""
    response = gateway.chat("你好", stream=stream, **body)
    assert response.status_code == 502, response.text
    assert response.json()["error"]["code"] == code and WORD not in response.text
    return response


# ---- endings


@pytest.mark.parametrize("route", ROUTES)
def test_what_a_choice_says_after_its_end_is_not_delivered(gateway: Running, model: Model, route: str) -> None:
    for late in (["后文"], [WORD], list(WORD), [WORD[:3]]):
        model.script.stream = [
            *(piece(route, "好。"), piece(route, None, "stop")),
            *(piece(route, text) for text in late), piece(route, "再见", "stop"), DONE,
        ]  # fmt: skip
        assert heard(post(gateway, route)) == ("好。", ["stop"]), late
    # What ends in the very event of its last text is delivered whole.
    model.script.stream = [piece(route, "好。", "stop"), piece(route, "后文"), DONE]
    assert heard(post(gateway, route)) == ("好。", ["stop"])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("last", ["stop", "", None])
def test_an_empty_finish_reason_in_every_event_is_no_end(
    gateway: Running, model: Model, route: str, last: str | None
) -> None:
    model.script.stream = [*(piece(route, c, "") for c in f"前{WORD}后"), piece(route, None, last), DONE]
    text, ends = heard(post(gateway, route))
    assert text.startswith(f"前{STOPPED}") and "后" not in text.split("这部分内容")[0] and ends == ["content_filter"]
    model.script.stream = [*(piece(route, c, "") for c in "今天天气很好 abc12"), piece(route, None, last), DONE]
    assert heard(post(gateway, route)) == ("今天天气很好 abc12", [last] if last else [])


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_that_is_done_without_an_end_loses_nothing_that_was_held(
    gateway: Running, model: Model, route: str
) -> None:
    for deltas in (["see foo", " bar123"], [f"前{WORD[:5]}"], ["call 138"], ["demo.user@"], list("abc 1380013")):
        model.script.stream = [*(piece(route, d) for d in deltas), DONE]
        assert heard(post(gateway, route))[0] == "".join(deltas)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("end", [[DONE], [b"", DONE], ["stop"], ["stop", DONE]], ids=repr)
def test_a_term_that_only_the_end_decides_is_stopped(
    gateway: Running, model: Model, route: str, end: list[bytes | str]
) -> None:
    gateway.block("example banned", WORD, WORD + "续篇")
    rest = [e if isinstance(e, bytes) else piece(route, None, e) for e in end]
    for term in ("example banned", WORD, WORD + "续"):
        model.script.stream = [*(piece(route, c) for c in f"前 {term}"), *rest]
        text, ends = heard(post(gateway, route))
        assert text.startswith(f"前 {STOPPED}") and ends == ["content_filter"] and term not in text


TEXTS = st.lists(
    st.sampled_from(["今天", "see foo", " bar123", WORD[:4], "138", "a@b", "。", "👍🏽"]), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deltas=TEXTS, odd=st.sampled_from(["", None]), marker=st.booleans())
def test_however_a_stream_ends_its_clean_text_is_whole(
    gateway: Running, model: Model, deltas: list[str], odd: str | None, marker: bool
) -> None:
    model.script.stream = [*(piece(CHAT, d, odd) for d in deltas), DONE if marker else piece(CHAT, None, "stop")]
    assert heard(post(gateway, CHAT)) == ("".join(deltas), [] if marker else ["stop"])


# ---- log probabilities


def logprobs(route: str, tokens: list[str], *other: str) -> dict[str, Any]:
    """The log probabilities of `tokens`, with `other` as the alternatives of the first."""
    if route == LEGACY:
        tops = [{t: -1.0, **(dict.fromkeys(other, -2.0) if not i else {})} for i, t in enumerate(tokens)]
        return {"tokens": tokens, "token_logprobs": [-1.0] * len(tokens), "top_logprobs": tops, "text_offset": [0] * len(tokens)}  # fmt: skip

    def one(token: str) -> dict[str, Any]:
        return {"token": token, "logprob": -1.0, "bytes": list(token.encode())}

    content = [one(t) | {"top_logprobs": [one(o) for o in other] if not i else []} for i, t in enumerate(tokens)]
    return {"content": content, "refusal": None}


@pytest.mark.parametrize("route", ROUTES)
def test_streamed_log_probabilities_that_nobody_asked_for_are_taken_out(
    gateway: Running, model: Model, route: str
) -> None:
    texts = ["今天", "天气", "很好。"]
    model.script.stream = [piece(route, t, logprobs=logprobs(route, [t], "词")) for t in texts]
    model.script.stream += [piece(route, None, "stop"), DONE]
    response = post(gateway, route)
    assert heard(response) == ("今天天气很好。", ["stop"]) and "词" not in response.text
    # In the event that is stopped too: its tokens say what the text may not.
    for tokens in ([f"后文{WORD}"], ["后文", WORD[:3], WORD[3:]], ["后文", *WORD]):
        model.script.stream = [
            piece(route, "前"),
            *(piece(route, f"{WORD}后文", finish, logprobs=logprobs(route, tokens)) for finish in (None, "stop")),
            DONE,
        ]
        response = post(gateway, route)
        assert (
            heard(response)[1] == ["content_filter"] and "后文" not in response.text and WORD[3:] not in response.text
        )
        assert {c.get("logprobs") for e in events(response.content) if e != "[DONE]" for c in e["choices"]} == {None}


@pytest.mark.parametrize("route", ROUTES)
def test_plain_log_probabilities_come_through_only_when_asked_for_and_clean(
    gateway: Running, model: Model, subtests: pytest.Subtests, route: str
) -> None:
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if route == CHAT else {"logprobs": 2}
    clean = logprobs(route, ["今天", "很好。"], "明天", "天")
    cases: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | None]] = [
        ("asked for and clean", asked, clean, clean),
        ("not asked for", {}, clean, None),
        ("refused by name", {"logprobs": None if route == LEGACY else False}, clean, None),
        ("a token", asked, logprobs(route, ["今天", WORD]), None),
        ("a word over two tokens", asked, logprobs(route, ["今天", WORD[:3], WORD[3:]]), None),
        ("an alternative", asked, logprobs(route, ["今天", "很好。"], "明天", WORD), None),
        ("a personal number", asked, logprobs(route, ["今天", "很好。"], "13800138000"), None),
    ]
    for name, body, sent, expected in cases:
        with subtests.test(name):
            whole(model, route, "今天很好。", logprobs=sent)
            response = post(gateway, route, False, **body)
            assert heard(response) == ("今天很好。", ["stop"]) and WORD not in response.text
            assert response.json()["choices"][0]["logprobs"] == expected


@pytest.mark.parametrize("route", ROUTES)
def test_zero_log_probabilities_are_asked_for_too_and_each_choice_keeps_its_own(
    gateway: Running, model: Model, route: str
) -> None:
    zero: dict[str, Any] = {"logprobs": True, "top_logprobs": 0} if route == CHAT else {"logprobs": 0}
    whole(model, route, "好。", logprobs=logprobs(route, ["好。"]))
    assert post(gateway, route, False, **zero).json()["choices"][0]["logprobs"] == logprobs(route, ["好。"])
    assert model.script.plain is not None
    body = orjson.loads(model.script.plain[2])
    body["choices"] += [body["choices"][0] | {"index": 1, "logprobs": logprobs(route, [WORD])}]
    model.script.plain = (200, {}, orjson.dumps(body))
    choices = post(gateway, route, False, n=2, **zero).json()["choices"]
    assert [c["logprobs"] for c in choices] == [logprobs(route, ["好。"]), None]


@pytest.mark.parametrize("route", ROUTES)
def test_log_probabilities_of_a_masked_or_stopped_text_are_taken_out(
    gateway: Running, model: Model, route: str
) -> None:
    asked: dict[str, Any] = {"logprobs": True} if route == CHAT else {"logprobs": 1}
    for action, shown in (("mask", "前******后"), ("block", "这部分内容"), ("replace", "这部分内容")):
        gateway.block(WORD, action=action)
        for sent in (
            logprobs(route, ["前", WORD, "后"]),
            logprobs(route, ["前", *WORD, "后"]),
            logprobs(route, ["无"]),
        ):
            whole(model, route, f"前{WORD}后", logprobs=sent)
            response = post(gateway, route, False, **asked)
            assert heard(response)[0].startswith(shown) and WORD[3:] not in response.text
            assert response.json()["choices"][0].get("logprobs") is None


# ---- errors beside an answer, and odd envelopes


@pytest.mark.parametrize("error", [{"message": WORD, "code": "x"}, WORD, {"a": 1}], ids=["object", "string", "other"])
@BOTH
def test_an_error_beside_choices_is_an_error(gateway: Running, model: Model, error: Any, stream: bool) -> None:
    choice = {"index": 0, "message": {"content": "好"}, "delta": {"content": "好"}, "finish_reason": "stop"}
    raw = event({"choices": [choice], "error": error})
    model.script.plain, model.script.stream = (200, {}, raw.removeprefix(b"data: ")), [raw, DONE]
    errs(gateway, "upstream_error", stream)
    # Null says that there is none.
    raw = event({"choices": [choice], "error": None})
    model.script.plain, model.script.stream = (200, {}, raw.removeprefix(b"data: ")), [raw, DONE]
    assert gateway.chat("你好", stream=stream).status_code == 200


def test_usage_in_every_event_delays_no_text(gateway: Running, model: Model) -> None:
    texts = ["今天。", "明天。", "后天。"]
    model.script.stream = [chunk(0, {"content": t}, usage=USAGE) for t in texts]
    model.script.stream += [30.0, chunk(0, {}, "stop", usage=USAGE), DONE]
    got, ask = b"", {"model": "m", "stream": True, "messages": [{"role": "user", "content": "你好"}]}
    with gateway.http.stream("POST", CHAT, json=ask, timeout=3) as response:
        for part in response.iter_raw():
            got += part
            if texts[-1].encode() in got:
                break
    assert [e["usage"] for e in events(got)] == [USAGE] * 3
    del model.script.stream[3]
    response = post(gateway, CHAT)
    assert heard(response) == ("".join(texts), ["stop"]) and response.text.count('"usage"') == 4


@pytest.mark.parametrize(
    "usage", [{"choices": None, "usage": USAGE}, {"usage": USAGE}, {"choices": [], "usage": USAGE}]
)
@pytest.mark.parametrize("route", ROUTES)
def test_usage_may_come_without_choices(gateway: Running, model: Model, usage: dict[str, Any], route: str) -> None:
    for at in (0, 2, 3):
        model.script.stream = [piece(route, "好。"), piece(route, "的。"), piece(route, None, "stop"), DONE]
        model.script.stream.insert(at, event(usage))
        response = post(gateway, route)
        assert heard(response) == ("好。的。", ["stop"])
        assert [e["usage"] for e in events(response.content) if e != "[DONE]" and e.get("usage")] == [USAGE], at


@pytest.mark.parametrize("route", ROUTES)
@BOTH
def test_an_index_that_is_null_is_the_first(gateway: Running, model: Model, route: str, stream: bool) -> None:
    for text, shown, end in ((f"前{WORD}后", "这部分内容", "content_filter"), ("很好。", "很好。", "stop")):
        whole(model, route, text, index=None)
        model.script.stream = [
            *(piece(route, c, index=None) for c in text),
            piece(route, None, "stop", index=None),
            DONE,
        ]
        said, ends = heard(post(gateway, route, stream))
        assert shown in said and WORD[:1] not in said and "后" not in said.split("这部分")[0] and ends == [end]


def test_an_event_with_empty_data_is_no_event(gateway: Running, model: Model) -> None:
    for empty in (b"data:\n\n", b"data: \n\n", b"data\n\n", b"event: ping\ndata:\n\n", b"data:\ndata:\n\n"):
        model.script.stream = [empty, piece(CHAT, "好"), empty, piece(CHAT, "的。"), empty, piece(CHAT, None, "stop"), empty, DONE]  # fmt: skip
        assert heard(post(gateway, CHAT)) == ("好的。", ["stop"]), empty


@pytest.mark.parametrize("end", [[DONE], [piece(CHAT, None, "stop"), DONE]], ids=["done", "stop"])
def test_an_emoji_cut_in_two_arrives_whole(gateway: Running, model: Model, end: list[bytes]) -> None:
    def raw(escapes: str) -> bytes:
        return b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % escapes.encode()

    for cuts in (
        ["\\ud83d", "\\ude00"],
        ["a\\ud83d", "\\ude00b"],
        ["\\ud83d", "", "\\ude00"],
        ["\\ud83d\\ude00\\ud83d", "\\ude00"],
    ):
        model.script.stream = [*map(raw, cuts), *end]
        assert heard(post(gateway, CHAT))[0] == orjson.loads(f'"{"".join(cuts)}"'), cuts
    # A half that never meets its other half costs nothing else.
    for lone in (["好\\ud83d"], ["好", "\\ud83d"], ["好", "\\ude00"]):
        model.script.stream = [*map(raw, lone), *end]
        assert heard(post(gateway, CHAT))[0] == "好\ufffd"
    # Nor does it hide a term.
    model.script.stream = [raw("\\ud83d"), *(raw(c) for c in WORD), *end]
    assert heard(post(gateway, CHAT))[1] == ["content_filter"]


# ---- calls of tools


def calls(raw: bytes) -> dict[int, tuple[str, str]]:
    """Per call the name and the arguments, joined as clients join them."""
    found: dict[int, tuple[str, str]] = {}
    for e in events(raw):
        for call in (c for ch in (e["choices"] if e != "[DONE]" else ()) for c in ch["delta"].get("tool_calls") or ()):
            name, arguments = found.get(call["index"], ("", ""))
            function = call.get("function") or {}
            found[call["index"]] = name + (function.get("name") or ""), arguments + (function.get("arguments") or "")
    return found


def call(**function: Any) -> bytes:
    return chunk(0, {"tool_calls": [{"index": 0, "type": "function", "function": function}]})


def named(name: str) -> dict[str, list[bytes]]:
    """Ways to stream a call of a function of this name."""
    return {
        "with arguments": [call(name=name, arguments=""), call(arguments="{}")],
        "with all arguments": [call(name=name, arguments="{}")],
        "arguments first": [call(arguments="{}", name=name)],
        "alone": [call(name=name), call(arguments="{"), call(arguments="}")],
        "alone, arguments null": [call(name=name, arguments=None), call(arguments="{}")],
        "split": [*(call(name=c) for c in name), call(arguments="{}")],
        "split, then arguments": [call(name=name[:-3]), call(name=name[-3:], arguments="{}")],
        "without arguments": [call(name=name[:4]), call(name=name[4:])],
    }


FINISH = chunk(0, {}, "tool_calls")


@pytest.mark.parametrize("ending", [[FINISH, DONE], [FINISH], [DONE]], ids=["finish and done", "finish", "done"])
def test_a_streamed_function_name_is_screened_however_it_comes(
    gateway: Running, model: Model, subtests: pytest.Subtests, ending: list[bytes]
) -> None:
    for action, way in product(("block", "mask", "pass"), named(WORD)):
        with subtests.test(action=action, way=way):
            gateway.block("别的短语" if action == "pass" else WORD, action="block" if action == "pass" else action)
            events_of = named(f"find_{WORD}_x")[way]
            model.script.stream = [*events_of, *ending]
            raw = post(gateway, CHAT).content
            arguments = "" if way == "without arguments" else "{}"
            if action == "block":
                assert not any(c in raw.decode() for c in WORD[2:]) and b'"content_filter"' in raw
                assert calls(raw).get(0, ("", ""))[1] == ""
            else:
                name = f"find_{WORD if action == 'pass' else '*' * len(WORD)}_x"
                assert calls(raw) == {0: (name, arguments)}


@pytest.mark.parametrize("function", [{"arguments": "{}"}, {}, {"arguments": None}, {"arguments": ""}], ids=repr)
def test_a_plain_function_name_is_screened(gateway: Running, model: Model, function: dict[str, Any]) -> None:
    for field in ("tool_calls", "function_call"):
        for action in ("block", "mask"):
            gateway.block(WORD, action=action)
            one = {"name": f"find_{WORD}_x", **function}
            model.script.chat(
                "", **{field: [{"id": "c", "type": "function", "function": one}] if field[0] == "t" else one}
            )
            choice = gateway.chat("你好").json()["choices"][0]
            if action == "block":
                assert choice["finish_reason"] == "content_filter" and not choice["message"].get(field)
            else:
                got = choice["message"][field]
                assert (got[0]["function"] if field[0] == "t" else got) == one | {"name": "find_******_x"}


def test_a_name_repeated_in_every_event_is_one_name(gateway: Running, model: Model) -> None:
    parts = ['{"city', '":"', "城市", '"}']
    model.script.stream = [*(call(name="get_weather", arguments=p) for p in ["", *parts]), FINISH, DONE]
    assert calls(post(gateway, CHAT).content) == {0: ("get_weather", "".join(parts))}
    gateway.block(WORD, action="mask")
    model.script.stream = [*(call(name=f"get_{WORD}", arguments=p) for p in parts), FINISH, DONE]
    raw = post(gateway, CHAT).content
    assert WORD not in raw.decode() and calls(raw) == {0: ("get_******", "".join(parts))}


@BOTH
def test_arguments_that_are_an_object_are_screened_name_by_name(gateway: Running, model: Model, stream: bool) -> None:
    def let(arguments: Any) -> None:
        function = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        model.script.chat("", tool_calls=[function])
        model.script.stream = [chunk(0, {"tool_calls": [function]}), FINISH, DONE]

    for name in (WORD, "城市", "two words", "", "x" * 129):
        for arguments in ({name: 1}, {"a": [{name: "x"}]}, {"a": {name: None}}):
            let(arguments)
            if name:
                errs(gateway, "upstream_protocol_error", stream)
    let({"city": "城市", "n": 3, "deep": {"a": ["好"]}})
    response = gateway.chat("你好", stream=stream)
    assert response.status_code == 200 and '"city":"城市"' in response.text and '"n":3' in response.text
    let({"city": WORD})
    response = gateway.chat("你好", stream=stream)
    assert WORD not in response.text and '"finish_reason":"content_filter"' in response.text
