"""Whether reviewers decide alike: which decided cases a second person looks at, and how often the two agree.

Law: pure. Which cases are drawn follows from a keyed number of the case and the policy's share, so that nobody chooses; who looks again is
not told what was decided, and is somebody else. What is decided is never changed by it. (Draft Measures, Article 8.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from app import clock
from app.figures import lower, upper
from app.keys import Keys
from app.remediation import Case
from app.taxonomy import taxonomy

LOOKED = ("confirm", "reject")
"""The decisions that are looked at again."""
_CONFIDENCE = 0.975
"""Of each bound; both together hold with 95%."""
Share = Callable[[str], float]
"""App -> the share of its decided cases that is drawn."""


def drawn(keys: Keys, case: Case, share: float) -> bool:
    """A decided case is to be looked at again. Of a category that keeps nothing there is nothing to look at."""
    if case.decision is None or taxonomy()[case.category].no_retain:
        return False
    # Under a key that was replaced, other cases are drawn: what was looked at by then is kept.
    number = int.from_bytes(keys.mac("evidence", "second", case.id)[:8], "big")
    return number < share * 2**64


def blind(case: Case) -> dict[str, Any]:
    """What is told of a case to who looks again: nothing that the decision changed. The evidence has a route of its own."""
    first = case.decision or {}
    return {
        "case": case.id, "app": case.app, "category": first["reported"], "language": case.language, "length": case.length,
        "reports": case.reports, "received": clock.stamp(case.received), "evidence": case.evidence, "prompted": case.prompted,
    }  # fmt: skip


def _label(look: Any) -> str:
    return str(look["category"]) if look["would"] == "confirm" else "reject"


def agrees(case: Case) -> bool:
    """Both would reject, or both confirm and for the same category."""
    assert case.second is not None
    return _label(case.second) == _label(case.second["first"])


def figures(keys: Keys, cases: Sequence[Case], share: Share) -> dict[str, Any]:
    """Drawn, looked at, agreement with its exact bounds, Cohen's kappa, and per category of the first decision."""
    looked = [case for case in cases if case.second is not None]
    pairs = [(_label(c.second["first"]), _label(c.second)) for c in looked if c.second is not None]
    by: dict[str, list[bool]] = {}
    for case in looked:
        if case.second is not None:
            by.setdefault(str(case.second["first"]["category"]), []).append(agrees(case))
    return {
        "decided": sum(case.decision is not None for case in cases),
        "drawn": sum(case.second is not None or drawn(keys, case, share(case.app)) for case in cases),
        "looked_at": len(looked),
        "agreement": _share([a == b for a, b in pairs]),
        "kappa": kappa(pairs),
        "second_looks_by_category": {category: _share(found) for category, found in sorted(by.items())},
    }


def _share(found: Sequence[bool]) -> dict[str, Any]:
    agreed, of = sum(found), len(found)
    if not of:
        return {"of": 0, "agreed": 0, "share": None, "lower": None, "upper": None}
    bounds = (round(bound(agreed, of, _CONFIDENCE), 4) for bound in (lower, upper))
    return {"of": of, "agreed": agreed, "share": round(agreed / of, 4)} | dict(
        zip(("lower", "upper"), bounds, strict=True)
    )


def kappa(pairs: Iterable[tuple[str, str]]) -> float | None:
    """Cohen's kappa: agreement beyond what chance would give (1960); None of no pairs, or where both always say the same one thing."""
    told = list(pairs)
    if not told:
        return None
    first, second = Counter(a for a, _ in told), Counter(b for _, b in told)
    by_chance = math.fsum(first[label] * second[label] for label in first) / len(told) ** 2
    if by_chance == 1:
        return None
    return round((sum(a == b for a, b in told) / len(told) - by_chance) / (1 - by_chance), 4)
