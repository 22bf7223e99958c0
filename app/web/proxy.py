"""The straight path: body -> prompt -> judge -> upstream -> answer, whole or streamed -> judge -> client.

Law: the same lines for every dialect. What goes upstream and what comes back is built from what was screened. An error
before the answer began is an error of the dialect; one in mid-stream is an error event and a broken transfer, never a
clean end. The journal and the metrics never delay the client.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from app import metrics, sse, strictjson, surrogate
from app.apps import App, Apps
from app.dialects import Delta, Dialect, Prompt, Shown, put
from app.errors import RequestError, UpstreamError
from app.journal import Journal
from app.keys import Keys, Receipt, decision_id, decision_tail
from app.moderation import Judged, Moderator, conclude
from app.outbound import Reply
from app.policy import Policy
from app.streaming import Channel
from app.types import Action, Path, Scope, Slot, Verdict
from app.upstream import ANSWER_MAX, Upstream
from app.web import asgi

log = logging.getLogger("sluice.proxy")

_SHOWN_ID = re.compile(r"slc_[a-z2-7]{26}")
_VISIBLE = ("content",)
"""The channel that a receipt covers: the answer's own text."""


@dataclass(slots=True)
class Exchange:
    """One request on its way: what is known of it so far."""

    app: App
    policy: Policy
    headers: dict[str, str]
    started: float
    decision: str = ""
    language: str = "zh"
    prompt: Prompt | None = None
    judged: Judged = field(default_factory=lambda: Judged(Verdict()))
    answer: Verdict = field(default_factory=Verdict)
    outcome: str = "ok"
    noted: int = 0
    """Messages of the history that a note stands for upstream."""
    first: float | None = None
    screened: int = 0
    released: int = 0
    held_max: int = 0
    receipt: Receipt | None = None

    def head(self) -> asgi.Headers:
        action = self.judged.verdict.action.word.encode()
        return [(b"x-sluice-decision", self.decision.encode()), (b"x-sluice-action", action)]


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
            metrics.DISCONNECTS.inc()
            if x is not None:
                x.outcome = "disconnected"
        finally:
            metrics.INFLIGHT.dec()
            if x is not None and x.prompt is not None:
                self._account(x, x.prompt)

    async def _error(
        self, send: asgi.Send, message: str, code: str, param: str | None, status: int, x: Exchange | None
    ) -> None:
        head = x.head() if x is not None and x.decision else []
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
        fresh: list[Verdict] = []
        for slot, verdict, text in zip(prompt.slots, judged.slot_verdicts, judged.delivered, strict=True):
            if verdict.action.stops:
                if slot.age and (slot.origin == "assistant" or self._keys.refusal.known(x.app.id, slot.text, shown)):
                    put(prompt.body, slot.path, surrogate.NOTE)
                    x.noted += 1
                    continue
                fresh.append(verdict)
            elif text != slot.text:
                put(prompt.body, slot.path, text)
        if fresh:
            strictest = max(fresh, key=lambda v: v.action)
            judged.verdict.action, judged.verdict.category, judged.verdict.clause = (
                strictest.action,
                strictest.category,
                strictest.clause,
            )
            return next(s for s, v in zip(prompt.slots, judged.slot_verdicts, strict=True) if v is strictest)
        if x.noted:
            # What was refused in its own turn does not colour this one.
            rest = [v for v in judged.slot_verdicts if not v.action.stops]
            worst = max(rest, key=lambda v: v.action, default=Verdict())
            judged.verdict.action, judged.verdict.category, judged.verdict.clause = (
                worst.action,
                worst.category,
                worst.clause,
            )
        return None

    async def _refuse(self, x: Exchange, prompt: Prompt, slot: Slot, send: asgi.Send) -> None:
        verdict = x.judged.verdict
        x.decision = self._keys.refusal.decision(x.app.id, slot.text)
        text = surrogate.text(x.policy, verdict, x.decision, x.language)
        x.outcome = "prompt_refused"
        if x.policy.rules.blocked_as == "error" and verdict.action is Action.BLOCK:
            await self._error(send, text, "content_filter", None, 400, x)
            return
        shown = Shown(verdict.action, text)
        x.receipt = Receipt(self._keys, x.decision, x.app.id)
        x.receipt.add(0, text)
        if not prompt.stream:
            body = self._dialect.answer(prompt, shown)
            self._seal(body, x, verdict.action)
            await asgi.respond_json(send, 200, body, x.head())
            return
        await _start_stream(send, x)
        events = [
            e
            for choice in range(prompt.choices)
            for e in self._dialect.ending({"model": prompt.model}, choice, shown, False)
        ]
        envelope = self._dialect.answer(prompt, shown)
        for i, event in enumerate(events):
            event.update({k: envelope[k] for k in ("created", "model")})
            event["object"] = "chat.completion.chunk" if "chat" in envelope["object"] else envelope["object"]
            event["id"] = x.decision
            if i == len(events) - 1:
                self._seal(event, x, verdict.action)
            await send({"type": "http.response.body", "body": sse.write(strictjson.dumps(event)), "more_body": True})
        await send({"type": "http.response.body", "body": sse.write(b"[DONE]")})

    # ---- the answer, whole

    async def _plain(self, x: Exchange, prompt: Prompt, reply: Reply, send: asgi.Send) -> None:
        raw = await reply.read(ANSWER_MAX)
        try:
            body = strictjson.loads_upstream(raw)
        except ValueError:
            raise UpstreamError("the model's answer is not JSON", code="upstream_protocol_error") from None
        if not isinstance(body, dict):
            raise UpstreamError("the model's answer is not an object", code="upstream_protocol_error")
        texts = self._dialect.texts(body, prompt.choices)
        scope = Scope(x.app.id, "answer")
        slots = [Slot(t.path, t.text, "assistant", 0, -2 * (i + 1)) for i, t in enumerate(texts)]
        judged = await self._moderator.judge(slots, scope, x.policy)
        x.answer = judged.verdict
        x.screened = x.released = judged.screened
        self._unavailable(x)
        stopped: dict[int, Verdict] = {}
        for delta, verdict, text in zip(texts, judged.slot_verdicts, judged.delivered, strict=True):
            if verdict.action.stops:
                worst = stopped.get(delta.choice)
                if worst is None or verdict.action > worst.action:
                    stopped[delta.choice] = verdict
            elif text != delta.text:
                put(body, delta.path, text)
                _without_logprobs(body, delta)
        for choice, verdict in stopped.items():
            self._dialect.stop(body, choice, self._shown(x, verdict))
        assert x.receipt is not None
        if stopped and x.policy.rules.blocked_as == "error" and x.answer.action is Action.BLOCK:
            x.released = 0
            await self._error(
                send, surrogate.text(x.policy, x.answer, x.decision, x.language), "content_filter", None, 400, x
            )
            return
        for delta in self._dialect.texts(body, prompt.choices):
            if delta.channel == _VISIBLE:
                x.receipt.add(delta.choice, _text_at(body, delta.path))
        self._seal(body, x, x.answer.action)
        head = x.head()
        head[1] = (b"x-sluice-action", max(x.answer.action, x.judged.verdict.action).word.encode())
        x.first = perf_counter()
        await asgi.respond_json(send, 200, body, head)

    def _unavailable(self, x: Exchange) -> None:
        if x.answer.degraded and x.policy.degraded("answer") is None:
            raise RequestError("moderation is unavailable; try again", code="moderation_unavailable", status=503)

    def _shown(self, x: Exchange, verdict: Verdict) -> Shown:
        return Shown(verdict.action, surrogate.text(x.policy, verdict, x.decision, x.language))

    def _seal(self, body: dict[str, Any], x: Exchange, action: Action) -> None:
        assert x.receipt is not None
        body["id"] = x.decision
        body["sluice"] = {
            "decision": x.decision,
            "action": max(action, x.judged.verdict.action).word,
            "receipt": x.receipt.text(),
        }

    async def _upstream_error(self, x: Exchange, reply: Reply, send: asgi.Send) -> None:
        """The model's own error, its status kept; its words only if they pass the screen themselves."""
        x.outcome = "upstream_status"
        metrics.UPSTREAM_ERRORS.labels("upstream_status").inc()
        message, code = f"the model answered with HTTP {reply.status}", "upstream_error"
        try:
            body = strictjson.loads_upstream(await reply.read(1 << 16))
            theirs = body["error"]["message"] if isinstance(body["error"], dict) else body["error"]
            judged = await self._moderator.judge(
                [Slot((), str(theirs)[:2000], "assistant")], Scope(x.app.id, "answer"), x.policy
            )
            if judged.verdict.action is Action.PASS and not judged.verdict.degraded:
                message = judged.delivered[0]
                if isinstance(body["error"], dict) and re.fullmatch(r"[\w.-]{1,64}", str(body["error"].get("code"))):
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
        stream = Stream(self, x, prompt)
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

    def channel(self, x: Exchange, path: Path) -> Channel:
        return self._moderator.channel(Scope(x.app.id, "answer"), x.policy, path)

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


class Stream:
    """One streamed answer: events in, bytes for the client out. No I/O."""

    def __init__(self, proxy: Proxy, x: Exchange, prompt: Prompt) -> None:
        self._proxy, self._x, self._prompt = proxy, x, prompt
        self._dialect = proxy._dialect
        self._channels: dict[tuple[int, Path], tuple[Channel, Delta]] = {}
        self._names: dict[tuple[int, Path], str] = {}
        self._ended: dict[int, Action] = {}
        self._done: set[int] = set()
        self._begun: set[int] = set()
        self._late: list[dict[str, Any]] = []  # events from the first ending on: the last of them carries the receipt
        self._last: dict[str, Any] = {"model": prompt.model}
        self._marker = False
        self._findings: list[Channel] = []
        self.over = False
        """The client's answer is complete, whatever the model may still send."""

    @property
    def complete(self) -> bool:
        """Every choice that began has ended."""
        return self._marker or (bool(self._done) and self._begun <= self._done)

    def feed(self, events: list[sse.Event]) -> bytes:
        """Raises UpstreamError for what is no event of the dialect."""
        out: list[bytes] = []
        for event in events:
            if event.data == b"[DONE]":
                self._marker = self.over = True
                break
            try:
                body = strictjson.loads_upstream(event.data)
            except ValueError:
                raise UpstreamError(
                    "the model sent an event that is not JSON", code="upstream_protocol_error"
                ) from None
            if not isinstance(body, dict) or ("error" in body and "choices" not in body):
                raise UpstreamError("the model reported an error in its stream", code="upstream_error")
            for one in self._screen(body):
                if self._late or self._done or one.get("usage"):
                    self._late.append(one)
                else:
                    out.append(self._write(one))
            if self.over:
                break
        return b"".join(out)

    def _write(self, body: dict[str, Any]) -> bytes:
        body["id"] = self._x.decision
        return sse.write(strictjson.dumps(body))

    def _screen(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events that the client gets for one event of the model."""
        if self._ended:
            self._dialect.without(body, self._ended.keys())
        deltas = self._dialect.texts(body, self._prompt.choices)
        self._last = body
        before: list[dict[str, Any]] = []
        after: list[dict[str, Any]] = []
        shown: dict[tuple[int, Path], tuple[Delta, str]] = {}
        for delta in deltas:
            if delta.choice in self._ended:
                put(body, delta.path, "")  # stopped by an earlier text of this very event
                continue
            text = self._take(delta)
            put(body, delta.path, text)
            shown[delta.choice, delta.channel] = delta, text
            self._out(delta, text)
            if (action := self._stopped(delta)) is not None:
                after += self._stop(body, delta.choice, action)
        for choice in self._dialect.finished(body):
            if choice in self._done:
                continue
            for key, (channel, delta) in list(self._channels.items()):
                if key[0] != choice or choice in self._ended:
                    continue
                tail = channel.finish()
                self._out(delta, tail)
                if tail and key in shown:
                    put(body, shown[key][0].path, shown[key][1] + tail)
                elif tail:
                    before.append(self._dialect.tail(body, delta, tail))
                if channel.stopped is not None:
                    after += self._stop(body, choice, channel.stopped)
            self._done.add(choice)
        if self._ended and len(self._ended) == self._prompt.choices:
            self.over = True
        silent = (not body["choices"] and not body.get("usage")) or (bool(deltas) and self._dialect.silent(body))
        return before + ([] if silent else [body]) + after

    def _take(self, delta: Delta) -> str:
        key = (delta.choice, delta.channel)
        if delta.whole:
            # A name comes whole and clients read it at once: screened together with what came before, at once.
            name = self._names[key] = self._names.get(key, "") + delta.text
            channel = self._proxy.channel(self._x, delta.channel)
            channel.push(name)
            channel.finish()
            self._findings.append(channel)
            self._channels[key] = (channel, delta)
            return "" if channel.stopped is not None else delta.text
        held = self._channels.get(key)
        if held is None:
            held = self._channels[key] = (self._proxy.channel(self._x, delta.channel), delta)
            self._findings.append(held[0])
        return held[0].push(delta.text)

    def _stopped(self, delta: Delta) -> Action | None:
        return self._channels[delta.choice, delta.channel][0].stopped

    def _out(self, delta: Delta, text: str) -> None:
        self._begun.add(delta.choice)
        if delta.channel == _VISIBLE:
            assert self._x.receipt is not None
            self._x.receipt.add(delta.choice, text)

    def _stop(self, body: dict[str, Any], choice: int, action: Action) -> list[dict[str, Any]]:
        """End one choice: its own ending is taken out of the event, ours follows."""
        self._ended[choice] = action
        self._done.add(choice)
        self._dialect.unfinish(body, choice)
        channels = [c for (owner, _), (c, _) in self._channels.items() if owner == choice]
        verdict = conclude(channels, self._x.policy, Scope(self._x.app.id, "answer"))
        shown = self._proxy._shown(self._x, Verdict(action, [], verdict.category, verdict.clause))
        seen = self._channels.get((choice, _VISIBLE))
        begun = seen is not None and seen[0].released > 0
        assert self._x.receipt is not None
        self._x.receipt.add(choice, f"\n\n{shown.text}" if begun else shown.text)
        return self._dialect.ending({k: v for k, v in body.items() if k != "choices"}, choice, shown, begun)

    def close(self) -> bytes:
        """The last bytes of a stream that is complete."""
        self._conclude()
        if not self._late:
            self._late.append({k: v for k, v in self._last.items() if k not in ("choices", "usage")} | {"choices": []})
        self._proxy._seal(self._late[-1], self._x, self._x.answer.action)
        out = b"".join(map(self._write, self._late))
        return out + sse.write(b"[DONE]") if self._marker or self._ended else out

    def _conclude(self) -> None:
        self._x.answer = conclude(self._findings, self._x.policy, Scope(self._x.app.id, "answer"))

    def account(self) -> None:
        """Hand the counts to the exchange, however the stream ended."""
        self._conclude()
        channels = [c for c, _ in self._channels.values()]
        self._x.screened = sum(c.screened for c in channels)
        self._x.released = sum(c.released for c in channels)
        self._x.held_max = max((c.held_max for c in channels), default=0)


def _without_logprobs(body: dict[str, Any], delta: Delta) -> None:
    choice = body["choices"][delta.path[1]]
    if choice.get("logprobs"):
        choice["logprobs"] = None


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
