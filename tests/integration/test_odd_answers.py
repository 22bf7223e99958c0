"""Answers of unusual shape, as real model servers send them: nothing slips past the screen by its shape, nothing clean is lost."""

from __future__ import annotations

from itertools import product
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WORD, Model, Running, chunk, events

ONE_GATEWAY = True

CHAT, LEGACY = "/v1/chat/completions", "/v1/completions"
ROUTES = (CHAT, LEGACY)
BOTH = (False, True)
DONE = b"data: [DONE]\n\n"
FINISH = chunk(0, {}, "tool_calls")
HIDDEN = "这部分内容"
"""A refusal begins with it."""
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def body_of(*choices: dict[str, Any], **more: Any) -> bytes:
    return orjson.dumps({"id": "up", "object": "o", "created": 1, "model": "m", "choices": choices, **more})


def piece(route: str, text: str | None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream with one choice; `more` stands in the choice."""
    part = {"delta": {} if text is None else {"content": text}} if route == CHAT else {"text": text or ""}
    return b"data: " + body_of({"index": 0, **part, "finish_reason": finish, **more}) + b"\n\n"


def whole(model: Model, route: str, text: str, *others: dict[str, Any], **more: Any) -> None:
    """Let the model answer plainly; `more` stands in the first choice, `others` are laid over it for further ones."""
    part = {"message": {"role": "assistant", "content": text}} if route == CHAT else {"text": text}
    first = {"index": 0, **part, "finish_reason": "stop", **more}
    model.script.plain = (200, {}, body_of(first, *(first | other for other in others)))


def post(gateway: Running, route: str, stream: bool = True, **body: Any) -> httpx.Response:
    turn = {"messages": [{"role": "user", "content": "你好"}]} if route == CHAT else {"prompt": "你好"}
    return gateway.http.post(route, json={"model": "m", "stream": stream, **turn, **body})


def choices_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Every choice of every event, of a stream that ended cleanly with its receipt, or of a plain answer."""
    assert response.status_code == 200, response.text
    streamed = response.headers["content-type"].startswith("text/event-stream")
    got = [e for e in events(response.content) if e != "[DONE]"] if streamed else [response.json()]
    assert got[-1]["sluice"]["receipt"]
    return [c for e in got for c in e["choices"]]


def heard(response: httpx.Response) -> tuple[str, list[str]]:
    """All text of the only choice, and every ending."""
    choices = choices_of(response)
    parts = [c.get("delta") or c.get("message") or {"content": c.get("text")} for c in choices]
    ends = [c["finish_reason"] for c in choices if c.get("finish_reason")]
    return "".join(p.get("content") or "" for p in parts), ends


def stopped(response: httpx.Response, before: str = "") -> bool:
    """A refusal stands for everything behind `before`."""
    text, ends = heard(response)
    start = f"{before}\n\n{HIDDEN}" if before else HIDDEN
    return text.startswith(start) and ends == ["content_filter"] and WORD[2:] not in text


# ---- endings


def test_what_a_choice_says_after_its_end_is_not_delivered(gateway: Running, model: Model) -> None:
    for route, late in product(ROUTES, (["后文"], [WORD], list(WORD), [WORD[:3]])):
        after = [*(piece(route, text) for text in late), piece(route, "再见", "stop"), DONE]
        for before in ([piece(route, "好。"), piece(route, None, "stop")], [piece(route, "好。", "stop")]):
            model.script.stream = before + after
            assert heard(post(gateway, route)) == ("好。", ["stop"]), late


def test_an_empty_finish_reason_in_every_event_is_no_end(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for route, last in product(ROUTES, ("stop", "", None)):
        with subtests.test(route=route, last=last):
            model.script.stream = [*(piece(route, c, "") for c in f"前{WORD}后"), piece(route, None, last), DONE]
            assert stopped(post(gateway, route), "前")
            model.script.stream = [*(piece(route, c, "") for c in "今天很好 abc12"), piece(route, None, last), DONE]
            assert heard(post(gateway, route)) == ("今天很好 abc12", [last] if last else [])


def test_what_only_the_end_decides_is_decided_by_any_end(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    gateway.block("banned example", WORD, WORD + "续篇")
    for route, last in product(ROUTES, ([], ["stop"], ["", None])):
        end = [*(piece(route, None, finish) for finish in last), DONE]
        for text in ("banned example", WORD, WORD + "续"):
            with subtests.test(route=route, last=last, text=text):
                model.script.stream = [*(piece(route, c) for c in f"前面{text}"), *end]
                assert stopped(response := post(gateway, route), "前面") and text not in response.text
        for deltas in (["see foo", " bar123"], ["前", WORD[:5]], ["call 138"], ["demo.user@"], list("banned examp")):
            with subtests.test(route=route, last=last, deltas=deltas):
                model.script.stream = [*(piece(route, d) for d in deltas), *end]
                assert heard(post(gateway, route))[0] == "".join(deltas)


PARTS = st.lists(
    st.sampled_from(["今天", "see foo", " bar123", WORD[:4], "138", "a@b", "。", "👍🏽"]), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(deltas=PARTS, odd=st.sampled_from(["", None]), marker=st.booleans())
def test_however_a_stream_ends_its_clean_text_is_whole(
    gateway: Running, model: Model, deltas: list[str], odd: str | None, marker: bool
) -> None:
    model.script.stream = [*(piece(CHAT, d, odd) for d in deltas), DONE if marker else piece(CHAT, None, "stop")]
    assert heard(post(gateway, CHAT)) == ("".join(deltas), [] if marker else ["stop"])


# ---- log probabilities


def logprobs(route: str, tokens: list[str], *others: str) -> dict[str, Any]:
    """The log probabilities of `tokens`, with `others` as the alternatives of the first."""
    if route == LEGACY:
        tops = [dict.fromkeys([t, *(others if not i else ())], -1.0) for i, t in enumerate(tokens)]
        return {"tokens": tokens, "token_logprobs": [-1.0] * len(tokens), "top_logprobs": tops, "text_offset": [0]}
    all_of = [[{"token": t, "logprob": -1.0, "bytes": list(t.encode())} for t in (own, *others)] for own in tokens]
    return {"content": [o[0] | {"top_logprobs": o[1:] if not i else []} for i, o in enumerate(all_of)], "refusal": None}


def test_streamed_log_probabilities_that_nobody_asked_for_are_taken_out(gateway: Running, model: Model) -> None:
    for route in ROUTES:
        sent = [piece(route, t, logprobs=logprobs(route, [t], "词")) for t in ("今天", "天气", "很好。")]
        model.script.stream = [*sent, piece(route, None, "stop"), DONE]
        response = post(gateway, route)
        assert heard(response) == ("今天天气很好。", ["stop"]) and "词" not in response.text
        # In the event that is stopped too: its tokens say what the text may not.
        for tokens, finish in product(([f"后{WORD}"], ["后", WORD[:3], WORD[3:]], ["后", *WORD]), (None, "stop")):
            last = piece(route, f"{WORD}后", finish, logprobs=logprobs(route, tokens))
            model.script.stream = [piece(route, "前"), last, DONE]
            assert stopped(response := post(gateway, route), "前") and "后" not in response.text
            assert {c.get("logprobs") for c in choices_of(response)} == {None}


def test_plain_log_probabilities_come_through_only_when_asked_for_and_clean(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for route in ROUTES:
        asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if route == CHAT else {"logprobs": 2}
        zero: dict[str, Any] = {"logprobs": True, "top_logprobs": 0} if route == CHAT else {"logprobs": 0}
        clean = logprobs(route, ["今天", "很好。"], "明天", "天")
        for name, body, sent, kept in (
            ("asked for and clean", asked, clean, True),
            ("asked for without alternatives", zero, clean, True),
            ("not asked for", {}, clean, False),
            ("not wanted", {"logprobs": False if route == CHAT else None}, clean, False),
            ("a token", asked, logprobs(route, ["今天", WORD]), False),
            ("a term over two tokens", asked, logprobs(route, ["今天", WORD[:3], WORD[3:]]), False),
            ("an alternative", asked, logprobs(route, ["今天", "很好。"], "明天", WORD), False),
            ("an alternative that policy masks", asked, logprobs(route, ["今天"], "13800138000"), False),
        ):
            with subtests.test(name, route=route):
                whole(model, route, "今天很好。", {"index": 1, "logprobs": clean}, logprobs=sent)
                first, second = choices_of(post(gateway, route, False, n=2, **body))
                assert first["logprobs"] == (sent if kept else None)
                assert second["logprobs"] == (clean if body in (asked, zero) else None)
        for action, shown in (("mask", "前******后"), ("block", HIDDEN), ("replace", HIDDEN)):
            with subtests.test(action=action, route=route):
                gateway.block(WORD, action=action)
                whole(model, route, f"前{WORD}后", logprobs=logprobs(route, ["无"]))
                response = post(gateway, route, False, **asked)
                assert heard(response)[0].startswith(shown) and choices_of(response)[0]["logprobs"] is None
        gateway.block(WORD)


def test_log_probabilities_of_no_known_shape_are_no_way_out_and_no_failure_of_ours(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    refusal = [logprobs(CHAT, [token])["content"][0] for token in (WORD[:3], WORD[3:])]
    shapes: list[Any] = [{"content": None, "refusal": refusal}, {"content": WORD}, [WORD], WORD, {"tokens": {WORD: 1}}]
    for route, sent in product(ROUTES, [*shapes, {"content": 5}, {"tokens": 5}, 5, True, {"content": [None, 5, []]}]):
        with subtests.test(route=route, sent=sent):
            whole(model, route, "好。", logprobs=sent)
            response = post(gateway, route, False, logprobs=True if route == CHAT else 1)
            assert response.status_code in (200, 502) and WORD[3:] not in response.text


# ---- envelopes


def test_no_word_of_the_envelope_carries_a_term_out(gateway: Running, model: Model, subtests: pytest.Subtests) -> None:
    choice = {"index": 0, "message": {"content": "好"}, "finish_reason": "stop"}
    names = ("object", "model", "system_fingerprint", "service_tier", "finish_reason")
    for fields, stream in product(({"usage": USAGE | {WORD: 1}}, *({name: WORD} for name in names)), BOTH):
        with subtests.test(fields=fields, stream=stream):
            inner = choice | ({} if "finish_reason" not in fields else fields)
            outer = {} if "finish_reason" in fields else fields
            model.script.plain = (200, {}, orjson.dumps(orjson.loads(body_of(inner)) | outer))
            streamed = orjson.loads(body_of(inner | {"delta": inner["message"]})) | outer
            model.script.stream = [b"data: " + orjson.dumps(streamed) + b"\n\n", DONE]
            assert WORD not in gateway.chat("你好", stream=stream).text


def test_an_error_beside_choices_is_an_error(gateway: Running, model: Model, subtests: pytest.Subtests) -> None:
    choice = {"index": 0, "message": {"content": "好"}, "finish_reason": "stop"}
    for error, stream in product(({"message": WORD}, WORD, ["x"], None), BOTH):
        with subtests.test(error=error, stream=stream):
            model.script.plain = (200, {}, body_of(choice, error=error))
            streamed = b"data: " + body_of(choice | {"delta": choice["message"]}, error=error) + b"\n\n"
            model.script.stream = [streamed, DONE]
            response = gateway.chat("你好", stream=stream)
            assert response.status_code == (502 if error else 200), response.text  # null: there is none
            assert not error or (response.json()["error"]["code"] == "upstream_error" and WORD not in response.text)


def test_usage_in_every_event_delays_no_text(gateway: Running, model: Model) -> None:
    texts = ["前一段。", "中一段。", "后一段。"]
    model.script.stream = [chunk(0, {"content": t}, usage=USAGE) for t in texts]
    model.script.stream += [30.0, chunk(0, {}, "stop", usage=USAGE), DONE]
    got, ask = b"", {"model": "m", "stream": True, "messages": [{"role": "user", "content": "你好"}]}
    with gateway.http.stream("POST", CHAT, json=ask, timeout=5) as response:
        parts = response.iter_raw()
        while texts[-1].encode() not in got:
            got += next(parts)
    assert [e["usage"] for e in events(got)] == [USAGE] * 3


def test_usage_may_come_without_choices(gateway: Running, model: Model, subtests: pytest.Subtests) -> None:
    for route, usage, at in product(ROUTES, ({"choices": None}, {}, {"choices": []}), (0, 2, 3)):
        with subtests.test(route=route, usage=usage, at=at):
            model.script.stream = [piece(route, "好。"), piece(route, "的。"), piece(route, None, "stop"), DONE]
            model.script.stream.insert(at, b"data: " + orjson.dumps({"id": "up", "usage": USAGE, **usage}) + b"\n\n")
            response = post(gateway, route)
            assert heard(response) == ("好。的。", ["stop"])
            assert [e["usage"] for e in events(response.content) if e != "[DONE]" and e.get("usage")] == [USAGE]


def test_an_index_that_is_null_is_the_first(gateway: Running, model: Model) -> None:
    for route, stream in product(ROUTES, BOTH):
        whole(model, route, f"前{WORD}后", index=None)
        end = [piece(route, None, "stop", index=None), DONE]
        model.script.stream = [*(piece(route, c, index=None) for c in f"前{WORD}后"), *end]
        assert stopped(post(gateway, route, stream), "前" if stream else "")
        whole(model, route, "很好。", index=None)
        model.script.stream = [*(piece(route, c, index=None) for c in "很好。"), *end]
        assert heard(post(gateway, route, stream)) == ("很好。", ["stop"])


def test_an_event_with_empty_data_is_no_event(gateway: Running, model: Model) -> None:
    for empty in (b"data:\n\n", b"data: \n\n", b"data\n\n", b"event: ping\ndata:\n\n"):
        sent = (piece(CHAT, "好"), piece(CHAT, "的。"), piece(CHAT, None, "stop"), DONE)
        model.script.stream = [part for one in sent for part in (empty, one)]
        assert heard(post(gateway, CHAT)) == ("好的。", ["stop"]), empty


def test_an_emoji_cut_in_two_arrives_whole(gateway: Running, model: Model, subtests: pytest.Subtests) -> None:
    def raw(escapes: str) -> bytes:
        return b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % escapes.encode()

    high, low = "\\ud83d", "\\ude00"
    for end in ([DONE], [piece(CHAT, None, "stop"), DONE]):
        for cuts in (
            [high, low],
            ["a" + high, low + "b"],
            [high, "", low],
            [high + low + high, low],
            ["好", high, low],
        ):
            with subtests.test(cuts=cuts, end=len(end)):
                model.script.stream = [*map(raw, cuts), *end]
                assert heard(post(gateway, CHAT))[0] == orjson.loads(f'"{"".join(cuts)}"')
        for lone in (["好" + high], ["好", high], ["好", low]):  # a half that stays alone costs nothing else
            with subtests.test(lone=lone, end=len(end)):
                model.script.stream = [*map(raw, lone), *end]
                assert heard(post(gateway, CHAT))[0] == "好\ufffd"
        model.script.stream = [*map(raw, ("前", high, *WORD, low)), *end]
        assert heard(post(gateway, CHAT))[1] == ["content_filter"]


# ---- calls of tools


def called(response: httpx.Response) -> tuple[str, str]:
    """Name and arguments of the only call of a stream, joined as clients join them."""
    functions = [t["function"] for c in choices_of(response) for t in c["delta"].get("tool_calls") or ()]
    return "".join(f.get("name") or "" for f in functions), "".join(f.get("arguments") or "" for f in functions)


def call(**function: Any) -> bytes:
    return chunk(0, {"tool_calls": [{"index": 0, "function": function}]})


def ways(name: str) -> dict[str, list[bytes]]:
    """Ways to stream a call f({}) of a function of this name."""
    return {
        "beside empty arguments": [call(name=name, arguments=""), call(arguments="{}")],
        "beside all arguments": [call(name=name, arguments="{}")],
        "behind the arguments": [call(arguments="{}", name=name)],
        "alone": [call(name=name), call(arguments="{"), call(arguments="}")],
        "beside null": [call(name=name, arguments=None), call(arguments="{}")],
        "in pieces": [*(call(name=c) for c in name), call(arguments="{}")],
        "in pieces, the last beside arguments": [call(name=name[:-3]), call(name=name[-3:], arguments="{}")],
        "again and again": [call(name=name, arguments=a) for a in ("", "{", "}")],
    }


def test_a_streamed_function_name_is_screened_however_it_comes(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    name = f"find_{WORD}_x"
    for action, way, end in product(("block", "mask", "flag"), ways(""), ([FINISH, DONE], [FINISH], [DONE])):
        with subtests.test(action=action, way=way, end=len(end)):
            gateway.block(WORD, action=action)
            model.script.stream = [*ways(name)[way], *end]
            response = post(gateway, CHAT)
            if action == "block":
                assert heard(response)[1] == ["content_filter"] and not set(WORD[2:]) & set("".join(called(response)))
            else:
                assert called(response) == (name if action == "flag" else "find_******_x", "{}")
    gateway.block("examplebanned")  # a name like any other by its letters
    for way, sent in ways("examplebanned").items():
        with subtests.test(way=way):
            model.script.stream = [*sent, FINISH, DONE]
            response = post(gateway, CHAT)
            assert heard(response)[1] == ["content_filter"] and "banned" not in response.text


@pytest.mark.parametrize("index", [{"index": 0}, {}], ids=["one index", "no index"])
def test_calls_that_share_an_index_and_differ_by_id_keep_their_names(
    gateway: Running, model: Model, index: dict[str, int]
) -> None:
    sent = [{**index, "id": f"call_{n}", "function": {"name": n, "arguments": "{}"}} for n in ("find", "open", "read")]
    model.script.stream = [*(chunk(0, {"tool_calls": [one]}) for one in sent), FINISH, DONE]
    got = [t for c in choices_of(post(gateway, CHAT)) for t in c["delta"].get("tool_calls") or ()]
    assert [t["function"]["name"] for t in got if t["function"].get("name")] == ["find", "open", "read"]


def test_a_plain_function_name_is_screened_and_arguments_are_too(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for field, more, action in product(
        ("tool_calls", "function_call"), ({"arguments": "{}"}, {}, {"arguments": None}), ("block", "mask")
    ):
        with subtests.test(field=field, more=more, action=action):
            gateway.block(WORD, action=action)
            one = {"name": f"find_{WORD}_x", **more}
            model.script.chat("", **{field: [{"id": "c", "function": one}] if field == "tool_calls" else one})
            choice = choices_of(gateway.chat("你好"))[0]
            if action == "block":
                assert choice["finish_reason"] == "content_filter" and not choice["message"].get(field)
            else:
                got = choice["message"][field]
                assert (got[0]["function"] if field == "tool_calls" else got) == one | {"name": "find_******_x"}
    gateway.block("examplebanned")
    for function in (
        {"name": "examplebanned", "arguments": "{}"},
        {"name": "f", "arguments": '{"a": "examplebanned"}'},
    ):
        model.script.chat("", tool_calls=[{"id": "c", "function": function}])
        assert "banned" not in gateway.chat("你好").text


def test_arguments_that_are_an_object_are_screened_whole(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    for name, stream in product((WORD, "城市", "two words", "x" * 129, "city"), BOTH):
        for arguments in ({name: "城市"}, {"a": [{name: "城市"}]}):
            with subtests.test(arguments=arguments, stream=stream):
                one = {"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}
                model.script.chat("", tool_calls=[one])
                model.script.stream = [chunk(0, {"tool_calls": [one]}), FINISH, DONE]
                response = gateway.chat("你好", stream=stream)
                assert response.status_code == 200
                if name == WORD:
                    assert "content_filter" in response.text and WORD not in response.text
                else:
                    assert f'"{name}":"城市"' in response.text
