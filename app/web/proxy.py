"""The straight path: body -> prompt -> judge -> upstream -> answer, whole or streamed -> judge -> client.

Law: the same lines for every dialect. What goes upstream and what comes back is built from what was screened. An error
before the answer began is an error of the dialect; one in mid-stream is an error event and a broken transfer, never a
clean end. The journal and the metrics never delay the client.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from app import metrics, sse, strictjson, surrogate
from app.callers import Callers
from app.deliveries import Deliveries
from app.dialects import Delta, Dialect, Key, Prompt, Shown, fields, put
from app.errors import RequestError, UpstreamError
from app.findings import Findings, Stopped
from app.journal import Journal
from app.keys import Keys, Receipt, decision_id, decision_tail
from app.moderation import Moderator
from app.outbound import Reply
from app.types import Action, Path, Scope, Slot, Verdict
from app.upstream import ANSWER_MAX, Upstream
from app.web import asgi, asked
from app.web.exchange import Exchange
from app.web.record import record
from app.web.stream import Stream
from app.web.words import Words

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_SHOWN_ID = re.compile(r"slc_[a-z2-7]{26}")
_NOTED = strictjson.dumps({"note": surrogate.NOTE}).decode()
"""A note where JSON is wanted."""
SLOTS_MAX = 16_384
"""Texts in one request at most: each costs a screening, however short it is."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Asking a model for the answer. `ends_as`: it stands in for another model, whose answer was stopped so."""

    upstream: Upstream
    body: dict[str, Any]
    first: bool = True
    ends_as: Shown | None = None


class Limits(NamedTuple):
    """How long an answer may get: characters, seconds."""

    characters: int
    seconds: float


class Proxy:
    """The ASGI app of one dialect's route. `stand_in`: a model that answers where another's answer was stopped, and its name."""

    def __init__(
        self,
        dialect: Dialect,
        moderator: Moderator,
        callers: Callers,
        keys: Keys,
        upstream: Upstream,
        journal: Journal,
        limits: Limits,
        words: Words,
        stand_in: tuple[Upstream, str | None] | None = None,
        deliveries: Deliveries | None = None,
        findings: Findings | None = None,
    ) -> None:
        self._dialect, self._moderator, self._callers = dialect, moderator, callers
        self._words = words
        self._keys, self._upstream, self._journal = keys, upstream, journal
        self._limits, self._stand_in, self._deliveries, self._findings = limits, stand_in, deliveries, findings

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        head = asgi.headers(scope)
        x: Exchange | None = None
        try:
            if scope["method"] != "POST":
                raise RequestError("this route takes POST", code="method_not_allowed", status=405)
            caller = self._callers.admitted(head, asgi.peer(scope))
            x = Exchange(caller, head, perf_counter(), answer_max=self._limits.characters)
            with self._callers.inside(caller):
                raw = await asgi.read_body(receive, head, caller.policy.rules.max_body_bytes)
                body, x.asked = asked.read(raw, caller.policy)
                x.prompt = self._asked(x, self._dialect.prompt(body))
                async with asgi.watching(scope, receive):
                    await self._serve(x, x.prompt, send)
        except RequestError as e:
            if x is not None:
                x.outcome = "refused"
            await self._error(send, e.message, e.code, e.param, e.status, x, more=asgi.retry(e))
        except UpstreamError as e:
            assert x is not None
            if not x.ended:
                x.outcome = e.code
                metrics.UPSTREAM_ERRORS.labels(e.code).inc()
            if not x.begun:
                await self._error(send, e.message, e.code, None, e.status, x, more=asgi.later(e))
        except asgi.Disconnected:
            if x is None or not x.ended:
                metrics.DISCONNECTS.inc()
            if x is not None and not x.ended:
                x.outcome = "disconnected"
        finally:
            if x is not None and x.prompt is not None:
                record(x, x.prompt, self._dialect.name, self._journal)
                self._words.judged(x, x.prompt)
                if self._deliveries is not None:
                    for texts in x.delivered.values():
                        self._deliveries.delivered(x.app.id, "".join(texts))
                stopping = x.withdrawn or x.answer
                if self._findings is not None and x.heard and stopping.action.stops and stopping.category:
                    self._findings.stopped(Stopped(x.app, x.policy, x.decision, stopping.category, "".join(x.heard)))

    async def _error(
        self,
        send: asgi.Send,
        message: str,
        code: str,
        param: str | None,
        status: int,
        x: Exchange | None,
        action: Action = Action.PASS,
        more: asgi.Headers | None = None,
    ) -> None:
        head = [*(x.head(action) if x is not None and x.decision else []), *(more or [])]
        if status == 405:
            head.append((b"allow", b"POST"))
        await asgi.respond_json(send, status, self._dialect.error(message, code, param, status), head)

    # ---- the prompt

    def _asked(self, x: Exchange, prompt: Prompt) -> Prompt:
        """The prompt, if it asks for no more than its app may. Raises RequestError."""
        limits = x.app.limits
        if len(prompt.slots) > SLOTS_MAX:
            raise RequestError(f"the request holds more than {SLOTS_MAX} texts", code="too_many_texts")
        if limits.choices and prompt.choices > limits.choices:
            raise RequestError(f"'n' is at most {limits.choices} for this app", code="limit_exceeded", param="n")
        best = prompt.body.get("best_of")
        if limits.choices and best is not None and (type(best) is not int or best > limits.choices):
            raise RequestError(
                f"'best_of' is an integer, at most {limits.choices} for this app",
                code="limit_exceeded",
                param="best_of",
            )
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens") if limits.max_tokens else ():
            wanted = prompt.body.get(name)
            if wanted is not None and (type(wanted) is not int or wanted > limits.max_tokens):
                raise RequestError(
                    f"'{name}' is an integer, at most {limits.max_tokens} for this app",
                    code="limit_exceeded",
                    param=name,
                )
        return prompt

    async def _serve(self, x: Exchange, prompt: Prompt, send: asgi.Send) -> None:
        scope = Scope(x.app.id, "prompt")
        x.language = surrogate.language(prompt.slots)
        self._words.begin(x, prompt, self._dialect.rewrite)
        x.judged = await self._moderator.judge(prompt.slots, scope, x.policy)
        if x.judged.verdict.failed and x.policy.degraded("prompt") is None:
            raise RequestError("moderation is unavailable; try again", code="moderation_unavailable", status=503)
        refused = self._settle_prompt(x, prompt)
        if refused is not None:
            await self._refuse(x, prompt, refused, send)
            return
        x.decision = decision_id()
        await self._words.answered(x)
        await self._answer(x, prompt, send)

    async def _answer(self, x: Exchange, prompt: Prompt, send: asgi.Send) -> None:
        """The model's answer; in place of one that was stopped before its first character, another attempt, where policy has
        one."""
        attempt: _Attempt | None = _Attempt(self._upstream, prompt.body)
        while attempt is not None:
            # Nothing of an earlier attempt was delivered.
            x.receipt = Receipt(self._keys, x.decision, x.app.id)
            try:
                attempt = await self._attempt(x, prompt, attempt, send)
                if attempt is not None:
                    x.withdrawn = x.answer
            except UpstreamError as e:
                if x.withdrawn is None or x.begun:
                    raise
                # The stand-in failed: what the first answer was stopped for still holds.
                metrics.UPSTREAM_ERRORS.labels(e.code).inc()
                x.answer, x.withdrawn = x.withdrawn, None
                await self._show(x, prompt, x.answer, send)
                return

    async def _attempt(self, x: Exchange, prompt: Prompt, attempt: _Attempt, send: asgi.Send) -> _Attempt | None:
        """The next attempt, if this one came to nothing."""
        reply = await attempt.upstream.send("POST", self._dialect.route, x.headers, strictjson.dumps(attempt.body))
        try:
            if reply.status != 200:
                if x.withdrawn is not None:
                    raise UpstreamError("the model did not answer again", code="upstream_status")
                await self._upstream_error(x, reply, send)
                return None
            serve = self._stream if prompt.stream else self._plain
            return await serve(x, prompt, reply, send, attempt)
        finally:
            reply.close()

    def _instead(self, x: Exchange, prompt: Prompt, attempt: _Attempt) -> _Attempt | None:
        """What may be tried in place of an answer that was stopped before its first character."""
        verdict = x.answer
        if prompt.choices > 1 or not verdict.category or x.right(verdict) is not None:
            return None
        if attempt.first and verdict.action is Action.REPLACE and x.policy.regenerates(verdict.category):
            return _Attempt(self._upstream, {k: v for k, v in attempt.body.items() if k != "seed"}, first=False)
        if self._stand_in is None or attempt.ends_as is not None or not x.policy.stands_in(verdict.category):
            return None
        upstream, model = self._stand_in
        body = prompt.body | ({"model": model} if model else {})
        return _Attempt(upstream, body, first=False, ends_as=Shown(verdict.action, ""))

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
                    self._dialect.rewrite(prompt, slot, _NOTED if slot.json else surrogate.NOTE)
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
                self._dialect.rewrite(prompt, slot, text)
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
        x.outcome = "prompt_refused"
        await self._show(x, prompt, verdict, send)

    async def _show(self, x: Exchange, prompt: Prompt, verdict: Verdict, send: asgi.Send) -> None:
        """Answer without the model: with the words for what `verdict` stopped."""
        shown = x.shown(verdict)
        if x.policy.rules.blocked_as == "error" and verdict.action is Action.BLOCK:
            await self._error(send, shown.text, "content_filter", None, 400, x, verdict.action)
            return
        x.receipt = Receipt(self._keys, x.decision, x.app.id)
        for choice in range(prompt.choices):
            x.say(choice, shown.text)
        if not prompt.stream:
            body = self._dialect.answer(prompt, shown)
            body["id"] = x.decision
            x.seal(body, verdict.action)
            await asgi.respond_json(send, 200, body, x.head(verdict.action))
            return
        await _start_stream(send, x)
        stream = self._dialect.events(prompt, _nothing)
        events = [e for n in range(prompt.choices) for e in stream.ending(n, shown, begun=False)]
        x.seal(events[-1], verdict.action)
        out = b"".join(stream.write(event, x.decision) for event in events)
        await send({"type": "http.response.body", "body": out + stream.done})

    # ---- the answer, whole

    async def _plain(
        self, x: Exchange, prompt: Prompt, reply: Reply, send: asgi.Send, attempt: _Attempt
    ) -> _Attempt | None:
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
        x.answered_with(fields.unread(body))
        slots = [
            # Clients join the parts of one answer's own text.
            Slot(t.path, t.text, "assistant", message=0 if t.visible and prompt.choices == 1 else -1, json=t.json)
            for t in texts
        ]
        judged = await self._moderator.judge(slots, x.scope, x.policy, [t.choice for t in texts])
        for delta in texts:
            x.hear(delta.text)
        x.answer = judged.verdict
        x.screened += judged.screened
        x.released = judged.screened
        self._unavailable(x)
        stopped: dict[int, Verdict] = {}
        masked: set[int] = set()
        for delta, verdict, text in zip(texts, judged.slot_verdicts, judged.delivered, strict=True):
            if verdict.action.stops:
                stopped[delta.choice] = verdict
            elif text != delta.text:
                put(body, delta.path, text)
                self._dialect.masked(body, delta)
                masked.add(delta.choice)
        if stopped:
            x.released = sum(n for t, n in zip(texts, judged.slot_screened, strict=True) if t.choice not in stopped)
            if (instead := self._instead(x, prompt, attempt)) is not None:
                return instead
        for choice, tokens in self._dialect.tokens(body):
            if not prompt.tokens or choice in masked or await self._objectionable(x, tokens):
                self._dialect.without_tokens(body, choice)
        for choice, verdict in stopped.items():
            shown = x.shown(verdict)
            self._dialect.stop(body, prompt, choice, shown)
            x.say(choice, shown.text)
        if stopped and x.policy.rules.blocked_as == "error" and x.answer.action is Action.BLOCK:
            x.released = 0
            await self._error(send, x.shown(x.answer).text, "content_filter", None, 400, x, x.answer.action)
            return None
        for delta in self._dialect.texts(body, prompt) if stopped or masked else texts:
            if delta.visible:
                self._deliver(x, body, delta, stopped.keys())
        x.generated = any(delta.text for delta in texts if delta.choice not in stopped)
        await x.ground()
        if attempt.ends_as is not None:
            self._dialect.refinish(body, attempt.ends_as)
        body["id"] = x.decision
        x.seal(body, x.answer.action)
        x.first = perf_counter()
        x.begun = True
        await asgi.respond_json(send, 200, body, x.head(Action[body["sluice"]["action"].upper()]))
        return None

    def _deliver(self, x: Exchange, body: dict[str, Any], delta: Delta, stopped: Collection[int]) -> None:
        """Count a text of a plain answer, and put our words around it."""
        if delta.choice in stopped:
            return  # what is shown instead was said
        said = _text_at(body, delta.path)
        ours = bool(said) and not delta.json
        lead = x.lead(delta.choice) if ours else ""
        x.deliver(delta.choice, said)
        trail = x.trail(delta.choice, [f for f in x.answer.findings if f.path == delta.path]) if ours else ""
        if lead or trail:
            put(body, delta.path, lead + said + trail)

    def _unavailable(self, x: Exchange) -> None:
        if x.answer.failed and x.policy.degraded("answer") is None:
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

    async def _stream(
        self, x: Exchange, prompt: Prompt, reply: Reply, send: asgi.Send, attempt: _Attempt
    ) -> _Attempt | None:
        if not reply.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise UpstreamError("the model did not answer with an event stream", code="upstream_protocol_error")
        stream = Stream(self._moderator, self._dialect, x, prompt, attempt.ends_as)
        # Where another attempt may come, nothing goes out before the first character that stays.
        waits = prompt.choices == 1 and (
            (attempt.first and x.policy.regenerating)
            or (self._stand_in is not None and attempt.ends_as is None)
            or x.withdrawn is not None
        )
        pending = b""
        try:
            parser = sse.Parser(stream.event_max)
            with self._callers.load.ending():
                async for chunk in reply.chunks():
                    pending += await stream.feed(parser.walk(chunk, stream.known))
                    if stream.stopped and not x.begun and not stream.told:
                        stream.conclude()
                        self._unavailable(x)
                    if pending and (stream.told or not waits):
                        await self._send(x, send, pending)
                        pending = b""
                    if stream.failed is not None:
                        raise stream.failed
                    if stream.over:
                        break
                    if perf_counter() - x.started > self._limits.seconds:
                        raise UpstreamError("the model's answer takes too long", code="upstream_too_long", status=504)
                if not stream.over and (parser.pending or not stream.complete):
                    raise UpstreamError("the model's stream ended in the middle", code="upstream_reset")
                if stream.stopped and waits and not stream.told:
                    stream.conclude()
                    if (instead := self._instead(x, prompt, attempt)) is not None:
                        return instead
                x.generated = stream.told
                await x.ground()
                await self._send(x, send, pending + stream.close(), last=True)
                x.ended = True
            if not stream.stopped:
                await reply.drain()
        except UpstreamError as error:
            if not x.begun:
                raise
            x.outcome = error.code
            metrics.UPSTREAM_ERRORS.labels(error.code).inc()
            # No final message follows: the server then breaks the transfer off, so that no client takes it for an end.
            await send({"type": "http.response.body", "body": pending + stream.error(error), "more_body": True})
        finally:
            stream.account()
        return None

    async def _send(self, x: Exchange, send: asgi.Send, out: bytes, *, last: bool = False) -> None:
        if not x.begun:
            await _start_stream(send, x)
            x.begun = True
            x.first = perf_counter()
        await send({"type": "http.response.body", "body": out, "more_body": not last})


class _Nothing:
    """The texts of an answer that no model gave."""

    def __call__(self, channel: Path) -> str:
        return ""

    def masked(self, channel: Path) -> bool:
        return False


_nothing = _Nothing()


def _text_at(body: Any, path: Path) -> str:
    for key in path:
        body = body[key]
    return str(body)


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
