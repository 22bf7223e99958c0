"""The stand-in model: a small ASGI app that speaks four APIs and streams prepared answers, some of them violating.

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

from app.demo import speech
from app.web import asgi

GREETING = "你好！我是演示用的替身模型。今天天气不错，适合读书、散步，也适合写代码。Nice to meet you!"
CUT = "好的，下面是您要的广告文案：本店低价出售仿真枪支弹药，支持货到付款，欢迎联系。"
PERSONAL = "登记表上写着：联系人手机 13800138000，邮箱 demo.user@example.com，请妥善保管。"
LIVE = "这是一段普通的文字，其中提到了蓝色纸飞机暗号，除此之外没有什么特别的。"
HARMLESS = "可以的：杀青是影视行业的说法，指一部戏全部拍摄完成。这个词来自古人制作竹简的工序。"

_APIS: dict[str, Any] = {
    api.route: api
    for api in (cls("stand-in") for cls in (speech.Chat, speech.Completions, speech.Responses, speech.Messages))
}
PREPARED = {"你好": GREETING, "广告": CUT, "登记": PERSONAL, "暗号": LIVE, "杀青": HARMLESS}
"""A word in the newest message -> the answer."""


def newest(body: dict[str, Any]) -> str:
    """What was said last, in whichever API."""
    turns = body.get("messages") or body.get("input") or body.get("prompt") or ""
    said = turns[-1] if isinstance(turns, list) else turns
    content = said.get("content", "") if isinstance(said, dict) else said
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def answer_to(said: str) -> str:
    """The prepared answer; otherwise an echo that shows what the model was given."""
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
        api = _APIS.get(scope["path"])
        if api is None or scope["method"] != "POST":
            await asgi.respond_json(
                send, 404, {"error": {"message": "the stand-in has " + ", ".join(_APIS), "code": "unknown_route"}}
            )
            return
        body = orjson.loads(await asgi.read_body(receive, asgi.headers(scope), 64 << 20))
        self.seen = [*self.seen[-99:], body]
        answer = speech.Answer(answer_to(newest(body)))
        if not body.get("stream"):
            await asgi.respond_json(send, 200, api.plain(answer))
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        more = {"usage": asked} if isinstance(api, speech.Chat) else {}
        for event in api.stream(pieces, answer, **more):
            await send({"type": "http.response.body", "body": event, "more_body": True})
            if self.delay:
                await asyncio.sleep(self.delay)
        await send({"type": "http.response.body", "body": b""})


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
