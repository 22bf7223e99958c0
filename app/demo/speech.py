"""How an answer looks in each API, whole and as a stream: what a model's server writes.

Law: independent of app/dialects, which reads it: neither takes a word from the other. No text of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

Cut = Callable[[str], Sequence[str]]
"""A text in the deltas of a stream."""


@dataclass(frozen=True)
class Call:
    """A call of a tool; `arguments` is a JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """What a model says."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()

    @property
    def tokens(self) -> int:
        return len(self.text) + len(self.reasoning) + sum(len(c.arguments) for c in self.calls)


def _event(data: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + orjson.dumps(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class _Api:
    """An API of the model named `model`."""

    model: str = "m"


class Chat(_Api):
    """/v1/chat/completions"""

    route = "/v1/chat/completions"

    def ask(self, *said: str, **more: Any) -> dict[str, Any]:
        """A request: turns of a user and an assistant."""
        return {"model": self.model, "messages": _turns(said), **more}

    def plain(self, *answers: Answer) -> dict[str, Any]:
        return self._envelope("chat.completion") | {
            "choices": [
                {"index": i, "message": self._message(a), "logprobs": None, "finish_reason": self._finish(a)}
                for i, a in enumerate(answers)
            ],
            "usage": _usage(answers, "prompt_tokens", "completion_tokens"),
        }

    def _message(self, a: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": a.text or (None if a.calls else "")}
        if a.reasoning:
            message["reasoning_content"] = a.reasoning
        if a.calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in a.calls
            ]
        return message

    def _finish(self, a: Answer) -> str:
        return "tool_calls" if a.calls else "stop"

    def stream(self, cut: Cut, *answers: Answer, usage: bool = True) -> Iterator[bytes]:
        head = self._envelope("chat.completion.chunk")

        def chunk(i: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": i, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _event(head | {"choices": [choice]})

        queues = [list(self._deltas(cut, a)) for a in answers]
        for n in range(max(map(len, queues))):
            yield from (chunk(i, queue[n]) for i, queue in enumerate(queues) if n < len(queue))
        yield from (chunk(i, {}, self._finish(a)) for i, a in enumerate(answers))
        if usage:
            yield _event(head | {"choices": [], "usage": _usage(answers, "prompt_tokens", "completion_tokens")})
        yield DONE

    def _deltas(self, cut: Cut, a: Answer) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant", "content": ""}
        yield from ({"reasoning_content": piece} for piece in cut(a.reasoning))
        yield from ({"content": piece} for piece in cut(a.text))
        for i, c in enumerate(a.calls):
            yield {
                "tool_calls": [
                    {"index": i, "id": c.id, "type": "function", "function": {"name": c.name, "arguments": ""}}
                ]
            }
            yield from ({"tool_calls": [{"index": i, "function": {"arguments": piece}}]} for piece in cut(c.arguments))

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.model, "system_fingerprint": "fp_1"}


class Completions(_Api):
    """/v1/completions: text alone"""

    route = "/v1/completions"

    def ask(self, *said: str, **more: Any) -> dict[str, Any]:
        return {"model": self.model, "prompt": said[-1], **more}

    def plain(self, *answers: Answer) -> dict[str, Any]:
        return self._envelope() | {
            "choices": [
                {"index": i, "text": a.text, "logprobs": None, "finish_reason": "stop"} for i, a in enumerate(answers)
            ],
            "usage": _usage(answers, "prompt_tokens", "completion_tokens"),
        }

    def stream(self, cut: Cut, *answers: Answer) -> Iterator[bytes]:
        for i, a in enumerate(answers):
            for piece, finish in [*((p, None) for p in cut(a.text)), ("", "stop")]:
                choice = {"index": i, "text": piece, "logprobs": None, "finish_reason": finish}
                yield _event(self._envelope() | {"choices": [choice]})
        yield DONE

    def _envelope(self) -> dict[str, Any]:
        return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": self.model}


class Responses(_Api):
    """/v1/responses"""

    route = "/v1/responses"

    def ask(self, *said: str, **more: Any) -> dict[str, Any]:
        return {"model": self.model, "input": said[0] if len(said) == 1 else _turns(said), **more}

    def plain(self, *answers: Answer) -> dict[str, Any]:
        (a,) = answers
        return self._response("completed", [self._item(kind, i, given) for i, (kind, given) in enumerate(_parts(a))], a)

    def _response(self, status: str, output: list[Any], a: Answer | None = None) -> dict[str, Any]:
        usage = a and {
            "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": a.tokens,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 1 + a.tokens,
        }  # fmt: skip
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "incomplete_details": None,
            "instructions": None, "model": self.model, "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "temperature": 1.0, "top_p": 1.0, "metadata": {}, "previous_response_id": None, "usage": usage,
        }  # fmt: skip

    def _item(self, kind: str, i: int, given: Any) -> dict[str, Any]:
        if kind == "reasoning":
            summary = [{"type": "summary_text", "text": given}]
            return {"type": "reasoning", "id": f"rs_{i}", "summary": summary, "status": "completed"}
        if kind == "call":
            return {"type": "function_call", "id": f"fc_{i}", "call_id": given.id, "name": given.name,
                    "arguments": given.arguments, "status": "completed"}  # fmt: skip
        content = [{"type": "output_text", "text": given, "annotations": [], "logprobs": []}]
        return {"type": "message", "id": f"msg_{i}", "role": "assistant", "content": content, "status": "completed"}

    def stream(self, cut: Cut, *answers: Answer) -> Iterator[bytes]:
        (a,) = answers
        for number, event in enumerate(self._events(cut, a)):
            yield _event(
                event | {"type": f"response.{event['type']}", "sequence_number": number}, f"response.{event['type']}"
            )

    def _events(self, cut: Cut, a: Answer) -> Iterator[dict[str, Any]]:
        yield {"type": "created", "response": self._response("in_progress", [])}
        yield {"type": "in_progress", "response": self._response("in_progress", [])}
        output = []
        for i, (kind, given) in enumerate(_parts(a)):
            item = self._item(kind, i, given)
            output.append(item)
            empty: dict[str, dict[str, Any]] = {
                "reasoning": {"summary": []}, "call": {"arguments": ""}, "text": {"content": []},
            }  # fmt: skip
            yield {
                "type": "output_item.added",
                "output_index": i,
                "item": item | empty[kind] | {"status": "in_progress"},
            }
            place = {"item_id": item["id"], "output_index": i}
            if kind == "call":
                yield from (
                    {"type": "function_call_arguments.delta", **place, "delta": p} for p in cut(given.arguments)
                )
                yield {
                    "type": "function_call_arguments.done",
                    **place,
                    "name": given.name,
                    "arguments": given.arguments,
                }
            else:
                stem, part_stem, index, field = (
                    ("output_text", "content_part", "content_index", "content") if kind == "text"
                    else ("reasoning_summary_text", "reasoning_summary_part", "summary_index", "summary")
                )  # fmt: skip
                part = item[field][0]
                place |= {index: 0}
                more: dict[str, Any] = {"logprobs": []} if kind == "text" else {}
                yield {"type": f"{part_stem}.added", **place, "part": part | {"text": ""}}
                yield from ({"type": f"{stem}.delta", **place, "delta": piece, **more} for piece in cut(given))
                yield {"type": f"{stem}.done", **place, "text": given, **more}
                yield {"type": f"{part_stem}.done", **place, "part": part}
            yield {"type": "output_item.done", "output_index": i, "item": item}
        yield {"type": "completed", "response": self._response("completed", output, a)}


class Messages(_Api):
    """/v1/messages"""

    route = "/v1/messages"

    def ask(self, *said: str, **more: Any) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": 1000, "messages": _turns(said), **more}

    def plain(self, *answers: Answer) -> dict[str, Any]:
        (a,) = answers
        blocks = [self._block(kind, given) for kind, given in _parts(a)]
        return self._message(blocks, self._stop(a), _usage(answers, "input_tokens", "output_tokens"))

    def _message(self, content: list[Any], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": self.model, "content": content, "stop_reason": stop,
            "stop_sequence": None, "usage": {k: v for k, v in usage.items() if k != "total_tokens"},
        }  # fmt: skip

    def _stop(self, a: Answer) -> str:
        return "tool_use" if a.calls else "end_turn"

    def _block(self, kind: str, given: Any) -> dict[str, Any]:
        if kind == "reasoning":
            return {"type": "thinking", "thinking": given, "signature": SIGNATURE}
        if kind == "call":
            return {"type": "tool_use", "id": given.id, "name": given.name, "input": orjson.loads(given.arguments)}
        return {"type": "text", "text": given}

    def stream(self, cut: Cut, *answers: Answer) -> Iterator[bytes]:
        (a,) = answers
        yield from (_event(event, event["type"]) for event in self._events(cut, a))

    def _events(self, cut: Cut, a: Answer) -> Iterator[dict[str, Any]]:
        yield {"type": "message_start", "message": self._message([], None, {"input_tokens": 1, "output_tokens": 1})}
        yield {"type": "ping"}
        for i, (kind, given) in enumerate(_parts(a)):
            block = self._block(kind, given)
            empty: dict[str, dict[str, Any]] = {
                "reasoning": {"thinking": "", "signature": ""}, "call": {"input": {}}, "text": {"text": ""},
            }  # fmt: skip
            yield {"type": "content_block_start", "index": i, "content_block": block | empty[kind]}
            deltas: list[dict[str, Any]] = (
                [{"type": "thinking_delta", "thinking": p} for p in cut(given)] + [{"type": "signature_delta", "signature": SIGNATURE}]
                if kind == "reasoning"
                else [{"type": "input_json_delta", "partial_json": p} for p in ("", *cut(given.arguments))] if kind == "call"
                else [{"type": "text_delta", "text": p} for p in cut(given)]
            )  # fmt: skip
            yield from ({"type": "content_block_delta", "index": i, "delta": delta} for delta in deltas)
            yield {"type": "content_block_stop", "index": i}
        end = {"stop_reason": self._stop(a), "stop_sequence": None}
        yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": a.tokens}}
        yield {"type": "message_stop"}


SIGNATURE = "EqQBCkYIBRgCKkDLk9Qm" * 5
"""What a thought is signed with: nothing that a person reads."""


def _turns(said: Sequence[str]) -> list[Any]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def _usage(answers: Sequence[Answer], given: str, made: str) -> dict[str, Any]:
    tokens = sum(a.tokens for a in answers)
    return {given: 1, made: tokens, "total_tokens": 1 + tokens}


def _parts(a: Answer) -> list[tuple[str, Any]]:
    """The parts of an answer in order."""
    texts = [("reasoning", a.reasoning)] if a.reasoning else []
    texts += [("text", a.text)] if a.text or not a.calls else []
    return [*texts, *(("call", c) for c in a.calls)]


ALL = (Chat(), Completions(), Responses(), Messages())
