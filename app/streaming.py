"""What of a stream may go out now. No I/O, no await.

Law: what is released, found and decided is a function of the text alone, never of how it was cut; a plain answer is
the same machine fed once. Text goes out up to the `hold` of the most cautious detector. A finding is settled once
every finding that could start before or at it is known, in order of start; at the first that stops, the text before
it is released and nothing after. Readers follow behind, in text already let go: what they find flags. At check points, once all
that starts before one is settled, scorers look at the text as a whole; where something is suspected there, guards are asked. Their
answers come from outside (`due`, `take`), and in strict mode text waits for them.
"""

from __future__ import annotations

import copy
import logging
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Self

from app import checkpoints
from app import text as folding
from app.checkpoints import Check
from app.policy import Policy
from app.terms import KEPT, REACH
from app.types import Action, Candidate, Detector, Finding, Guard, Path, Reader, Scope, Scorer

log = logging.getLogger("sluice.streaming")

HELD_MAX = 65_536
"""Characters held at most. Beyond it (a term padded with invisible characters, say) the channel is cut as degraded:
letting go of them would be a leak."""

MOST = 4096
"""Findings told of one text by one source; beyond it only stricter ones. They still mask, flag and stop: what is bounded is
the list, for a text of nothing but terms."""

MASK = "*"
_STEP, _LEAST_STEP = 4 * REACH, 2 * REACH
"""Settled folded characters that readers wait for: looking seldom keeps a delta cheap, where a look is quick."""
_QUICK = 0.001
"""Seconds."""


@dataclass(slots=True)
class _Piece:
    """One push: where it starts in the original and in the folded text."""

    original: int
    folded: int
    text: str
    origins: Sequence[int] | None = None  # computed only where something hit


class _Watch:
    """One detector at work on a text. Folded indices: `hold`, before which it has told all; until the text is `wake` long there
    is no need to ask it again."""

    __slots__ = ("hold", "name", "scan", "wake")

    def __init__(self, detector: Detector) -> None:
        self.name, self.scan = detector.name, detector.scan
        self.hold = self.wake = 0


@dataclass(slots=True)
class _Stretch:
    """Text between two check points, folded indices. `found`: what scorers say; `suspects`: what is suspected in it, by where it
    begins; a suspicion belongs to the stretch in which it ends, so a guard is shown all of it. `asks`: guards are to be asked."""

    since: int
    at: int
    found: list[tuple[Candidate, Finding]]
    suspects: list[tuple[int, Finding]]
    asks: bool


class Channel:
    """One text as it arrives: a choice's content, its reasoning, an argument of a tool call, a prompt's slot."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        policy: Policy,
        scope: Scope,
        path: Path = (),
        readers: Sequence[Reader] = (),
        scorers: Sequence[Scorer] = (),
        guards: Sequence[Guard] = (),
    ) -> None:
        self._watches = [_Watch(detector) for detector in detectors]
        self._policy, self._scope, self._path = policy, scope, path
        self._readers, self._scorers = readers, scorers
        self._guards = guards if policy.rules.guard.when != "never" else ()
        self._covered = frozenset[str]().union(*(guard.covers for guard in self._guards))
        self._checks = bool(scorers or self._guards)
        self._strict = self._checks and policy.rules.stream.mode == "strict"
        self._point = self._checked = 0  # folded indices of the last check point, and of the last that was answered
        self._due: deque[_Stretch] = deque()  # stretches not answered
        self._asked = ""  # folded text before self._point that guards are shown
        self._before: dict[str, Any] = {}  # scorer -> what it said of itself at the last check point
        self._suspected: list[tuple[int, int, Finding]] = []  # suspicions settled, in no stretch yet: folded start, end
        self._steps = dict.fromkeys((r.name for r in readers), _LEAST_STEP)  # reader -> what it waits for
        self._read = dict.fromkeys((r.name for r in readers), 0)  # reader -> folded index up to which it has read
        self._window = ""  # folded text from self._base on: KEPT characters before what is not settled or not read
        self._base = 0
        self._since = 0  # folded index up to which everything is settled
        self._pieces: list[_Piece] = []
        self._held = ""  # original text from self._out on
        self._out = 0
        self._size = 0
        self._folded_size = 0
        self._half = ""  # the first half of a surrogate pair that a model cut in two
        self._closed = False
        self._until = 0  # original index before which everything is settled
        self._stopped_at = 0  # folded index of the finding that stops
        self._pool: dict[Candidate, None] = {}
        self._masks: list[tuple[int, int]] = []
        self._settled: list[tuple[Candidate, Finding]] = []
        self._findings: list[Finding] = []
        self._spans: dict[
            str, list[tuple[int, int]]
        ] = {}  # category -> (start, furthest end so far) of what is settled
        self._count: dict[str, int] = {}  # reader, '' for what is settled -> how many findings
        self._strictest: dict[str, Action] = {}
        self._flags: dict[str, list[Finding]] = {}  # category -> what is settled and acts; readers come too late for it
        self._told: dict[tuple[str, str], int] = {}  # reader, category -> the end of what it told last
        self.stopped: Action | None = None
        self.degraded: list[str] = []
        self.unread: list[str] = []
        """Readers that failed, scorers and guards, as often as they did: they could have flagged, so the text is flagged."""
        self.missed: list[str] = []
        """Scorers and guards that gave no answer, as often as they did, where policy lets the text pass."""
        self.stretches = self.asked = 0
        """Stretches that scorers looked at, and those that guards were asked about."""
        self.scoring = 0.0
        """Seconds that scorers took."""
        self.judged: dict[tuple[str, str], int] = {}
        """Category and what guards said of a suspicion: confirmed, dropped, alone (there was none)."""
        self.held_max = 0
        self.leaked = 0
        """Original characters let go that belong to a finding that masks or stops."""
        self.masked = False

    @property
    def findings(self) -> list[Finding]:
        """What was found and decided so far, in original indices."""
        return self._findings

    @property
    def screened(self) -> int:
        """Original characters seen."""
        return self._size

    @property
    def released(self) -> int:
        """Original characters let go."""
        return self._out

    @property
    def holding(self) -> bool:
        """Some text is not yet let go."""
        return bool(self._held or self._half)

    def push(self, text: str) -> str:
        """Take a delta; return what may go out now, masks applied. After a stop or the end it is always ''."""
        if self.stopped is not None or self._closed or not text:
            return ""
        text = self._whole(text)
        if not text:
            return ""
        self._take(text)
        return self._settle(final=False)

    def _whole(self, text: str) -> str:
        """`text` with surrogate pairs made one; a first half at its end waits for the next delta."""
        if not self._half:
            try:
                text.encode()
                return text
            except UnicodeEncodeError:
                pass
        text = (self._half + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return text.removesuffix(self._half) if self._half else text

    def _take(self, text: str) -> None:
        folded = folding.fold(text)
        self._pieces.append(_Piece(self._size, self._folded_size, text))
        self._size += len(text)
        self._folded_size += len(folded)
        self._window += folded
        self._held += text

    def finish(self, text: str = "") -> str:
        """`text` is the last, if any: settle the rest and return it. A second call returns ''."""
        if self.stopped is not None or self._closed:
            return ""
        self._closed = True
        text = (self._whole(text) if text else "") + self._half
        if text:
            self._take(text)
        return self._settle(final=True)

    def fork(self) -> Self:
        """The same machine, to go on with on its own: what would happen if the text ended here?"""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, (list, dict, deque)):
                setattr(other, name, copy.copy(value))
        other._watches = [copy.copy(watch) for watch in self._watches]
        other._spans = {category: list(spans) for category, spans in self._spans.items()}
        other._flags = {category: list(flags) for category, flags in self._flags.items()}
        return other

    def cut(self, action: Action) -> None:
        """Stop here for a reason outside the text (a failed detector, a time limit): what is held is never released."""
        self.stopped = action
        self._held = ""
        self.give_up()

    def give_up(self) -> None:
        """No guard will answer any more: what scorers said of text that may be out already is told all the same."""
        for stretch in self._due:
            for c, finding in stretch.found:
                self._tell(c.detector, finding)
        self._due.clear()

    def _leak(self, finding: Finding) -> None:
        self.leaked += max(0, min(self._out, finding.end) - finding.start)

    def _settle(self, final: bool) -> str:
        hold = size = self._folded_size
        base, settled = self._base, self._since
        for watch in self._watches:
            if size < watch.wake and not final:
                hold = min(hold, watch.hold)
                continue
            try:
                found, until, wake = watch.scan(self._window, max(settled, watch.hold) - base, final, self._scope)
                moved = [_moved(c, base) for c in found]
                until, wake = until + base, wake + base if wake else 0
            except Exception as e:
                # The type alone: a message could hold the text.
                log.error("detector failed", extra={"detector": watch.name, "error": type(e).__name__})
                self.fail(watch.name)
                if self.stopped is not None:
                    return ""
                continue
            watch.hold = until
            if until < hold:
                hold = until
            if wake:
                watch.wake = wake
            for c in moved:
                if c.start >= settled:
                    self._pool[c] = None
        if self._pool and not final:
            # A combining mark may follow, and belongs to the finding: none must stay on what replaces it.
            hold = min([hold, *(c.start for c in self._pool if c.end == size)])
        stop = self._decide(hold, final) if self._pool else None
        if stop is not None:
            self._until, self._since = stop, self._stopped_at
        else:
            self._until, self._since = self._size if hold >= size else self._original(hold), hold
        if self._checks:
            self._check(final or stop is not None)
        released = self._go()
        if len(self._held) > HELD_MAX and not final and self.stopped is None:
            self.degraded.append("held_overflow")
            self.cut(Action.BLOCK)
            return released
        self.held_max = max(self.held_max, len(self._held))
        return released

    def _go(self) -> str:
        """Let go of what is settled and, in strict mode, answered."""
        final = (self._closed or self.stopped is not None) and not self._due
        until, read = self._until, self._since
        if self._checks and not final:
            # Readers stay behind the check points in either mode: what they find must not depend on when an answer comes.
            read = min(read, self._checked)
            if self._strict:
                # What is suspected across a check point waits for the next.
                pending = [start for stretch in self._due for start, _ in stretch.suspects]
                checked = min([self._checked, *pending, *(start for start, _, _ in self._suspected)])
                until = min(until, self._size if checked == self._folded_size else self._original(checked))
        if self._readers:
            self._follow(read, final)
        released = self._release(until)
        if final and self.stopped is not None:
            self._held = ""
        self._trim()
        return released

    # ---- check points

    @property
    def due(self) -> Check | None:
        """The next question for the guards; answered by `take`."""
        if not self._due:
            return None
        since, at = self._due[0].since, self._due[0].at
        first = self._point - len(self._asked)
        text = self._asked[max(0, at - checkpoints.PREFIX - first) : at - first]
        return Check(text, len(text) - (at - since), at)

    def _check(self, final: bool) -> None:
        """Look at the stretches up to the check points before what is settled; `final`: the text's end is one."""
        window = self._window[self._point - self._base : self._since - self._base]
        last = 0
        for end in (*checkpoints.points(window, 0, self._policy.rules.stream.every), *([len(window)] if final else ())):
            if end > last:
                stretch = self._stretch(window[last:end], self._point + last)
                self.asked += stretch.asks
                self._due.append(stretch)
                last = end
        if self._guards:
            self._asked += window[:last]
        self._point += last
        self._answered()

    def _stretch(self, piece: str, since: int) -> _Stretch:
        """The scorers' look at a piece of folded text, and whether it leaves a doubt."""
        at = since + len(piece)
        found, unsure = [], False
        self.stretches += 1
        began = perf_counter()
        for scorer in self._scorers:
            try:
                told, self._before[scorer.name] = scorer.score(piece, self._before.get(scorer.name), self._scope)
                if not told:
                    continue
                told = [self._policy.scored(c) for c in told]
                told = [
                    replace(c, spans=tuple(scorer.evidence(piece, c.category))) if c.tier == "suspect" else c
                    for c in told
                ]
            except Exception as e:
                log.error("scorer failed", extra={"detector": scorer.name, "error": type(e).__name__})
                self._miss(scorer.name, self._policy.rules.degraded.scorer)
                continue
            for c in told:
                if c.tier == "unsure":
                    unsure = unsure or (c.category in self._covered and self._acts(c))
                elif c.tier != "cleared":
                    c = _moved(c, since)
                    found.append((c, self._placed(c)))
        self.scoring += perf_counter() - began
        if not (found or unsure or self._suspected):
            return _Stretch(since, at, found, [], bool(self._guards) and self._policy.rules.guard.when == "always")
        suspects = [(c.start, f) for c, f in found if f.action is Action.FLAG and not f.shadow]
        suspects += [(start, f) for start, end, f in self._suspected if end <= at]
        self._suspected = [each for each in self._suspected if each[1] > at]
        doubt = unsure or any(f.category in self._covered for _, f in suspects)
        asks = bool(self._guards) and (doubt or self._policy.rules.guard.when == "always")
        return _Stretch(since, at, found, suspects, asks)

    def _acts(self, c: Candidate) -> bool:
        """As a suspicion it would be seen."""
        suspicion = replace(c, tier="suspect")
        return self._policy.action(suspicion, self._scope.direction) > Action.PASS and not self._policy.shadowed(c)

    def _placed(self, c: Candidate) -> Finding:
        finding = self._finding(c, self._original(c.start), self._original(c.end - 1) + 1, "")
        if not self._strict and self._policy.action(c, self._scope.direction) is Action.MASK:
            return replace(finding, action=Action.FLAG)  # the text went out: it comes too late to mask
        return finding

    def _answered(self) -> None:
        """Tell what scorers found in the first stretches, up to one that guards are asked about."""
        while self._due and not self._due[0].asks:
            stretch = self._due.popleft()
            self._checked = stretch.at
            for c, finding in stretch.found:
                self._tell(c.detector, finding)

    def take(self, candidates: Sequence[Candidate], failed: Sequence[str] = (), covered: Set[str] = frozenset()) -> str:
        """The guards' answer to `due`, indices of its text, the names of those that gave none, and the categories that the others can
        tell; return what may go out now."""
        check = self.due
        assert check is not None
        stretch = self._due.popleft()
        began = check.at - len(check.text)
        for name in failed:
            self._miss(name, self._policy.rules.degraded.guard)
            if self.stopped is not None:
                return ""
        suspected: dict[str, int] = {}
        for start, f in stretch.suspects:
            suspected[f.category] = min(start, suspected.get(f.category, start))
        found = list(stretch.found)
        for c in candidates:
            c = _moved(replace(c, start=max(c.start, check.since)), began)
            if c.start < c.end <= check.at:
                c = self._policy.confirmed(c, suspected.keys())
                # What it confirms may begin before the stretch.
                c = replace(c, start=min(c.start, suspected.get(c.category, c.start)))
                found.append((c, self._placed(c)))
        found.sort(key=lambda each: (each[0].start, -each[0].end, each[0].category, each[0].rule))
        named = {c.category for c in candidates}
        # Who calls a text harmful in another way has not called it harmless.
        dropped = suspected.keys() & covered if not candidates else set()
        told = (named & suspected.keys(), "confirmed"), (dropped, "dropped"), (named - suspected.keys(), "alone")
        for categories, outcome in told:
            for category in categories:
                self.judged[category, outcome] = self.judged.get((category, outcome), 0) + 1
        if dropped:
            cleared = {id(f): replace(f, action=Action.PASS) for _, f in stretch.suspects if f.category in dropped}
            found = [(c, cleared.get(id(f), f)) for c, f in found]
            self._findings = [cleared.get(id(f), f) for f in self._findings]
        self._checked = check.at
        at, stop = next(((c.start, f) for c, f in found if f.action.stops and not f.shadow), (0, None))
        for c, finding in found:
            if stop is not None and finding.start > stop.start:
                break
            self._tell(c.detector, finding)
            if finding.shadow or finding.action < Action.MASK:
                continue
            self._leak(finding)
            if finding.action is Action.MASK:
                self._masks.append((finding.start, finding.end))
                self.masked = True
        if stop is not None:
            # All that starts before the check point is settled, whatever came after it; what starts behind the stop is as if
            # never seen.
            self._findings = [f for f in self._findings if f.start <= stop.start]
            self.stopped = max(f.action for f in (stop, *self._findings) if f.action.stops and not f.shadow)
            self._due.clear()
            self._until, self._since, self._stopped_at = stop.start, at, at
        self._answered()
        return self._go()

    def _miss(self, name: str, action: str) -> None:
        """A scorer or a guard gave no answer: what policy says."""
        if action == "block":
            self.degraded.append(name)
            self.cut(Action.BLOCK)
        else:
            (self.unread if action == "flag" else self.missed).append(name)

    def fail(self, name: str) -> None:
        """A detector could not answer: record it, and do what policy says for this direction."""
        if name not in self.degraded:
            self.degraded.append(name)
        action = self._policy.degraded(self._scope.direction)
        if action is None or action.stops:
            self.cut(Action.BLOCK)

    def _decide(self, hold: int, final: bool) -> int | None:
        """Settle candidates that start before `hold`; return the original index to stop at, if any."""
        ready = sorted(
            (c for c in self._pool if c.start < hold or final), key=lambda c: (c.start, -c.end, c.category, c.rule)
        )
        stop: int | None = None
        stop_folded = -1
        for c in ready:
            del self._pool[c]
            if stop is not None and c.start > stop_folded:
                continue
            start, end = self._span(c, self._held, self._out)
            c = self._policy.raised(c, start, self._flags.get(c.category, ()))
            finding = self._finding(c, start, end, self._held[max(0, start - self._out) : end - self._out])
            self._settled = [(o, f) for o, f in self._settled if o.end > c.start]
            if any(
                o.start <= c.start and c.end <= o.end and o.category == c.category
                and f.action >= finding.action and f.shadow == finding.shadow
                for o, f in self._settled
            ):  # fmt: skip
                continue  # part of a longer finding of the same kind
            if "copy" not in c.techniques or not self._lengthened(c, finding):
                self._settled.append((c, finding))
                self._tell("", finding)
            if finding.shadow or finding.action is Action.PASS:
                continue  # what does nothing hides nothing
            spans = self._spans.setdefault(finding.category, [])
            spans.append((start, max(end, spans[-1][1] if spans else 0)))
            if len(flags := self._flags.setdefault(finding.category, [])) < MOST:
                flags.append(finding)
            if c.tier == "suspect" and c.action is None and self._guards:
                # A live entry is its owner's: no guard drops it.
                self._suspected.append((c.start, c.end, finding))
            if finding.action >= Action.MASK:
                self._leak(finding)
            if finding.action.stops:
                if stop is None:
                    stop, stop_folded = finding.start, c.start
                    self._stopped_at = c.start
                    self.stopped = finding.action
                else:
                    self.stopped = max(self.stopped or finding.action, finding.action)
            elif finding.action is Action.MASK:
                self._masks.append((finding.start, finding.end))
                self.masked = True
        return stop

    def _lengthened(self, c: Candidate, finding: Finding) -> bool:
        """A near copy is found gram by gram: one that overlaps the last goes on with its finding."""
        for i, (o, told) in enumerate(self._settled):
            same = (told.detector, told.rule, told.category, told.action) == (
                finding.detector, finding.rule, finding.category, finding.action,
            )  # fmt: skip
            if same and "copy" in o.techniques:
                names = {*told.technique.split("+"), *finding.technique.split("+")}
                longer = replace(told, end=finding.end, technique="+".join(sorted(names)))
                self._settled[i] = replace(o, end=c.end), longer
                at = next((at for at in range(len(self._findings) - 1, -1, -1) if self._findings[at] is told), None)
                if at is not None:  # not beyond MOST
                    self._findings[at] = longer
                return True
        return False

    def _finding(self, c: Candidate, start: int, end: int, span: str) -> Finding:
        names = c.techniques | folding.techniques(span)
        action = self._policy.action(c, self._scope.direction, names)
        if action is Action.MASK and not self._maskable(start, end):
            action = Action.BLOCK
        return Finding(
            c.category, c.detector, start, end, c.score, action,
            self._policy.shadowed(c), c.rule, "+".join(sorted(names)) or "plain", self._path,
            tuple((self._original(a), self._original(b - 1) + 1) for a, b in c.spans), "suspect" if c.raised else c.tier,
        )  # fmt: skip

    def _maskable(self, start: int, end: int) -> bool:
        """The original text from `start` to `end` may be written over."""
        return True

    def _follow(self, until: int, final: bool) -> None:
        """Let the readers look at settled folded text before `until`; `final`: they will see no more."""
        for reader in self._readers if self._pieces else ():
            read = self._read[reader.name]
            if not final and until - read < self._steps[reader.name]:
                continue
            begin = self._pieces[0].original
            # Whole characters only: one may fold to several, and the window or what is settled begin within it.
            base, stop = self._base, until
            while base < stop and self._inside(base):
                base += 1
            while base < stop < self._folded_size and self._inside(stop):
                stop -= 1
            if base == stop and self._folded_size:
                continue
            first = self._original(base) if base else begin
            last = self._size if stop == self._folded_size else self._original(stop)
            original = "".join([p.text for p in self._pieces])[first - begin : last - begin]
            began = perf_counter()
            try:
                scan = reader.read(
                    self._window[base - self._base : stop - self._base],
                    original,
                    max(0, read - base),
                    final,
                    self._scope,
                )
                told = sorted(
                    (_moved(c, base) for c in scan.candidates), key=lambda c: (c.start, -c.end, c.category, c.rule)
                )
                reach = max(read, scan.hold + base)
            except Exception as e:
                log.error("reader failed", extra={"detector": reader.name, "error": type(e).__name__})
                if reader.name not in self.unread:
                    self.unread.append(reader.name)
                self._read[reader.name] = until
                continue
            self._read[reader.name] = reach
            # How much is looked at changes nothing in what is found, so it may follow the clock.
            self._steps[reader.name] = _STEP if perf_counter() - began < _QUICK else _LEAST_STEP
            for c in told:
                start, end = self._span(c, original, first)
                key = reader.name, c.category
                if self._told.get(key, 0) <= start and not self._meets(c.category, start, end):
                    self._told[key] = end
                    self._tell(reader.name, self._finding(c, start, end, original[start - first : end - first]))

    def _tell(self, source: str, finding: Finding) -> None:
        count = self._count[source] = self._count.get(source, 0) + 1
        if count <= MOST or finding.action > self._strictest[source]:
            self._findings.append(finding)
        self._strictest[source] = max(finding.action, self._strictest.get(source, Action.PASS))

    def _meets(self, category: str, start: int, end: int) -> bool:
        """A settled finding of the category shares a character with [start, end)."""
        spans = self._spans.get(category, [])
        at = bisect_left(spans, (start, 0))
        return (at < len(spans) and spans[at][0] < end) or (at > 0 and spans[at - 1][1] > start)

    def _span(self, c: Candidate, source: str, first: int) -> tuple[int, int]:
        """Where `c` stands in the original, with the marks that follow on its last character; one of no folded text is all
        that folds to nothing there. `source`: the original from `first` on."""
        start = self._original(c.start) if c.start < c.end else self._original(c.start - 1) + 1 if c.start else 0
        end = self._original(c.end - 1) + 1 if c.end else 0
        until = self._size if c.end == self._folded_size else max(end, self._original(c.end))
        while end < until and (c.start == c.end or folding.is_mark(source[end - first])):
            end += 1
        return start, end

    def _inside(self, index: int) -> bool:
        """Folded character `index` is not the first that its original character folds to."""
        piece = self._pieces[bisect_right(self._pieces, index, key=lambda p: p.folded) - 1]
        return index > piece.folded and self._original(index) == self._original(index - 1)

    def _original(self, index: int) -> int:
        """The original index of the character that folded character `index` comes from."""
        piece = self._pieces[bisect_right(self._pieces, index, key=lambda p: p.folded) - 1]
        if piece.origins is None:
            piece.origins = folding.origins(piece.text)
        return piece.original + piece.origins[index - piece.folded]

    def _release(self, until: int) -> str:
        """Let go of the original text before `until`."""
        count = until - self._out
        if count <= 0:
            return ""
        if count == len(self._held):
            text, self._held = self._held, ""
        else:
            text, self._held = self._held[:count], self._held[count:]
        if self._masks:
            chars = list(text)
            for start, end in self._masks:
                for i in range(max(start, self._out), min(end, until)):
                    chars[i - self._out] = MASK
            text = "".join(chars)
            self._masks = [m for m in self._masks if m[1] > until]
        self._out = until
        return text

    def _trim(self) -> None:
        """Forget what no detector may look back at."""
        keep = min(self._since, *self._read.values()) if self._read else self._since
        if self._checks:
            oldest = self._due[0].since if self._due else self._point
            keep = min(keep, oldest)
            self._asked = self._asked[-(checkpoints.PREFIX + self._point - oldest) :]
        cut = keep - self._base - KEPT
        if cut <= KEPT:
            return
        self._window = self._window[cut:]
        self._base += cut
        first = self._base if self._read or self._checks else keep
        past = bisect_left(self._pieces, first, key=lambda p: p.folded)
        if past == len(self._pieces) or self._pieces[past].folded > first:
            past -= 1  # it begins within a piece
        if past > 0:
            del self._pieces[:past]


def _moved(c: Candidate, by: int) -> Candidate:
    if not by:
        return c
    return replace(c, start=c.start + by, end=c.end + by, spans=tuple((a + by, b + by) for a, b in c.spans))
