"""The straight path: body -> prompt -> judge -> upstream -> answer, whole or streamed -> judge -> client.

Law: the same lines for every dialect. What goes upstream and what comes back is built from what was screened. An error
before the answer began is an error of the dialect; one in mid-stream is an error event and a broken transfer, never a
clean end. The journal and the metrics never delay the client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from app import metrics, sse, strictjson, surrogate
from app.apps import Apps
from app.dialects import Dialect, Key, Prompt, put
from app.errors import RequestError, UpstreamError
from app.journal import Journal
from app.keys import Keys, Receipt, decision_id, decision_tail
from app.moderation import Moderator
from app.outbound import Reply
from app.types import Action, Path, Scope, Slot, Verdict
from app.upstream import ANSWER_MAX, Upstream
from app.web import asgi
from app.web.exchange import VISIBLE, Exchange
from app.web.stream import Stream

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_SHOWN_ID = re.compile(r"slc_[a-z2-7]{26}")
SLOTS_MAX = 16_384
"""Texts in one request at most: each costs a screening, however short it is."""


class Proxy:
    """The ASGI app of one dialect's route."""

    def __init__(
        self, dialect: Dialect, moderator: Moderator, apps: Apps, keys: Keys, upstream: Upstream, journal: Journal
    ) -> None:
        self._dialect, self._moderator, self._apps = dialect, moderator, apps
        self._keys, self._upstream, self._journal = keys, upstream, journal

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        head = asgi.headers(scope)
        x: Exchange | None = None
        metrics.INFLIGHT.inc()
        try:
            if scope["method"] != "POST":
                raise RequestError("this route takes POST", code="method_not_allowed", status=405)
            app = self._apps.identify(head)
            policy = self._moderator.policies.of(app.policy)
            x = Exchange(app, policy, head, perf_counter())
            body = await asgi.read_body(receive, head, policy.rules.max_body_bytes)
            x.prompt = self._dialect.prompt(strictjson.loads(body))
            if len(x.prompt.slots) > SLOTS_MAX:
                raise RequestError(f"the request holds more than {SLOTS_MAX} texts", code="too_many_texts")
            async with _watching(receive):
                await self._serve(x, x.prompt, send)
        except RequestError as e:
            if x is not None:
                x.outcome = "refused"
            await self._error(send, e.message, e.code, e.param, e.status, x)
        except UpstreamError as e:
            assert x is not None
            x.outcome = e.code
            metrics.UPSTREAM_ERRORS.labels(e.code).inc()
            await self._error(send, e.message, e.code, None, e.status, x)
        except asgi.Disconnected:
            if x is None or not x.ended:
                metrics.DISCONNECTS.inc()
            if x is not None and not x.ended:
                x.outcome = "disconnected"
        finally:
            metrics.INFLIGHT.dec()
            if x is not None and x.prompt is not None:
                self._account(x, x.prompt)

    async def _error(
        self, send: asgi.Send, message: str, code: str, param: str | None, status: int, x: Exchange | None
    ) -> None:
        head = x.head() if x is not None and x.decision else []
        if status == 405:
            head.append((b"allow", b"POST"))
        await asgi.respond_json(send, status, self._dialect.error(message, code, param, status), head)

    # ---- the prompt

    async def _serve(self, x: Exchange, prompt: Prompt, send: asgi.Send) -> None:
        scope = Scope(x.app.id, "prompt")
        x.language = surrogate.language(prompt.slots)
        x.judged = await self._moderator.judge(prompt.slots, scope, x.policy)
        if x.judged.verdict.degraded and x.policy.degraded("prompt") is None:
            raise RequestError("moderation is unavailable; try again", code="moderation_unavailable", status=503)
        refused = self._settle_prompt(x, prompt)
        if refused is not None:
            await self._refuse(x, prompt, refused, send)
            return
        x.decision = decision_id()
        x.receipt = Receipt(self._keys, x.decision, x.app.id)
        reply = await self._upstream.send("POST", self._dialect.route, x.headers, strictjson.dumps(prompt.body))
        try:
            if reply.status != 200:
                await self._upstream_error(x, reply, send)
            elif prompt.stream:
                await self._stream(x, prompt, reply, send)
            else:
                await self._plain(x, prompt, reply, send)
        finally:
            reply.close()

    def _settle_prompt(self, x: Exchange, prompt: Prompt) -> Slot | None:
        """Put masks and notes into the body; return the slot to refuse for, if any.

        A message that was refused before, and an older answer of the model, never refuse the next turn: a note stands
        for them upstream.
        """
        judged = x.judged
        if judged.verdict.action < Action.MASK:
            return None
        shown = {
            decision_tail(m)
            for s in prompt.slots
            if s.origin == "assistant" and s.age
            for m in _SHOWN_ID.findall(s.text)
        }
        fresh: list[tuple[Slot, Verdict]] = []
        for slot, verdict, text in zip(prompt.slots, judged.slot_verdicts, judged.delivered, strict=True):
            key = isinstance(slot.path[-1], Key)
            if verdict.action.stops:
                old = slot.origin == "assistant" or self._keys.refusal.known(x.app.id, slot.text, shown)
                if slot.age and old and not key:
                    put(prompt.body, slot.path, surrogate.NOTE)
                    x.noted += 1
                    continue
                fresh.append((slot, verdict))
            elif text != slot.text:
                if key:
                    raise RequestError(
                        "a field name holds what policy masks; rename it",
                        code="content_filter",
                        param=None if isinstance(slot.path[0], Key) else str(slot.path[0]),
                    )
                put(prompt.body, slot.path, text)
        if fresh:
            slot, worst = max(fresh, key=lambda f: f[1].action)
            for other, _ in fresh:
                if other is not slot:
                    self._keys.refusal.remember(x.app.id, other.text)
        elif x.noted:
            # What was refused in its own turn does not colour this one.
            rest = [v for v in judged.slot_verdicts if not v.action.stops]
            worst = max(rest, key=lambda v: v.action, default=Verdict())
        else:
            return None
        judged.verdict.action, judged.verdict.category, judged.verdict.clause = (
            worst.action,
            worst.category,
            worst.clause,
        )
        return slot if fresh else None

    async def _refuse(self, x: Exchange, prompt: Prompt, slot: Slot, send: asgi.Send) -> None:
        verdict = x.judged.verdict
        x.decision = self._keys.refusal.decision(x.app.id, slot.text)
        shown = x.shown(verdict)
        x.outcome = "prompt_refused"
        if x.policy.rules.blocked_as == "error" and verdict.action is Action.BLOCK:
            await self._error(send, shown.text, "content_filter", None, 400, x)
            return
        x.receipt = Receipt(self._keys, x.decision, x.app.id)
        for choice in range(prompt.choices):
            x.deliver(choice, shown.text)
        if not prompt.stream:
            body = self._dialect.answer(prompt, shown)
            x.seal(body, verdict.action)
            await asgi.respond_json(send, 200, body, x.head())
            return
        await _start_stream(send, x)
        opening = self._dialect.opening(prompt) | {"id": x.decision}
        events = [e for n in range(prompt.choices) for e in self._dialect.ending(opening, n, shown, begun=False)]
        x.seal(events[-1], verdict.action)
        out = b"".join(sse.write(strictjson.dumps(event)) for event in events)
        await send({"type": "http.response.body", "body": out + sse.write(b"[DONE]")})

    # ---- the answer, whole

    async def _plain(self, x: Exchange, prompt: Prompt, reply: Reply, send: asgi.Send) -> None:
        raw = await reply.read(ANSWER_MAX)
        try:
            body = strictjson.loads_upstream(raw)
        except ValueError:
            raise UpstreamError("the model's answer is not JSON", code="upstream_protocol_error") from None
        if not isinstance(body, dict):
            raise UpstreamError("the model's answer is not an object", code="upstream_protocol_error")
        if body.get("error"):
            raise UpstreamError("the model reported an error", code="upstream_error")
        texts = self._dialect.texts(body, prompt)
        slots = [Slot(t.path, t.text, "assistant") for t in texts]
        judged = await self._moderator.judge(slots, x.scope, x.policy)
        x.answer = judged.verdict
        x.screened = x.released = judged.screened
        self._unavailable(x)
        stopped: dict[int, Verdict] = {}
        masked: set[int] = set()
        for delta, verdict, text in zip(texts, judged.slot_verdicts, judged.delivered, strict=True):
            if verdict.action.stops:
                worst = stopped.get(delta.choice)
                if worst is None or verdict.action > worst.action:
                    stopped[delta.choice] = verdict
            elif text != delta.text:
                put(body, delta.path, text)
                masked.add(delta.choice)
        for choice, tokens in self._dialect.tokens(body):
            if not prompt.tokens or choice in masked or await self._objectionable(x, tokens):
                self._dialect.without_tokens(body, choice)
        for choice, verdict in stopped.items():
            self._dialect.stop(body, choice, x.shown(verdict))
        if stopped and x.policy.rules.blocked_as == "error" and x.answer.action is Action.BLOCK:
            x.released = 0
            await self._error(send, x.shown(x.answer).text, "content_filter", None, 400, x)
            return
        for delta in self._dialect.texts(body, prompt):
            if delta.channel == VISIBLE:
                x.deliver(delta.choice, _text_at(body, delta.path))
        x.seal(body, x.answer.action)
        head = x.head()
        head[1] = (b"x-sluice-action", max(x.answer.action, x.judged.verdict.action).word.encode())
        x.first = perf_counter()
        await asgi.respond_json(send, 200, body, head)

    def _unavailable(self, x: Exchange) -> None:
        if x.answer.degraded and x.policy.degraded("answer") is None:
            raise RequestError("moderation is unavailable; try again", code="moderation_unavailable", status=503)

    async def _objectionable(self, x: Exchange, text: str) -> bool:
        """True unless `text`, of the model but no part of its answer, passes without a word."""
        judged = await self._moderator.judge([Slot((), text, "assistant")], x.scope, x.policy)
        return judged.verdict.action > Action.PASS or bool(judged.verdict.degraded)

    async def _upstream_error(self, x: Exchange, reply: Reply, send: asgi.Send) -> None:
        """The model's own error, its status kept; its words only if they pass the screen themselves."""
        x.outcome = "upstream_status"
        metrics.UPSTREAM_ERRORS.labels("upstream_status").inc()
        message, code = f"the model answered with HTTP {reply.status}", "upstream_error"
        try:
            body = strictjson.loads_upstream(await reply.read(1 << 16))
            theirs = body["error"]["message"] if isinstance(body["error"], dict) else body["error"]
            if not await self._objectionable(x, str(theirs)[:2000]):
                message = str(theirs)[:2000]
                if isinstance(body["error"], dict) and _CODE.match(str(body["error"].get("code"))):
                    code = str(body["error"]["code"])
        except (ValueError, KeyError, TypeError, UpstreamError):
            pass
        head = x.head()
        if retry := reply.headers.get("retry-after"):
            head.append((b"retry-after", retry.encode("latin-1", "replace")[:64]))
        status = reply.status if 400 <= reply.status < 600 else 502
        await asgi.respond_json(send, status, self._dialect.error(message, code, None, status), head)

    # ---- the answer, streamed

    async def _stream(self, x: Exchange, prompt: Prompt, reply: Reply, send: asgi.Send) -> None:
        if not reply.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise UpstreamError("the model did not answer with an event stream", code="upstream_protocol_error")
        stream = Stream(self._moderator, self._dialect, x, prompt)
        begun = False
        try:
            parser = sse.Parser()
            async for chunk in reply.chunks():
                out = stream.feed(parser.feed(chunk))
                if out:
                    if not begun:
                        await _start_stream(send, x)
                        begun = True
                        x.first = perf_counter()
                    await send({"type": "http.response.body", "body": out, "more_body": True})
                if stream.over:
                    break
            if not stream.over and (parser.pending or not stream.complete):
                raise UpstreamError("the model's stream ended in the middle", code="upstream_reset")
            if not begun:
                await _start_stream(send, x)
            await send({"type": "http.response.body", "body": stream.close()})
            x.ended = True
            if not stream.stopped:
                await reply.drain()
        except (UpstreamError, sse.TooLarge) as e:
            error = e if isinstance(e, UpstreamError) else UpstreamError(str(e), code="upstream_protocol_error")
            if not begun:
                raise error from None
            x.outcome = error.code
            metrics.UPSTREAM_ERRORS.labels(error.code).inc()
            event = self._dialect.error(error.message, error.code, None, error.status)
            # No final message follows: the server then breaks the transfer off, so that no client takes it for an end.
            await send({"type": "http.response.body", "body": sse.write(strictjson.dumps(event)), "more_body": True})
        finally:
            stream.account()

    # ---- afterwards

    def _account(self, x: Exchange, prompt: Prompt) -> None:
        mode = "stream" if prompt.stream else "plain"
        metrics.REQUESTS.labels(self._dialect.name, mode, x.outcome).inc()
        if x.first is not None:
            metrics.SECONDS.labels(self._dialect.name).observe(x.first - x.started)
        for direction, verdict in (("prompt", x.judged.verdict), ("answer", x.answer)):
            for name in verdict.degraded:
                metrics.DEGRADED.labels(name, direction).inc()
            if verdict.action > Action.PASS:
                metrics.ACTIONS.labels(direction, verdict.action.word, verdict.category or "-").inc()
            for f in verdict.findings:
                if f.shadow:
                    metrics.SHADOW.labels(direction, f.action.word, f.category).inc()
        if x.screened:
            metrics.SCREENED.inc(x.screened)
            metrics.RELEASED.inc(x.released)
            metrics.HELD.observe(x.held_max)
        self._journal.record(
            {
                "decision": x.decision or None,
                "app": x.app.id,
                "dialect": self._dialect.name,
                "mode": mode,
                "outcome": x.outcome,
                "policy": x.policy.version,
                "profile": x.policy.profile,
                "noted": x.noted,
                "prompt": _journalled(x.judged.verdict),
                "answer": _journalled(x.answer),
                "screened": x.screened,
                "released": x.released,
                "held_max": x.held_max,
                "ms": round((perf_counter() - x.started) * 1000, 2),
            }
        )


def _text_at(body: Any, path: Path) -> str:
    for key in path:
        body = body[key]
    return str(body)


def _journalled(verdict: Verdict) -> dict[str, Any]:
    return {
        "action": verdict.action.word,
        "category": verdict.category,
        "clause": verdict.clause,
        "degraded": verdict.degraded,
        "findings": [
            {
                "category": f.category,
                "rule": f.rule,
                "technique": f.technique,
                "start": f.start,
                "end": f.end,
                "action": f.action.word,
                "shadow": f.shadow,
            }
            for f in verdict.findings[:50]
        ],
    }


@asynccontextmanager
async def _watching(receive: asgi.Receive) -> AsyncIterator[None]:
    """While the block runs, a client that leaves cancels it: the model is stopped at once. Raises Disconnected."""
    task = asyncio.current_task()
    assert task is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise asgi.Disconnected from None
    finally:
        watcher.cancel()


async def _start_stream(send: asgi.Send, x: Exchange) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
                *x.head(),
            ],
        }
    )
