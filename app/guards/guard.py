"""A guard model as a finder: windows, cache, limit, breaker around whatever answers.

Law: an answer that cannot be read is a failure, never a pass; a text is asked about once while its answer is remembered (by a
keyed fingerprint, in this process alone); what is too much is refused at once and counted, never queued without bound; what one
text brings about (garbage, a refusal, somebody who leaves at once) is no reason not to ask about the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence, Set
from hashlib import blake2b
from time import perf_counter
from typing import Protocol

from app import clock
from app.errors import GuardError
from app.guards.formats import Format, Opinion, Request
from app.modelfile import OTHER, GuardFile
from app.types import Candidate, Direction, Scope

AT_ONCE = 8
"""Questions under way at once."""
WAITING = 64
"""Questions that wait besides, at most; one more is refused."""
_REMEMBERED = 8192
_LATEST = 600.0
"""Seconds that an answer is remembered."""
OVERLAP = 200
"""Characters that a window of a long text shares with the one before, and shows before what is new; at most half of it."""
_LET_DOWN = 1.0
"""Seconds after which whoever stops waiting was let down; before that he left."""
_THERE = frozenset({"garbage", "refused"})
"""Failures over one text, of a place that answers. They open no breaker: the text may have been made for that."""

_UNASKED = frozenset({"busy", "missing"})
"""The question was put to nobody: too many wait, or a model is not loaded yet."""


class Answers(Protocol):
    """Where a guard model runs."""

    async def ask(self, request: Request) -> bytes:
        """What the model says, as its format reads it. Raises GuardError."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Breaker:
    """After so many failures in a row nothing is asked for a while; then one question tries again."""

    def __init__(self, failures: int = 5, seconds: float = 10.0) -> None:
        self._most, self._seconds = failures, seconds
        self._failures, self._until = 0, 0.0

    def check(self) -> bool:
        """Raises GuardError("open") while it is open; lets one through when its time is over, and says so: it tries again."""
        if self._failures < self._most:
            return False
        if clock.now() < self._until:
            raise GuardError("open")
        self._until = clock.now() + self._seconds
        return True

    def tell(self, well: bool | None, trying: bool) -> None:
        """None: the question says nothing of the place; if it was the one that tries again, the next one does."""
        if well is None:
            if trying:
                self._until = clock.now()
            return
        self._failures = 0 if well else self._failures + 1
        if self._failures == self._most:
            self._until = clock.now() + self._seconds


class ModelGuard:
    """A Guard (app.types) over `answers`, which speak `format`. `key`: of the fingerprints by which answers are remembered."""

    def __init__(self, name: str, file: GuardFile, format: Format, answers: Answers, key: bytes) -> None:
        self.name, self._file, self._format, self._answers = name, file, format, answers
        self._key = blake2b(key, digest_size=32).digest()
        self._labels: Mapping[str, list[str]] = file.labels
        # What it does not know by name it cannot tell: its silence clears nothing.
        self.covers: Set[str] = frozenset(
            category for label, categories in file.labels.items() if label != OTHER for category in categories
        )
        self.version = blake2b(file.model_dump_json().encode(), digest_size=8).hexdigest()
        self._known: dict[bytes, tuple[float, Opinion]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._asking = 0
        self.breaker = Breaker()

    async def start(self) -> None:
        await self._answers.start()

    async def close(self) -> None:
        await self._answers.close()

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        """See app.types.Guard. One candidate per category that the model names, over what is new."""
        size = self._file.window
        named: dict[str, float] = {}
        unlisted = False
        for start in _starts(len(text), since, size):
            opinion = await self._opinion(text[start : start + size], scope.direction)
            for label, score in opinion.items():
                categories = self._labels.get(label, self._labels.get(OTHER))
                unlisted |= categories is None
                for category in categories or ():
                    named[category] = max(score, named.get(category, 0.0))
        if unlisted and not named:
            raise GuardError("unmapped")
        return [
            Candidate(since, len(text), category, self.name, f"{self.name}/{category}", "suspect", score)
            for category, score in sorted(named.items())
        ]

    async def _opinion(self, text: str, direction: Direction) -> Opinion:
        key = blake2b(f"{direction}\n{text}".encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()
        known = self._known.pop(key, None)
        if known is not None and clock.now() - known[0] < _LATEST:
            self._known[key] = known
            return known[1]
        trying = self.breaker.check()
        began = perf_counter()
        well: bool | None = False
        try:
            opinion = await self._ask(self._format.requests(text, direction, self._file))
            well = True
        except GuardError as e:
            well = None if e.reason in _UNASKED else e.reason in _THERE
            raise
        except asyncio.CancelledError:
            well = None if perf_counter() - began < _LET_DOWN else False
            raise
        finally:
            self.breaker.tell(well, trying)
        self._known[key] = (clock.now(), opinion)
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return opinion

    async def _ask(self, requests: Sequence[Request]) -> Opinion:
        """What is harmful by any of these questions about one text."""
        if len(requests) == 1:
            return await self._answer(requests[0])
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(request)) for request in requests]
        except ExceptionGroup as e:
            raise e.exceptions[0] from None
        opinion: dict[str, float] = {}
        for task in tasks:
            for label, score in task.result().items():
                opinion[label] = max(score, opinion.get(label, 0.0))
        return opinion

    async def _answer(self, request: Request) -> Opinion:
        if self._asking >= AT_ONCE + WAITING:
            raise GuardError("busy")
        self._asking += 1
        try:
            async with self._slots:
                said = await self._answers.ask(request)
            return self._format.read(said, request, self._file)
        finally:
            self._asking -= 1


def _starts(length: int, since: int, size: int) -> Iterator[int]:
    """Where the windows begin, the last first. What is new is seen whole and with something before it; of what came before as much as
    fits into the last."""
    overlap = min(OVERLAP, size // 2)
    start = max(0, length - size)
    yield start
    while start > max(0, since - overlap):
        start = max(0, start - (size - overlap))
        yield start
