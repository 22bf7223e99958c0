"""Real clients through Sluice: what is clean is what the model said, to the last field; what is stopped ends as each client knows
it; a mask leaves every JSON one; an error is the client's own.

The ways to ask are in tests/clients.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pydantic
import pytest
from openai import ContentFilterFinishReasonError
from openai.lib._tools import pydantic_function_tool

from app.demo import speech
from app.demo.speech import Answer
from tests.clients import (
    TOOL,
    WAYS,
    Way,
    Weather,
    agent_said,
    agents_errors,
    anthropic,
    call,
    errors,
    langchain,
    langchain_refusal,
    openai,
    run_agent,
    structured,
)
from tests.conftest import WORD, Model, Running, gateways

ONE_GATEWAY = True
TEXT = '今天天气不错，适合散步👍🏽。\n\nThe "river" is calm.'
THOUGHT = "先想一想：多云。"
FILTERED = {
    "chat": "content_filter",
    "completions": "content_filter",
    "responses": "content_filter",
    "messages": "refusal",
}
RAISED = {"openai-chat-stream": "ContentFilterFinishReasonError", "openai-responses-stream": "RuntimeError"}
"""What these helpers do about every answer that was filtered."""
HIDDEN = "这部分内容"
"""A refusal begins with it."""
TOLD = "电话 13800138000，谢谢"
MASKED = "电话 ***********，谢谢"

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LangChain's, for every parsed answer
EVERY = pytest.mark.parametrize("way", WAYS, ids=str)
TOOLED = pytest.mark.parametrize("way", [w for w in WAYS if w.client != "agents" and w.api != "completions"], ids=str)
BOTH_APIS = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


def says(model: Model, *answers: Answer) -> None:
    """The model gives these in turn: the next one for each result of a tool that it is shown."""

    def reply(path: str, body: dict[str, Any]) -> Answer:
        text = json.dumps(body)
        shown = sum(text.count(mark) for mark in ('"role": "tool"', '"function_call_output"', '"tool_result"'))
        return answers[min(shown, len(answers) - 1)]

    model.script.reply = reply


def asked(model: Model) -> list[dict[str, Any]]:
    """What the model was asked, apart from what the gateway says of keeping it."""
    return [{k: v for k, v in body.items() if k != "store"} for body in model.script.asked]


# ---- unchanged


@EVERY
def test_a_clean_answer_is_all_that_the_model_said(way: Way, gateway: Running, model: Model) -> None:
    says(model, Answer(TEXT, "" if way.api == "completions" else THOUGHT))
    direct = way.ask(model.url, ["你好", [{"role": "assistant", "content": "在。"}], "天气怎样？"], False, {})
    through = way.ask(gateway.base_url, ["你好", [{"role": "assistant", "content": "在。"}], "天气怎样？"], False, {})
    assert direct.text == TEXT
    assert (through.text, through.end, through.whole) == (direct.text, direct.end, direct.whole)
    first, second = asked(model)
    assert first == second


@TOOLED
@pytest.mark.parametrize(
    "cut",
    [pytest.param(list, id="by characters"), pytest.param(lambda text: [text], id="whole", marks=pytest.mark.long)],
)
def test_calls_of_tools_come_through(way: Way, cut: speech.Cut, gateway: Running, model: Model) -> None:
    says(model, Answer("我来查。", THOUGHT, (call('晴 "好"\n\\'), call("阴👍🏽", "北京", "call_2"))))
    model.script.cut = cut
    direct = way.ask(model.url, ["天气怎样？"], True, {})
    through = way.ask(gateway.base_url, ["天气怎样？"], True, {})
    assert [name for name, _ in direct.calls] == [TOOL, TOOL]
    assert (through.text, through.end, through.calls, through.whole) == (
        direct.text, direct.end, direct.calls, direct.whole,
    )  # fmt: skip
    first, second = asked(model)
    assert first == second


@TOOLED
def test_the_result_of_a_tool_goes_back_to_the_model(way: Way, gateway: Running, model: Model) -> None:
    says(model, Answer(calls=(call("晴"),)), Answer("杭州多云。"))
    form: dict[str, Any] = {
        "chat": {"role": "tool", "tool_call_id": "call_1", "content": "多云"},
        "responses": {"type": "function_call_output", "call_id": "call_1", "output": "多云"},
        "messages": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "多云"}]},
    }[way.api]
    if way.client == "langchain":
        form = {"role": "tool", "tool_call_id": "call_1", "content": "多云"}
    ends = []
    for url in (model.url, gateway.base_url):
        turn = way.ask(url, ["天气怎样？"], True, {}).turn
        if way.how in ("chunks", "events") and way.api != "responses":
            turn = _called(way)  # who reads events puts the call together
        ends.append(way.ask(url, ["天气怎样？", turn, [form]], True, {}))
    assert ends[0].text == "杭州多云。"
    assert (ends[1].text, ends[1].end, ends[1].whole) == (ends[0].text, ends[0].end, ends[0].whole)
    assert asked(model)[:2] == asked(model)[2:]


def _called(way: Way) -> list[Any]:
    message = (speech.Chat() if way.api == "chat" else speech.Messages()).plain(Answer(calls=(call("晴"),)))
    if way.api == "chat":
        return [message["choices"][0]["message"]]
    return [{"role": "assistant", "content": message["content"]}]


@BOTH_APIS
@BOTH_WAYS
def test_an_agent_calls_its_tool_and_answers(responses: bool, streamed: bool, gateway: Running, model: Model) -> None:
    says(model, Answer("我来查。", calls=(call("晴"),)), Answer("杭州多云。"))
    ran, tool = _tool()
    runs = [
        run_agent(url, ["天气怎样？"], responses=responses, streamed=streamed, tools=[tool])
        for url in (model.url, gateway.base_url)
    ]
    assert ran == [("杭州", "晴")] * 2
    assert [r.final_output for r in runs] == ["杭州多云。"] * 2
    assert agent_said(runs[0]) == agent_said(runs[1])
    assert len(asked(model)) == 4
    assert asked(model)[:2] == asked(model)[2:]


def _tool() -> tuple[list[tuple[str, str]], Any]:
    """An agent's tool, and the calls that were really made of it."""
    from agents import function_tool

    ran: list[tuple[str, str]] = []

    @function_tool
    def look_up(city: str, note: str) -> str:
        """查询天气"""
        ran.append((city, note))
        return "多云"

    return ran, look_up


# ---- structured outputs


class Filtered(Exception):
    """A client said, in its own way, that the answer was filtered."""


_ASK: Any = [{"role": "user", "content": "天气怎样？请用 JSON 回答。"}]


def _openai_chat_parse(url: str) -> Any:
    return (
        openai(url).chat.completions.parse(model="m", messages=_ASK, response_format=Weather).choices[0].message.parsed
    )


def _openai_chat_stream(url: str) -> Any:
    with openai(url).chat.completions.stream(model="m", messages=_ASK, response_format=Weather) as stream:
        return stream.get_final_completion().choices[0].message.parsed


def _openai_chat_parse_tools(url: str) -> Any:
    tools = [pydantic_function_tool(Weather)]
    message = openai(url).chat.completions.parse(model="m", messages=_ASK, tools=tools).choices[0].message
    return message.tool_calls[0].function.parsed_arguments  # type: ignore[index]


def _openai_chat_stream_tools(url: str) -> Any:
    tools = [pydantic_function_tool(Weather)]
    with openai(url).chat.completions.stream(model="m", messages=_ASK, tools=tools) as stream:
        message = stream.get_final_completion().choices[0].message
    return message.tool_calls[0].function.parsed_arguments  # type: ignore[index]


def _parsed(response: Any) -> Any:
    if response.incomplete_details and response.incomplete_details.reason == "content_filter":
        assert response.status == "incomplete"
        raise Filtered
    return response.output_parsed


def _openai_responses_parse(url: str) -> Any:
    return _parsed(openai(url).responses.parse(model="m", input=_ASK, text_format=Weather))


def _openai_responses_stream(url: str) -> Any:
    with openai(url).responses.stream(model="m", input=_ASK, text_format=Weather) as stream:
        for event in stream:
            if event.type == "response.incomplete":
                assert event.response.incomplete_details is not None
                assert event.response.incomplete_details.reason == "content_filter"
                raise Filtered
        return stream.get_final_response().output_parsed


def _anthropic_parse(url: str) -> Any:
    return anthropic(url).messages.parse(model="m", max_tokens=99, messages=_ASK, output_format=Weather).parsed_output


def _anthropic_stream(url: str) -> Any:
    with anthropic(url).messages.stream(model="m", max_tokens=99, messages=_ASK, output_format=Weather) as stream:
        return stream.get_final_message().parsed_output


def _langchain_structured(responses: bool, method: str, streamed: bool) -> Callable[[str], Any]:
    def ask(url: str) -> Any:
        llm = langchain(url, use_responses_api=responses).with_structured_output(
            Weather, method=method, include_raw=True
        )  # type: ignore[arg-type]
        if streamed:
            found: dict[str, Any] = {}
            for piece in llm.stream(_ASK):
                for name, value in piece.items():
                    found[name] = found[name] + value if name == "raw" and name in found else value
        else:
            found = llm.invoke(_ASK)  # type: ignore[assignment]
        said = found["raw"].response_metadata
        if "content_filter" in (said.get("finish_reason"), (said.get("incomplete_details") or {}).get("reason")):
            raise Filtered
        if found.get("parsing_error"):
            raise found["parsing_error"]
        return found["parsed"]

    return ask


def _agents_structured(responses: bool, streamed: bool) -> Callable[[str], Any]:
    def ask(url: str) -> Any:
        return run_agent(url, [_ASK[0]["content"]], responses=responses, streamed=streamed, output=Weather).final_output

    return ask


STRUCTURED: dict[str, Callable[[str], Any]] = {
    "openai-chat-parse": _openai_chat_parse,
    "openai-chat-stream": _openai_chat_stream,
    "openai-chat-parse-tools": _openai_chat_parse_tools,
    "openai-chat-stream-tools": _openai_chat_stream_tools,
    "openai-responses-parse": _openai_responses_parse,
    "openai-responses-stream": _openai_responses_stream,
    "anthropic-parse": _anthropic_parse,
    "anthropic-stream": _anthropic_stream,
} | {
    f"langchain-{'responses' if responses else 'chat'}-{method}-{'stream' if streamed else 'invoke'}": _langchain_structured(
        responses, method, streamed
    )
    for responses in (False, True)
    for method in ("json_schema", "function_calling", "json_mode")
    for streamed in (False, True)
} | {
    f"agents-{'responses' if responses else 'chat'}-{'stream' if streamed else 'plain'}": _agents_structured(
        responses, streamed
    )
    for responses in (False, True)
    for streamed in (False, True)
}  # fmt: skip


def _forms() -> Any:
    """Every one; what differs from another by LangChain's own method alone only in long runs."""

    def marks(name: str) -> list[Any]:
        return [pytest.mark.long] if name.startswith("langchain") and "json_schema" not in name else []

    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in STRUCTURED])


@_forms()
def test_a_structured_answer_is_parsed_as_if_it_came_straight_from_the_model(
    name: str, gateway: Running, model: Model
) -> None:
    model.script.reply = structured('晴 "好"\n👍🏽')
    direct, through = STRUCTURED[name](model.url), STRUCTURED[name](gateway.base_url)
    assert direct == through == Weather(city="杭州", note='晴 "好"\n👍🏽')
    first, second = asked(model)
    assert first == second


@_forms()
def test_a_mask_leaves_a_structured_answer_one(name: str, gateway: Running, model: Model) -> None:
    model.script.reply = structured(TOLD)
    assert STRUCTURED[name](gateway.base_url) == Weather(city="杭州", note=MASKED)


def test_reasoning_that_is_held_where_the_answer_begins_is_told_before_its_end(gateway: Running, model: Model) -> None:
    says(model, Answer("今天很好。", f"先想一想：{WORD[:2]}"))
    thought, ended = "", False
    with openai(gateway.base_url).chat.completions.create(model="m", messages=_ASK, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                assert not ended
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                ended = choice.finish_reason is not None
    assert ended and thought == f"先想一想：{WORD[:2]}"


# ---- stopped and masked


@EVERY
def test_a_block_ends_as_the_client_knows_it(way: Way, gateway: Running, model: Model) -> None:
    says(model, Answer(f"前文，{WORD}后文"))
    if way.client == "agents" and way.api == "responses":
        with pytest.raises(agents_errors(), match="content_filter"):
            way.ask(gateway.base_url, ["你好"], False, {})
        return
    got = way.ask(gateway.base_url, ["你好"], False, {})
    if way.client != "agents":
        assert got.end == FILTERED[way.api]
    assert got.raised == RAISED.get(str(way), "")
    assert got.text.startswith(f"前文，\n\n{HIDDEN}" if way.streamed else HIDDEN)
    assert "slc_" in got.text
    assert WORD[2:] not in str(got) and "后文" not in str(got)


@TOOLED
def test_a_block_in_a_tools_argument_leaves_no_call_that_could_be_made(
    way: Way, gateway: Running, model: Model
) -> None:
    says(model, Answer("我来查。", calls=(call(f"前{WORD}后"),)))
    got = way.ask(gateway.base_url, ["你好"], True, {})
    assert got.end == FILTERED[way.api]
    assert HIDDEN in got.text
    assert WORD[:2] not in str(got)
    if not way.streamed or (way.client == "openai" and way.api == "responses"):
        assert got.calls == []
    else:
        # What was told before the block cannot be taken back; these clients complete it by themselves.
        (_, given), completes = got.calls[0], way.client == "langchain" or str(way) == "anthropic-messages-stream"
        assert isinstance(given, dict) is completes
        with pytest.raises(ValueError, match="Unterminated string"):
            json.loads(given if isinstance(given, str) else '{"')


@BOTH_APIS
@BOTH_WAYS
@pytest.mark.parametrize("note", [f"前{WORD}后", WORD], ids=["behind a text", "at once"])
def test_no_tool_of_an_agent_runs_with_arguments_that_were_cut(
    note: str, responses: bool, streamed: bool, gateway: Running, model: Model
) -> None:
    says(model, Answer("我来查。", calls=(call(note),)), Answer("没有查到。"))
    ran, tool = _tool()
    if responses:
        with pytest.raises(agents_errors(), match="content_filter"):
            run_agent(gateway.base_url, ["你好"], responses=True, streamed=streamed, tools=[tool])
    else:
        result = run_agent(gateway.base_url, ["你好"], responses=False, streamed=streamed, tools=[tool])
        # A call that was told in part fails in the client, and the model is told so.
        assert result.final_output == "没有查到。" if streamed else HIDDEN in result.final_output
    assert ran == []
    assert WORD[:2] not in json.dumps(model.script.asked, ensure_ascii=False)


@TOOLED
def test_a_mask_in_a_tools_argument_leaves_it_json(way: Way, gateway: Running, model: Model) -> None:
    says(model, Answer(calls=(call(TOLD),)))
    ((name, given),) = way.ask(gateway.base_url, ["你好"], True, {}).calls
    assert name == TOOL
    assert (json.loads(given) if isinstance(given, str) else given) == {"city": "杭州", "note": MASKED}


@BOTH_APIS
@BOTH_WAYS
def test_an_agents_tool_runs_with_masked_arguments(
    responses: bool, streamed: bool, gateway: Running, model: Model
) -> None:
    says(model, Answer(calls=(call(TOLD),)), Answer("好了。"))
    ran, tool = _tool()
    result = run_agent(gateway.base_url, ["你好"], responses=responses, streamed=streamed, tools=[tool])
    assert (ran, result.final_output) == ([("杭州", MASKED)], "好了。")


_UNAWARE = {"anthropic-parse", "anthropic-stream"}
"""These parse every text before they look at how the answer ended: the error is the parser's whatever was sent."""


@_forms()
def test_a_block_in_a_structured_answer_is_the_clients_own_filtered_ending(
    name: str, gateway: Running, model: Model
) -> None:
    model.script.reply = structured(f"前{WORD}后")
    filtered = (Filtered, ContentFilterFinishReasonError, langchain_refusal(), *agents_errors())
    with pytest.raises(pydantic.ValidationError if name in _UNAWARE else filtered):
        STRUCTURED[name](gateway.base_url)


def test_who_asks_for_structure_without_a_parser_sees_the_refusal(gateway: Running, model: Model) -> None:
    model.script.reply = structured(f"前{WORD}后")
    form = {"format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}}
    request: Any = {"model": "m", "max_tokens": 99, "messages": _ASK, "output_config": form}
    assert anthropic(gateway.base_url).messages.create(**request).stop_reason == "refusal"
    with anthropic(gateway.base_url).messages.stream(**request) as stream:
        assert stream.get_final_message().stop_reason == "refusal"


@pytest.mark.parametrize("way", [w for w in WAYS if w.client != "agents" and w.api != "completions"], ids=str)
def test_a_call_that_was_replaced_is_no_error_to_the_client(way: Way, replacing: Running, model: Model) -> None:
    says(model, Answer("我来查。", calls=(call(f"前{WORD}后"),)))
    assert HIDDEN in way.ask(replacing.base_url, ["你好"], True, {}).text


@pytest.fixture(scope="module")
def replacing(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that replaces WORD instead of blocking it: the answer then ends as if it were complete."""
    with gateways(shared_model, tmp_path_factory.mktemp("replacing")) as make:
        running = make()
        running.block(WORD, action="replace")
        yield running


# ---- errors


@EVERY
def test_a_bad_request_is_the_clients_own_error(way: Way, gateway: Running, model: Model) -> None:
    with pytest.raises(errors(way.client).BadRequestError, match="base_url") as raised:
        way.ask(gateway.base_url, ["你好"], False, {"base_url": "http://elsewhere.invalid"})
    assert raised.value.status_code == 400
    assert model.script.asked == []


@EVERY
def test_the_models_own_error_keeps_its_kind_and_words(way: Way, gateway: Running, model: Model) -> None:
    error = {"type": "error", "error": {"message": "slow down", "code": "busy", "type": "rate_limit_error"}}
    model.script.plain, model.script.stream = (429, {"retry-after": "7"}, json.dumps(error).encode()), None
    with pytest.raises(errors(way.client).RateLimitError, match="slow down") as raised:
        way.ask(gateway.base_url, ["你好"], False, {})
    assert raised.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("way", [w for w in WAYS if w.streamed], ids=str)
def test_a_model_that_breaks_off_is_the_clients_own_error(way: Way, gateway: Running, model: Model) -> None:
    api = next(
        a for a in speech.ALL if a.route.endswith(f"{way.api}/completions" if way.api == "chat" else f"v1/{way.api}")
    )
    model.script.stream = [*list(api.stream(list, Answer("今天天气不错。")))[:6], "reset"]
    known = errors(way.client).APIError
    if way.api == "responses":
        # Their words for an event of type error.
        known = {"langchain": ValueError, "agents": agents_errors()}.get(way.client, known)
    with pytest.raises(known, match=None if way.api == "responses" and way.client == "openai" else "broke off"):
        way.ask(gateway.base_url, ["你好"], False, {})


def test_a_model_that_breaks_off_a_plain_answer_is_an_error_of_the_server(gateway: Running, model: Model) -> None:
    model.script.plain = (200, {}, b'{"id": ')
    for way in WAYS:
        if not way.streamed:
            with pytest.raises(errors(way.client).InternalServerError):
                way.ask(gateway.base_url, ["你好"], False, {})


# ---- refused prompts


@pytest.mark.parametrize("way", [w for w in WAYS if w.api != "completions"], ids=str)
def test_after_a_refused_prompt_the_conversation_goes_on(way: Way, gateway: Running, model: Model) -> None:
    says(model, Answer(TEXT))
    asked_first = f"请讲{WORD}吧"
    turn: list[Any] = []
    if way.client == "agents" and way.api == "responses":
        # The client raises, and its user has nothing for the history but the question.
        with pytest.raises(agents_errors(), match="content_filter"):
            way.ask(gateway.base_url, [asked_first], False, {})
    else:
        refused = way.ask(gateway.base_url, [asked_first], False, {})
        assert refused.text.startswith(HIDDEN) and "slc_" in refused.text
        assert refused.end == (None if way.client == "agents" else FILTERED[way.api])
        turn = refused.turn
    assert model.script.asked == []
    assert way.ask(gateway.base_url, [asked_first, turn, "今天天气如何？"], False, {}).text == TEXT
    (body,) = asked(model)
    assert WORD not in json.dumps(body, ensure_ascii=False)
    assert "今天天气如何？" in json.dumps(body, ensure_ascii=False)


def test_a_refused_prompt_of_the_older_completions_is_an_answer_of_its_own(gateway: Running, model: Model) -> None:
    for way in WAYS:
        if way.api == "completions":
            got = way.ask(gateway.base_url, [f"请讲{WORD}吧"], False, {})
            assert (got.end, got.text.startswith(HIDDEN)) == ("content_filter", True)
    assert model.script.asked == []


# ---- headers


@BOTH_WAYS
@pytest.mark.parametrize("said", ["好的。", WORD], ids=["clean", "blocked"])
def test_the_decision_stands_in_a_header_that_clients_can_read(
    said: str, streamed: bool, gateway: Running, model: Model
) -> None:
    says(model, Answer(said))
    o, a = openai(gateway.base_url), anthropic(gateway.base_url)
    asks: list[tuple[Any, dict[str, Any]]] = [
        (o.chat.completions.with_raw_response, {"messages": _ASK}),
        (o.completions.with_raw_response, {"prompt": "你好"}),
        (o.responses.with_raw_response, {"input": "你好"}),
        (a.messages.with_raw_response, {"messages": _ASK, "max_tokens": 99}),
    ]
    for api, request in asks:
        raw = api.create(model="m", **request, **({"stream": True} if streamed else {}))
        decision = raw.headers["x-sluice-decision"]
        assert decision.startswith("slc_")
        answer = raw.parse()
        if not streamed:
            assert answer.id == decision
            assert raw.headers["x-sluice-action"] == ("pass" if said != WORD else "block")
            continue
        ids = [_id(event) for event in answer]
        assert {i for i in ids if i} == {decision}
    llm = langchain(gateway.base_url, include_response_headers=True)
    message = llm.invoke("你好")
    assert message.response_metadata["headers"]["x-sluice-decision"] == message.response_metadata["id"]


def _id(event: Any) -> str | None:
    """The id of the answer, where an event says it."""
    holder = getattr(event, "response", None) or getattr(event, "message", None) or event
    return getattr(holder, "id", None)
