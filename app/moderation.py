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
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import accumulate, zip_longest
from time import perf_counter
from typing import NamedTuple

from app import checkpoints, clock, metrics
from app import text as folding
from app.errors import GuardError
from app.exceptions import Exceptions
from app.policy import Policies, Policy, strictest
from app.streaming import MASK, Channel
from app.structured import Structured
from app.taxonomy import taxonomy
from app.types import Action, Candidate, Detector, Finding, Guard, Path, Reader, Scope, Scorer, Slot, Verdict

log = logging.getLogger("sluice.moderation")

SLICE = 1024
"""Characters screened at most before the event loop gets a turn; fewer where they cost more than _TURN."""
_LEAST = 64
_TURN = 0.002
"""Seconds that a slice should take."""
_SLOT = 64
"""What a slot costs besides its text, in characters."""
SEAM = 240
"""Characters on either side of where two messages meet that are looked at together."""
_STRETCH = 4 * SEAM
"""Characters of several short messages that are looked at together at most."""
_TRIES = 3
"""How often a guard may give no answer about a text before it is asked no more."""
_RUN, _BACK = 64, 16
"""Pieces scored before the event loop gets a turn, and those before them that a scorer may look back at (none is shorter than 16
characters)."""
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
    slot_screened: list[int] = field(default_factory=list)
    screened: int = 0
    known: int = 0
    """Of `screened`, characters whose outcome was kept from an earlier turn."""


class Outcome(NamedTuple):
    """What came of a text. Holds no text: masks stand in its findings."""

    findings: Sequence[Finding] = ()
    stopped: Action | None = None
    degraded: Sequence[str] = ()
    unread: Sequence[str] = ()
    missed: Sequence[str] = ()
    released: int = 0
    screened: int = 0
    known: bool = False
    """From an earlier turn."""


_NOTHING = Outcome()


class Moderator:
    """Holds the detectors and the policy in force. `policies` is swapped whole by a reload; a request keeps its own."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        policies: Policies,
        readers: Sequence[Reader] = (),
        scorers: Sequence[Scorer] = (),
        guards: Sequence[Guard] = (),
    ) -> None:
        self.detectors, self.readers = list(detectors), list(readers)
        self.scorers, self.guards = list(scorers), list(guards)
        self.policies = policies
        self.exceptions: Exceptions | None = None
        self._secret = secrets.token_bytes(32)
        self._known: dict[bytes, Outcome] = {}

    def channel(self, scope: Scope, policy: Policy, path: Path = (), *, json: bool = False) -> Channel:
        """A fresh machine for one text of an exchange; `json`: a JSON text, that masks must leave one."""
        made = Structured if json else Channel
        return made(self.detectors, policy, scope, path, self.readers, self.scorers, self.guards)

    async def answer(self, channel: Channel, scope: Scope, policy: Policy) -> str:
        """Put the channel's questions to the guards, each within its time; what may go out now. Never raises for what a
        guard does."""
        out = ""
        while (check := channel.due) is not None:
            # One that never answers is not waited for at every sentence.
            asked = [g for g in self.guards if (channel.unread + channel.missed).count(g.name) < _TRIES]
            given = await asyncio.gather(*(self._ask(g, check.text, check.since, scope, policy) for g in asked))
            if channel.due == check:  # not cut meanwhile
                failed = [g.name for g, found in zip(asked, given, strict=True) if found is None]
                # One in shadow drops nothing.
                heard = [g for g in asked if g.name not in failed and g.name not in policy.shadow]
                covered = frozenset[str]().union(*(g.covers for g in heard))
                out += channel.take([c for found in given for c in found or ()], failed, covered)
        return out

    async def ended(self, channel: Channel, scope: Scope, policy: Policy) -> tuple[Channel, str] | None:
        """The channel as it would be if its text ended here, and what would go out, where it would then be stopped."""
        if not (channel.holding or self.guards):
            return None
        ended = channel.fork()
        said = ended.finish() + await self.answer(ended, scope, policy)
        return (ended, said) if ended.stopped is not None else None

    async def _ask(self, guard: Guard, text: str, since: int, scope: Scope, policy: Policy) -> list[Candidate] | None:
        began, failed = perf_counter(), "failed"
        try:
            async with asyncio.timeout(policy.rules.guard.ms / 1000):
                found = await guard.judge(text, since, scope)
            if isinstance(found, list) and all(isinstance(c, Candidate) for c in found):
                metrics.GUARD.labels(guard.name, "harmful" if found else "harmless").inc()
                return found
            failed = "garbage"
        except TimeoutError:
            failed = "late"
        except GuardError as e:
            failed = e.reason
        except Exception as e:
            # The type alone: a message could hold the text.
            log.error("guard failed", extra={"detector": guard.name, "error": type(e).__name__})
        finally:
            metrics.GUARD_SECONDS.labels(guard.name).observe(perf_counter() - began)
        metrics.GUARD.labels(guard.name, failed).inc()
        return None

    async def scores(self, text: str, policy: Policy) -> dict[str, float]:
        """The scorers' highest score of every category; of a scorer that fails there is none."""
        pieces = checkpoints.pieces(folding.fold(text), policy.rules.stream.every)
        best: dict[str, float] = {}
        for scorer in self.scorers:
            # Runs of pieces, each with what a window reaches back over.
            for first in range(0, len(pieces), _RUN):
                await asyncio.sleep(0)
                try:
                    told = scorer.scores(pieces[max(0, first - _BACK) : first + _RUN])
                except Exception as e:
                    log.error("scorer failed", extra={"detector": scorer.name, "error": type(e).__name__})
                    break
                for category, score in told.items():
                    best[category] = max(score, best.get(category, 0.0))
        return best

    async def judge(self, slots: Sequence[Slot], scope: Scope, policy: Policy, choices: Sequence[int] = ()) -> Judged:
        """Screen every slot, and the seams between texts of one origin. `choices`: whose text each slot is; as in a stream, what a
        choice says behind a text that was stopped is not heard. Never raises for what a detector does."""
        judged = Judged(Verdict())
        outcomes: list[Outcome] = []
        state = self._state(scope, policy) if scope.direction == "prompt" else None
        fresh: dict[bytes, Outcome] = {}
        work = 0
        over: set[int] = set()
        for slot, choice in zip_longest(slots, choices):
            if choice in over:
                judged.delivered.append("")
                judged.slot_verdicts.append(Verdict())
                judged.slot_screened.append(0)
                continue
            if work > SLICE:
                work = 0
                await asyncio.sleep(0)
            outcome, text = await self._outcome(slot, scope, policy, state, fresh)
            work += _SLOT if outcome.known else len(slot.text) + _SLOT
            judged.delivered.append(text)
            judged.slot_verdicts.append(decide([outcome], policy, scope))
            judged.screened += outcome.screened
            judged.slot_screened.append(outcome.screened)
            if outcome.known:
                judged.known += outcome.screened
            if choices and outcome.stopped is not None:
                over.add(choice)
            outcomes.append(outcome)
        spoken = [slot for slot in slots if slot.message >= 0]
        several = len({slot.origin for slot in spoken}) < len(spoken)  # of one origin: there is a seam
        joined = await self.joined(spoken, scope, policy, state, fresh) if several and not over else _NOTHING
        if fresh and state == self._state(scope, policy):
            # Nothing that finds has changed meanwhile.
            self._keep(fresh)
        judged.verdict = decide([*outcomes, joined], policy, scope)
        return judged

    # ---- one text

    def _state(self, scope: Scope, policy: Policy) -> bytes:
        """All that an outcome depends on besides the text."""
        found_by: list[Detector | Reader | Scorer | Guard] = [
            *self.detectors, *self.readers, *self.scorers, *self.guards
        ]  # fmt: skip
        versions = [finder.version for finder in found_by]
        parts = [policy.version, scope.app, scope.direction, str(int(clock.now() // _EPOCH)), *versions]
        return "\n".join(parts).encode()

    async def _outcome(
        self, slot: Slot, scope: Scope, policy: Policy, state: bytes | None, fresh: dict[bytes, Outcome]
    ) -> tuple[Outcome, str]:
        """What comes of a slot, and what may be delivered of it. `state`: what it depends on besides, where it may be kept;
        `fresh`: what is to be."""
        key = b""
        excepted = (
            self.exceptions.of(scope.app, slot.text)
            if self.exceptions is not None and scope.direction == "prompt"
            else frozenset[str]()
        )
        if excepted:
            policy, state = policy.excepting(excepted), None
        if state is not None:
            mac = blake2b(state, key=self._secret, digest_size=16)
            mac.update(b"\0%d" % slot.json + slot.text.encode("utf-8", "surrogatepass"))
            key = mac.digest()
        known = self._known.pop(key, None)
        if known is not None:
            self._known[key] = known  # now the newest
            outcome = known._replace(findings=[replace(f, path=slot.path) for f in known.findings], known=True)
            return outcome, _masked(slot.text[: known.released], known.findings)
        channel = self.channel(scope, policy, slot.path, json=slot.json)
        text = await self._whole(channel, slot.text, scope, policy)
        outcome = outcome_of(channel)
        count(channel)
        # Of a JSON text that is not delivered as it is more would have to be kept.
        plain = not slot.json or text == slot.text
        whole = not (outcome.degraded or outcome.unread or outcome.missed)
        if key and plain and whole and len(outcome.findings) <= _FINDINGS_MOST:
            findings = [replace(f, path=()) for f in outcome.findings]
            fresh[key] = outcome._replace(findings=findings, released=len(text))
        return outcome, text

    def _keep(self, fresh: dict[bytes, Outcome]) -> None:
        self._known |= fresh
        while len(self._known) > _KNOWN_MOST:
            del self._known[next(iter(self._known))]

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

    async def joined(
        self,
        slots: Sequence[Slot],
        scope: Scope,
        policy: Policy,
        state: bytes | None = None,
        fresh: dict[bytes, Outcome] | None = None,
    ) -> Outcome:
        """What only the seam between two texts of one origin shows: messages, or parts of one. It flags at most, and so does what
        failed over it: a join is our own making."""
        findings: dict[tuple[Path, int, str, str], Finding] = {}
        unread: dict[str, None] = {}
        missed: dict[str, None] = {}
        capped = policy.capped(Action.FLAG)
        for stretch in _stretches(slots):
            text = "".join(piece.text for piece in stretch)
            seam = Slot(stretch[0].slot.path, text, stretch[0].slot.origin)
            outcome, _ = await self._outcome(
                seam, scope, capped, state and b"join\n" + state, {} if fresh is None else fresh
            )
            unread |= dict.fromkeys([*outcome.degraded, *outcome.unread])
            missed |= dict.fromkeys(outcome.missed)
            begins = list(accumulate((len(piece.text) for piece in stretch), initial=0))
            for f in outcome.findings:
                here = bisect_right(begins, f.start) - 1
                piece, begin = stretch[here], begins[here]
                if f.end > begins[here + 1]:
                    start = piece.at + f.start - begin
                    found = replace(
                        f, start=start, end=len(piece.slot.text), path=piece.slot.path,
                        technique=_and_join(f.technique), spans=(),
                    )  # fmt: skip
                    findings[found.path, start, f.category, f.rule] = found
        return Outcome(list(findings.values()), unread=list(unread), missed=list(missed))


def _and_join(technique: str) -> str:
    return "join" if technique == "plain" else f"{technique}+join"


class _Piece(NamedTuple):
    """Part of a slot's text, that begins `at` in it."""

    slot: Slot
    at: int
    text: str


def _stretches(slots: Sequence[Slot]) -> Iterable[list[_Piece]]:
    """Per origin, runs of texts where they meet: short ones whole, of a long one its end and the beginning of the next. Whoever
    else spoke in between is not heard: a person's next message follows on their last. They begin where the conversation does,
    so that those of earlier turns come again."""
    origins: dict[str, list[Slot]] = {}
    for slot in slots:
        origins.setdefault(slot.origin, []).append(slot)
    for spoken in origins.values():
        run: list[_Piece] = []
        size = fresh = 0
        for slot in spoken:
            size += len(slot.text)
            fresh += 1
            if len(slot.text) > 2 * SEAM:
                run.append(_Piece(slot, 0, slot.text[:SEAM]))
            else:
                run.append(_Piece(slot, 0, slot.text))
                if size < _STRETCH:
                    continue
            if len(run) > 1:
                yield run
            # What the next run begins with: as much of this one as a seam shows.
            last: list[_Piece] = []
            left = SEAM
            for piece in [_Piece(slot, 0, slot.text)] if len(slot.text) > 2 * SEAM else run[::-1]:
                at = max(0, len(piece.text) - left)
                last.append(_Piece(piece.slot, piece.at + at, piece.text[at:]))
                left -= len(piece.text)
                if left <= 0:
                    break
            run = last[::-1]
            size, fresh = sum(len(piece.text) for piece in run), 0
        if fresh and len(run) > 1:
            yield run


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
        channel.findings,
        channel.stopped,
        channel.degraded,
        list(dict.fromkeys(channel.unread)),
        list(dict.fromkeys(channel.missed)),
        channel.released,
        channel.screened,
    )


def count(channel: Channel) -> None:
    """Tell the metrics what the stages did with a text. Once a text."""
    if channel.stretches:
        metrics.STRETCHES.labels("scorer").inc(channel.stretches)
        metrics.SCORER_SECONDS.inc(channel.scoring)
    if channel.asked:
        metrics.STRETCHES.labels("guard").inc(channel.asked)
    for (category, outcome), number in channel.judged.items():
        metrics.SUSPICIONS.labels(category, outcome).inc(number)


def conclude(channels: Iterable[Channel], policy: Policy, scope: Scope, joined: Outcome | None = None) -> Verdict:
    """One verdict over the channels of an exchange, and the seams between them."""
    return decide([*map(outcome_of, channels), *([] if joined is None else [joined])], policy, scope)


def decide(outcomes: Iterable[Outcome], policy: Policy, scope: Scope) -> Verdict:
    """One verdict over what came of all texts."""
    verdict = Verdict()
    stopped = Action.PASS
    unread: list[str] = []
    missed: list[str] = []
    told = [o for o in outcomes if o.findings or o.stopped or o.degraded or o.unread or o.missed]
    if not told:
        return verdict
    for outcome in told:
        verdict.findings += outcome.findings
        stopped = max(stopped, outcome.stopped or Action.PASS)
        verdict.degraded += [name for name in outcome.degraded if name not in verdict.degraded]
        unread += [name for name in outcome.unread if name not in unread]
        missed += [name for name in outcome.missed if name not in missed]
    verdict.findings.sort(key=lambda f: (f.start, f.end, f.category))
    deciding = strictest(verdict.findings)
    if deciding is not None and deciding.action > Action.PASS:
        verdict.action, verdict.category = deciding.action, deciding.category
        verdict.clause = taxonomy()[deciding.category].clause
    verdict.action = max(verdict.action, stopped)
    if verdict.degraded:
        verdict.failed = True
        action = policy.degraded(scope.direction)
        verdict.action = max(verdict.action, Action.BLOCK if action is None else action)
    if unread:
        verdict.degraded += [name for name in unread if name not in verdict.degraded]
        verdict.action = max(verdict.action, Action.FLAG)
    verdict.degraded += [name for name in missed if name not in verdict.degraded]
    return verdict
