"""Words of ours about an answer: what is known of them before the model is asked, and what follows when it is over.

Law: a label that we put there goes out of what an app sends back before the model sees it, so that it never learns to write our words; what
a model says itself is never taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from app import notices
from app.agreements import Agreements
from app.dialects import Prompt, fields
from app.errors import RequestError
from app.keys import Keys
from app.notices import Notice
from app.sessions import Sessions, Use
from app.stance import Cues
from app.subjects import Subjects, counted
from app.types import Slot
from app.web.exchange import Exchange


class Corrections(NamedTuple):
    """What operators say is right: `of` a rule, and the words of `all`."""

    of: Callable[[str], Mapping[str, str] | None]
    all: Callable[[], Sequence[str]]


def _never(prompt: Prompt, slot: Slot, text: str) -> None:
    raise AssertionError("no answer of a model stands in this request")


@dataclass(frozen=True, slots=True)
class Words:
    """What they come from; without a store there are no strikes and no agreements."""

    keys: Keys
    sessions: Sessions
    corrections: Corrections
    cues: Callable[[], Cues]
    subjects: Subjects | None = None
    agreements: Agreements | None = None

    def begin(self, x: Exchange, prompt: Prompt, rewrite: Callable[[Prompt, Slot, str], None] = _never) -> None:
        """Before the prompt is judged. `rewrite`: how an API's slot is changed. Raises RequestError for what policy refuses."""
        rules = x.policy.rules
        x.corrections = self.corrections.of
        x.seal_of = lambda id: f"{self.keys.kid}.{self.keys.mac('receipt', 'label', x.app.id, id).hex()}"
        for at, slot in enumerate(prompt.slots):
            # The newest text of an assistant is one that the model is to go on with: it may have our words, too.
            if slot.origin == "assistant" and slot.message >= 0:
                bare = notices.without(slot.text, rules, self.corrections.all)
                # An empty text is none that a model's server would take.
                if bare != slot.text and bare.strip():
                    rewrite(prompt, slot, bare)
                    prompt.slots[at] = replace(slot, text=bare)
        if fields.paints(prompt.body):
            raise RequestError(
                "pictures are made at /v1/images/generations, where they are labelled (图片请走 /v1/images/generations)",
                code="unsupported_parameter", param="tools",
            )  # fmt: skip
        x.unexamined(fields.media(prompt.body))
        if x.not_examined and rules.media.not_examined == "refuse":
            raise RequestError(
                f"this service takes text alone: a part of the kind {x.not_examined[0]!r} cannot be examined",
                code="not_examined", param="messages",
            )  # fmt: skip
        x.cautioning = bool(rules.notices.reliance)
        if x.caller.standing is not None:
            words = x.caller.standing.words(x.language, x.policy.profile)
            x.notices.append(Notice("standing", words, {"standing": x.caller.standing.id}))
        if (use := self._use(x, prompt)) is not None:
            x.notices.append(notices.usage(use, x.language))

    def _use(self, x: Exchange, prompt: Prompt) -> Use | None:
        rule = x.policy.rules.notices
        if not (rule.hours or rule.turns):
            return None
        if x.caller.names:
            return self.sessions.used(self.keys.mac("subject", "session", x.app.id, x.caller.names[0]).hex(), rule)
        turns = len({slot.message for slot in prompt.slots if slot.origin == "user" and slot.message >= 0})
        return Use(0.0, turns) if rule.turns and turns and turns % rule.turns == 0 else None

    async def answered(self, x: Exchange) -> None:
        """Before the model is asked: whether its answer may go out without a visible label."""
        if not x.asked.unlabelled:
            return
        subject = x.caller.subject
        number = self.agreements.of(x.app.id, x.caller.names) if self.agreements is not None else None
        if number is None or subject is None or self.agreements is None:
            raise RequestError(
                "'sluice.unlabelled': no agreement of this user is in force; the operator records one first "
                "(未记录该用户的无标识约定)",
                code="no_agreement", param="sluice.unlabelled", status=403,
            )  # fmt: skip
        if await asyncio.to_thread(self.agreements.logged, number, x.decision, subject):
            x.agreement = number

    def judged(self, x: Exchange, prompt: Prompt) -> None:
        """After it is over: whether the user's message counts against them. Never waits."""
        subject = x.caller.subject
        if self.subjects is not None and subject is not None and x.decision:
            why = counted(x.policy, prompt.slots, x.judged, self.cues())
            self.subjects.asked(subject, x.caller.names, x.decision, why, x.policy)
