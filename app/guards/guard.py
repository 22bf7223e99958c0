"""A guard model as a finder: windows, cache, limit, breaker around whatever answers.

Law: an answer that cannot be read is a failure, never a pass; a text is asked about once while its answer is remembered (by a
keyed fingerprint, in this process alone); what is too much is refused at once and counted, never queued without bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol

from app import clock
from app.errors import GuardError
from app.guards.formats import Format, Opinion, Request
from app.modelfile import GuardFile
from app.types import Candidate, Direction, Scope

AT_ONCE = 8
"""Questions under way at once."""
WAITING = 64
"""Questions that wait at most; one more is refused."""
_REMEMBERED = 8192
_LATEST = 600.0
"""Seconds that an answer is remembered."""
OVERLAP = 200
"""Characters that a window of a long text shares with the one before."""


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

    def check(self) -> None:
        """Raises GuardError("open") while it is open; lets one through when its time is over."""
        if self._failures >= self._most:
            if clock.now() < self._until:
                raise GuardError("open")
            self._until = clock.now() + self._seconds

    def tell(self, well: bool) -> None:
        self._failures = 0 if well else self._failures + 1
        if self._failures == self._most:
            self._until = clock.now() + self._seconds


class ModelGuard:
    """A Guard (app.types) over `answers`, which speak `format`. `key`: of the fingerprints by which answers are remembered."""

    def __init__(self, name: str, file: GuardFile, format: Format, answers: Answers, key: bytes) -> None:
        self.name, self._file, self._format, self._answers = name, file, format, answers
        self._key = blake2b(key, digest_size=32).digest()
        self._labels: Mapping[str, list[str]] = file.labels
        self.covers = frozenset(category for categories in file.labels.values() for category in categories)
        self.version = blake2b(file.model_dump_json().encode(), digest_size=8).hexdigest()
        self._known: dict[bytes, tuple[float, Opinion]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self.breaker = Breaker()

    async def start(self) -> None:
        await self._answers.start()

    async def close(self) -> None:
        await self._answers.close()

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        """See app.types.Guard. One candidate per category that the model names, over what is new."""
        size = self._file.window
        first = max(0, len(text) - size)
        # What is new must be seen whole; of what came before as much as fits.
        starts = (
            [first, *range(first - (size - OVERLAP), since - size, -(size - OVERLAP))] if since < first else [first]
        )
        named: dict[str, float] = {}
        for start in starts:
            opinion = await self._opinion(text[max(0, start) : max(0, start) + size], scope.direction)
            for label, score in opinion.items():
                for category in self._labels.get(label, ()):
                    named[category] = max(score, named.get(category, 0.0))
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
        self.breaker.check()
        if self._waiting >= WAITING:
            raise GuardError("busy")
        self._waiting += 1
        well = False
        try:
            async with self._slots:
                said = await self._answers.ask(self._format.request(text, direction, self._file))
                opinion = self._format.read(said, self._file)
            well = True
        except GuardError as e:
            well = e.reason == "busy"  # the place it runs at is well, and has enough to do
            raise
        finally:
            # Whoever stopped waiting (a time limit) was let down too.
            self._waiting -= 1
            self.breaker.tell(well)
        self._known[key] = (clock.now(), opinion)
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return opinion
