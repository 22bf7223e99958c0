"""/v1/moderations in OpenAI's schema, with our own verdict beside it. https://platform.openai.com/docs/api-reference/moderations"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import strictjson
from app.callers import Callers
from app.dialects import fields, openai
from app.errors import RequestError, UpstreamError
from app.keys import decision_id
from app.moderation import Moderator
from app.taxonomy import taxonomy
from app.types import Action, Scope, Slot, Verdict
from app.web import asgi

OPENAI = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip

INPUTS = 1000
"""Texts of one request at most."""


class Moderations:
    """The ASGI app of the route. Texts are judged as answers: what a published text may say."""

    def __init__(self, moderator: Moderator, callers: Callers) -> None:
        self._moderator, self._callers = moderator, callers

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        try:
            if scope["method"] != "POST":
                raise RequestError("this route takes POST", code="method_not_allowed", status=405)
            head = asgi.headers(scope)
            caller = self._callers.admitted(head, asgi.peer(scope), "moderate")
            app, policy = caller.app, caller.policy
            with self._callers.inside(caller):
                body = strictjson.loads(await asgi.read_body(receive, head, policy.rules.max_body_bytes))
                texts = _inputs(body)
                model = fields.field(body, "model", str, "a string", "sluice")
                results = []
                for text in texts:
                    judged = await self._moderator.judge(
                        [Slot(("input",), text, "assistant")], Scope(app.id, "answer"), policy
                    )
                    results.append(_result(judged.verdict, await self._moderator.scores(text, policy)))
                answer = {"id": decision_id(), "model": model, "results": results}
                await asgi.respond_json(send, 200, answer)
        except RequestError as e:
            more = [(b"allow", b"POST")] if e.status == 405 else asgi.retry(e)
            await asgi.respond_json(send, e.status, openai.error(e.message, e.code, e.param, e.status), more)
        except UpstreamError as e:
            await asgi.respond_json(send, e.status, openai.error(e.message, e.code, None, e.status), asgi.later(e))
        except asgi.Disconnected:
            pass


def _inputs(body: Any) -> list[str]:
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object", code="invalid_type")
    value = body.get("input")
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and len(value) > INPUTS:
        raise RequestError(f"'input' holds more than {INPUTS} texts", code="too_many_inputs", param="input")
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return value
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        # A list of parts is one input.
        parts = [p["text"] for p in value if p.get("type") == "text" and isinstance(p.get("text"), str)]
        if len(parts) == len(value):
            return ["".join(parts)]
        raise RequestError("only parts of type 'text' can be examined", code="unsupported_value", param="input")
    raise RequestError(
        "'input' must be a string, a list of strings or a list of text parts", code="invalid_type", param="input"
    )


def _result(verdict: Verdict, scored: Mapping[str, float]) -> dict[str, Any]:
    """`scored`: what scorers say, category -> probability; a finding that acts counts with its own score."""
    acting = [f for f in verdict.findings if not f.shadow and f.action > Action.PASS]
    own = dict(scored)
    for f in acting:
        own[f.category] = max(f.score, own.get(f.category, 0.0))
    flagged = {name for f in acting for name in taxonomy()[f.category].openai}
    scores: dict[str, float] = dict.fromkeys(OPENAI, 0.0)
    for category, score in own.items():
        for name in taxonomy()[category].openai:
            scores[name] = max(scores[name], score)
    return {
        "flagged": verdict.action > Action.PASS,
        "categories": {name: name in flagged for name in OPENAI},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in OPENAI},
        "sluice": {
            "action": verdict.action.word,
            "categories": verdict.categories,
            "category_scores": {category: round(score, 4) for category, score in sorted(own.items())},
            "findings": [f.public() for f in verdict.findings],
            "degraded": verdict.degraded,
        },
    }
