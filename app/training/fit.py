"""From examples to the arrays of a model: vocabulary, weights, calibration, floors.

Law: the same examples give the same bytes. A category is learned from its positives against all harmless texts; where it has
few of its own, what its family has in common is where it starts from (Daumé III, Frustratingly easy domain adaptation, ACL 2007).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from app import grams
from app.training.sources import CASES, EVERYDAY, HATE, PAIRS, UNKNOWN, Example

LEAST = 4
"""Texts that an n-gram must stand in."""
CAP = 10_000.0
"""What the rows of one source and label weigh together at most: a large set must not drown the rest."""
ALONE = 500.0
"""The same for a source with violating texts alone: what it teaches best is its own style."""
PAIR = 8.0
"""What a row of a pair weighs, an everyday text, or a confirmed passage."""
OTHER = 0.3
"""What a violating text of another family weighs as a harmless one."""
RIDGE, CLOSE = 0.5, 1.5
"""How strongly a family is drawn to zero, and a category to its family."""
_ROUNDS = 40
NEVER = -20.0
_HATE_ONLY = frozenset({"COLD", "HED-COLD", "SWSR", "Davidson"})

FAMILIES: dict[str, tuple[str, ...]] = {
    "hate": (
        "ethnic_hatred", "discrimination_race", "discrimination_ethnicity", "discrimination_belief", "discrimination_nationality",
        "discrimination_region", "discrimination_gender", "discrimination_age", "discrimination_occupation",
        "discrimination_health", "discrimination_other", "harassment_abuse",
    ),
    "order": (
        "state_subversion", "national_security_harm", "separatism_incitement", "terrorism_extremism", "social_order_disruption",
        "violence", "other_prohibited",
    ),
    "crime": (
        "illegal_acts", "abuse_malware", "privacy_violation", "ip_infringement", "business_ethics", "economic_order_disruption",
        "sexual_obscene", "self_harm",
    ),
    "platform": (
        "false_harmful_info", "reputation_honor", "abuse_network_hype", "abuse_malicious_posting", "abuse_spam",
        "abuse_improper_marketing",
    ),
    "attack": ("prompt_attack",),
}  # fmt: skip
"""Categories that text alone decides, by what they have in common."""
CATEGORIES = tuple(category for family in FAMILIES.values() for category in family)
_FAMILY = {category: family for family, categories in FAMILIES.items() for category in categories}


def features(examples: Iterable[Example]) -> list[NDArray[np.uint32]]:
    return [_features(example.text) for example in examples]


@lru_cache(maxsize=400_000)
def _features(text: str) -> NDArray[np.uint32]:
    """Of a text that every fold asks about again."""
    return grams.features(text)


def vocabulary(made: Sequence[NDArray[np.uint32]], least: int = LEAST) -> NDArray[np.uint32]:
    """The keys that stand in at least so many texts."""
    found, counts = np.unique(np.concatenate([np.unique(keys) for keys in made]), return_counts=True)
    return np.asarray(found[counts >= least])


def matrix(made: Sequence[NDArray[np.uint32]], words: NDArray[np.uint32]) -> sparse.csr_matrix:
    lengths = np.array([len(keys) for keys in made])
    rows = np.repeat(np.arange(len(made)), lengths)
    keys = np.concatenate(made)
    at = np.minimum(np.searchsorted(words, keys), len(words) - 1)
    known = words[at] == keys
    values = 1 / np.sqrt(np.maximum(np.repeat(lengths, lengths)[known], grams.SHORT))
    x = sparse.csr_matrix((values.astype(np.float32), (rows[known], at[known])), (len(made), len(words)))
    x.sum_duplicates()
    return x


def weights(examples: Sequence[Example]) -> NDArray[np.float64]:
    """What each row weighs: pairs most, of large sets a row less."""
    size = Counter((e.source, bool(e.categories)) for e in examples)

    def weight(e: Example) -> float:
        if e.source in (PAIRS, EVERYDAY, CASES):
            return PAIR
        alone = e.categories and not size[e.source, False]
        return min(1.0, (ALONE if alone else CAP) / size[e.source, bool(e.categories)])

    return np.array([weight(e) for e in examples])


@dataclass(frozen=True)
class Rows:
    """Examples as a matrix, both ways."""

    x: sparse.csr_matrix
    back: sparse.csr_matrix

    @classmethod
    def of(cls, x: sparse.csr_matrix) -> Rows:
        x = x.astype(np.float64)
        return cls(x, x.T.tocsr())


def logistic(
    rows: Rows, y: NDArray[np.bool_], w: NDArray[np.float64], prior: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Weights, bias last, of the logistic regression drawn to `prior`. `w`: what each row weighs."""
    x, back = rows.x, rows.back
    sign = np.where(y, 1.0, -1.0)

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (x @ theta[:-1] + theta[-1])
        wrong = 1 / (1 + np.exp(np.clip(margin, -30, 30)))
        push = -w * wrong * sign
        away = theta - prior
        away[-1] = 0
        value = float(w @ np.logaddexp(0, -margin)) + ridge / 2 * float(away @ away)
        return value, np.append(back @ push, push.sum()) + ridge * away

    found = minimize(loss, prior, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS, "maxcor": 8, "ftol": 1e-5})
    return np.asarray(found.x)


def target(
    examples: Sequence[Example], wanted: frozenset[str], family: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(positive rows, how much each row counts): texts of the family that are not wanted say nothing here."""
    y = np.array([bool(e.categories & wanted) for e in examples])
    kin = frozenset(FAMILIES[family]) | {HATE, UNKNOWN}
    counts = np.array(
        [1.0 if not e.categories or e.categories & wanted else 0.0 if e.categories & kin else OTHER for e in examples]
    )
    return y, counts


def useful(examples: Sequence[Example], family: str) -> NDArray[np.bool_]:
    """Of sets about hate alone, other families learn from one harmless text in four, and from no other."""
    if family == "hate":
        return np.ones(len(examples), bool)
    return np.array([e.source not in _HATE_ONLY or (not e.categories and n % 4 == 0) for n, e in enumerate(examples)])


def columns(examples: Sequence[Example], x: sparse.csr_matrix) -> NDArray[np.float64]:
    """[v + 1, k]: weights, bias last, of every category of CATEGORIES; a bias of NEVER where it has no example."""
    w = weights(examples)
    made = np.zeros((x.shape[1] + 1, len(CATEGORIES)))
    for family, members in FAMILIES.items():
        wanted = frozenset(members) | ({HATE} if family == "hate" else set())
        use = np.flatnonzero(useful(examples, family))
        mine, own, rows = [examples[int(i)] for i in use], w[use], Rows.of(x[use])
        y, counts = target(mine, wanted, family)
        base = fitted(rows, y, own * counts, np.zeros(x.shape[1] + 1), RIDGE) if y.any() else None
        for category in members:
            y, counts = target(mine, frozenset({category}), family)
            at = CATEGORIES.index(category)
            if base is None or not y.any():
                made[-1, at] = NEVER
            else:
                made[:, at] = fitted(rows, y, own * counts, base, CLOSE)
    return made


def fitted(
    rows: Rows, y: NDArray[np.bool_], w: NDArray[np.float64], prior: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """`logistic` with both sides of equal weight, where that takes no more than twenty times."""
    w = w.copy()
    w[y] *= min(w[~y].sum() / w[y].sum(), 20.0)
    return logistic(rows, y, w, prior, ridge)
