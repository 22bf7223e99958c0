"""Putting labelled texts through the pipeline. Law: exactly as `sluice check` does; what is kept of a text is what came of it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from app.evaluation.bank import VIOLATING, Row
from app.moderation import Moderator
from app.pipeline import screened
from app.taxonomy import taxonomy
from app.types import Action, Scope

_WARM = "今天天气很好，我们去河边散步吧。Nice weather for a walk."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a text, and how its row is labelled. Times in seconds."""

    violating: bool
    category: str
    aspect: str
    lang: str
    source: str
    size: int
    action: Action
    found: frozenset[str]
    scores: NDArray[np.float32]
    """In the order of the taxonomy; NaN for a category that no scorer tells."""
    score: float
    """The highest of them."""
    degraded: tuple[str, ...]
    taken: float
    scoring: float

    @property
    def flagged(self) -> bool:
        return self.action > Action.PASS

    @property
    def stopped(self) -> bool:
        return self.action.stops

    @property
    def told(self) -> bool:
        """One of the categories found is the row's."""
        return self.category in self.found


def warm(moderator: Moderator, scope: Scope) -> None:
    """What only the first text pays for is no text's cost."""
    screened(moderator, [_WARM], scope)


def measured(row: Row, moderator: Moderator, scope: Scope) -> Outcome:
    began = perf_counter()
    verdict, _, scoring = screened(moderator, [row.text], scope)
    taken = perf_counter() - began
    told = asyncio.run(moderator.scores(row.text, moderator.policies.common))
    return Outcome(
        row.label == VIOLATING, row.category, row.aspect, row.lang, row.source, len(row.text),
        verdict.action, frozenset(verdict.categories),
        np.array([told.get(category, math.nan) for category in taxonomy()], np.float32), max(told.values(), default=math.nan),
        tuple(verdict.degraded), taken, scoring,
    )  # fmt: skip
