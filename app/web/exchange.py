"""One exchange on its way through the gateway: what is known of it so far, and what every answer of ours carries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from app import cautions, grounding, labels, metrics, notices, surrogate
from app.apps import App
from app.callers import Caller
from app.dialects import Prompt, Shown
from app.errors import UpstreamError
from app.findings import wanted
from app.keys import Receipt
from app.moderation import Judged
from app.notices import Notice
from app.policy import Policy, strictest
from app.types import Action, Finding, Scope, Verdict
from app.web import asgi
from app.web.asked import NOTHING, Asked

log = logging.getLogger("sluice.exchange")


_labels = lru_cache(16)(metrics.LABELS.labels)


def _none(_: str) -> None:
    return None


@dataclass(slots=True)
class Exchange:
    """Filled in along the straight path; read by journal and metrics at its end."""

    caller: Caller
    headers: dict[str, str]
    started: float
    decision: str = ""
    language: str = "zh"
    asked: Asked = NOTHING
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
    held_ms: float = 0.0
    """Milliseconds that texts were held, summed over them."""
    leaked: int = 0
    """Characters let go that belong to a finding that masks or stops."""
    answer_max: int = 16 << 20
    """Characters that a model may say."""
    withdrawn: Verdict | None = None
    """What stopped an answer that another took the place of."""
    receipt: Receipt | None = None
    delivered: dict[int, list[str]] = field(default_factory=dict)
    """Choice -> the texts that went out, where the app has traces kept of them."""
    heard: list[str] = field(default_factory=list)
    """What the model said, where the policy has stopped answers kept."""
    seal_of: Callable[[str], str] = str
    """Of a produce id: what proves that we gave it."""
    corrections: Callable[[str], Mapping[str, str] | None] = _none
    """Of a rule: what its owner says is true instead."""
    generated: bool = False
    """The client gets something that the model made."""
    agreement: str | None = None
    """By which the answer goes out without a visible label."""
    notices: list[Notice] = field(default_factory=list)
    not_examined: tuple[str, ...] = ()
    """Kinds of what in the prompt, or in the answer, is no text."""
    cautioning: bool = False
    """It is to be told of what an answer is no substitute for."""
    watches: dict[int, cautions.Watch] = field(default_factory=dict)
    """Choice -> who reads it for that."""
    spoken: dict[int, list[str]] = field(default_factory=dict)
    """Choice -> the model's own words that went out, where they are checked against references."""
    grounded: grounding.Grounding | None = None
    told: dict[int, set[str]] = field(default_factory=dict)
    """Choice -> notices that stand in its text already."""
    led: set[int] = field(default_factory=set)
    trailed: set[int] = field(default_factory=set)
    """Choices that have their label in the text."""
    labelled: str | None = None
    """Where its label stood."""
    sealed: bool = False
    """What we say of it has gone out."""
    begun: bool = False
    """The head of the answer, and some of it, has gone out."""
    ended: bool = False
    """The client has all of its answer: that it leaves now is no loss."""

    @property
    def app(self) -> App:
        return self.caller.app

    @property
    def policy(self) -> Policy:
        return self.caller.policy

    @property
    def scope(self) -> Scope:
        return Scope(self.app.id, "answer", frozenset(self.caller.readers))

    @property
    def label(self) -> str:
        """The visible label, where it stands in the text."""
        return str(getattr(self.policy.rules.labels.text, self.language))

    def head(self, action: Action = Action.PASS) -> asgi.Headers:
        """Our headers; `action`: what was done about the answer, where that is known when they go out."""
        word = max(action, self.judged.verdict.action).word.encode()
        return [(b"x-sluice-decision", self.decision.encode()), (b"x-sluice-action", word)]

    def shown(self, verdict: Verdict) -> Shown:
        """What a person sees instead of what `verdict` stopped."""
        right = self.right(verdict)
        if right is not None:
            text = surrogate.corrected(self.policy, verdict, self.decision, self.language, right)
        else:
            text = surrogate.text(self.policy, verdict, self.decision, self.language)
        return Shown(verdict.action, text)

    def right(self, verdict: Verdict) -> Mapping[str, str] | None:
        """The correction that takes the place of what `verdict` replaced, where the entry that decided has one."""
        deciding = strictest(verdict.findings) if verdict.action is Action.REPLACE else None
        if deciding is None or deciding.action is not Action.REPLACE or deciding.category != verdict.category:
            return None
        return self.corrections(deciding.rule)

    def deliver(self, choice: int, text: str) -> None:
        """Count a text of the answer into the receipt, and into what is known of it."""
        assert self.receipt is not None
        self.receipt.add(choice, text)
        if self.cautioning:
            watch = self.watches.get(choice)
            if watch is None:
                watch = self.watches[choice] = cautions.shipped().start()
            watch.push(text)
        if self.asked.references:
            self.spoken.setdefault(choice, []).append(text)
        if self.policy.rules.reports.deliveries:
            self.delivered.setdefault(choice, []).append(text)

    def hear(self, text: str) -> None:
        """Remember what the model said, where that is asked for."""
        if wanted(self.policy):
            self.heard.append(text)

    def unexamined(self, kinds: Iterable[str]) -> None:
        """Something that is no text was in the prompt, or in the answer."""
        fresh = [kind for kind in dict.fromkeys(kinds) if kind not in self.not_examined]
        for kind in fresh:
            metrics.NOT_EXAMINED.labels(kind).inc()
        self.not_examined = (*self.not_examined, *fresh)

    def answered_with(self, kinds: list[str]) -> None:
        """The same, in the answer. Raises UpstreamError where policy lets none pass."""
        if kinds:
            self.unexamined(kinds)
            if self.policy.rules.media.not_examined == "refuse":
                raise UpstreamError(
                    f"the model answered with {kinds[0]}, which nobody can examine", code="not_examined"
                )

    # ---- words of ours about the answer

    def lead(self, choice: int) -> str:
        """What stands before a choice's first words, once."""
        if self.policy.rules.labels.mode != "start" or self.agreement or choice in self.led:
            return ""
        self.led.add(choice)
        return self.say(choice, labels.before(self.label))

    def trail(self, choice: int, findings: Iterable[Finding]) -> str:
        """What stands behind a text of a choice, as far as it does not stand there yet. `findings`: in that text."""
        return self.say(choice, self.trailing(choice, findings))

    def trailing(self, choice: int, findings: Iterable[Finding]) -> str:
        """The same, not said yet."""
        words = ""
        if self.policy.rules.notices.show == "end":
            topics = self._topics(choice)
            mine = [
                *(n for n in self.notices if n.kind in ("usage", "standing")),
                *self._corrected(findings),
                *([notices.reliance(topics, self.language)] if topics else []),
            ]
            told = self.told.setdefault(choice, set())
            fresh = [n for n in mine if n.text not in told]
            told.update(n.text for n in fresh)
            words = notices.trailing(fresh, self.language)
        if self.policy.rules.labels.mode == "end" and not self.agreement and choice not in self.trailed:
            self.trailed.add(choice)
            words += labels.after(self.label)
        return words

    def say(self, choice: int, words: str) -> str:
        """Count words of ours into the receipt."""
        assert self.receipt is not None
        self.receipt.add(choice, words)
        return words

    def _corrected(self, findings: Iterable[Finding]) -> list[Notice]:
        """What is right instead of what was found, and let go."""
        rules = dict.fromkeys(f.rule for f in findings if Action.PASS < f.action < Action.REPLACE and not f.shadow)
        return [notices.correction(words, self.language) for words in map(self.corrections, rules) if words is not None]

    def _topics(self, *choices: int) -> list[str]:
        """Of what the answer gives advice in these choices."""
        found = {topic for choice in choices if choice in self.watches for topic in self.watches[choice].finish()}
        return sorted(found.intersection(self.policy.rules.notices.reliance))

    def _noticed(self) -> list[Notice]:
        """All notices of the answer, each once."""
        topics = self._topics(*self.watches)
        found = [*self.notices, *self._corrected(self.answer.findings)]
        return [*found, *([notices.reliance(topics, self.language)] if topics else [])]

    async def ground(self) -> None:
        """Check what was said first against the references that came with the request."""
        said = "".join(self.spoken.get(0, ()))
        if not self.asked.references or not said:
            return
        try:
            self.grounded = await asyncio.to_thread(grounding.checked, said, self.asked.references)
        except Exception as e:
            # The type alone: a message could hold the text.
            metrics.UNGROUNDED.inc()
            log.error("an answer is not checked against its references", extra={"error": type(e).__name__})

    def _labelled(self) -> dict[str, Any]:
        rule = self.policy.rules.labels
        # What stands in no text the app has to show: of JSON, of calls alone.
        stands = self.led if rule.mode == "start" else self.trailed
        mode = "none" if self.agreement else rule.mode if stands else "interface"
        _labels(mode).inc()
        self.labelled = mode
        prepared = None
        if rule.producer:
            prepared = {"AIGC": labels.prepared(rule.producer, self.decision, self.seal_of(self.decision))}
        return {"mode": mode, "text": self.label, "prepared": prepared}

    def seal(self, body: dict[str, Any], action: Action) -> None:
        """Put decision id, action, receipt, label and notices into a body, or into the last event of a stream; where something was
        stopped, the guidance for users too."""
        assert self.receipt is not None
        self.notices = self._noticed()
        if self.withdrawn is not None:
            action = max(action, self.withdrawn.action)
        action = max(action, self.judged.verdict.action)
        said: dict[str, Any] = {"decision": self.decision, "action": action.word, "receipt": self.receipt.text()}
        body["sluice"] = said
        self.sealed = True
        if self.generated:
            said["label"] = self._labelled()
        if self.notices:
            for notice in self.notices:
                metrics.NOTICES.labels(notice.kind).inc()
            said["notices"] = [n.public() for n in self.notices]
        if self.not_examined:
            said["not_examined"] = list(self.not_examined)
        if self.grounded is not None:
            said["grounding"] = self.grounded._asdict()
        if action.stops:
            said["guidance"] = surrogate.guidance(self.policy, self.language)
