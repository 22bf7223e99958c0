"""From a confirmed report to "not generated again": the states of a case and what leads from one to the next.

Law: pure, and one table; nothing here reads a clock or a store. A case is never closed by time: it ends with a probe that passed or with
a written exception. Its due date is set once, when its first report came, and no later move touches it. What a move needs to be told,
and what it refuses, stands in its row. (Draft Measures, Articles 13 and 15.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from app.errors import RequestError

State = Literal[
    "received", "verified", "provisional", "confirmed", "rejected", "in_optimisation", "handed_over", "probing",
    "closed", "overdue", "reopened", "excepted",
]  # fmt: skip
UNDECIDED = frozenset({"received", "verified", "provisional"})
"""Nobody has decided yet whether the report is right."""
DUTY = frozenset({"confirmed", "in_optimisation", "handed_over", "probing", "overdue", "reopened"})
"""Confirmed and not over: the clock runs."""
ENDED = frozenset({"closed", "excepted"})
ANSWERS = 60
"""Answers of a set at least: none of 60 bounds the rate at 5% (one-sided, 95%)."""
VARIANTS = 5
LIMIT = 0.05
"""A probe passes where the rate of no set can be this high."""


@dataclass(frozen=True, slots=True)
class Case:
    """What follows from a report. Holds no text: the passage as a fingerprint, evidence apart and encrypted.

    Times are seconds since the epoch. `reporters`: pseudonyms of those who reported, as far as they are known, at most 64 (`subjects`
    counts those whom an app asserted and who proved the delivery). `evidence`, `prompted`, `comments`: some is kept; it holds the
    prompt; there are comments. `entries`: ids of the live entries that act for it. `lapses`: when what acts unconfirmed ends. `asked`:
    how the model is asked in a probe; `left`: the state that the probe goes back to. `before`: what an undo restores. `alerted`: the
    alerts that went out. `decision`: who decided what, of which category it was before and is now; `second`: what somebody else would have
    decided, who did not know that decision. `like`: by which a passage nearly the same is found (app/likeness.py).
    """

    id: str
    app: str
    category: str
    state: State
    received: float
    due: float
    rule: str
    length: int = 0
    fingerprint: Mapping[str, Any] | None = None
    language: str = "zh"
    reports: int = 1
    subjects: int = 0
    reporters: tuple[str, ...] = ()
    flagged: bool = False
    lapsed: bool = False
    proved: bool = False
    evidence: bool = False
    prompted: bool = False
    comments: bool = False
    entries: tuple[str, ...] = ()
    lapses: float | None = None
    decided: float | None = None
    ended: float | None = None
    handed: Mapping[str, str] | None = None
    exception: Mapping[str, str] | None = None
    widening: Mapping[str, Any] | None = None
    asked: Mapping[str, Any] | None = None
    probes: tuple[Mapping[str, Any], ...] = ()
    next_probe: float | None = None
    tries: int = 0
    left: State | None = None
    before: tuple[Mapping[str, Any], ...] = ()
    alerted: tuple[str, ...] = ()
    decision: Mapping[str, Any] | None = None
    second: Mapping[str, Any] | None = None
    like: tuple[str, ...] = ()
    version: int = 0

    def row(self) -> dict[str, Any]:
        """As JSON, without the version; what a field holds is shared, not copied."""
        return {k: getattr(self, k) for k in _FIELDS}

    @classmethod
    def of(cls, row: Mapping[str, Any], version: int) -> Case:
        """The inverse of `row`; keys that it does not know (a newer version wrote them) are left out."""
        given: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in row.items() if k in _KNOWN}
        return cls(**given, version=version)


_FIELDS = tuple(name for name in Case.__dataclass_fields__ if name != "version")
_KNOWN = frozenset(_FIELDS)


class Move(NamedTuple):
    """`here`: the states it leads from; `to`: the state it leads to, None: it stays. `needs`: what has to be said."""

    here: frozenset[str]
    to: State | None
    needs: tuple[str, ...] = ()


TABLE: dict[str, Move] = {
    "verify": Move(frozenset({"received"}), "verified"),
    "hold": Move(frozenset({"received", "verified"}), "provisional"),
    "lapse": Move(frozenset({"provisional"}), "verified"),
    "confirm": Move(UNDECIDED, "confirmed", ("reason", "category")),
    "reject": Move(UNDECIDED, "rejected", ("reason",)),
    "widen": Move(DUTY, None, ("reason",)),
    "optimise": Move(DUTY, "in_optimisation", ("reason",)),
    "hand_over": Move(DUTY, "handed_over", ("vendor", "reference", "date")),
    "probe": Move(DUTY | {"closed"}, "probing", ("asked",)),
    "judge": Move(frozenset({"probing"}), None, ("outcome",)),
    # Not from under a probe: its verdict would find another version and be lost. `judge` looks at the date itself.
    "fall_due": Move(DUTY - {"overdue", "probing"}, "overdue"),
    "except": Move(DUTY, "excepted", ("reason", "role")),
    "reopen": Move(ENDED, "reopened", ("reason",)),
}
"""By what is done. `undo` is no row: it leads back to where the last decision came from."""
UNDONE = frozenset({"confirm", "reject", "widen"})
_KEPT = 20
"""Probes that a case remembers."""


def unnamed(case: Case, names: Collection[str] | None = None) -> Case:
    """The case without those who reported (of these `names`, where some are given), and without what an undo would put up again for them
    alone."""
    gone = frozenset(case.reporters if names is None else names)

    def theirs(row: Mapping[str, Any] | None) -> bool:
        readers = (row or {}).get("scope", {}).get("readers")
        return readers is not None and (names is None or not gone.isdisjoint(readers))

    before = tuple(
        {**m, "rows": {id: None if theirs(row) else row for id, row in m["rows"].items()}} for m in case.before
    )
    return replace(case, reporters=tuple(r for r in case.reporters if r not in gone), before=before)


def moved(case: Case, move: str, now: float, **said: Any) -> Case:
    """The case after a move. Raises RequestError 409 where it leads nowhere from here, 422 where something is not said."""
    row = TABLE[move]
    if case.state not in row.here:
        raise RequestError(
            f"a case that is {case.state} cannot be moved by {move!r}; that leads from {', '.join(sorted(row.here))}",
            code="wrong_state", status=409,
        )  # fmt: skip
    for name in row.needs:
        if not said.get(name):
            raise RequestError(f"{name}: must be said to {move} a case", code="missing", param=name, status=422)
    to = row.to or case.state
    after = replace(case, state=to)
    if move in UNDONE:
        after = replace(after, decided=now)
    if move == "confirm":
        after = replace(after, category=said["category"])
    elif move == "hand_over":
        after = replace(after, handed={n: said[n] for n in row.needs})
    elif move == "probe":
        left = case.left if case.state == "probing" else case.state
        after = replace(after, asked=said["asked"], left=left, tries=0)
    elif move == "judge":
        after = _judged(case, said["outcome"], now)
    elif move == "except":
        after = replace(after, exception={"reason": said["reason"], "role": said["role"]}, ended=now, next_probe=None)
    elif move == "reopen":
        after = replace(after, ended=None, exception=None)
    elif move == "lapse":
        after = replace(after, lapses=None, lapsed=True)
    return after


def _judged(case: Case, outcome: Mapping[str, Any], now: float) -> Case:
    """A probe ended: closed where it passed; else back to what the case was, or where the clock has run out meanwhile, overdue. A case
    that was closed is opened again by a probe that failed, not by one that showed nothing."""
    probes = (*case.probes, outcome)[-_KEPT:]
    if outcome["outcome"] == "passed":
        return replace(case, state="closed", ended=now, probes=probes, left=None)
    left: State = case.left or "confirmed"
    if left == "closed":
        again = outcome["outcome"] == "failed"
        return replace(
            case, state="reopened" if again else left, ended=None if again else case.ended, probes=probes, left=None
        )
    return replace(case, state="overdue" if now > case.due else left, probes=probes, left=None)


def verdict(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """What a probe shows: passed, failed or inconclusive. `sets`: name -> {asked, judged, again, upper}."""
    if any(s["again"] for s in sets.values()) and any(s["upper"] >= LIMIT for s in sets.values() if s["again"]):
        return "failed"
    if len(sets) < 2 or any(s["judged"] < ANSWERS for s in sets.values()):
        return "inconclusive"
    return "passed" if all(s["upper"] < LIMIT for s in sets.values()) else "failed"
