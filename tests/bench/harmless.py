"""A guard's server that finds nothing: OpenAI's moderations API, run by uvicorn (`tests.bench.harmless:app`).

Law: every question gets the same whole answer at once, so that what is measured is what asking costs the gateway. `GET /asked` says how
many there were.
"""

from __future__ import annotations

from typing import Any

import orjson

from app.modelfile import GuardFile, read
from app.settings import packaged

NAME = "openai-moderation"


def _answer() -> bytes:
    file = read(packaged("models") / NAME)
    assert isinstance(file, GuardFile)
    result = {
        "flagged": False, "categories": dict.fromkeys(file.labels, False), "category_scores": dict.fromkeys(file.labels, 0.001)
    }  # fmt: skip
    return orjson.dumps({"id": "modr-bench", "model": file.model, "results": [result]})


_ANSWER = _answer()
_asked = 0


async def app(scope: Any, receive: Any, send: Any) -> None:
    global _asked
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    question = scope["method"] == "POST"
    _asked += question
    head = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": _ANSWER if question else orjson.dumps({"asked": _asked})})
