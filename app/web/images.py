"""/v1/images/generations: a prompt is screened, a picture is labelled. Draft Measures, Article 16; Labelling Measures, Articles 4 and 5.
https://platform.openai.com/docs/api-reference/images/create

Law: no picture goes out without its visible mark and its metadata; what it shows is examined by nobody and said to be so. A picture that
comes as an address could not be labelled and is refused. A label that it came with stays: its maker remains named.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from app import clock, images, labels, metrics, strictjson, surrogate
from app.callers import Callers
from app.dialects import Key, Prompt, fields, openai, put
from app.errors import RequestError, UpstreamError
from app.journal import Journal
from app.keys import Keys, Receipt, decision_id
from app.moderation import Moderator
from app.types import Scope, Slot
from app.upstream import Upstream
from app.web import asgi, asked
from app.web.exchange import Exchange
from app.web.record import record
from app.web.words import Words

ROUTE = "/v1/images/generations"
_MOST = 10
"""Pictures of one request."""
_BYTES = 64 << 20
"""Of the model's answer: pictures are large."""
_AT_ONCE = 2
"""Answers that one process labels at a time: each takes a core."""


class Images:
    """The ASGI app of the route."""

    def __init__(
        self, moderator: Moderator, callers: Callers, keys: Keys, upstream: Upstream, journal: Journal, words: Words
    ) -> None:
        self._moderator, self._callers, self._keys = moderator, callers, keys
        self._upstream, self._journal, self._words = upstream, journal, words
        # Of its own: what a client that has left does not wait for is still at work, and the next one waits for that.
        self._threads = ThreadPoolExecutor(_AT_ONCE, "pictures")

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        head = asgi.headers(scope)
        x: Exchange | None = None
        try:
            if scope["method"] != "POST":
                raise RequestError("this route takes POST", code="method_not_allowed", status=405)
            caller = self._callers.admitted(head, asgi.peer(scope))
            x = Exchange(caller, head, perf_counter())
            with self._callers.inside(caller):
                raw = await asgi.read_body(receive, head, caller.policy.rules.max_body_bytes)
                body, x.asked = asked.read(raw, caller.policy)
                x.prompt = _prompt(body, min(_MOST, x.app.limits.choices or _MOST))
                if not x.policy.rules.labels.producer:
                    raise RequestError(
                        "pictures cannot be labelled: the operator sets labels.producer in the policy first (未设置服务提供者编码)",
                        code="labels_not_configured", status=503,
                    )  # fmt: skip
                async with asgi.watching(scope, receive):
                    await self._serve(x, x.prompt, send)
        except RequestError as e:
            if x is not None and x.outcome == "ok":
                x.outcome = "refused"
            more = [(b"allow", b"POST")] if e.status == 405 else asgi.retry(e)
            more = [*(x.head() if x is not None and x.decision else []), *more]
            await asgi.respond_json(send, e.status, openai.error(e.message, e.code, e.param, e.status), more)
        except UpstreamError as e:
            assert x is not None
            x.outcome = e.code
            metrics.UPSTREAM_ERRORS.labels(e.code).inc()
            more = [*(x.head() if x.decision else []), *asgi.later(e)]
            await asgi.respond_json(send, e.status, openai.error(e.message, e.code, None, e.status), more)
        except asgi.Disconnected:
            if x is not None:
                x.outcome = "disconnected"
        finally:
            if x is not None and x.prompt is not None:
                record(x, x.prompt, "openai_images", self._journal)
                self._words.judged(x, x.prompt)

    async def _serve(self, x: Exchange, prompt: Prompt, send: asgi.Send) -> None:
        x.language = surrogate.language(prompt.slots)
        self._words.begin(x, prompt)
        for name in ("unlabelled", "references"):
            if getattr(x.asked, name):
                raise RequestError(
                    f"'sluice.{name}': not for pictures", code="unsupported_parameter", param=f"sluice.{name}"
                )
        x.judged = await self._moderator.judge(prompt.slots, Scope(x.app.id, "prompt"), x.policy)
        if x.judged.verdict.failed and x.policy.degraded("prompt") is None:
            raise RequestError("moderation is unavailable; try again", code="moderation_unavailable", status=503)
        x.decision = decision_id()
        for slot, verdict, text in zip(prompt.slots, x.judged.slot_verdicts, x.judged.delivered, strict=True):
            if verdict.action.stops:
                x.outcome = "prompt_refused"
                if slot.path == ("prompt",):
                    x.decision = self._keys.refusal.decision(x.app.id, slot.text)
                # There is no picture that could stand for a refusal.
                error = openai.error(x.shown(verdict).text, "content_filter", "prompt", 400)
                x.receipt = Receipt(self._keys, x.decision, x.app.id)
                x.seal(error, verdict.action)
                await asgi.respond_json(send, 400, error, x.head(verdict.action))
                return
            if text != slot.text:
                if isinstance(slot.path[-1], Key):
                    raise RequestError("a field name holds what policy masks; rename it", code="content_filter")
                put(prompt.body, slot.path, text)
        x.receipt = Receipt(self._keys, x.decision, x.app.id)
        reply = await self._upstream.send("POST", ROUTE, x.headers, strictjson.dumps(prompt.body))
        try:
            if reply.status != 200:
                x.outcome = "upstream_status"
                metrics.UPSTREAM_ERRORS.labels("upstream_status").inc()
                status = reply.status if 400 <= reply.status < 600 else 502
                message = f"the model answered with HTTP {reply.status}"
                await asgi.respond_json(send, status, openai.error(message, "upstream_error", None, status), x.head())
                return
            raw = await reply.read(_BYTES)
        finally:
            reply.close()
        body = await asyncio.get_running_loop().run_in_executor(self._threads, self._labelled, x, raw, prompt.choices)
        for row in body["data"]:
            if (said := row.pop("revised_prompt", None)) is not None and (
                words := await self._screened(x, said)
            ) is not None:
                row["revised_prompt"] = words
        x.begun, x.first = True, perf_counter()
        x.unexamined(["image"])
        x.labelled = "image"
        x.seal(body, x.answer.action)
        body["sluice"]["label"] = {"mode": "image", "text": x.policy.rules.labels.image, "prepared": None}
        out = await asyncio.to_thread(strictjson.dumps, body)
        await asgi.respond(send, 200, out, x.head(x.answer.action))

    def _labelled(self, x: Exchange, raw: bytes, most: int) -> dict[str, Any]:
        """The answer with every picture labelled. Raises UpstreamError."""
        try:
            given = strictjson.loads_upstream(raw)
            rows = given["data"]
        except (ValueError, KeyError, TypeError):
            rows = None
        if not isinstance(rows, list) or not 0 < len(rows) <= most or not all(isinstance(row, dict) for row in rows):
            raise fields.broken("the model's answer does not hold the pictures that were asked for")
        made = []
        for at, row in enumerate(rows):
            picture = row.get("b64_json")
            if not isinstance(picture, str):
                raise fields.broken("the model gave an address instead of a picture: it cannot be labelled")
            try:
                data = base64.b64decode(picture, validate=True)
            except (binascii.Error, ValueError):
                raise fields.broken("the model's picture is not base64") from None
            marked = self._marked(x, data, f"{x.decision}-{at}")
            one: dict[str, Any] = {"b64_json": base64.b64encode(marked).decode()}
            if isinstance(row.get("revised_prompt"), str):
                one["revised_prompt"] = row["revised_prompt"]
            made.append(one)
        created = given["created"] if isinstance(given.get("created"), int) else int(clock.now())
        body: dict[str, Any] = {"created": created, "data": made}
        named = ("background", "output_format", "quality", "size")
        body |= {k: given[k] for k in named if k in given and fields.plain(given[k])}
        if "usage" in given:
            body["usage"] = fields.counts(given["usage"])
        return body

    def _marked(self, x: Exchange, data: bytes, id: str) -> bytes:
        rule = x.policy.rules.labels
        before = images.read(data)
        if images.bound(data):
            metrics.LABELS.labels("manifest_dropped").inc()
        metrics.LABELS.labels("image").inc()
        return images.marked(data, labels.prepared(rule.producer, id, x.seal_of(id), before), rule.image)

    async def _screened(self, x: Exchange, said: str) -> str | None:
        """The prompt as the model rewrote it, where it may be shown."""
        judged = await self._moderator.judge([Slot(("revised_prompt",), said, "assistant")], x.scope, x.policy)
        x.screened += judged.screened
        x.released += judged.screened
        if judged.verdict.action > x.answer.action:
            x.answer = judged.verdict
        if judged.verdict.action.stops or judged.verdict.failed:
            return None
        x.deliver(0, judged.delivered[0])
        return judged.delivered[0]


def _prompt(body: Any, most: int) -> Prompt:
    """Raises RequestError naming the field."""
    given = fields.request({"model": "default", **body} if isinstance(body, dict) else body)
    if not fields.field(body, "prompt", str, "a string"):
        raise RequestError(
            "'prompt' is required: a non-empty string", code="missing_required_parameter", param="prompt"
        )
    n = fields.field(body, "n", int, f"an integer from 1 to {most}", 1)
    if not 1 <= n <= most:
        raise RequestError(f"'n' must be an integer from 1 to {most}", code="invalid_value", param="n")
    if fields.field(body, "response_format", str, "a string", "b64_json") != "b64_json":
        raise RequestError(
            "'response_format' must be 'b64_json': a picture behind an address could not be labelled",
            code="unsupported_value", param="response_format",
        )  # fmt: skip
    if fields.field(body, "stream", bool, "true or false", False) or body.get("partial_images"):
        raise RequestError(
            "'stream' is not served here: a partial picture has no label", code="unsupported_value", param="stream"
        )
    if body.get("output_format") is not None:
        fields.one_of(body["output_format"], ("png", "jpeg", "webp"), "output_format")
    if str(given["model"]).startswith("dall-e"):
        body["response_format"] = "b64_json"  # it would answer with an address
    slots = [Slot(("prompt",), body["prompt"], "user", message=0), *fields.rest(body, "prompt")]
    return Prompt(body, slots, str(given["model"]), stream=False, choices=n)
