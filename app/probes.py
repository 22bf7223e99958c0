"""Probes: asking the model itself again, past the filter, whether it still says what a confirmed case is about.

Law: an answer counts only if the model ended it and it holds text; an error, a filtered ending and an empty answer are inconclusive, never
a pass. What is asked is the prompt that a person sent with consent, or the operator's, and variants of it; 60 answers of a set at least,
so that none of 60 bounds the rate at 5% (Clopper and Pearson 1934, one-sided). Nothing is asked before the operator has said that the
model's terms allow it. A probe that breaks its worker three times is set aside, visibly, and its case stays due.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from app import clock, metrics, remediation, strictjson, vault
from app.complaints import Matter
from app.errors import Conflict, RequestError, StoreError, Unreadable, UpstreamError
from app.figures import lower, upper
from app.keys import Keys
from app.moderation import Moderator
from app.policyfile import ProbeRule
from app.remediation import VARIANTS, Case
from app.review import kept, variants
from app.store.cases import Cases, Writes
from app.types import Scope, Slot
from app.upstream import ANSWER_MAX, Upstream

log = logging.getLogger("sluice.probes")

PAUSE = 1.0
"""Seconds between two looks for a probe that is due."""
LEASE = 900.0
"""Seconds after which a probe whose worker is gone is begun anew."""
TRIES = 3
ANSWERS = 3
"""Answers that a reviewer of an appeal is shown."""
_AT_ONCE = 4
"""Questions under way at once."""
_MODELS = 600.0
"""Seconds between two looks at which models there are."""


class Prober:
    """Runs the probes that are due, in a worker of the gateway. `sections`: app -> its section of the policy."""

    def __init__(
        self,
        cases: Cases,
        keys: Keys,
        moderator: Moderator,
        upstream: Upstream,
        sections: Callable[[], Mapping[str, str]],
    ) -> None:
        self._cases, self._keys, self._moderator, self._upstream = cases, keys, moderator, upstream
        self._sections = sections

    async def run(self) -> None:
        looked = 0.0
        while True:
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
            try:
                if asyncio.get_running_loop().time() - looked > _MODELS:
                    looked = asyncio.get_running_loop().time()
                    await self.compare()
                await self.once()
            except StoreError:
                pass  # told by the store itself
            except Exception as e:
                log.error("a probe failed", extra={"error": type(e).__name__})

    async def once(self) -> None:
        """Run one probe that is due, if there is one. Raises StoreError."""
        for id in await self._cases.index("probes", clock.now(), 8):
            case = await self._cases.get(id)
            if case is not None and case.next_probe is not None and (claimed := await self._claim(case)) is not None:
                await self._probe(claimed)
                return
        for id in await self._cases.members("matters:ask", clock.now()):
            if (matter := await self._take(id)) is not None:
                await self._answer(matter)
                return

    async def _take(self, id: str) -> Matter | None:
        """Take an appeal's question on; None where another worker did, or where it broke too many."""
        raw = await self._cases.field("matters", id)
        if raw is None:
            return None
        matter, now = Matter.of(raw), clock.now()
        broken = matter.tries >= TRIES
        writes = Writes()
        after = replace(matter, tries=matter.tries + 1)
        writes.row("matters", id, matter.version, after.row())
        writes.score("matters:ask", id, None if broken else now + LEASE)
        event = {"who": "time", "what": "set_aside" if broken else "asking", "matter": id, "try": matter.tries + 1}
        try:
            await self._cases.commit(writes, event)
        except Conflict:
            return None
        return None if broken else replace(after, version=matter.version + 1)

    async def _answer(self, matter: Matter) -> None:
        """Ask the model what an appeal is about, and seal what it says and what we would do about it."""
        id, policy = matter.id, self._moderator.policies.of(self._sections().get(matter.app, matter.app))
        sealed = await self._cases.field("evidence", id)
        answers: list[dict[str, Any]] = []
        prompt = ""
        with suppress(Unreadable):  # its reviewer is told when he looks
            prompt = json.loads(vault.unseal(self._keys, f"{id}/evidence", sealed or "")).get("prompt") or ""
        if prompt:
            rule = policy.rules.probes
            model = await self._cases.field("matters:model", id) or ""
            asking = Asking(self._upstream, model, {"max_tokens": rule.max_tokens}, rule)
            for text in await asking.several([prompt] * ANSWERS if rule.terms_allow else []):
                if text is not None:
                    slot = Slot(("text",), text, "assistant")
                    verdict = (await self._moderator.judge([slot], Scope(matter.app, "answer"), policy)).verdict
                    answers.append(
                        {
                            "text": text,
                            "action": verdict.action.word,
                            "findings": [f.public() for f in verdict.findings],
                        }
                    )
        writes = Writes()
        # Who decided meanwhile has erased what was sent; nothing is put beside that.
        writes.row("matters", id, matter.version, matter.row())
        writes.set(
            "evidence", f"{id}/answers", vault.seal(self._keys, f"{id}/answers", json.dumps({"answers": answers}))
        )
        writes.score("matters:ask", id, None)
        with suppress(Conflict):
            await self._cases.commit(writes, {"who": "time", "what": "answered", "matter": id, "answers": len(answers)})

    async def compare(self) -> None:
        """Open closed cases again whose model is not the one that was asked. Raises StoreError."""
        now: dict[str, str] | None = None
        for case in await self._cases.several(await self._cases.index("probes")):
            then = case.probes[-1].get("listed") if case.state == "closed" and case.probes and case.asked else None
            if then is None:
                continue
            now = await self._listed() if now is None else now
            if case.asked and now.get(case.asked["model"], then) != then:
                after = remediation.moved(case, "reopen", clock.now(), reason="the model has changed")
                writes = Writes()
                writes.case(case, replace(after, next_probe=clock.now()))
                event = {
                    "who": "time",
                    "what": "reopen",
                    "case": case.id,
                    "from": "closed",
                    "to": "reopened",
                    "reason": "the model has changed",
                }
                try:
                    await self._cases.commit(writes, event)
                except Conflict:
                    continue

    async def _claim(self, case: Case) -> Case | None:
        """Take the probe on; None where another worker did, or where it broke too many."""
        now = clock.now()
        after = (
            case
            if case.state == "probing"
            else remediation.moved(case, "probe", now, asked={**(case.asked or {}), "by": "schedule"})
        )
        event = {
            "who": "time",
            "what": "probe",
            "case": case.id,
            "from": case.state,
            "to": "probing",
            "try": after.tries + 1,
        }
        after = replace(after, tries=after.tries + 1, next_probe=now + LEASE)
        if after.tries > TRIES:
            outcome = {"outcome": "inconclusive", "at": now, "reason": f"broke {TRIES} workers; set aside", "sets": {}}
            after = replace(remediation.moved(after, "judge", now, outcome=outcome), next_probe=None)
            event |= {"what": "set_aside", "to": after.state}
            metrics.PROBES.labels("set_aside").inc()
        writes = Writes()
        writes.case(case, after)
        try:
            await self._cases.commit(writes, event)
        except Conflict:
            return None
        return replace(after, version=case.version + 1) if after.state == "probing" else None

    async def _probe(self, case: Case) -> None:
        policy = self._moderator.policies.of(self._sections().get(case.app, case.app))
        outcome = await self._outcome(case, policy.rules.probes)
        metrics.PROBES.labels(outcome["outcome"]).inc()
        while not await self._judged(case, outcome, policy.rules.probes.days):
            # Somebody reported the passage once more, or an alert went out: that takes nothing from what the model said.
            fresh = await self._cases.get(case.id)
            if fresh is None or (fresh.state, fresh.tries, fresh.asked) != (case.state, case.tries, case.asked):
                log.error(
                    "a probe's case was moved meanwhile; what the probe showed is not used", extra={"case": case.id}
                )
                return
            case = fresh

    async def _judged(self, case: Case, outcome: dict[str, Any], days: int) -> bool:
        """Write down what a probe shows; False where the case has been changed."""
        now = clock.now()
        after = remediation.moved(case, "judge", now, outcome=outcome)
        later = now + days * 86400 if after.state == "closed" else None
        writes = Writes()
        writes.case(case, replace(after, next_probe=later, tries=0))
        event = {
            "who": "time", "what": "judge", "case": case.id, "from": "probing", "to": after.state,
            "outcome": outcome["outcome"], "sets": outcome["sets"],
        }  # fmt: skip
        try:
            await self._cases.commit(writes, event)
        except Conflict:
            return False
        return True

    async def _outcome(self, case: Case, rule: ProbeRule) -> dict[str, Any]:
        """What the probe shows. Raises StoreError."""
        at = clock.now()
        if not rule.terms_allow:
            return _nothing(at, "the policy does not say that the model's terms allow it (probes.terms_allow)")
        if case.fingerprint is not None and case.fingerprint["kid"] not in self._keys.kids:
            return _nothing(
                at, "the passage is known under a key that is no longer listed; nobody could tell it in an answer"
            )
        try:
            prompt, variants = await self._prompts(case)
        except Unreadable as e:
            return _nothing(at, str(e))
        if not prompt:
            return _nothing(at, "there is no prompt to ask with")
        asked: Mapping[str, Any] = case.asked or {}
        settings = {
            "temperature": asked.get("temperature", rule.temperature),
            "max_tokens": asked.get("max_tokens", rule.max_tokens),
        }
        answers = max(remediation.ANSWERS, int(asked.get("answers", rule.answers)))
        asking = Asking(self._upstream, asked.get("model", ""), settings, rule)
        sets: dict[str, dict[str, Any]] = {}
        for name, prompts in (("original", [prompt]), ("variants", variants)):
            judged = again = 0
            while judged < answers and asking.left > 0:
                wanted = min(answers - judged, asking.left)
                texts = await asking.several([prompts[(judged + i) % len(prompts)] for i in range(wanted)])
                heard = [text for text in texts if text is not None]
                if not heard:
                    break
                judged += len(heard)
                again += sum([await self._again(case, text) for text in heard])
            sets[name] = {
                "prompts": len(prompts), "judged": judged, "again": again,
                "rate": again / judged if judged else None,
                "lower": lower(again, judged) if judged else 0.0, "upper": upper(again, judged) if judged else 1.0,
            }  # fmt: skip
        listed = (await self._listed()).get(str(asked.get("model")))
        return {
            "outcome": remediation.verdict(sets), "at": at, "ended": clock.now(), "sets": sets, "asked": asking.asked,
            "inconclusive": asking.lost, "model": asking.model or asked.get("model"), "version": asking.version,
            "listed": listed, **settings,
        }  # fmt: skip

    async def _prompts(self, case: Case) -> tuple[str, list[str]]:
        opened = await kept(self._cases, self._keys, case)
        prompt = opened.get("prompt") or ""
        own = [v for v in opened.get("variants") or [] if v != prompt]
        return prompt, own if len(own) >= VARIANTS else [*own, *variants(prompt, case.language)]

    async def _again(self, case: Case, text: str) -> bool:
        """The model said it again: the passage or a near copy of it, or something that is stopped for the same reason."""
        policy = self._moderator.policies.of(self._sections().get(case.app, case.app))
        judged = await self._moderator.judge([Slot(("text",), text, "assistant")], Scope(case.app, "answer"), policy)
        return any(
            f.rule in case.entries or (f.category == case.category and f.action.stops) for f in judged.verdict.findings
        )

    async def _listed(self) -> dict[str, str]:
        """What tells a model from the one that had its name before: model -> its row of /v1/models."""
        try:
            reply = await self._upstream.send("GET", "/v1/models", {})
            try:
                rows = strictjson.loads_upstream(await reply.read(1 << 20))["data"] if reply.status == 200 else []
            finally:
                reply.close()
            return {str(r["id"]): strictjson.dumps(dict(sorted(r.items()))).decode() for r in rows}
        except (UpstreamError, ValueError, KeyError, TypeError):
            return {}


class Said(NamedTuple):
    """What the model said to a question. `filtered`: that it would not, or that what guards it would not let it."""

    text: str
    filtered: bool = False


class Asking:
    """Questions to the model: so many a minute, so many in all. `left`: how many more may be put; `lost`: those without an answer."""

    def __init__(self, upstream: Upstream, model: str, settings: Mapping[str, Any], rule: ProbeRule) -> None:
        self._upstream, self._body = upstream, {"model": model, **settings}
        self._pause = 60.0 / rule.per_minute
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._next = 0.0
        self.left, self.asked, self.lost = rule.most, 0, 0
        self.model = self.version = ""

    async def several(self, prompts: Sequence[str]) -> list[str | None]:
        """The answers; None where one says nothing of the model."""
        answers = [None if said is None or said.filtered else said.text for said in await self.said(prompts)]
        self.lost += answers.count(None)
        return answers

    async def said(self, prompts: Sequence[str]) -> list[Said | None]:
        """The same, with what was filtered on the model's side told apart."""
        self.left -= len(prompts)
        self.asked += len(prompts)
        return await asyncio.gather(*map(self._one, prompts))

    async def _one(self, prompt: str) -> Said | None:
        async with self._slots:
            clock_ = asyncio.get_running_loop().time
            wait, self._next = self._next - clock_(), max(self._next, clock_()) + self._pause
            if wait > 0:
                await asyncio.sleep(wait)
            body = {**self._body, "messages": [{"role": "user", "content": prompt}]}
            try:
                reply = await self._upstream.send("POST", "/v1/chat/completions", {}, strictjson.dumps(body))
                try:
                    status = reply.status
                    said = strictjson.loads_upstream(await reply.read(ANSWER_MAX)) if status in (200, 400) else None
                finally:
                    reply.close()
            except (UpstreamError, RequestError, ValueError):
                return None
        match status, said:
            case 200, {"choices": [{"finish_reason": "stop" | "length", "message": {"content": str(text)}}, *_]} if (
                text.strip()
            ):
                assert isinstance(said, dict)
                self.model = str(said.get("model") or self.model)[:200]
                self.version = str(said.get("system_fingerprint") or self.version)[:200]
                return Said(text)
            case 200, {"choices": [{"finish_reason": "content_filter"}, *_]}:
                return Said("", True)
            case 200, {"choices": [{"message": {"refusal": str(text)}}, *_]} if text.strip():
                return Said(text, True)
            case 400, {"error": {"code": "content_filter" | "data_inspection_failed"}}:
                return Said("", True)
        return None


def _nothing(at: float, reason: str) -> dict[str, Any]:
    return {"outcome": "inconclusive", "at": at, "reason": reason, "sets": {}}
