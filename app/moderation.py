"""Moderator.judge(slots, scope) -> Judged: runs the detectors over texts and lets policy decide.

Law: the same Channel machine screens a plain text and a stream, so both get the same verdict; a detector that fails
or is late degrades the verdict visibly, as policy says, and never passes in silence. What was found in a text is kept, by a
keyed fingerprint of it and the version of all that finds: a conversation is not screened anew at every turn. Knows no dialect
and no network.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import zip_longest
from time import perf_counter
from typing import NamedTuple

from app import clock, metrics
from app.policy import Policies, Policy, strictest, taxonomy
from app.streaming import MASK, Channel
from app.structured import Structured
from app.types import Action, Candidate, Detector, Finding, Path, Reader, Scope, Scorer, Slot, Verdict

log = logging.getLogger("sluice.moderation")

SLICE = 512
"""Characters screened at most before the event loop gets a turn; fewer where they cost more than _TURN."""
_LEAST = 64
_TURN = 0.002
"""Seconds that a slice should take."""
_SLOT = 64
"""What a slot costs besides its text, in characters."""
SEAM = 240
"""Characters on either side of where two messages meet that are looked at together."""
_KNOWN_MOST = 8192
"""Texts whose outcome is kept, and findings in one of them."""
_FINDINGS_MOST = 32
_EPOCH = 600
"""Seconds after which a kept outcome is found anew at the latest: terms and rules expire by the clock."""


@dataclass(slots=True)
class Judged:
    """A verdict and what may be delivered of each slot (same order)."""

    verdict: Verdict
    delivered: list[str] = field(default_factory=list)
    slot_verdicts: list[Verdict] = field(default_factory=list)
    screened: int = 0
    known: int = 0
    """Of `screened`, characters whose outcome was kept from an earlier turn."""


class Outcome(NamedTuple):
    """What came of a text. Holds no text: masks stand in its findings."""

    findings: Sequence[Finding] = ()
    stopped: Action | None = None
    degraded: Sequence[str] = ()
    unread: Sequence[str] = ()
    released: int = 0
    screened: int = 0


class Moderator:
    """Holds the detectors and the policy in force. `policies` is swapped whole by a reload; a request keeps its own."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        policies: Policies,
        readers: Sequence[Reader] = (),
        scorers: Sequence[Scorer] = (),
    ) -> None:
        self.detectors, self.readers, self.scorers = list(detectors), list(readers), list(scorers)
        self.policies = policies
        self._secret = secrets.token_bytes(32)
        self._known: dict[bytes, Outcome] = {}

    def channel(self, scope: Scope, policy: Policy, path: Path = (), *, json: bool = False) -> Channel:
        """A fresh machine for one text of an exchange; `json`: a JSON text, that masks must leave one."""
        made = Structured if json else Channel
        return made(self.detectors, policy, scope, path, self.readers, self.scorers)

    async def answer(self, channel: Channel, scope: Scope, policy: Policy) -> str:
        """Put the channel's questions to the scorers, each within its time; what may go out now. Never raises for what a
        scorer does."""
        out = ""
        while (check := channel.due) is not None:
            given = await asyncio.gather(*(self._ask(s, check.text, check.since, scope, policy) for s in self.scorers))
            if channel.due is check:  # not cut meanwhile
                failed = [s.name for s, found in zip(self.scorers, given, strict=True) if found is None]
                out += channel.take([c for found in given for c in found or ()], failed)
        return out

    async def ends_in_stop(self, channel: Channel, scope: Scope, policy: Policy) -> bool:
        """Would the channel's text be stopped if it ended here?"""
        if not (channel.holding or self.scorers):
            return False
        ended = channel.fork()
        ended.finish()
        await self.answer(ended, scope, policy)
        return ended.stopped is not None

    async def _ask(self, scorer: Scorer, text: str, since: int, scope: Scope, policy: Policy) -> list[Candidate] | None:
        try:
            async with asyncio.timeout(policy.rules.detector_ms / 1000):
                return await scorer.score(text, since, scope)
        except TimeoutError:
            metrics.LATE.inc()
        except Exception as e:
            # The type alone: a message could hold the text.
            log.error("scorer failed", extra={"detector": scorer.name, "error": type(e).__name__})
        return None

    async def judge(self, slots: Sequence[Slot], scope: Scope, policy: Policy, choices: Sequence[int] = ()) -> Judged:
        """Screen every slot, and the seams between messages of one origin. `choices`: whose text each slot is; as in a stream,
        what a choice says behind a text that was stopped is not heard. Never raises for what a detector does."""
        judged = Judged(Verdict())
        outcomes = []
        state = self._state(scope, policy) if scope.direction == "prompt" else None
        work = 0
        over: set[int] = set()
        for slot, choice in zip_longest(slots, choices):
            if choice in over:
                judged.delivered.append("")
                judged.slot_verdicts.append(Verdict())
                continue
            work += len(slot.text) + _SLOT
            if work > SLICE:
                work = 0
                await asyncio.sleep(0)
            outcome, text = await self._outcome(slot, scope, policy, state, judged)
            judged.delivered.append(text)
            judged.slot_verdicts.append(decide([outcome], policy, scope))
            judged.screened += outcome.screened
            if choices and outcome.stopped is not None:
                over.add(choice)
            outcomes.append(outcome)
        spoken = [slot for slot in slots if slot.message >= 0]
        joined = await self._joined(spoken, scope, policy, state, judged) if len(spoken) > 1 else []
        judged.verdict = decide(outcomes, policy, scope, joined)
        return judged

    # ---- one text

    def _state(self, scope: Scope, policy: Policy) -> bytes:
        """All that an outcome depends on besides the text."""
        found_by: list[Detector | Reader | Scorer] = [*self.detectors, *self.readers, *self.scorers]
        versions = [finder.version for finder in found_by]
        parts = [policy.version, scope.app, scope.direction, str(int(clock.now() // _EPOCH)), *versions]
        return "\n".join(parts).encode()

    async def _outcome(
        self, slot: Slot, scope: Scope, policy: Policy, state: bytes | None, judged: Judged
    ) -> tuple[Outcome, str]:
        """What comes of a slot, and what may be delivered of it; `state`: what it depends on besides, where it is kept."""
        key = b""
        if state is not None:
            mac = blake2b(state, key=self._secret, digest_size=16)
            mac.update(b"\0" + slot.text.encode("utf-8", "surrogatepass"))
            key = mac.digest()
        known = self._known.pop(key, None)
        if known is not None:
            self._known[key] = known  # now the newest
            judged.known += known.screened
            outcome = known._replace(findings=[replace(f, path=slot.path) for f in known.findings])
            return outcome, _masked(slot.text[: known.released], known.findings)
        channel = self.channel(scope, policy, slot.path, json=slot.json)
        text = await self._whole(channel, slot.text, scope, policy)
        outcome = outcome_of(channel)
        if key and not (outcome.degraded or outcome.unread) and len(outcome.findings) <= _FINDINGS_MOST:
            self._known[key] = outcome._replace(findings=[replace(f, path=()) for f in outcome.findings])
            if len(self._known) > _KNOWN_MOST:
                del self._known[next(iter(self._known))]
        return outcome, text

    async def _whole(self, channel: Channel, text: str, scope: Scope, policy: Policy) -> str:
        # How a text is cut changes nothing in what is found, so the cut may follow the clock.
        parts, at, size, turns = [], 0, SLICE, 1
        while at < len(text) and channel.stopped is None:
            for _ in range(turns if at else 0):
                await asyncio.sleep(0)
            started = perf_counter()
            part = text[at : at + size]
            at += size
            parts.append(channel.push(part) if at < len(text) else channel.finish(part))
            taken = perf_counter() - started
            # A timer that is due takes three turns of the loop until what waits for it runs.
            turns = 3 if taken > _TURN else 1
            size = min(SLICE, max(_LEAST, int(size * min(1.2, _TURN / max(taken, 1e-6)))))
            if taken > policy.rules.detector_ms / 1000:
                # These detectors run here and now, so the result is there; what is late is only counted.
                metrics.LATE.inc()
            if channel.due is not None:
                parts.append(await self.answer(channel, scope, policy))
        return "".join(parts)

    # ---- between texts

    async def _joined(
        self, slots: Sequence[Slot], scope: Scope, policy: Policy, state: bytes | None, judged: Judged
    ) -> list[Finding]:
        """What only the seam between two messages of one origin shows, or between parts of one. It flags at most: a join is our
        own making."""
        findings = []
        capped = policy.capped(Action.FLAG)
        for left, right in _seams(slots):
            before = "".join(s.text for s in left)[-SEAM:]
            seam = Slot(left[-1].path, before + "".join(s.text for s in right)[:SEAM], left[-1].origin)
            outcome, _ = await self._outcome(seam, scope, capped, state and b"join\n" + state, judged)
            last = left[-1]
            begin = max(0, len(before) - len(last.text))  # of the last message, in the seam
            shift = len(last.text) - len(before)
            for f in outcome.findings:
                # One that begins further to the left is told of an earlier seam.
                if begin <= f.start < len(before) < f.end:
                    findings.append(
                        replace(f, start=f.start + shift, end=len(last.text), technique=_and_join(f.technique))
                    )
        return findings


def _and_join(technique: str) -> str:
    return "join" if technique == "plain" else f"{technique}+join"


def _seams(slots: Sequence[Slot]) -> Iterable[tuple[list[Slot], list[Slot]]]:
    """Per origin, where two of its texts meet: those before and those after, as many as a seam shows. Whoever else spoke in
    between is not heard: a person's next message follows on their last."""
    origins: dict[str, list[Slot]] = {}
    for slot in slots:
        origins.setdefault(slot.origin, []).append(slot)
    for spoken in origins.values():
        for i in range(1, len(spoken)):
            yield _near(spoken[:i][::-1])[::-1], _near(spoken[i:])


def _near(slots: Sequence[Slot]) -> list[Slot]:
    size, near = 0, []
    for slot in slots:
        near.append(slot)
        size += len(slot.text)
        if size >= SEAM:
            break
    return near


def _masked(text: str, findings: Iterable[Finding]) -> str:
    spans = [(f.start, f.end) for f in findings if f.action is Action.MASK and not f.shadow]
    if not spans:
        return text
    chars = list(text)
    for start, end in spans:
        chars[start:end] = MASK * (min(end, len(chars)) - min(start, len(chars)))
    return "".join(chars)


def outcome_of(channel: Channel) -> Outcome:
    return Outcome(
        channel.findings, channel.stopped, channel.degraded, channel.unread, channel.released, channel.screened
    )


def conclude(channels: Iterable[Channel], policy: Policy, scope: Scope) -> Verdict:
    """One verdict over the channels of an exchange."""
    return decide(map(outcome_of, channels), policy, scope)


def decide(outcomes: Iterable[Outcome], policy: Policy, scope: Scope, extra: Iterable[Finding] = ()) -> Verdict:
    """One verdict over what came of all texts."""
    verdict = Verdict()
    stopped = Action.PASS
    unread: list[str] = []
    for outcome in outcomes:
        verdict.findings += outcome.findings
        stopped = max(stopped, outcome.stopped or Action.PASS)
        verdict.degraded += [name for name in outcome.degraded if name not in verdict.degraded]
        unread += [name for name in outcome.unread if name not in unread]
    verdict.findings += extra
    verdict.findings.sort(key=lambda f: (f.start, f.end, f.category))
    deciding = strictest(verdict.findings)
    if deciding is not None and deciding.action > Action.PASS:
        verdict.action, verdict.category = deciding.action, deciding.category
        verdict.clause = taxonomy()[deciding.category].clause
    verdict.action = max(verdict.action, stopped)
    if verdict.degraded:
        action = policy.degraded(scope.direction)
        verdict.action = max(verdict.action, Action.BLOCK if action is None else action)
    if unread:
        verdict.degraded += [name for name in unread if name not in verdict.degraded]
        verdict.action = max(verdict.action, Action.FLAG)
    return verdict
