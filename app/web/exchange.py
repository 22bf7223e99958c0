"""One exchange on its way through the gateway: what is known of it so far, and what every answer of ours carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app import surrogate
from app.apps import App
from app.dialects import Prompt, Shown
from app.findings import wanted
from app.keys import Receipt
from app.moderation import Judged
from app.policy import Policy, strictest
from app.types import Action, Scope, Verdict
from app.web import asgi


@dataclass(slots=True)
class Exchange:
    """Filled in along the straight path; read by journal and metrics at its end."""

    app: App
    policy: Policy
    headers: dict[str, str]
    started: float
    correction: Callable[[str], Mapping[str, str] | None] = lambda rule: None
    """What is right, by the rule of a finding."""
    decision: str = ""
    language: str = "zh"
    readers: frozenset[str] = frozenset()
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
    begun: bool = False
    """The head of the answer, and some of it, has gone out."""
    ended: bool = False
    """The client has all of its answer: that it leaves now is no loss."""

    @property
    def scope(self) -> Scope:
        return Scope(self.app.id, "answer", self.readers)

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
        return self.correction(deciding.rule)

    def deliver(self, choice: int, text: str) -> None:
        """Count a text of the answer into the receipt."""
        assert self.receipt is not None
        self.receipt.add(choice, text)
        if self.policy.rules.reports.deliveries:
            self.delivered.setdefault(choice, []).append(text)

    def hear(self, text: str) -> None:
        """Remember what the model said, where that is asked for."""
        if wanted(self.policy):
            self.heard.append(text)

    def seal(self, body: dict[str, Any], action: Action) -> None:
        """Put decision id, action and receipt into a body, or into the last event of a stream."""
        assert self.receipt is not None
        if self.withdrawn is not None:
            action = max(action, self.withdrawn.action)
        body["sluice"] = {
            "decision": self.decision,
            "action": max(action, self.judged.verdict.action).word,
            "receipt": self.receipt.text(),
        }
