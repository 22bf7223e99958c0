"""The stand-in model: a small OpenAI-compatible ASGI app that streams prepared answers, some of them violating.

Law: it is honest about being a stand-in (model `stand-in`), keeps nothing, and knows only what DEMO and a few scripted
faults tell it. Run: `python -m app.demo.model --port 8000`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

import orjson
import uvicorn

from app.web import asgi

GREETING = "你好！我是演示用的替身模型。今天天气不错，适合读书、散步，也适合写代码。Nice to meet you!"
CUT = "好的，下面是您要的广告文案：本店低价出售仿真枪支弹药，支持货到付款，欢迎联系。"
PERSONAL = "登记表上写着：联系人手机 13800138000，邮箱 demo.user@example.com，请妥善保管。"
LIVE = "这是一段普通的文字，其中提到了蓝色纸飞机暗号，除此之外没有什么特别的。"
HARMLESS = "可以的：杀青是影视行业的说法，指一部戏全部拍摄完成。这个词来自古人制作竹简的工序。"

PREPARED = {"你好": GREETING, "广告": CUT, "登记": PERSONAL, "暗号": LIVE, "杀青": HARMLESS}
"""A word in the newest message -> the answer."""


def answer_to(messages: list[Any]) -> str:
    """The prepared answer for the newest message; otherwise an echo that shows what the model was given."""
    said = str(messages[-1].get("content", "")) if messages and isinstance(messages[-1], dict) else ""
    return next((text for word, text in PREPARED.items() if word in said), f"您说的是：{said}")


def pieces(text: str, size: int = 2) -> list[str]:
    """The deltas of a stream: `size` characters each."""
    return [text[i : i + size] for i in range(0, len(text), size)]


class Model:
    """The ASGI app. `delay`: seconds between deltas."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/v1/models":
            await asgi.respond_json(
                send,
                200,
                {"object": "list", "data": [{"id": "stand-in", "object": "model", "created": 0, "owned_by": "sluice"}]},
            )
            return
        if scope["path"] not in ("/v1/chat/completions", "/v1/completions") or scope["method"] != "POST":
            await asgi.respond_json(
                send, 404, {"error": {"message": "the stand-in has chat and completions", "code": "unknown_route"}}
            )
            return
        body = orjson.loads(await asgi.read_body(receive, asgi.headers(scope), 64 << 20))
        self.seen = [*self.seen[-99:], body]
        chat = scope["path"] == "/v1/chat/completions"
        text = answer_to(body["messages"]) if chat else answer_to([{"content": body.get("prompt")}])
        base = {"id": "standin-1", "created": 0, "model": "stand-in", "system_fingerprint": "fp_standin"}
        if body.get("stream"):
            await self._stream(send, base, text, chat, bool((body.get("stream_options") or {}).get("include_usage")))
        else:
            message = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            usage = {"prompt_tokens": 1, "completion_tokens": len(text), "total_tokens": 1 + len(text)}
            choice = {"index": 0, **message, "finish_reason": "stop", "logprobs": None}
            await asgi.respond_json(
                send,
                200,
                base
                | {"object": "chat.completion" if chat else "text_completion", "choices": [choice], "usage": usage},
            )

    async def _stream(self, send: asgi.Send, base: dict[str, Any], text: str, chat: bool, usage: bool) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        base = base | {"object": "chat.completion.chunk" if chat else "text_completion"}

        async def event(choices: list[Any], **more: Any) -> None:
            data = orjson.dumps(base | {"choices": choices} | more)
            await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})
            if self.delay:
                await asyncio.sleep(self.delay)

        def choice(piece: str | None, finish: str | None) -> list[Any]:
            said = {"delta": {"content": piece} if piece is not None else {}} if chat else {"text": piece or ""}
            return [{"index": 0, **said, "finish_reason": finish, "logprobs": None}]

        if chat:
            await event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for piece in pieces(text):
            await event(choice(piece, None))
        await event(choice(None, "stop"))
        if usage:
            await event([], usage={"prompt_tokens": 1, "completion_tokens": len(text), "total_tokens": 1 + len(text)})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def main() -> None:
    p = argparse.ArgumentParser(description="the stand-in model of the demo")
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--port", type=int, default=8000)
    p.add_argument("--delay", type=float, default=0.0)
    args = p.parse_args()
    os.umask(0o077)
    uvicorn.run(
        Model(args.delay), host=args.host, port=args.port, lifespan="off", log_level="warning", access_log=False
    )


if __name__ == "__main__":
    main()
