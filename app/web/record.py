"""What is written of an exchange when it is over: metrics, and one record for the journal. Law: ids, categories, offsets and counts; never
a text, and the client never waits for it."""

from __future__ import annotations

import logging
from functools import lru_cache
from time import perf_counter
from typing import Any

from app import metrics
from app.dialects import Prompt
from app.journal import Journal
from app.types import Action, Verdict
from app.web.exchange import Exchange

log = logging.getLogger("sluice.record")

_requests = lru_cache(256)(metrics.REQUESTS.labels)
_seconds = lru_cache(16)(metrics.SECONDS.labels)
"""Children are found by their words, and stay the same."""
_FINDINGS = 50
"""Findings of one direction that are recorded at most."""


def record(x: Exchange, prompt: Prompt, dialect: str, journal: Journal) -> None:
    """Write down an exchange that is over, however it ended. `dialect`: its name."""
    mode = "stream" if prompt.stream else "plain"
    _requests(dialect, mode, x.outcome).inc()
    if x.first is not None:
        _seconds(dialect).observe(x.first - x.started)
    for direction, verdict in (("prompt", x.judged.verdict), ("answer", x.withdrawn or x.answer)):
        for name in verdict.degraded:
            metrics.DEGRADED.labels(name, direction).inc()
        if verdict.action > Action.PASS:
            metrics.ACTIONS.labels(direction, verdict.action.word, verdict.category or "-").inc()
        for f in verdict.findings:
            if f.shadow:
                metrics.SHADOW.labels(direction, f.action.word, f.category).inc()
    if x.screened:
        metrics.SCREENED.inc(x.screened)
        metrics.RELEASED.inc(x.released)
        metrics.HELD.observe(x.held_max)
        metrics.HELD_MS.observe(x.held_ms)
        if x.leaked:
            metrics.LEAKED.inc(x.leaked)
    if x.released > x.screened:
        metrics.UNSCREENED.inc(x.released - x.screened)
        log.error("released more than was screened", extra={"decision": x.decision, "dialect": dialect})
    if x.judged.known:
        metrics.KNOWN.inc(x.judged.known)
    journal.record(
        {
            "decision": x.decision or None,
            "app": x.app.id,
            "identity": x.caller.recorded(),
            "dialect": dialect,
            "mode": mode,
            "outcome": x.outcome,
            "policy": x.policy.version,
            "profile": x.policy.profile,
            "noted": x.noted,
            "label": x.labelled,
            "notices": [notice.kind for notice in x.notices] if x.sealed else [],
            "prompt": _journalled(x.judged.verdict),
            "answer": _journalled(x.withdrawn or x.answer),
            "instead": _journalled(x.answer) if x.withdrawn is not None else None,
            "screened": x.screened,
            "released": x.released,
            "held_max": x.held_max,
            "held_ms": round(x.held_ms, 2),
            "first_ms": None if x.first is None else round((x.first - x.started) * 1000, 2),
            "leaked": x.leaked,
            "ms": round((perf_counter() - x.started) * 1000, 2),
        }
    )


def _journalled(verdict: Verdict) -> dict[str, Any]:
    return {
        "action": verdict.action.word,
        "category": verdict.category,
        "clause": verdict.clause,
        "degraded": verdict.degraded,
        "findings": [
            {
                "category": f.category,
                "rule": f.rule,
                "technique": f.technique,
                "start": f.start,
                "end": f.end,
                "action": f.action.word,
                "shadow": f.shadow,
            }
            for f in verdict.findings[:_FINDINGS]
        ],
    }
