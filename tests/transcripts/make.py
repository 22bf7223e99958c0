"""Writes the transcripts: what the real clients send, word for word, and what a model's server answers.

The clients talk to the scripted model through a pass-through that keeps both sides. One file per dialect and case:
`{"request": the body as it was sent, "status": …, "stream": [events as text] or null, "answer": body or null}`.
Run `python -m tests.transcripts.make` after a client changes what it sends; tests/contract/test_dialects.py reads them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic import RateLimitError as AnthropicLimit
from openai import RateLimitError as OpenAILimit

from app import dialects
from app.demo.speech import Answer
from app.web import asgi
from tests.clients import CHAT_TOOLS, MESSAGES_TOOLS, RESPONSES_TOOLS, Weather, anthropic, call, openai
from tests.conftest import Model, Script, served

HERE = Path(__file__).parent
TEXT = '今天天气不错，适合散步👍🏽。\n\nThe "river" is calm.'
THOUGHT = "先想一想：多云。"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SIGNATURE = "EqQBCkYIBRgCKkDLk9Qm" * 4
SYSTEM = "你是一位和气的助手。"
USER = "杭州的天气怎样？"
ERROR = {
    "type": "error",
    "error": {"type": "rate_limit_error", "message": "slow down, please", "code": "busy", "param": None},
}
DIRECT = Answer(TEXT, THOUGHT)
CALLING = Answer("我来查。", THOUGHT, (call('晴 "好"\n'), call("阴", "北京", "call_2")))
FORMED = Answer('{"city": "杭州", "note": "晴 \\"好\\"\\n\\u597d"}')


class Recorder:
    """The pass-through: an ASGI app."""

    def __init__(self, url: str) -> None:
        self._url = url.removesuffix("/v1")
        self.kept: list[dict[str, Any]] = []

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        raw = await asgi.read_body(receive, asgi.headers(scope), 1 << 20)
        async with httpx.AsyncClient() as client:
            reply = await client.post(self._url + scope["path"], content=raw)
        kind = reply.headers["content-type"]
        streamed = kind.startswith("text/event-stream")
        self.kept.append(
            {
                "request": json.loads(raw),
                "status": reply.status_code,
                "stream": [e for e in reply.text.split("\n\n") if e] if streamed else None,
                "answer": None if streamed else reply.json(),
            }
        )
        await asgi.respond(send, reply.status_code, reply.content, kind=kind.encode())


def _user(content: Any = USER) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _drain(stream: Any) -> None:
    with stream as events:
        for _ in events:
            pass


# ---- what is asked: case -> (what the model says, None for an error, how it is asked)

Case = tuple[Answer | None, Callable[[str], Any]]


def _chat() -> dict[str, Case]:
    def create(url: str, *messages: Any, **more: Any) -> Any:
        return openai(url).chat.completions.create(model="m", messages=list(messages), **more)

    system: Any = {"role": "system", "content": SYSTEM, "name": "规则"}
    parts = [
        {"type": "text", "text": "请看这张图："},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        {"type": "text", "text": "图上是什么？"},
    ]
    tool = CHAT_TOOLS[0]["function"]
    called: Any = {
        "role": "assistant", "content": "我来查。",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": tool["name"], "arguments": call("晴").arguments}}],
    }  # fmt: skip
    result: Any = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "杭州：多云，20 度"}]}
    return {
        "plain": (DIRECT, lambda u: create(u, system, _user(), temperature=0.5, stop=["再见。"], user="u-1", max_completion_tokens=99)),
        "streamed": (DIRECT, lambda u: _drain(create(u, system, _user(), stream=True, stream_options={"include_usage": True}))),
        "tool-stream": (CALLING, lambda u: _drain(create(u, _user(), stream=True, tools=CHAT_TOOLS, tool_choice="auto"))),
        "structured": (FORMED, lambda u: openai(u).chat.completions.parse(model="m", messages=[_user()], response_format=Weather)),  # type: ignore[list-item]
        "structured-stream": (FORMED, lambda u: openai(u).chat.completions.stream(
            model="m", messages=[_user()], response_format=Weather).__enter__().until_done()),  # type: ignore[list-item]
        "parts": (DIRECT, lambda u: create(u, _user(parts))),
        "tool-result": (DIRECT, lambda u: create(u, _user(), called, result, tools=CHAT_TOOLS, parallel_tool_calls=False)),
        "error": (None, lambda u: create(u, _user())),
    }  # fmt: skip


def _completions() -> dict[str, Case]:
    def create(url: str, prompt: Any, **more: Any) -> Any:
        return openai(url).completions.create(model="m", prompt=prompt, **more)

    said = Answer(TEXT)
    form = {"response_format": {"type": "json_object"}}
    return {
        "plain": (said, lambda u: create(u, USER, max_tokens=99, stop=["再见。"], suffix="……完。")),
        "streamed": (said, lambda u: _drain(create(u, USER, stream=True))),
        "structured": (FORMED, lambda u: create(u, "请用 JSON 回答。", extra_body=form)),
        "parts": (said, lambda u: create(u, ["第一个问题？", "第二个问题？"])),
        "error": (None, lambda u: create(u, USER)),
    }


def _responses() -> dict[str, Case]:
    def create(url: str, given: Any, **more: Any) -> Any:
        return openai(url).responses.create(model="m", input=given, store=False, **more)

    parts = [
        {"type": "input_text", "text": "请看这张图："},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "low"},
        {"type": "input_text", "text": "图上是什么？"},
    ]
    turns = [
        _user(),
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "要查天气。"}], "encrypted_content": SIGNATURE},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "我来查。", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look_up",
         "arguments": call("晴").arguments, "status": "completed"},
        {"type": "function_call_output", "call_id": "call_1", "output": "杭州：多云，20 度"},
    ]  # fmt: skip
    return {
        "plain": (DIRECT, lambda u: create(u, USER, instructions=SYSTEM, max_output_tokens=99, metadata={"topic": "天气与出行"})),
        "streamed": (DIRECT, lambda u: _drain(create(u, [_user()], instructions=SYSTEM, stream=True))),
        "tool-stream": (CALLING, lambda u: _drain(create(u, USER, stream=True, tools=RESPONSES_TOOLS, tool_choice="auto"))),
        "structured": (FORMED, lambda u: openai(u).responses.parse(model="m", input=USER, text_format=Weather)),
        "structured-stream": (FORMED, lambda u: openai(u).responses.stream(
            model="m", input=USER, text_format=Weather).__enter__().until_done()),
        "parts": (DIRECT, lambda u: create(u, [_user(parts)])),
        "tool-result": (DIRECT, lambda u: create(u, turns, tools=RESPONSES_TOOLS, parallel_tool_calls=False)),
        "error": (None, lambda u: create(u, USER)),
    }  # fmt: skip


def _messages() -> dict[str, Case]:
    def create(url: str, *messages: Any, **more: Any) -> Any:
        return anthropic(url).messages.create(model="m", max_tokens=99, messages=list(messages), **more)

    system = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    parts = [
        {"type": "text", "text": "请看这张图和这份文件："},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "document", "title": "一份说明", "source": {"type": "text", "media_type": "text/plain", "data": "文件里的话。"}},
        {"type": "text", "text": "说的是什么？"},
    ]  # fmt: skip
    called = [
        {"type": "thinking", "thinking": "要查天气。", "signature": SIGNATURE},
        {"type": "text", "text": "我来查。"},
        {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {"city": "杭州", "note": "晴"}},
    ]
    result = [
        {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "杭州：多云，20 度"}], "is_error": False},
    ]  # fmt: skip
    turns: list[Any] = [_user(), {"role": "assistant", "content": called}, _user(result)]
    return {
        "plain": (DIRECT, lambda u: create(u, _user(), system=SYSTEM, stop_sequences=["再见。"], metadata={"user_id": "u-1"})),
        "streamed": (DIRECT, lambda u: _drain(create(u, _user(), system=system, stream=True))),
        "tool-stream": (CALLING, lambda u: _drain(create(u, _user(), stream=True, tools=MESSAGES_TOOLS, tool_choice={"type": "auto"}))),
        "structured": (FORMED, lambda u: anthropic(u).messages.parse(
            model="m", max_tokens=99, messages=[_user()], output_format=Weather)),  # type: ignore[list-item]
        "structured-stream": (FORMED, lambda u: anthropic(u).messages.stream(
            model="m", max_tokens=99, messages=[_user()], output_format=Weather).__enter__().until_done()),  # type: ignore[list-item]
        "parts": (DIRECT, lambda u: create(u, _user(parts))),
        "tool-result": (DIRECT, lambda u: create(u, *turns, tools=MESSAGES_TOOLS)),
        "error": (None, lambda u: create(u, _user())),
    }  # fmt: skip


CASES = {
    "openai_chat": _chat, "openai_completions": _completions, "openai_responses": _responses, "anthropic_messages": _messages,
}  # fmt: skip


def main() -> None:
    assert set(CASES) == {d.name for d in dialects.shipped()}
    for old in HERE.glob("*.json"):
        old.unlink()
    script = Script()
    script.cut = lambda text: [text[i : i + 5] for i in range(0, len(text), 5)]
    with served(script) as port:
        recorder = Recorder(Model(script, port).url)
        with served(recorder) as own:
            for name, cases in CASES.items():
                for case, (answer, ask) in cases().items():
                    script.reply = None if answer is None else (lambda path, body, said=answer: said)
                    script.plain = (429, {}, json.dumps(ERROR).encode())
                    with contextlib.nullcontext() if answer else pytest.raises((OpenAILimit, AnthropicLimit)):
                        ask(f"http://127.0.0.1:{own}/v1")
                    text = json.dumps(recorder.kept.pop(), ensure_ascii=False, indent=1)
                    (HERE / f"{name}-{case}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
