"""The failure catalogue from outside: what has gone wrong in gateways of this kind, a test for each row, on every moderated route.

S1 to S20 are failures of streamed answers, I1 to I4 of what was asked. The numbers are those of the catalogue.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import httpx
import openai
import orjson
import psutil  # type: ignore[import-untyped]
import pytest

from app import metrics, policy
from app.demo import speech
from app.demo.speech import Answer, Call
from app.main import create_app
from app.settings import read
from app.types import Candidate, Scan, Scope
from tests import reading, scorers, texts
from tests.conftest import SECRET, WORD, Model, Running, _Thread, chunk, wait_for
from tests.reading import CHAT, COMPLETIONS, MESSAGES, RESPONSES, ROUTES, Read

Make = Callable[..., Running]
Cut = Callable[[str], list[str]]
BOTH = (False, True)
SAYS = {api.route: api for api in speech.ALL}
TALKS = (CHAT, RESPONSES, MESSAGES)
"""Routes with reasoning, calls and turns."""
DONE = speech.DONE
CODE = "upstream_protocol_error"
TELL = "甲乙丙丁戊己庚辛。"
"""Clean, and none of WORD's characters."""


@pytest.fixture(scope="module")
def one(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway for all tests here: each starts one anew only where it needs a policy of its own."""
    settings: dict[str, Any] = {"upstream_url": shared_model.url, "data_dir": tmp_path_factory.mktemp("data")}
    gateway = create_app(read({}, models=scorers.models(), **settings, secret_key=SECRET))
    with _Thread(gateway, "on") as thread:
        yield Running(gateway, thread)


@pytest.fixture
def model(shared_model: Model) -> Model:
    shared_model.script.__init__()  # type: ignore[misc]
    return shared_model


@pytest.fixture
def gateway(one: Running, model: Model) -> Running:
    one.block(WORD)
    return one


# ---- asking


def let(model: Model, route: str, *answers: Answer, cut: Cut = list) -> None:
    """The model's next answer, plain and streamed; in deltas of a character each, or as `cut` says."""
    model.script.plain = (200, {}, orjson.dumps(SAYS[route].plain(*answers)))
    model.script.stream = list(SAYS[route].stream(cut, *answers))


def post(gateway: Running, route: str, stream: bool, *said: str, **more: Any) -> httpx.Response:
    return gateway.http.post(route, json=SAYS[route].ask(*(said or ("说吧",)), stream=stream, **more))


def ask(gateway: Running, route: str, stream: bool = True, *said: str, **more: Any) -> Read:
    return reading.of(route, post(gateway, route, stream, *said, **more))


def collect(parts: Iterable[Any], into: list[Any]) -> None:
    for part in parts:
        into.append(part)


def broken(gateway: Running, route: str, code: str, **more: Any) -> Read:
    """What a client has of a stream whose transfer breaks off behind an error event, and that claims no end."""
    parts: list[bytes] = []
    body = SAYS[route].ask("说吧", stream=True, **more)
    with gateway.http.stream("POST", route, json=body) as response:
        assert response.status_code == 200, response.read()
        with pytest.raises(httpx.RemoteProtocolError):
            collect(response.iter_raw(), parts)
    got = b"".join(parts)
    answer = reading.read(route, got)
    assert (answer.error, answer.ended, answer.endings, answer.sluice) == (code, False, {}, {}), got
    return answer


def refused(route: str, response: httpx.Response, status: int, code: str) -> None:
    """An error in the API's own shape, before any answer began."""
    assert response.status_code == status, response.text
    body = response.json()
    assert ("type" in body) == (route == MESSAGES) and body["error"]["code"] == code, response.text
    assert WORD not in response.text


def until(gateway: Running, route: str, words: str, **more: Any) -> Read:
    """Read a stream up to `words`, and leave; fails if they do not come while the model is silent."""
    got, body = b"", SAYS[route].ask("说吧", stream=True, **more)
    with gateway.http.stream("POST", route, json=body, timeout=3) as response:
        parts = response.iter_raw()
        while (
            words not in (answer := reading.read(route, got[: got.rfind(b"\n\n") + 2 if b"\n\n" in got else 0])).text()
        ):
            got += next(parts)
    return answer


def counted(name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics.render().decode(), re.M)))


def recorded(gateway: Running, decision: str) -> dict[str, Any]:
    """The journal's record of a decision: written once the client has its answer."""
    journal = gateway.gateway.journal
    wait_for(lambda: journal.find(decision) is not None)
    return journal.find(decision) or {}


def event(data: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + orjson.dumps(data) + b"\n\n"


def parsed(piece: bytes) -> Any:
    """The event in one piece of a scripted stream; nothing for the end marker."""
    data = piece.partition(b"data: ")[2]
    return None if data.startswith(b"[DONE]") else orjson.loads(data)


def pieces(model: Model) -> list[bytes]:
    """The events of the scripted stream."""
    return [p for p in model.script.stream or () if isinstance(p, bytes)]


def where(made: list[bytes], words: str) -> int:
    """Index of the first event that says `words`."""
    return next(i for i, p in enumerate(made) if words.encode() in p)


def rewritten(model: Model, change: Callable[[dict[str, Any]], Any]) -> None:
    """Let `change` edit every event of the scripted stream; what it returns, if anything, stands in its place."""
    made: list[bytes | float | str] = []
    for piece in pieces(model):
        body = parsed(piece)
        result = None if body is None else change(body)
        if body is None:
            made.append(piece)
        else:
            made += [event(e, e.get("type", "")) for e in (result if isinstance(result, list) else [result or body])]
    model.script.stream = made


def channels(route: str, text: str) -> dict[str, Answer]:
    """`text` in each channel that the API's answers have."""
    found = {"text": Answer(text)}
    if route != COMPLETIONS:
        arguments = json.dumps({"城市": text}, ensure_ascii=False)
        found |= {"reasoning": Answer("好。", text), "arguments": Answer(calls=(Call("c1", "find", arguments),))}
    return found


def whole(text: str) -> list[str]:
    """A cut: all in one delta."""
    return [text] if text else []


def heard(got: Read, channel: str) -> str:
    return {"text": got.text, "reasoning": got.reasoning, "arguments": got.arguments}[channel]()


# ---- S: streamed answers


@pytest.mark.parametrize("route", ROUTES)
def test_s1_a_word_split_over_chunks_never_loses_a_character_to_the_client(
    gateway: Running, model: Model, route: str
) -> None:
    for at, (channel, stream) in product(range(len(TELL) + 1), product(channels(route, ""), BOTH)):
        if at % 3 and (channel != "text" or not stream):
            continue
        before = TELL[:at]
        let(model, route, channels(route, before + WORD + TELL)[channel])
        got = ask(gateway, route, stream)
        assert got.stopped() and got.shows(WORD) == "" and got.sluice["action"] == "block", (at, channel, stream)
        if stream:
            assert heard(got, channel) == ('{"城市": "' if channel == "arguments" else "") + before, (
                at,
                channel,
                stream,
            )
    # A clean text does not wait for what follows, and of a word that has begun only its beginning does.
    let(model, route, Answer(TELL + WORD[:3]))
    made = pieces(model)
    model.script.stream = [*made[: where(made, WORD[2]) + 1], 5.0]
    assert until(gateway, route, TELL).text() == TELL


@pytest.mark.parametrize("route", ROUTES)
def test_s2_a_check_at_every_chunk_stops_in_the_first_the_third_and_the_last(
    gateway: Running, model: Model, route: str
) -> None:
    for n, total in ((0, 1), (0, 6), (2, 6), (5, 6)):
        said = [WORD if i == n else "好。" for i in range(total)]
        let(model, route, Answer("".join(said)), cut=lambda text: list(said) if text else [])  # noqa: B023
        got = ask(gateway, route)
        assert got.stopped() and got.text() == "好。" * n
    dice = random.Random(2)
    clean = [
        "今天天气很好。",
        "The cat sat. ",
        "👍🏽",
        "e\u0301",
        "\u2028",
        "\r\n",
        WORD[:5],
        "示例",
        "138 0013",
        " ",
        "\\u5a01",
    ]
    for _ in range(12):
        text, reasoning, city = ("".join(dice.choices(clean, k=8)) + "。" for _ in range(3))
        call = Call("c1", "find", json.dumps({"城市": city}, ensure_ascii=dice.random() < 0.5))
        sent = Answer(text) if route == COMPLETIONS else Answer(text, reasoning, (call,))
        let(model, route, sent, cut=lambda text: texts.cut(text, dice))
        got = ask(gateway, route)
        assert got.text() == text and got.sluice["action"] == "pass"
        if route != COMPLETIONS:
            assert (got.reasoning(), got.arguments(), got.all("name")) == (reasoning, call.arguments, ["find"])
    if route != RESPONSES:
        return
    # Texts that are said again when they are done: what is said there only is screened as well, and never repeated unscreened.
    for kind, more in product(
        ("output_text.done", "content_part.done", "output_item.done", "completed"), (WORD, "丙。")
    ):
        let(model, route, Answer("甲乙"))

        def longer(body: dict[str, Any]) -> Any:
            if body["type"] != f"response.{kind}":  # noqa: B023
                return None
            return orjson.loads(orjson.dumps(body).replace("甲乙".encode(), f"甲乙{more}".encode()))  # noqa: B023

        rewritten(model, longer)
        got = ask(gateway, route)
        assert got.text() in ("甲乙", "甲乙丙。") and got.shows(WORD) == ""


@pytest.mark.parametrize("route", ROUTES)
def test_s3_random_answers_get_the_same_verdict_streamed_and_plain(gateway: Running, model: Model, route: str) -> None:
    dice, pairs = random.Random(3), []
    for n in range(20):
        text = texts.answer(dice)
        channel, answer = dice.choice(list(channels(route, text).items()))
        let(model, route, answer, cut=lambda text: texts.cut(text, dice))
        plain, streamed = (ask(gateway, route, stream) for stream in BOTH)
        assert plain.sluice["action"] == streamed.sluice["action"], (n, text)
        if plain.sluice["action"] in ("pass", "flag", "mask"):
            one, other = heard(plain, channel), heard(streamed, channel)
            assert one == other if channel != "arguments" else json.loads(one) == json.loads(other), (n, text)
        else:
            assert plain.stopped() and streamed.stopped()
        pairs.append((plain.sluice["decision"], streamed.sluice["decision"]))
    recorded(gateway, pairs[-1][1])
    records = {r["decision"]: r["answer"] for r in gateway.journal()}
    assert [n for n, (one, other) in enumerate(pairs) if records[one] != records[other]] == []
    assert {records[one]["action"] for one, _ in pairs} >= {"pass", "block"}
    for n in range(8 if route != COMPLETIONS else 0):  # and with all their channels full
        text, reasoning, city = (texts.answer(dice) for _ in range(3))
        call = Call("c1", "find", json.dumps({"城市": city}, ensure_ascii=n % 2 == 0))
        let(model, route, Answer(text, reasoning, (call,)), cut=lambda text: texts.cut(text, dice))
        plain, streamed = (ask(gateway, route, stream) for stream in BOTH)
        assert plain.sluice["action"] == streamed.sluice["action"] and plain.stopped() is streamed.stopped()
        if not plain.stopped():
            assert (plain.text(), plain.reasoning()) == (streamed.text(), streamed.reasoning())
            assert json.loads(plain.arguments()) == json.loads(streamed.arguments())


OTHER_ROUTES = (
    "embeddings", "rerank", "score", "classify", "tokenize", "images/generations", "images/edits", "audio/speech", "audio/transcriptions",
    "audio/translations", "files", "uploads", "batches", "fine_tuning/jobs", "assistants", "threads", "threads/runs", "vector_stores",
    "realtime/sessions", "evals", "containers", "complete", "messages/count_tokens", "messages/batches", "responses/resp_1/cancel",
    "responses/compact", "responses/input_tokens", "chat/completions/chatcmpl-1", "conversations", "videos", "models", "models/m",
    "chat/completions/", "chat//completions", "Chat/Completions", "chat/completions;a", "chat%2Fcompletions", "./chat/completions",
    "%63ompletions", "messages%00", "engines/m/completions", "chat/completions%20",
)  # fmt: skip


def test_s4_another_route_of_the_model_is_moderated_or_not_there(
    gateway: Running, make_gateway: Make, model: Model
) -> None:
    body: dict[str, Any] = {"model": "m", "input": WORD, "prompt": WORD, "max_tokens": 1}
    body["messages"] = [{"role": "user", "content": WORD}]
    for path in OTHER_ROUTES:
        response = gateway.http.request("POST", f"{gateway.url}/v1/{path}", json=body)
        moderated = response.status_code == 200 and reading.REFUSAL in response.text
        # Pictures are not served until the operator says who makes them.
        assert response.status_code == (503 if path == "images/generations" else 404) or moderated, path
    for route in ROUTES:
        assert gateway.http.get(route).status_code == 405
        for stream in BOTH:
            assert ask(gateway, route, stream, WORD).stopped()
    assert model.script.asked == []
    before = counted("sluice_unmoderated_total")
    named = make_gateway("unmoderated_routes: [/v1/embeddings]")
    assert named.http.post("/v1/embeddings", json={"model": "m", "input": WORD}).status_code == 200
    assert named.http.post("/v1/rerank", json={"model": "m", "query": WORD}).status_code == 404
    assert len(model.script.asked) == 1 and counted("sluice_unmoderated_total") == before + 1


@pytest.mark.parametrize("route", TALKS)
def test_s5_a_call_of_a_tool_is_screened_in_its_name_and_in_what_its_arguments_say(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    plain, escaped = (json.dumps({"城市": f"甲{WORD}乙"}, ensure_ascii=ascii) for ascii in BOTH)
    for name, arguments in (
        ("as it stands", plain), ("escaped", escaped), ("half escaped", plain.replace(WORD[2], json.dumps(WORD[2])[1:-1])),
        ("escaped in capitals", re.sub(r"u[0-9a-f]{4}", lambda m: "u" + m[0][1:].upper(), escaped)),
        ("a name of a field", json.dumps({WORD: 1})), ("deep", json.dumps({"a": [{"b": [WORD]}]}, ensure_ascii=False)),
    ):  # fmt: skip
        first = Call("c1", "find", '{"a": "甲"}')
        for calls, stream in product(([Call("c2", "open", arguments)], [first, Call("c2", "open", arguments)]), BOTH):
            for cut in (list, whole) if stream and len(calls) == 1 else (list,):
                with subtests.test(name, calls=len(calls), stream=stream, at_once=cut is whole):
                    let(model, route, Answer("好。", calls=tuple(calls)), cut=cut)
                    got = ask(gateway, route, stream)
                    assert got.stopped() and got.shows(WORD) == ""
                    said = "".join(got.all("arguments"))
                    assert said in ("", first.arguments) or "".join(c.arguments for c in calls).startswith(said)
                    assert not re.search(r"\\u(8fdd|7981|77ed|8bed)", said, re.I)
                    if route == RESPONSES:  # a call that was cut short is no call
                        listed = (got.events[-1].get("response") or got.events[-1])["output"]
                        assert all(i.get("arguments") in (None, first.arguments) for i in listed)
    for stream in BOTH:
        let(model, route, Answer(calls=(Call("c1", f"find_{WORD}", "{}"),)))
        got = ask(gateway, route, stream)
        assert got.stopped() and got.shows(WORD) == ""
    if route == CHAT:
        older = [{"name": "find"}, *({"arguments": c} for c in plain)]
        model.script.stream = [*(chunk(0, {"function_call": f}) for f in older), chunk(0, {}, "function_call"), DONE]
        got = ask(gateway, route)
        assert got.stopped() and got.shows(WORD) == "" and got.arguments() == '{"城市": "甲'


THOUGHTS = {
    CHAT: ("reasoning_content", "reasoning", "thinking", "reasoning_details"), RESPONSES: ("summary", "content"),
    MESSAGES: ("thinking", "signature", "redacted_thinking"),
}  # fmt: skip


def thinking(model: Model, route: str, name: str, thought: str) -> None:
    """Let the model answer, plainly and streamed, with `thought` in the field `name`."""
    let(model, route, Answer("好。", thought))
    body = SAYS[route].plain(Answer("好。", thought))
    if name in ("reasoning_content", "summary", "thinking") and (route, name) != (CHAT, "thinking"):
        return
    if route == CHAT:

        def renamed(part: dict[str, Any]) -> None:
            if (text := part.pop("reasoning_content", None)) is not None:
                part[name] = [{"type": "reasoning.text", "text": text}] if name == "reasoning_details" else text

        renamed(body["choices"][0]["message"])

        def each(body: dict[str, Any]) -> None:
            for c in body["choices"]:
                renamed(c["delta"])

        rewritten(model, each)
    elif route == RESPONSES:
        content = [{"type": "reasoning_text", "text": thought}]

        def moved(each: dict[str, Any]) -> Any:
            if "summary_part" in each["type"]:
                return []
            each["type"] = each["type"].replace("reasoning_summary_text", "reasoning_text")
            if "summary_index" in each:
                each["content_index"] = each.pop("summary_index")
            for item in output(each):
                if item["type"] == "reasoning":
                    item |= {"summary": [], "content": content if item["summary"] else []}
            return None

        body["output"][0] |= {"summary": [], "content": content}
        rewritten(model, moved)
    elif name == "signature":
        body["content"][0] |= {"thinking": "想。", "signature": thought}
        let(model, route, Answer("好。", "想。"))
        rewritten(model, lambda e: e["delta"].update(signature=thought) if "signature" in e.get("delta", {}) else None)
    else:
        block = body["content"][0] = {"type": name, "data": thought}
        let(model, route, Answer("好。"))
        rewritten(model, lambda e: e.update(index=1) if "index" in e else None)
        start, stop = "content_block_start", "content_block_stop"
        events = [
            event({"type": start, "index": 0, "content_block": block}, start),
            event({"type": stop, "index": 0}, stop),
        ]
        model.script.stream = [*pieces(model)[:2], *events, *pieces(model)[2:]]
    model.script.plain = (200, {}, orjson.dumps(body))


@pytest.mark.parametrize(("route", "name"), [(route, name) for route in TALKS for name in THOUGHTS[route]])
def test_s6_a_thought_is_screened_like_any_other_text(gateway: Running, model: Model, route: str, name: str) -> None:
    for thought, stops in ((f"甲{WORD}乙", True), ("甲乙丙。", False)):
        thinking(model, route, name, thought)
        for stream in BOTH:
            got = ask(gateway, route, stream)
            assert got.stopped() is stops and (not stops or got.shows(WORD) == "")
            sealed = name in ("signature", "redacted_thinking")
            assert stops or thought in "".join(reading.strings(got.events) if sealed else got.texts.values())


ODD = {"foo": WORD, "deep": {"a": [{"b": WORD}]}}
DELTAS: dict[str, dict[str, Any]] = {
    "foo": {"foo": WORD}, "refusal": {"refusal": WORD}, "audio": {"audio": {"id": "a", "transcript": WORD}}, "a list": {"vendor": [WORD]},
    "annotations": {"annotations": [{"type": "url_citation", "url_citation": {"title": WORD, "url": "https://example.com"}}]},
}  # fmt: skip
PLACES: dict[str, dict[str, list[tuple[str, ...]]]] = {
    CHAT: {"the body": [()], "the choice": [("choices",)]},
    COMPLETIONS: {"the body": [()], "the choice": [("choices",)]},
    RESPONSES: {"the body": [()], "the item": [("item",), ("output",)], "the response": [("response",)]},
    MESSAGES: {
        "the body": [()], "the block": [("content_block",), ("content",)], "the message": [("message",)], "the delta": [("delta",)],
    },
}  # fmt: skip
"""Where a field that no rule knows may stand: a name -> the keys that lead there, in events and in a plain answer."""
EVENTS: dict[str, list[dict[str, Any]]] = {
    RESPONSES: [{"type": "response.vendor.delta", "delta": WORD, "sequence_number": 0}],
    MESSAGES: [
        {"type": "vendor", "text": WORD},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "vendor", "text": WORD}},
    ],
}
"""Events that no rule knows."""


def lay(body: Any, keys: tuple[str, ...], fields: dict[str, Any]) -> None:
    """Put `fields` into what stands below `keys`, if it is there; into each element of a list."""
    if isinstance(body, list):
        for each in body:
            lay(each, keys, fields)
    elif keys and body.get(keys[0]) is not None:
        lay(body[keys[0]], keys[1:], fields)
    elif not keys:
        body |= fields


@pytest.mark.parametrize("route", ROUTES)
def test_s7_a_text_in_a_field_that_nobody_knows_is_screened_or_dropped_and_counted(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    def harmless(stream: bool) -> None:
        before = counted("sluice_dropped_fields_total")
        got = ask(gateway, route, stream)
        assert got.shows(WORD) == ""
        assert got.stopped() or (got.text() == "甲乙。" and counted("sluice_dropped_fields_total") > before)

    ways = [(name, places, ODD) for name, places in PLACES[route].items()]
    if route == CHAT:
        ways += [(name, [("choices", "delta"), ("choices", "message")], fields) for name, fields in DELTAS.items()]
    for (name, places, fields), stream in product(ways, BOTH):
        with subtests.test(name, stream=stream):
            let(model, route, Answer("甲乙。"))
            body = SAYS[route].plain(Answer("甲乙。"))
            said = orjson.dumps(body)

            def odd(each: dict[str, Any]) -> None:
                for keys in places:  # noqa: B023
                    lay(each, keys, fields)  # noqa: B023

            rewritten(model, odd)
            odd(body)
            model.script.plain = (200, {}, orjson.dumps(body))
            if stream or orjson.dumps(body) != said:
                harmless(stream)
    for unknown in EVENTS.get(route, ()):
        with subtests.test("an event", unknown=unknown):
            let(model, route, Answer("甲乙。"))
            made = pieces(model)
            at = where(made, "甲")
            model.script.stream = [*made[:at], event(unknown, unknown["type"]), *made[at:]]
            harmless(stream=True)


def with_tokens(model: Model, route: str, tokens: list[str], told: list[str], *others: str) -> dict[str, Any]:
    """Let the model say `tokens`, each with its log probability and `others` as alternatives, told of as `told`; how to ask."""
    let(model, route, Answer("".join(tokens)), cut=lambda text: list(tokens) if text else [])

    def given(words: list[str]) -> Any:
        if route == COMPLETIONS:
            tops = [dict.fromkeys([w, *others], -1.0) for w in words]
            return {
                "tokens": words,
                "token_logprobs": [-1.0] * len(words),
                "top_logprobs": tops,
                "text_offset": [0] * len(words),
            }
        made = [
            {"token": w, "logprob": -1.0, "bytes": list(w.encode()),
             "top_logprobs": [{"token": o, "logprob": -2.0, "bytes": list(o.encode())} for o in (w, *others)]}
            for w in words
        ]  # fmt: skip
        return made if route == RESPONSES else {"content": made, "refusal": None}

    queue = iter(told)

    def change(body: dict[str, Any]) -> None:
        if route == RESPONSES and body["type"] == "response.output_text.delta":
            body["logprobs"] = given([next(queue)])
        elif route == RESPONSES:
            for part in [body.get("part"), *(p for i in output(body) for p in i.get("content", ()))]:
                if part and part["text"]:
                    part["logprobs"] = given(told)
            if body["type"] == "response.output_text.done":
                body["logprobs"] = given(told)
        elif body["choices"] and (body["choices"][0].get("text") or body["choices"][0].get("delta", {}).get("content")):
            body["choices"][0]["logprobs"] = given([next(queue)])

    rewritten(model, change)
    plainly = SAYS[route].plain(Answer("".join(tokens)))
    if route == RESPONSES:
        plainly["output"][0]["content"][0]["logprobs"] = given(told)
        model.script.plain = (200, {}, orjson.dumps(plainly))
        return {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    plainly["choices"][0]["logprobs"] = given(told)
    model.script.plain = (200, {}, orjson.dumps(plainly))
    return {"logprobs": True, "top_logprobs": 2} if route == CHAT else {"logprobs": 2}


def output(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [i for i in (body.get("item"), *(body.get("response") or {}).get("output", ())) if i]


def told_in(value: Any) -> str:
    """The tokens of log probabilities in one event, run together; they hold no alternatives."""
    found = ""
    if isinstance(value, dict):
        if "tokens" in value and "token_logprobs" in value:
            assert not value.get("top_logprobs") and len(value["tokens"]) == len(value["token_logprobs"])
            return "".join(value["tokens"])
        if "token" in value:
            assert value["top_logprobs"] == [] and bytes(value["bytes"]) == value["token"].encode()
            return str(value["token"])
        found = "".join(told_in(v) for n, v in value.items() if n not in ("usage", "sluice"))
    elif isinstance(value, list):
        found = "".join(map(told_in, value))
    return found


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, RESPONSES])
def test_s8_log_probabilities_come_with_their_text_and_say_no_more_than_it(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    clean = ["今", "天", "示", "例很好", "👍", "。"]
    bad = ["前", "言", WORD[:2], WORD[2:5], WORD[5:], "后"]
    for name, tokens, told, stops, kept in (
        ("clean", clean, clean, False, clean), ("a word over three tokens", bad, bad, True, bad[:2]),
        # What comes behind a gap would say, together with what came before it, what nobody said.
        ("tokens of another text", clean, [*clean[:4], WORD, "。"], False, clean[:4]),
        ("tokens that say more", clean, [*clean[:5], "。" + WORD], False, clean[:5]),
    ):  # fmt: skip
        with subtests.test(name):
            more = with_tokens(model, route, tokens, told, WORD)
            got = ask(gateway, route, **more)
            assert got.stopped() is stops and got.text() == ("前言" if stops else "".join(tokens))
            assert got.shows(WORD[2:]) == ""
            said = tokens_so_far = ""
            for each in got.events:
                deltas = [c.get("delta", {}).get("content") or c.get("text") or "" for c in each.get("choices", ())]
                said += (
                    "".join(deltas) if route != RESPONSES else each["delta"] if each["type"].endswith("delta") else ""
                )
                tokens_so_far += told_in(each)
                assert len(tokens_so_far) <= len(said)
            assert tokens_so_far == "".join(kept)
            assert told_in(ask(gateway, route).events) == ""  # nobody asked for them
            for asked, shows in ((more, False), ({}, False), (more, not stops and told is clean)):
                if shows:
                    more = with_tokens(model, route, tokens, told)
                body = post(gateway, route, False, **asked).json()
                assert (
                    WORD[2:] not in orjson.dumps(body).decode()
                    and ('"logprob"' in str(body).replace("'", '"') or "token_logprobs" in str(body)) is shows
                )


def test_s9_each_of_three_interleaved_choices_is_screened_for_itself(gateway: Running, model: Model) -> None:
    dice = random.Random(9)
    good = ["今天天气很好，适合散步。", "一二三四五六七八九。"]
    for route, _ in product((CHAT, COMPLETIONS), range(8)):
        bad = dice.randrange(3)
        answers = [Answer(t) for t in (*good[:bad], f"甲乙{WORD}丙丁", *good[bad:])]
        let(model, route, *answers, cut=lambda text: texts.cut(text, dice))
        queues: dict[int, list[bytes]] = {}
        for piece in pieces(model):
            body = parsed(piece)
            if body and body["choices"]:
                queues.setdefault(body["choices"][0]["index"], []).append(piece)
        mixed: list[bytes] = []
        while queues:
            index = dice.choice(list(queues))
            mixed.append(queues[index].pop(0))
            queues = {i: q for i, q in queues.items() if q}
        model.script.stream = [*mixed, DONE]
        got = ask(gateway, route, n=3)
        for i, answer in enumerate(answers):
            assert got.text(i) == ("甲乙" if i == bad else answer.text)
            assert got.stopped(i) is (i == bad) and got.endings[i] == ("content_filter" if i == bad else "stop")
        assert got.shows(WORD) == "" or set(got.shows(WORD)) <= set("".join(good))
        plain = ask(gateway, route, False, n=3)
        assert [plain.stopped(i) for i in range(3)] == [i == bad for i in range(3)]
    # Of an answer without choices every item is screened, and a stop in one ends it.
    let(model, RESPONSES, Answer("甲乙。"))
    items = [
        {"type": "message", "id": f"m{i}", "role": "assistant", "status": "in_progress", "content": []}
        for i in range(2)
    ]
    place = [{"item_id": f"m{i}", "output_index": i, "content_index": 0} for i in range(2)]
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    head = pieces(model)[:1]
    made: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "output_index": i, "item": items[i]} for i in range(2)
    ]
    made += [{"type": "response.content_part.added", **place[i], "part": part} for i in range(2)]
    made += [
        {"type": "response.output_text.delta", **place[i], "delta": c}
        for pair in zip("一二三四五六七八九十百", f"甲乙{WORD}丙丁。", strict=True)
        for i, c in enumerate(pair)
    ]
    model.script.stream = [*head, *(event(e | {"sequence_number": n + 1}, e["type"]) for n, e in enumerate(made))]
    got = ask(gateway, RESPONSES)
    assert got.stopped() and got.shows(WORD) == "" and got.texts["1.output_text"] == "甲乙"
    assert "一二三四".startswith(got.texts["0.output_text"][:4])


def test_s10_an_index_that_makes_no_sense_is_an_error_and_a_missing_one_is_the_first(
    gateway: Running, model: Model, subtests: pytest.Subtests
) -> None:
    def choice(route: str, text: str, **more: Any) -> dict[str, Any]:
        return more | ({"delta": {"content": text}} if route == CHAT else {"text": text})

    wrong: list[Any] = [-1, 1, 1 << 40, "0", 0.0, True, [0], {}]
    for route in (CHAT, COMPLETIONS):
        for index in wrong:
            with subtests.test(route=route, index=index):
                odd = event({"choices": [choice(route, "甲", index=index)]})
                model.script.stream = [odd, DONE]
                refused(route, post(gateway, route, True), 502, CODE)
                if index in (-1, 1, "0"):  # in the middle too
                    model.script.stream = [event({"choices": [choice(route, "甲", index=0)]}), 0.02, odd, DONE]
                    assert broken(gateway, route, CODE).text() == "甲"
                body = {"choices": [{"index": index, "message": {"content": "甲"}, "text": "甲"}]}
                model.script.plain = (200, {}, orjson.dumps(body))
                refused(route, post(gateway, route, False), 502, CODE)
        absent: dict[str, Any]
        for absent in ({}, {"index": None}):  # and several of one choice in one event
            model.script.stream = [event({"choices": [choice(route, c, **absent)]}) for c in TELL]
            model.script.stream += [event({"choices": []}), event({"choices": [], "usage": {"total_tokens": 3}})]
            for pair in ("甲" + WORD[0], WORD[1:3], WORD[3:5], WORD[5] + "。"):
                model.script.stream.append(event({"choices": [choice(route, c, **absent) for c in pair]}))
            model.script.stream.append(DONE)
            got = ask(gateway, route)
            assert got.stopped() and got.text() == TELL + "甲" and got.usage == {"total_tokens": 3}
    for route, names in ((RESPONSES, ("output_index", "content_index")), (MESSAGES, ("index",))):
        for name, index in product(names, [-1, "0", 0.0, True, None, [0], 1 << 40]):
            if route == MESSAGES and index == 1 << 40:
                continue
            with subtests.test(route=route, name=name, index=index):
                let(model, route, Answer("甲乙"))
                made = pieces(model)
                at = where(made, "乙")
                body = parsed(made[at]) | {name: index}
                model.script.stream = [*made[:at], 0.02, event(body, body["type"]), *made[at + 1 :]]
                assert broken(gateway, route, CODE).text() == "甲"


@pytest.mark.parametrize("route", ROUTES)
def test_s11_escapes_in_the_json_of_an_event_are_read_and_a_pair_cut_in_two_is_joined(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    def escaped(piece: bytes) -> bytes:
        return re.sub(r"[^\x00-\x7f]", lambda m: json.dumps(m[0])[1:-1], piece.decode()).encode()

    for channel, stream in product(channels(route, ""), BOTH):
        with subtests.test(channel, stream=stream):
            for text, stops in ((f"甲{WORD}乙", True), ("甲👍乙。", False)):
                let(model, route, channels(route, text)[channel])
                assert model.script.plain is not None
                model.script.stream = [escaped(p) for p in pieces(model)]
                model.script.plain = (200, {}, escaped(model.script.plain[2]))
                got = ask(gateway, route, stream)
                assert got.stopped() is stops and (not stops or got.shows(WORD) == "")
                assert stops or text in heard(got, channel)
    # Two placeholders, each in a delta of its own, become the halves of a pair.
    halves = {"\ue000".encode(): b"\\ud83d", "\ue001".encode(): b"\\udc4d"}
    for channel in channels(route, ""):
        with subtests.test("a pair", channel=channel):
            let(model, route, channels(route, "甲\ue000\ue001乙。")[channel])
            for placeholder, half in halves.items():
                model.script.stream = [p.replace(placeholder, half) for p in pieces(model)]
            assert "甲👍乙。" in heard(ask(gateway, route), channel)


@pytest.mark.parametrize("route", ROUTES)
def test_s12_a_character_cut_by_the_network_is_read_whole(gateway: Running, model: Model, route: str) -> None:
    for text, stops in ((f"甲👍{WORD}乙", True), ("甲👍é乙。", False)):
        let(model, route, Answer(text), cut=whole)
        raw = b"".join(pieces(model))
        first = raw.index("甲".encode())
        for at in range(first, first + len(text.encode()) + 1, 1 if stops else 3):
            model.script.stream = [raw[:at], 0.001, raw[at:]]
            got = ask(gateway, route)
            assert got.stopped() is stops and got.text() == ("甲👍" if stops else text), at
        model.script.stream = [raw[i : i + 1] for i in range(len(raw))]
        assert ask(gateway, route).text() == ("甲👍" if stops else text)


@pytest.mark.parametrize("route", ROUTES)
def test_s13_however_events_are_framed_they_say_the_same(gateway: Running, model: Model, route: str) -> None:
    dice = random.Random(13)
    for n in range(20):
        text, stops = ("甲乙\u2028丙\x85丁。", False) if n % 2 else (f"甲乙{WORD}丙。", True)
        let(model, route, Answer(text), cut=lambda text: texts.cut(text, dice))
        framed, end = "\ufeff" if dice.random() < 0.5 else "", dice.choice(["\n", "\r", "\r\n"])
        for piece in pieces(model):
            body = parsed(piece)
            data = "[DONE]" if body is None else json.dumps(body, ensure_ascii=False, indent=dice.choice([None, 1]))
            lines = [f"data:{dice.choice(['', ' '])}{line}" for line in data.split("\n")]
            others = [
                ": " + WORD,
                ":",
                "id: 7",
                "retry: 10",
                "event: " + dice.choice(["x", WORD]),
                "vendor: " + WORD,
                "event",
            ]
            for extra in dice.sample(others, dice.randint(0, 3)):
                lines.insert(dice.randint(0, len(lines)), extra)
            framed += "".join(line + end for line in lines) + end * dice.randint(1, 2)
        raw = framed.encode()
        cuts = sorted(dice.sample(range(len(raw)), 12))
        model.script.stream = [raw[i:j] for i, j in zip([0, *cuts], [*cuts, None], strict=True)]
        got = ask(gateway, route)
        assert got.stopped() is stops and got.text() == ("甲乙" if stops else text)
        assert got.shows(WORD) == ""
    # An event that has no blank line behind it was cut: nobody sees it.
    let(model, route, Answer("甲乙"))
    made = pieces(model)
    at = where(made, "乙")
    model.script.stream = [*made[:at], 0.02, made[at].removesuffix(b"\n")]
    assert broken(gateway, route, "upstream_reset").text() == "甲"


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def streamed(gateway: Running, route: str, needle: str) -> tuple[int, bytes]:
    """How often `needle` came in a stream that ended cleanly, and its last bytes: nothing else of it is kept."""
    found, rest = 0, b""
    with gateway.http.stream("POST", route, json=SAYS[route].ask("说吧", stream=True), timeout=60) as response:
        assert response.status_code == 200, response.read()
        for part in response.iter_raw():
            rest += part
            found += rest.count(needle.encode())
            rest = rest[-400:].replace(needle.encode(), b"")
    return found, rest


def tiny(model: Model, route: str, events: int) -> None:
    """Let the model say a character `events` times, each in an event of its own."""
    let(model, route, Answer("甲乙"))
    made = pieces(model)
    at = where(made, "甲")
    first, rest = divmod(events - 1, 500)
    # Their sameness keeps the model's own share of memory small.
    end = [p.replace("甲乙".encode(), "甲".encode() * events) for p in made[at + 2 :]]
    model.script.stream = [*made[: at + 1], 0.01, *[made[at] * 500] * first, made[at] * rest, *end]


def test_s14_a_line_without_end_and_an_answer_without_end_cost_little_and_end_as_an_error(
    gateway: Running, make_gateway: Make, model: Model
) -> None:
    for route in ROUTES:
        let(model, route, Answer("甲乙"))
        head = pieces(model)
        at = where(head, "乙")
        before = resident()
        line = {CHAT: b"data: ", COMPLETIONS: b": ", RESPONSES: b"", MESSAGES: b"data: x\ndata: "}[route]
        size = 17 if route == RESPONSES else 10  # where the last event says all again, an event may be longer
        model.script.stream = [*head[:at], 0.01, line, *[b"x" * (1 << 20)] * size]
        assert broken(gateway, route, CODE).text() == "甲"
        assert resident() - before < 50 << 20
    bounded = make_gateway(answer_max_characters=1024, answer_max_seconds=0.15)
    for route in ROUTES:
        for size in (1024, 1025):
            let(
                model,
                route,
                Answer("甲" * size),
                cut=lambda text: [text[i : i + 100] for i in range(0, len(text), 100)],
            )
            if size == 1024:
                assert ask(bounded, route).text() == "甲" * size
            else:
                made = pieces(model)
                first = where(made, "甲") + 1
                model.script.stream = [*made[:first], 0.02, *made[first:]]
                assert broken(bounded, route, "upstream_too_large").text() in "甲" * 1024
        let(model, route, Answer("甲乙"))
        head = pieces(model)
        at = where(head, "乙")
        waiting = [p for _ in range(30) for p in (b": wait\n\n", 0.02)]
        model.script.stream = [*head[:at], *waiting]
        assert broken(bounded, route, "upstream_too_long").text() == "甲"
        model.script.stream = [*waiting]
        refused(route, post(bounded, route, True), 504, "upstream_too_long")


def test_s14_a_hundred_thousand_tiny_events_are_passed_on_in_little_memory(gateway: Running, model: Model) -> None:
    many(gateway, model, 20_000, silent=80_000)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_s14_a_million_tiny_events_are_passed_on_in_little_memory(gateway: Running, model: Model) -> None:
    many(gateway, model, 1_000_000)


def many(gateway: Running, model: Model, events: int, silent: int = 0) -> None:
    """On each route a quarter of `events`, and a quarter of `silent` that say nothing."""
    for route in ROUTES:
        tiny(model, route, 100)
        streamed(gateway, route, "甲")
        tiny(model, route, events // 4)
        assert model.script.stream
        model.script.stream[-1:-1] = [b": wait\n\ndata:\n\n" * 500] * (silent // 4000)
        before = resident()
        found, last = streamed(gateway, route, "甲")
        assert resident() - before < 50 << 20
        assert found >= events // 4 and b'"receipt"' in last


ENCODED = {
    "gzip": gzip.compress(b'{"choices": []}'), "br": b"\x0b\x07\x80{}\x03", "zstd": b"\x28\xb5\x2f\xfd\x04\x00",
    "deflate": zlib.compress(b"{}"),
    "gzip, gzip": gzip.compress(gzip.compress(b"{}")), "GZIP": gzip.compress(b"{}"), "x-unknown": b"{}", "identity, br": b"{}",
}  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_s15_nothing_compressed_is_asked_for_passed_on_or_read(gateway: Running, model: Model, route: str) -> None:
    for coding, raw in ENCODED.items():
        for stream in BOTH:
            model.script.plain, model.script.stream = (200, {"content-encoding": coding}, raw), None
            refused(route, post(gateway, route, stream), 502, CODE)
        body = orjson.dumps(SAYS[route].ask("说吧"))
        packed = (
            gzip.compress(body) if "gzip" in coding.lower() else zlib.compress(body) if coding == "deflate" else raw
        )
        sent = gateway.http.post(
            route, content=packed, headers={"content-encoding": coding, "content-type": "application/json"}
        )
        refused(route, sent, 415, "unsupported_encoding")
    # Compressed bytes that do not say so are no answer, and no prompt.
    model.script.plain = (200, {}, ENCODED["gzip"])
    refused(route, post(gateway, route, False), 502, CODE)
    assert gateway.http.post(route, content=gzip.compress(b"{}")).status_code == 400
    let(model, route, Answer("甲乙。"))
    wanted = {"accept-encoding": "gzip, br, zstd"}
    for stream in BOTH:
        response = gateway.http.post(route, json=SAYS[route].ask("说吧", stream=stream), headers=wanted)
        assert reading.of(route, response).text() == "甲乙。" and "content-encoding" not in response.headers
        assert model.script.headers[-1]["accept-encoding"] == "identity"


@pytest.mark.parametrize("route", ROUTES)
def test_s16_a_reset_in_mid_stream_is_an_error_that_no_client_takes_for_an_end(
    gateway: Running, model: Model, route: str
) -> None:
    client = openai.OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0)
    create: Any = {
        CHAT: client.chat.completions.create,
        COMPLETIONS: client.completions.create,
        RESPONSES: client.responses.create,
    }.get(route)
    for count, ending in product((0, 1, 5, 7), ("reset", None)):
        let(model, route, Answer(TELL + WORD[:4] + TELL))
        model.script.stream = [*pieces(model)[:count], 0.02, *([ending] if ending else [])]
        model.script.asked.clear()
        if not count:
            refused(route, post(gateway, route, True), 502, "upstream_reset")
        else:
            got = broken(gateway, route, "upstream_reset")
            assert TELL.startswith(got.text()) and len(got.events) >= count
        assert len(model.script.asked) == 1  # and never again
        if create is not None and count in (0, 5):
            with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
                collect(create(**SAYS[route].ask("说吧"), stream=True), [])
    # What was held back when it broke off is never let go.
    let(model, route, Answer(TELL + WORD[:4] + TELL))
    made = pieces(model)
    model.script.stream = [*made[: where(made, WORD[3]) + 1], 0.02, "reset"]
    assert broken(gateway, route, "upstream_reset").text() == TELL
    wait_for(lambda: gateway.journal()[-1]["outcome"] == "upstream_reset")


class Idle:
    """A detector, reader, scorer or guard that gives the same for every text, or raises it."""

    version = "1"
    covers = frozenset[str]()

    def __init__(self, given: Any, name: str = "idle") -> None:
        self.given, self.name = given, name

    def scan(self, *_: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given

    read = scan

    score = scan

    async def judge(self, *_: Any) -> Any:
        return self.scan()


NO_SCAN: tuple[Any, ...] = (None, "ok", [], True, (), RuntimeError("out of order"), Scan(None, 0), Scan([], None))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["detectors", "readers", "scorers", "guards"])
def test_s17_a_screen_that_did_not_run_is_never_a_pass(
    gateway: Running, model: Model, kind: str, subtests: pytest.Subtests
) -> None:
    idle = Idle(None)
    finders = getattr(gateway.gateway.moderator, kind)
    finders.append(idle)
    before = gateway.gateway.moderator.policies
    gateway.gateway.moderator.policies = policy.parse(b"guard: {when: always}")
    try:
        # Nothing at all on every way, each of the others on one.
        ways = list(product(ROUTES, BOTH))
        tries = [(None, *way) for way in ways] + [(given, *ways[n]) for n, given in enumerate(NO_SCAN[1:])]
        for n, (given, route, stream) in enumerate(tries):
            if kind == "guards" and (given == [] or isinstance(given, tuple)):
                continue  # nothing found is an answer of this kind; the others are never one
            with subtests.test(given=repr(given), route=route, stream=stream):
                idle.given, idle.version = given, str(n)
                let(model, route, Answer("今天天气很好，适合出去走走，也适合读书写字。"))
                got = ask(gateway, route, stream, f"第{n}个问题，今天的天气怎么样，适合做什么？")
                assert got.sluice["action"] == ("block" if kind == "detectors" else "flag")
                assert got.text() == ("" if kind == "detectors" else "今天天气很好，适合出去走走，也适合读书写字。")
                record = recorded(gateway, got.sluice["decision"])
                assert record["answer"]["degraded"] == record["prompt"]["degraded"] == ["idle"]
    finally:
        finders.remove(idle)
        gateway.gateway.moderator.policies = before
    assert all(r["released"] <= r["screened"] for r in gateway.journal())
    assert counted("sluice_unscreened_characters_total") == 0


@pytest.mark.parametrize("route", ROUTES)
def test_s18_a_mask_covers_the_whole_of_what_it_masks_and_nothing_that_was_sent(
    gateway: Running, model: Model, route: str
) -> None:
    gateway.block(WORD, action="mask")
    stars = "*" * len(WORD)
    for at, channel in product((0, 1, 5, 9), channels(route, "")):
        text = TELL[:at] + WORD + TELL
        for stream in BOTH:
            let(model, route, channels(route, text)[channel])
            got = ask(gateway, route, stream)
            said = heard(got, channel)
            assert (json.loads(said)["城市"] if channel == "arguments" else said) == TELL[:at] + stars + TELL, (
                at,
                channel,
                stream,
            )
            assert got.sluice["action"] == "mask" and got.ending != reading.FILTERED[route], (at, channel, stream)
    # Cut anywhere, and in the last place; what has gone out stays as it is.
    for at in range(len(WORD) + 3):
        text = f"甲{WORD}乙"
        let(model, route, Answer(text), cut=lambda text: [p for p in (text[:at], text[at:]) if p])  # noqa: B023
        assert ask(gateway, route).text() == f"甲{stars}乙"
    let(model, route, Answer(f"甲乙{texts.PHONE}"))
    assert ask(gateway, route).text() == "甲乙***********" == ask(gateway, route, False).text()
    if route == COMPLETIONS:
        return
    # Escapes are masked as what they say, and the arguments stay JSON; what spans two strings of it stops.
    for arguments, stops in (
        (json.dumps({"a": f"甲{WORD}乙", "b": 1}), False),
        (json.dumps({"phone": int(texts.PHONE)}), True),
    ):
        let(model, route, Answer(calls=(Call("c1", "find", arguments),)))
        for stream in BOTH:
            got = ask(gateway, route, stream)
            assert got.stopped() if stops else json.loads(got.arguments()) == {"a": f"甲{stars}乙", "b": 1}
    if route == MESSAGES:  # nobody signed a thought that was masked
        let(model, route, Answer("好。", f"甲{WORD}乙"))
        assert speech.SIGNATURE not in post(gateway, route, True).text + post(gateway, route, False).text


@pytest.mark.parametrize("route", ROUTES)
def test_s19_a_block_ends_the_answer_in_the_words_of_its_api(gateway: Running, model: Model, route: str) -> None:
    for stream, text in product(BOTH, (WORD + "。", f"甲乙{WORD}丙。", "好。" * 9 + WORD)):
        let(model, route, Answer(text))
        got = ask(gateway, route, stream)
        assert (
            got.stopped() and got.ending == reading.FILTERED[route] and got.refusal().endswith(got.sluice["decision"])
        )
        for value in (got.usage or {}).values():
            assert isinstance(value, (int, dict))
        if route in (RESPONSES, MESSAGES):
            last = got.events[-1].get("response", got.events[-1]) if route == RESPONSES else got.events[-1]
            ends = [e for e in got.events if e.get("type") in ("message_delta", "response.incomplete")]
            assert len(ends) == stream and (route == MESSAGES or last["status"] == "incomplete")
    client = openai.OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0)
    let(model, route, Answer(f"甲乙{WORD}丙。"))
    body = SAYS[route].ask("说吧")
    create: Any
    if route in (CHAT, COMPLETIONS):
        create = client.chat.completions.create if route == CHAT else client.completions.create
        assert create(**body).choices[0].finish_reason == "content_filter"
        assert [c.finish_reason for e in create(**body, stream=True) for c in e.choices if c.finish_reason] == [
            "content_filter"
        ]
    elif route == RESPONSES:
        create = client.responses.create
        assert create(**body).incomplete_details.reason == "content_filter"
        last = list(create(**body, stream=True))[-1]
        assert last.type == "response.incomplete" and last.response.incomplete_details.reason == "content_filter"


class Clause:
    """A guard that objects to a text once both halves are there, and keeps what it was asked. `wait`: seconds that it takes."""

    name, version, covers = "clause", "1", frozenset[str]()

    def __init__(self, wait: float = 0.0) -> None:
        self.wait = wait
        self.asked: list[tuple[str, int]] = []

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        if scope.direction == "prompt":
            return []
        self.asked.append((text, since))
        await asyncio.sleep(self.wait)
        if "甲物" in text and "乙物" in text[since:]:
            return [Candidate(since, len(text), "violence", self.name, "clause", score=0.9)]
        return []


FIRST, SECOND = "要做这件事情先要准备好足够多的甲物。", "然后再把它们和乙物一起放在桌子上面。"
THIRD = "最后我们来谈一谈今天的天气到底怎么样。" * 3


@pytest.mark.parametrize("mode", ["strict", "prompt"])
def test_s20_a_classifier_judges_the_whole_text_so_far_at_points_that_no_chunking_moves(
    make_gateway: Make, model: Model, mode: str, subtests: pytest.Subtests
) -> None:
    gateway = make_gateway(f"stream: {{mode: {mode}}}\nguard: {{when: always}}")
    guard = Clause()
    gateway.gateway.moderator.guards.append(guard)
    said = FIRST + SECOND + THIRD
    for route in ROUTES:
        with subtests.test(route=route):
            asked: list[list[tuple[str, int]]] = []
            cuts: tuple[Cut, ...] = (
                list,
                whole,
                lambda text: [text[i : i + 7] for i in range(0, len(text), 7)],
            )
            for stream, cut in [*((True, cut) for cut in cuts), (False, list)]:
                let(model, route, Answer(said), cut=cut)
                guard.asked.clear()
                got = ask(gateway, route, stream)
                assert got.stopped() and got.sluice["action"] == "block"
                if stream:
                    # The clause that makes it harmful is held in strict mode; in the other it is followed and cut.
                    assert got.text() == FIRST if mode == "strict" else got.text().startswith(FIRST)
                asked.append(list(guard.asked))
            prefixes = [[text for text, _ in one] for one in asked]
            assert prefixes[0][:2] == [FIRST, FIRST + SECOND] and asked[0][1][1] == len(FIRST)
            assert all(one[:2] == prefixes[0][:2] for one in prefixes)
            for clean in (FIRST + THIRD, SECOND + THIRD):
                let(model, route, Answer(clean))
                for stream in BOTH:
                    got = ask(gateway, route, stream)
                    assert got.text() == clean and got.sluice["action"] == "pass"
    # A slow one holds text up in strict mode alone.
    guard.wait = 0.08
    for route in ROUTES:
        with subtests.test("slow", route=route):
            let(model, route, Answer(FIRST + SECOND))
            made = pieces(model)
            at = where(made, SECOND[6])
            model.script.stream = [*made[:at], 0.02, *made[at:]]
            got = ask(gateway, route)
            assert got.stopped() and got.text().startswith(FIRST)
            assert (got.text() == FIRST) is (mode == "strict")


# ---- I: what was asked


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where strings stand in a body."""
    if isinstance(value, str):
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(inner, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def kept_from_the_model(gateway: Running, model: Model, route: str, body: Any) -> httpx.Response:
    """Ask; whatever comes of it, WORD has not reached the model."""
    model.script.asked.clear()
    response = gateway.http.post(route, json=body)
    assert WORD not in json.dumps(model.script.asked, ensure_ascii=False), body
    return response


PART = {CHAT: "text", RESPONSES: "input_text", MESSAGES: "text"}


def turns(route: str, *contents: Any) -> dict[str, Any]:
    """A request whose turns have these contents."""
    body = SAYS[route].ask(*("x" for _ in contents))
    if route == RESPONSES:
        body["input"] = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    else:
        body["messages"] = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    return body


@pytest.mark.parametrize("route", TALKS)
def test_i1_parts_of_a_message_are_screened_each_and_joined_and_what_goes_on_is_what_was_screened(
    gateway: Running, model: Model, route: str
) -> None:
    let(model, route, Answer("好。"))
    kind, url = PART[route], "https://example.com/a.png"
    images: dict[str, dict[str, Any]] = {
        CHAT: {"type": "image_url", "image_url": {"url": url}}, RESPONSES: {"type": "input_image", "image_url": url},
        MESSAGES: {"type": "image", "source": {"type": "url", "url": url}},
    }  # fmt: skip
    image = images[route]

    def text(words: str) -> dict[str, Any]:
        return {"type": kind, "text": words}

    split = turns(route, [text("甲" + WORD[:3]), image, text(WORD[3:] + "乙")])
    for stream in BOTH:
        response = gateway.http.post(route, json=split | {"stream": stream})
        assert response.headers["x-sluice-action"] == "flag"  # a join is our own making
    one = turns(route, [text("看"), image])
    assert reading.of(route, gateway.http.post(route, json=one)).sluice["action"] == "pass"
    sent = model.script.asked[-1]
    assert {k: v for k, v in sent.items() if k != "store"} == one
    message = "input" if route == RESPONSES else "messages"
    for n in range(8):
        words = f"{route}的第{n}句{WORD}"
        fields: list[dict[str, Any]] = [
            {"content": [text("看"), image, text(words)]}, {"content": [text(words)]}, {"content_blocks": [text(words)]},
            {"parts": [words]},
            {"content": [{"type": "vendor", "words": words}]}, {"content": [image | {"alt": words}]}, {words: "看"},
            {"content": [image | {"alt": {"a": [words]}}, text("看")]},
        ]  # fmt: skip
        body = turns(route, [text("看"), image])
        body[message][0] |= fields[n]
        response = kept_from_the_model(gateway, model, route, body)
        assert reading.of(route, response).stopped() and not model.script.asked, n
        assert reading.REFUSAL in response.text, n  # in the language of the person's words, whatever stands beside them
    body = turns(route, [text("看")])
    change_url = {"url": f"https://example.com/{WORD}.png"}
    body[message][0]["content"] = [
        image
        | ({"image_url": change_url["url"]} if route == RESPONSES else {"image_url": change_url, "source": change_url})
    ]
    assert reading.of(route, kept_from_the_model(gateway, model, route, body)).stopped()


TOOL = {
    "name": "find",
    "description": "查",
    "parameters": {"type": "object", "properties": {"城市": {"type": "string", "enum": ["甲"], "description": "乙"}}},
}
RICH: dict[str, dict[str, Any]] = {
    CHAT: {
        "model": "m", "stop": ["完"], "user": "u-1", "metadata": {"a": "值"},
        "tools": [{"type": "function", "function": TOOL}], "vendor": {"a": ["词"]},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "description": "丙"}}},
        "prediction": {"type": "content", "content": "预"}, "web_search_options": {"user_location": {"approximate": {"city": "京"}}},
        "messages": [
            {"role": "system", "content": "简短。"}, {"role": "developer", "content": [{"type": "text", "text": "友好。"}]},
            {"role": "user", "content": [{"type": "text", "text": "看"}], "name": "小明"},
            {"role": "assistant", "content": "好", "refusal": "不",
             "reasoning_content": "想", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "结果"}, {"role": "function", "name": "g", "content": "值"},
            {"role": "user", "content": "说吧"}, {"role": "assistant", "content": "开头"},
        ],
    },
    COMPLETIONS: {"model": "m", "prompt": ["说吧", "再说"], "suffix": "尾", "stop": "完", "user": "u-1",
        "vendor": {"a": ["词"]}, "grammar": "规"},
    RESPONSES: {
        "model": "m", "instructions": "简短。", "metadata": {"a": "值"}, "user": "u-1", "prompt_cache_key": "k", "vendor": {"a": ["词"]},
        "tools": [{"type": "function", **TOOL}, {"type": "mcp", "server_label": "l", "server_description": "述"}],
        "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object", "description": "丙"}}},
        "input": [
            {"role": "system", "content": "友好。"}, {"role": "user", "content": [{"type": "input_text", "text": "看"},
             {"type": "input_file", "filename": "甲"}]},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "想"}]},
            {"type": "message", "role": "assistant",
             "content": [{"type": "output_text", "text": "好", "annotations": [{"type": "url_citation", "title": "题"}]}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "结果"},
            {"role": "user", "content": "说吧"},
        ],
    },
    MESSAGES: {
        "model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "简短。"}], "stop_sequences": ["完"], "vendor": {"a": ["词"]},
        "tools": [{"name": "find", "description": "查", "input_schema": TOOL["parameters"]}], "metadata": {"user_id": "u-1"},
        "messages": [
            {"role": "user", "content": [
                {"type": "document", "title": "题", "context": "境", "source": {"type": "text", "media_type": "text/plain", "data": "文"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "想", "signature": "s"}, {"type": "text", "text": "好"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "值"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "结果"}]},
                {"type": "text", "text": "说吧"},
            ]},
            {"role": "assistant", "content": "开头"},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_i2_every_string_of_a_request_is_screened_whoever_says_it(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    let(model, route, Answer("好。"), *([Answer("好。")] if route == COMPLETIONS else []))
    assert reading.of(route, gateway.http.post(route, json=RICH[route])).sluice["action"] == "pass"
    assert {k: v for k, v in model.script.asked[-1].items() if k != "store"} == RICH[route]
    for n, path in enumerate(leaves(RICH[route])):
        with subtests.test(path=path):
            body = orjson.loads(orjson.dumps(RICH[route]))
            # Each says something new: a message that was refused before is noted, not refused.
            at(body, path[:-1])[path[-1]] = f"{route}第{n}句{WORD}"
            response = kept_from_the_model(gateway, model, route, body)
            if model.script.asked:  # an older answer of the model never refuses: a note stands for it
                turn = at(body, path[:2])
                odd = path[-1] == "type"  # an item of no known type is taken for the model's
                assert turn.get("role") == "assistant" or turn.get("type") in ("reasoning", "function_call") or odd, (
                    path
                )
            elif response.status_code != 400:
                assert reading.of(route, response).stopped()
            else:
                assert path[-1] in ("role", "type") and WORD not in response.text
    blind: dict[str, Any] = {
        "input_ids": [1, 2],
        "prompt_token_ids": [1],
        "prompt_embeds": "aGk=",
        "chat_template": "{{x}}",
    }
    for name, value in blind.items():
        refused(
            route, gateway.http.post(route, json=SAYS[route].ask("说吧") | {name: value}), 400, "unsupported_parameter"
        )
    if route == COMPLETIONS:
        for prompt in ([1, 2, 3], [[1, 2], [3]], ["说吧", 5], [["说吧"]], 7):
            refused(route, gateway.http.post(route, json={"model": "m", "prompt": prompt}), 400, "invalid_type")
    if route == RESPONSES:
        for name, value in {
            "previous_response_id": "r",
            "conversation": "c",
            "background": True,
            "prompt": {"id": "p"},
        }.items():
            refused(
                route,
                gateway.http.post(route, json=SAYS[route].ask("说吧") | {name: value}),
                400,
                "unsupported_parameter",
            )


@pytest.mark.parametrize("route", ROUTES)
def test_i3_a_word_in_the_first_message_of_twenty_refuses_it(gateway: Running, model: Model, route: str) -> None:
    let(model, route, Answer("好。"), *([Answer("好。")] * 18 if route == COMPLETIONS else []))
    for place in (0, 9, 18) if route == COMPLETIONS else (0, 8, 18):
        said = [f"{route}{place}里的第{i}句。" for i in range(19)]
        body = SAYS[route].ask(*said)
        if route == COMPLETIONS:
            body["prompt"] = said
        known = counted("sluice_known_characters_total")
        assert reading.of(route, gateway.http.post(route, json=body)).sluice["action"] == "pass"
        assert reading.of(route, gateway.http.post(route, json=body)).sluice["action"] == "pass"
        size = sum(map(len, said))  # which is not screened anew
        wait_for(lambda: counted("sluice_known_characters_total") - known >= size)  # noqa: B023
        said[place] += WORD
        body = SAYS[route].ask(*said) | ({"prompt": said} if route == COMPLETIONS else {})
        for stream in BOTH:
            fresh = json.loads(json.dumps(body, ensure_ascii=False).replace("里的", f"里{stream}的"))
            response = kept_from_the_model(gateway, model, route, fresh | {"stream": stream})
            assert reading.of(route, response).stopped() and not model.script.asked


@pytest.mark.parametrize("route", ROUTES)
def test_i4_a_key_that_stands_twice_is_refused_at_any_depth_however_it_is_written(
    gateway: Running, model: Model, route: str, subtests: pytest.Subtests
) -> None:
    def turn(words: str) -> tuple[str, str]:
        body = SAYS[route].ask(words)
        name = next(n for n in ("messages", "input", "prompt") if n in body)
        return name, json.dumps(body[name], ensure_ascii=False)

    let(model, route, Answer("好。"))
    (name, good), (_, bad) = turn("说吧"), turn(WORD)
    escaped = f"\\u{ord(name[0]):04x}{name[1:]}"
    rest = '"model": "m", "max_tokens": 9'
    deep = '{"a": ' * 80 + "1" + "}" * 80
    for label, code, body in (
        ("bad, good", "duplicate_key", f'{{{rest}, "{name}": {bad}, "{name}": {good}}}'),
        ("good, bad", "duplicate_key", f'{{{rest}, "{name}": {good}, "{name}": {bad}}}'),
        ("escaped", "duplicate_key", f'{{{rest}, "{name}": {good}, "{escaped}": {bad}}}'),
        ("escaped first", "duplicate_key", f'{{{rest}, "{escaped}": {bad}, "{name}": {good}}}'),
        ("the same twice", "duplicate_key", f'{{{rest}, "model": "m", "{name}": {good}}}'),
        ("deep", "duplicate_key", f'{{{rest}, "{name}": {good}, "vendor": [{{"a": {{"b": 1, "b": "{WORD}"}}}}]}}'),
        ("deep in the turn", "duplicate_key", f'{{{rest}, "{name}": [{{"role": "user", "content": "{WORD}", "content": "好"}}]}}'),
        ("NaN", "invalid_json", f'{{{rest}, "{name}": {good}, "temperature": NaN}}'),
        ("infinity", "invalid_json", f'{{{rest}, "{name}": {good}, "temperature": -Infinity}}'),
        ("out of range", "invalid_json", f'{{{rest}, "{name}": {good}, "temperature": 1e999}}'),
        ("nested", "too_deep", f'{{{rest}, "{name}": {good}, "vendor": {deep}}}'),
        ("two values", "invalid_json", f'{{{rest}, "{name}": {good}}} {{"{name}": {bad}}}'),
        ("a comment", "invalid_json", f'{{{rest}, "{name}": {good} /* "{name}": {bad} */}}'),
        ("single quotes", "invalid_json", f"{{{rest}, '{name}': {good}}}"),
    ):  # fmt: skip
        with subtests.test(label):
            refused(route, gateway.http.post(route, content=body.encode()), 400, code)
            refused(
                route,
                gateway.http.post(route, content=body.replace(rest, rest + ', "stream": true').encode()),
                400,
                code,
            )
    for raw in (f'{{{rest}, "{name}": {good}}}'.encode("utf-16"), b"\xef\xbb\xbf{}", b'{"model": "\xff"}'):
        refused(route, gateway.http.post(route, content=raw), 400, "invalid_json")
    assert model.script.asked == []
    # What goes on is written anew: one reading of it is left.
    odd = f'{{{rest}, "{escaped}": {good}, "vendor": "\\u0061\\/", "seed": 1.0e0}}'
    assert gateway.http.post(route, content=odd.encode()).status_code == 200
    assert {name: json.loads(good), "vendor": "a/", "seed": 1.0}.items() <= model.script.asked[-1].items()
