"""`sluice train`: from data sets and pairs to a model in its folder.

Law: every figure and threshold comes from texts that the model measured on had not seen: pairs are split by template, harmless
sources left out whole. The same data gives the same model.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app import checkpoints, grams
from app.modelfile import Thresholds
from app.training import fit
from app.training.sources import EVERYDAY, PAIRS, Example

FOLDS = 3
FLAGGED, ASKED = 0.02, 0.12
"""Of the harmless texts of any source not learned from: the share that any category may flag, and that a guard may be asked about."""
_EVERY = 160
_CLEAN = {"KdConv": 0, "Poetry": 2, "Awesome prompts": 1, "CLINC, Banking77": 2, "Self-instruct": 0}
"""Harmless sources -> the fold in which they are not learned from."""
_PARTED = ("Laws", EVERYDAY)
"""Harmless sources that are split by chance: a model that had never seen a statute, or a request, is not the one that is shipped."""
_UNIFORM = {"TeleAntiFraud": 700}
"""Sources whose texts are very much alike, and long -> how many of a label are learned from."""
_FEW = 500
"""Harmless sources with fewer texts count as one: of a hundred texts three are no share."""
_SHARE = 1500
"""Texts of one harmless source that thresholds are set by."""


def stretches(text: str, most: int = 3) -> list[str]:
    """A long text as several, none longer than is looked at together."""
    made, run = [], ""
    for piece in checkpoints.pieces(text, _EVERY):
        if run and len(run) + len(piece) > checkpoints.WINDOW:
            made.append(run)
            run = ""
        run += piece
    return [*made, run][:most]


def windows(text: str) -> Iterator[str]:
    """All that a scorer looks at together."""
    kept: list[str] = []
    for piece in checkpoints.pieces(text, _EVERY):
        kept = kept[checkpoints.behind([*map(len, kept)], len(piece)) :]
        yield piece
        if kept:
            yield "".join([*kept, piece])
        kept.append(piece)


def expanded(examples: Sequence[Example]) -> list[Example]:
    """What is learned from: long texts as several, and of a set whose texts are all alike only some."""
    kept = [e for e in examples if e.source not in _UNIFORM]
    for source, most in _UNIFORM.items():
        kept += sampled([e for e in examples if e.source == source], most)
    return [replace(e, text=part) for e in kept for part in stretches(e.text)]


def fold_of(e: Example, seed: int) -> int:
    """On which side of the split a text is: by template, by source, else by chance."""
    if not e.categories and e.source in _CLEAN:
        return (_CLEAN[e.source] + seed) % FOLDS
    return int.from_bytes(hashlib.blake2b(f"{seed}\n{e.group or e.text}".encode(), digest_size=4).digest()) % FOLDS


@dataclass
class Fitted:
    """Weights over a vocabulary; `columns` [v + 1, k], bias last."""

    vocabulary: NDArray[np.uint32]
    columns: NDArray[np.float64]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """[n, k]: each text as one."""
        made = [grams.features(text) for text in texts]
        return np.asarray(fit.matrix(made, self.vocabulary) @ self.columns[:-1] + self.columns[-1])

    def highest(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """[n, k]: the highest of each text's windows."""
        looks = [list(windows(text)) or [""] for text in texts]
        found = self.logits([look for one in looks for look in one])
        starts = np.cumsum([0, *(len(one) for one in looks[:-1])])
        return np.asarray(np.maximum.reduceat(found, starts))


def fitted(examples: Sequence[Example]) -> Fitted:
    made = fit.features(examples)
    words = fit.vocabulary(made)
    return Fitted(words, fit.columns(examples, fit.matrix(made, words)))


@dataclass
class Unseen:
    """Texts scored by a model that had not learned from them: `logits` [n, k]."""

    examples: list[Example]
    logits: NDArray[np.float64]


def both(examples: Sequence[Example], seed: int = 0) -> tuple[Unseen, Fitted]:
    """Every pair, and a share of every source, as a model sees it that had learned from other folds; and the model of all."""
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        sides = [pool.submit(_side, examples, number, seed) for number in range(FOLDS)]
        whole = pool.submit(fitted, expanded(examples))
        unseen = [side.result() for side in sides]
        return Unseen(
            [e for one in unseen for e in one.examples], np.concatenate([one.logits for one in unseen])
        ), whole.result()


def _side(examples: Sequence[Example], number: int, seed: int) -> Unseen:
    model = fitted(expanded([e for e in examples if fold_of(e, seed) != number]))
    aside = list(sampled([e for e in examples if fold_of(e, seed) == number], _SHARE))
    return Unseen(aside, model.highest([e.text for e in aside]))


def sampled(examples: Sequence[Example], most: int) -> Iterator[Example]:
    """All pairs, and of every other source and label at most so many texts, evenly."""
    groups: dict[tuple[str, bool], list[Example]] = {}
    for e in examples:
        groups.setdefault((e.source, bool(e.categories)), []).append(e)
    for (source, _), rows in groups.items():
        yield from rows if source == PAIRS else rows[:: -(-len(rows) // most)]


def is_clean(e: Example) -> bool:
    return not e.categories and (e.source in _CLEAN or e.source in _PARTED)


def calibrated(unseen: Unseen) -> NDArray[np.float64]:
    """[2, k]: slope and shift per category (Platt 1999), from its violating texts against harmless ones, either side of one weight."""
    shape = np.zeros((2, len(fit.CATEGORIES)))
    harmless = np.array([not e.categories for e in unseen.examples])
    for k, category in enumerate(fit.CATEGORIES):
        mine = np.array([category in e.categories for e in unseen.examples])
        near = np.array([not e.categories and e.group.startswith(f"{category}/") for e in unseen.examples])
        use = mine | harmless
        y, s = mine[use], unseen.logits[use, k]
        # Its own twins weigh as much as all other harmless texts.
        w = np.where(y, 1 / max(y.sum(), 1), np.where(near[use], 0.5 / max(near.sum(), 1), 0.5 / harmless.sum()))

        def loss(
            theta: NDArray[np.float64], y: NDArray[np.bool_] = y, s: NDArray[np.float64] = s, w: NDArray[np.float64] = w
        ) -> float:
            margin = np.where(y, 1, -1) * (theta[0] * s + theta[1])
            return float(w @ np.logaddexp(0, -margin)) + 1e-4 * float(theta @ theta)

        shape[:, k] = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return np.maximum(shape, [[0.05], [-np.inf]])


def thresholds(unseen: Unseen, shape: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Probabilities [k] from which on a category is told: at most `share` of the clean texts of a source by any of them, and with that the
    most violating texts of its pairs less the harmless twins.

    One price for a false alarm in all categories (a Lagrange multiplier); each takes the threshold that is best at that price.
    """
    p = probabilities(unseen.logits, shape)
    are_clean = np.array([is_clean(e) for e in unseen.examples])
    clean = p[are_clean]
    origin = np.array([e.source for e, use in zip(unseen.examples, are_clean, strict=True) if use])
    names, counts = np.unique(origin, return_counts=True)
    sources = [origin == name for name in names[counts >= _FEW]]
    if (counts < _FEW).any():
        sources.append(np.isin(origin, names[counts < _FEW]))
    sides = [
        [
            np.sort(
                p[np.array([e.group.startswith(f"{c}/") and bool(e.categories) is bad for e in unseen.examples]), k]
            )
            for bad in (True, False)
        ]
        for k, c in enumerate(fit.CATEGORIES)
    ]
    sorted_clean = np.sort(clean, 0)
    low, high = 0.0, 20.0
    best = np.ones(len(fit.CATEGORIES))
    for _ in range(40):
        exponent = (low + high) / 2
        tried = np.array(
            [_at(math.exp(exponent), bad, good, sorted_clean[:, k]) for k, (bad, good) in enumerate(sides)]
        )
        told = (clean >= tried).any(1)
        if max(float(told[rows].mean()) for rows in sources) <= share:
            best, high = tried, exponent
        else:
            low = exponent
    return best


def _at(price: float, violating: NDArray[np.float64], twins: NDArray[np.float64], clean: NDArray[np.float64]) -> float:
    """The threshold that is best at a price; 1 (never) where none is worth it. All sorted."""
    grid = np.append(np.unique(violating), 1.0)

    def told(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 - np.searchsorted(scores, grid) / max(len(scores), 1))

    return float(grid[np.argmax(told(violating) - told(twins) - price * told(clean))])


def _up(threshold: float) -> float:
    """Six digits, never lower than it was."""
    return min(1.0, math.ceil(threshold * 1e6) / 1e6)


def probabilities(logits: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-(logits * shape[0] + shape[1]))))


def chosen(unseen: Unseen, shape: NDArray[np.float64]) -> dict[str, Thresholds]:
    """Flag and ask thresholds of every category."""
    flag, ask = thresholds(unseen, shape, FLAGGED), thresholds(unseen, shape, ASKED)
    return {
        category: Thresholds(flag=_up(f), ask=_up(min(f, a)))
        for category, f, a in zip(fit.CATEGORIES, flag, ask, strict=True)
    }
