"""Sluice with a scorer in it, for what check points cost: a linear model over hashed character n-grams, its weights drawn at random.

It costs what a classifier of that kind costs and finds nothing: none is shipped yet. Run by uvicorn with SLUICE_* in the environment.
"""

from __future__ import annotations

import numpy as np

from app.main import create_app
from app.settings import read
from app.types import Candidate, Scope

_BITS = 18
_CATEGORIES = 34


class Linear:
    """n-grams of 1 to 3 characters of what is new, into one score per category."""

    name, version = "linear", "1"

    def __init__(self) -> None:
        self._weights = np.random.default_rng(1).normal(-1, 0.01, (1 << _BITS, _CATEGORIES)).astype(np.float32)

    async def score(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        codes = np.frombuffer(text[max(0, since - 2) :].encode("utf-32-le"), np.uint32).astype(np.uint64)
        one = codes * np.uint64(0x9E3779B97F4A7C15)
        two = one[:-1] * np.uint64(31) + one[1:]
        three = two[:-1] * np.uint64(31) + one[2:]
        grams = np.concatenate([one, two, three]) >> np.uint64(64 - _BITS)
        scores = self._weights[grams].sum(0)
        return [
            Candidate(since, len(text), "other_prohibited", self.name, f"linear.{i}", "suspect", float(s))
            for i, s in enumerate(scores)
            if s > 0
        ]


app = create_app(read())
app.moderator.scorers.append(Linear())
