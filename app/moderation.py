"""Moderator.judge(slots, scope) -> Judged: runs the detectors over texts and lets policy decide.

Law: the same Channel machine screens a plain text and a stream, so both get the same verdict; a detector that fails
or is late degrades the verdict visibly, as policy says, and never passes in silence. Knows no dialect and no network.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from app import metrics
from app.policy import Policies, Policy, strictest, taxonomy
from app.streaming import Channel
from app.types import Action, Detector, Finding, Path, Reader, Scope, Slot, Verdict

SLICE = 512
"""Characters screened at most before the event loop gets a turn; fewer where they cost more than _TURN."""
_LEAST = 64
_TURN = 0.002
"""Seconds that a slice should take."""
_SLOT = 64
"""What a slot costs besides its text, in characters."""


@dataclass(slots=True)
class Judged:
    """A verdict and what may be delivered of each slot (same order)."""

    verdict: Verdict
    delivered: list[str] = field(default_factory=list)
    slot_verdicts: list[Verdict] = field(default_factory=list)
    screened: int = 0


class Moderator:
    """Holds the detectors and the policy in force. `policies` is swapped whole by a reload; a request keeps its own."""

    def __init__(self, detectors: Sequence[Detector], policies: Policies, readers: Sequence[Reader] = ()) -> None:
        self.detectors, self.readers = list(detectors), list(readers)
        self.policies = policies

    def channel(self, scope: Scope, policy: Policy, path: Path = ()) -> Channel:
        """A fresh machine for one text of an exchange."""
        return Channel(self.detectors, policy, scope, path, self.readers)

    async def judge(self, slots: Sequence[Slot], scope: Scope, policy: Policy) -> Judged:
        """Screen every slot, and consecutive messages of one origin joined. Never raises for what a detector does."""
        judged = Judged(Verdict())
        channels = []
        work = 0
        for slot in slots:
            work += len(slot.text) + _SLOT
            if work > SLICE:
                work = 0
                await asyncio.sleep(0)
            channel = self.channel(scope, policy, slot.path)
            judged.delivered.append(await self._whole(channel, slot.text, policy))
            judged.slot_verdicts.append(conclude([channel], policy, scope))
            judged.screened += channel.screened
            channels.append(channel)
        spoken = [slot for slot in slots if slot.message >= 0]
        joined = await self._joined(spoken, scope, policy) if len(spoken) > 1 else []
        judged.verdict = conclude(channels, policy, scope, joined)
        return judged

    async def _whole(self, channel: Channel, text: str, policy: Policy) -> str:
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
        return "".join(parts)

    async def _joined(self, slots: Sequence[Slot], scope: Scope, policy: Policy) -> list[Finding]:
        """What only a join of neighbouring messages (or parts of one) shows. It flags at most: a join is our own making."""
        findings = []
        for group in _runs(slots):
            text = "".join(s.text for s in group)
            seams, at = [], 0
            for slot in group:
                seams.append(at)
                at += len(slot.text)
            channel = self.channel(scope, policy.capped(Action.FLAG), group[0].path)
            await self._whole(channel, text, policy)
            for f in channel.findings:
                here = bisect_right(seams, f.start) - 1
                length = len(group[here].text)
                start = f.start - seams[here]
                if f.end - seams[here] > length:
                    findings.append(
                        replace(f, start=start, end=length, path=group[here].path, technique=_and_join(f.technique))
                    )
        return findings


def _and_join(technique: str) -> str:
    return "join" if technique == "plain" else f"{technique}+join"


def _runs(slots: Sequence[Slot]) -> Iterable[list[Slot]]:
    """Neighbouring slots of one origin, where there is more than one."""
    run: list[Slot] = []
    for slot in slots:
        if run and (slot.origin != run[-1].origin or slot.message - run[-1].message > 1):
            if len(run) > 1:
                yield run
            run = []
        run.append(slot)
    if len(run) > 1:
        yield run


def conclude(channels: Iterable[Channel], policy: Policy, scope: Scope, extra: Iterable[Finding] = ()) -> Verdict:
    """One verdict over the channels of an exchange."""
    verdict = Verdict()
    stopped = Action.PASS
    unread: list[str] = []
    for channel in channels:
        verdict.findings += channel.findings
        stopped = max(stopped, channel.stopped or Action.PASS)
        verdict.degraded += [name for name in channel.degraded if name not in verdict.degraded]
        unread += [name for name in channel.unread if name not in unread]
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
