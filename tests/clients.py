"""Real clients as their users have them: one function per client, API and way to listen, so that a test can ask them all the same.

Law: a way only asks and collects; what it returns is what the client's user gets, the ids of the answer apart. Clients that take
seconds to import are imported where they are used: every process of a parallel run collects every test.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI, ContentFilterFinishReasonError, OpenAI
from pydantic import BaseModel

from app.demo.speech import Answer, Call

if TYPE_CHECKING:
    from agents import Tool
    from anthropic import Anthropic
    from langchain_core.messages import AIMessage
    from langchain_openai import ChatOpenAI

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "note": {"type": "string"}},
    "required": ["city", "note"],
    "additionalProperties": False,
}
TOOL = "look_up"
CHAT_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": TOOL, "description": "查询天气", "parameters": SCHEMA}}
]
RESPONSES_TOOLS: list[Any] = [
    {"type": "function", "name": TOOL, "description": "查询天气", "parameters": SCHEMA, "strict": False}
]
MESSAGES_TOOLS: list[Any] = [{"name": TOOL, "description": "查询天气", "input_schema": SCHEMA}]


class Weather(BaseModel):
    """What structured answers are parsed to."""

    city: str
    note: str


def call(note: str, city: str = "杭州", id: str = "call_1") -> Call:
    """A call of the tool, as a model writes one."""
    return Call(id, TOOL, json.dumps({"city": city, "note": note}, ensure_ascii=False))


def structured(note: str, city: str = "杭州") -> Callable[[str, dict[str, Any]], Answer]:
    """A model that gives one Weather in the form it was asked for: as the answer's text or as a tool's arguments."""

    def reply(path: str, body: dict[str, Any]) -> Answer:
        given = call(note, city)
        if body.get("tools"):
            tool = body["tools"][0]
            name = (tool.get("function") or tool)["name"]
            return Answer(calls=(Call(given.id, name, given.arguments),))
        return Answer(given.arguments)

    return reply


@dataclass
class Got:
    """What the client's user has of an answer. `calls`: (name, arguments) as the client gives them; `whole`: all it says;
    `turn`: what goes into the history; `raised`: the client's own error for an answer that was filtered."""

    text: str
    end: str | None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    whole: Any = None
    turn: list[Any] = field(default_factory=list)
    raised: str = ""


@dataclass(frozen=True)
class Way:
    """One client, one of its APIs, whole or streamed. `ask(url, turns, tools, extra)`: a string is a turn of the user, a list what
    a client gave for the history; `extra` goes into the body as it is."""

    client: str
    api: str
    how: str
    ask: Callable[[str, Sequence[Any], bool, dict[str, Any]], Got]

    @property
    def streamed(self) -> bool:
        return self.how != "plain"

    def __str__(self) -> str:
        return f"{self.client}-{self.api}-{self.how}"


def _turns(turns: Sequence[Any]) -> list[Any]:
    """The history that a user of the client keeps."""
    found: list[Any] = []
    for turn in turns:
        found += [{"role": "user", "content": turn}] if isinstance(turn, str) else turn
    return found


def bare(value: Any) -> Any:
    """Everything an answer says, its id and what the gateway adds to it apart."""
    whole = value.model_dump(mode="json", warnings=False)
    for name in ("id", "sluice", "_request_id"):
        whole.pop(name, None)
    metadata = whole.get("response_metadata")
    if metadata:
        metadata.pop("id", None)
        metadata.pop("headers", None)
    return whole


# ---- openai


@lru_cache
def openai(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="test", max_retries=0, timeout=20)


def _chat_got(completion: Any, raised: str = "") -> Got:
    (choice,) = completion.choices
    message = choice.message
    calls = [(c.function.name, c.function.arguments) for c in message.tool_calls or ()]
    return Got(message.content or "", choice.finish_reason, calls, bare(completion), [message], raised)


def _chat_request(turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"tools": CHAT_TOOLS} if tools else {}
    return {"model": "m", "messages": _turns(turns), "extra_body": extra, **given}


def _chat_plain(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    return _chat_got(openai(url).chat.completions.create(**_chat_request(turns, tools, extra)))


def _chat_chunks(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    got, calls, reasoning, usage = Got("", None), {}, "", None
    options = {"include_usage": True}
    with openai(url).chat.completions.create(
        **_chat_request(turns, tools, extra), stream=True, stream_options=options
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                got.text += choice.delta.content or ""
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                got.end = choice.finish_reason or got.end
                for c in choice.delta.tool_calls or ():
                    assert c.function is not None
                    one = calls.setdefault(c.index, {"id": "", "name": "", "arguments": ""})
                    one["id"] += c.id or ""
                    one["name"] += c.function.name or ""
                    one["arguments"] += c.function.arguments or ""
    got.calls = [(c["name"], c["arguments"]) for _, c in sorted(calls.items())]
    got.whole = [got.text, got.end, reasoning, calls, usage and usage.model_dump()]
    got.turn = [{"role": "assistant", "content": got.text}]
    return got


def _chat_helper(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    try:
        with openai(url).chat.completions.stream(**_chat_request(turns, tools, extra)) as stream:
            return _chat_got(stream.get_final_completion())
    except ContentFilterFinishReasonError as e:
        return _chat_got(e.completion, type(e).__name__)


def _completions_plain(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    answer = openai(url).completions.create(model="m", prompt=turns[-1], extra_body=extra)
    (choice,) = answer.choices
    return Got(choice.text, choice.finish_reason, whole=bare(answer))


def _completions_chunks(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    got = Got("", None)
    with openai(url).completions.create(model="m", prompt=turns[-1], extra_body=extra, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                got.text += choice.text
                got.end = choice.finish_reason or got.end
    got.whole = [got.text, got.end]
    return got


def _responses_got(response: Any) -> Got:
    calls = [(i.name, i.arguments) for i in response.output if i.type == "function_call"]
    reason = response.incomplete_details and response.incomplete_details.reason
    return Got(response.output_text, reason or response.status, calls, bare(response), list(response.output))


def _responses_request(turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"tools": RESPONSES_TOOLS} if tools else {}
    return {"model": "m", "input": _turns(turns), "extra_body": extra, **given}


def _responses_plain(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    return _responses_got(openai(url).responses.create(**_responses_request(turns, tools, extra)))


_LAST = ("response.completed", "response.incomplete")


def _responses_events(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    text, got = "", None
    with openai(url).responses.create(**_responses_request(turns, tools, extra), stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type in _LAST:
                got = _responses_got(event.response)  # type: ignore[union-attr]
    assert got is not None and got.text == text
    return got


def _responses_helper(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    last: Any = None
    with openai(url).responses.stream(**_responses_request(turns, tools, extra)) as stream:
        for event in stream:
            if event.type in _LAST:
                last = event.response  # type: ignore[union-attr]
        got = _responses_got(last)
        try:
            got.whole = [got.whole, bare(stream.get_final_response())]
        except RuntimeError as e:
            if "Didn't receive" not in str(e):
                raise
            got.raised = type(e).__name__
    return got


# ---- anthropic


@lru_cache
def anthropic(url: str) -> Anthropic:
    from anthropic import Anthropic

    return Anthropic(base_url=url.removesuffix("/v1"), api_key="test", max_retries=0, timeout=20)


def _messages_got(message: Any) -> Got:
    text = "".join(b.text for b in message.content if b.type == "text")
    calls = [(b.name, b.input) for b in message.content if b.type == "tool_use"]
    turn = {"role": "assistant", "content": message.content}
    return Got(text, message.stop_reason, calls, bare(message), [turn])


def _messages_request(turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"tools": MESSAGES_TOOLS} if tools else {}
    return {"model": "m", "max_tokens": 1000, "messages": _turns(turns), "extra_body": extra, **given}


def _messages_plain(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    return _messages_got(anthropic(url).messages.create(**_messages_request(turns, tools, extra)))


def _messages_events(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    got, blocks, usage = Got("", None), [], {}
    with anthropic(url).messages.create(**_messages_request(turns, tools, extra), stream=True) as stream:
        for event in stream:
            if event.type == "content_block_start":
                blocks.append(
                    {"kind": event.content_block.type, "name": getattr(event.content_block, "name", ""), "said": ""}
                )
            elif event.type == "content_block_delta":
                said = event.delta.model_dump(exclude={"type"})
                blocks[event.index]["said"] += next(iter(said.values()))
            elif event.type == "message_delta":
                got.end, usage = event.delta.stop_reason, event.usage.model_dump()
    got.text = "".join(b["said"] for b in blocks if b["kind"] == "text")
    got.calls = [(b["name"], b["said"]) for b in blocks if b["kind"] == "tool_use"]
    got.whole = [blocks, got.end, usage]
    got.turn = [{"role": "assistant", "content": got.text}]
    return got


def _messages_helper(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
    with anthropic(url).messages.stream(**_messages_request(turns, tools, extra)) as stream:
        return _messages_got(stream.get_final_message())


# ---- LangChain


def langchain(url: str, **more: Any) -> ChatOpenAI:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="m", base_url=url, api_key="test", max_retries=0, timeout=20, **more)  # type: ignore[arg-type]


def _langchain_got(message: AIMessage) -> Got:
    said = message.response_metadata
    details = said.get("incomplete_details") or {}
    end = said.get("finish_reason") or details.get("reason") or said.get("status")
    calls: list[tuple[str, Any]] = [(c["name"], c["args"]) for c in message.tool_calls]
    return Got(str(message.text), end, calls, bare(message), [message])


def _langchain(responses: bool, streamed: bool) -> Callable[[str, Sequence[Any], bool, dict[str, Any]], Got]:
    def ask(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
        llm: Any = langchain(url, use_responses_api=responses, stream_usage=True, extra_body=extra or None)
        if tools:
            llm = llm.bind_tools(CHAT_TOOLS)
        if not streamed:
            return _langchain_got(llm.invoke(_turns(turns)))
        total: Any = None
        for piece in llm.stream(_turns(turns)):
            total = piece if total is None else total + piece
        got = _langchain_got(total)
        got.whole = {k: v for k, v in got.whole.items() if k != "content"} | {"text": got.text}
        return got

    return ask


# ---- OpenAI Agents SDK


def run_agent(
    url: str,
    turns: Sequence[Any],
    *,
    responses: bool,
    streamed: bool,
    tools: Iterable[Tool] = (),
    output: type[Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> Any:
    """A run from its first question to its final answer."""
    from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner
    from agents.model_settings import ModelSettings

    async def run() -> Any:
        async with AsyncOpenAI(base_url=url, api_key="test", max_retries=0, timeout=20) as client:
            kind = OpenAIResponsesModel if responses else OpenAIChatCompletionsModel
            agent: Agent[Any] = Agent(
                name="助手",
                instructions="简短回答。",
                model=kind(model="m", openai_client=client),
                tools=list(tools),
                output_type=output,
                model_settings=ModelSettings(extra_body=extra or None, include_usage=True),
            )
            config = RunConfig(tracing_disabled=True)
            if not streamed:
                return await Runner.run(agent, _turns(turns), run_config=config)
            result = Runner.run_streamed(agent, _turns(turns), run_config=config)
            async for _ in result.stream_events():
                pass
            return result

    return asyncio.run(run())


def agent_said(result: Any) -> Any:
    """All that a run brought, the ids of the answers apart."""
    items = [dict(item.to_input_item()) for item in result.new_items]
    for item in items:
        item["provider_data"] = (item.get("provider_data") or {}) | {"response_id": ""}
    usage = result.context_wrapper.usage
    return [items, usage.requests, usage.input_tokens, usage.output_tokens]


def _agents(responses: bool, streamed: bool) -> Callable[[str, Sequence[Any], bool, dict[str, Any]], Got]:
    def ask(url: str, turns: Sequence[Any], tools: bool, extra: dict[str, Any]) -> Got:
        assert not tools, "an agent runs its tools: see run_agent"
        result = run_agent(url, turns, responses=responses, streamed=streamed, extra=extra)
        return Got(result.final_output, None, [], agent_said(result), [i.to_input_item() for i in result.new_items])

    return ask


def errors(client: str) -> Any:
    """The module whose errors a client raises."""
    return importlib.import_module("anthropic" if client == "anthropic" else "openai")


def agents_errors() -> tuple[type[Exception], ...]:
    """What the Agents SDK makes of an answer that did not end well, or that is a refusal."""
    from agents import ModelBehaviorError, ModelRefusalError

    return ModelBehaviorError, ModelRefusalError


def langchain_refusal() -> type[Exception]:
    """What LangChain raises for a refusal where it was to parse an answer."""
    from langchain_openai.chat_models.base import OpenAIRefusalError

    return OpenAIRefusalError


WAYS = [
    Way("openai", "chat", "plain", _chat_plain),
    Way("openai", "chat", "chunks", _chat_chunks),
    Way("openai", "chat", "stream", _chat_helper),
    Way("openai", "completions", "plain", _completions_plain),
    Way("openai", "completions", "chunks", _completions_chunks),
    Way("openai", "responses", "plain", _responses_plain),
    Way("openai", "responses", "events", _responses_events),
    Way("openai", "responses", "stream", _responses_helper),
    Way("anthropic", "messages", "plain", _messages_plain),
    Way("anthropic", "messages", "events", _messages_events),
    Way("anthropic", "messages", "stream", _messages_helper),
    *(
        Way("langchain", api, how, _langchain(api == "responses", how == "stream"))
        for api in ("chat", "responses")
        for how in ("plain", "stream")
    ),
    *(
        Way("agents", api, how, _agents(api == "responses", how == "stream"))
        for api in ("chat", "responses")
        for how in ("plain", "stream")
    ),
]
