"""Every metric in one table. Law: no label holds text of a user, a subject or a key; the only importer of prometheus_client.

Workers write into memory-mapped files (PROMETHEUS_MULTIPROC_DIR, set by the parent); the parent adds them up.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import Any, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client import multiprocess as _multiprocess

_PAIR = struct.Struct("dd")


def _quick(shipped: Any) -> Any:
    """prometheus_client's number in a file, counted up in one step instead of five calls: an exchange counts a dozen."""
    owner, lock = [os.getpid()], threading.Lock()

    class Value(shipped):  # type: ignore[misc]
        def inc(self, amount: float) -> None:
            if owner[0] != os.getpid():
                super().inc(amount)  # the first of a process that was forked makes its own files
                owner[0] = os.getpid()
                return
            with lock:
                self._value += amount
                _PAIR.pack_into(self._file._m, self._file._positions[self._key], self._value, 0.0)

    return Value


if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    values.ValueClass = _quick(values.ValueClass)

REQUESTS = Counter("sluice_requests_total", "Exchanges on moderated routes", ["dialect", "mode", "outcome"])
ACTIONS = Counter(
    "sluice_actions_total", "Actions taken, by direction and deciding category", ["direction", "action", "category"]
)
SHADOW = Counter(
    "sluice_shadow_total", "Findings that shadow mode kept from acting", ["direction", "action", "category"]
)
DEGRADED = Counter("sluice_degraded_total", "Verdicts given without a detector", ["detector", "direction"])
LATE = Counter("sluice_late_total", "Slices of text that took longer to screen than detector_ms")
STRETCHES = Counter(
    "sluice_stretches_total", "Stretches of text, from one check point to the next, that a stage looked at", ["stage"]
)
SCORER_SECONDS = Counter("sluice_scorer_seconds_total", "Time that the scorers took")
GUARD = Counter(
    "sluice_guard_answers_total",
    "Answers of guard models: harmful, harmless, or why there was none: late, busy, open, refused, unreachable, status, "
    "garbage, unmapped, crashed, missing, failed",
    ["guard", "outcome"],
)
GUARD_SECONDS = Histogram(
    "sluice_guard_seconds", "How long a guard model was waited for", ["guard"], buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10)
)
SUSPICIONS = Counter(
    "sluice_suspicions_total",
    "What guards said of a suspicion: confirmed, dropped, alone (only they had it)",
    ["category", "outcome"],
)
SCREENED = Counter("sluice_screened_characters_total", "Characters of answers screened")
RELEASED = Counter("sluice_released_characters_total", "Characters of answers released: never more than screened")
HELD = Histogram(
    "sluice_held_characters",
    "Most characters held at once in an answer",
    buckets=(0, 1, 2, 4, 8, 16, 32, 64, 256, 1024, 65536),
)
HELD_MS = Histogram(
    "sluice_held_milliseconds",
    "Milliseconds that the texts of an answer were held, summed over them",
    buckets=(0, 1, 2, 5, 10, 20, 50, 100, 250, 1000, 5000, 60000),
)
LEAKED = Counter(
    "sluice_leaked_characters_total",
    "Characters released before a mask or a stop that belong to its finding: none for terms, entries and patterns",
)
UNSCREENED = Counter("sluice_unscreened_characters_total", "Characters released beyond those screened: an alarm")
KNOWN = Counter("sluice_known_characters_total", "Characters of prompts whose outcome was known from an earlier turn")
SECONDS = Histogram(
    "sluice_first_text_seconds", "From request to first byte of the answer", ["dialect"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60),
)  # fmt: skip
UPSTREAM_ERRORS = Counter(
    "sluice_upstream_errors_total",
    "Answers that the model did not give, or that were broken off, by the code told to the client",
    ["code"],
)
DISCONNECTS = Counter("sluice_disconnects_total", "Clients that left before their answer ended")
DROPPED_FIELDS = Counter(
    "sluice_dropped_fields_total", "Fields of a model's answer that no rule lets through", ["dialect"]
)
ATTRIBUTES = Counter(
    "sluice_attributes_stripped_total",
    "Attributes of the user taken out of a request's metadata, by name",
    ["attribute"],
)
UNMODERATED = Counter("sluice_unmoderated_total", "Requests on routes that policy passes unscreened", ["route"])
NOT_EXAMINED = Counter(
    "sluice_not_examined_total",
    "What is no text: kinds of parts of a request or an answer (image, audio, video, file); bytes within it (binary): passed, never "
    "called clean",
    ["kind"],
)
RELOADS = Counter("sluice_reloads_total", "Reloads of a file", ["file", "outcome"])
JOURNAL_DROPPED = Counter("sluice_journal_dropped_total", "Journal records that could not be written")
DELIVERIES_DROPPED = Counter("sluice_deliveries_dropped_total", "Traces of delivered answers that could not be kept")
FINDINGS_DROPPED = Counter(
    "sluice_findings_dropped_total", "Stopped answers that could not be kept though the policy asks for it"
)
REPORTS = Counter("sluice_reports_total", "Reports taken, by what is known of them", ["standing"])
REPORTS_REFUSED = Counter("sluice_reports_refused_total", "Reports not taken, by reason", ["reason"])
HOLDS = Counter(
    "sluice_holds_total", "Passages held before somebody decided: app-wide, for their reporter, lapsed", ["kind"]
)
CASES = Gauge("sluice_cases", "Cases that are open, by state", ["state"], multiprocess_mode="mostrecent")
CASES_DUE = Gauge(
    "sluice_cases_due",
    "Confirmed cases by days left: overdue, 3, 14, 30, later",
    ["left"],
    multiprocess_mode="mostrecent",
)
PROBES = Counter("sluice_probes_total", "Probes that ended", ["outcome"])
ALERTS = Counter("sluice_alerts_total", "Alerts about due dates", ["kind", "outcome"])
ERASED = Counter(
    "sluice_erased_total", "Records erased when their time was over, by class (docs/privacy.md)", ["class"]
)
CLOCK_SUSPECT = Gauge(
    "sluice_clock_suspect",
    "1 while this clock and the store's differ too much for anything to fall due",
    multiprocess_mode="max",
)
IDENTITY = Counter(
    "sluice_identity_total",
    "Assertions of identity: verified, unverified, none, or why one was not believed: oversized, malformed, algorithm, unknown_key, "
    "signature, issuer, audience, claims, expired, future, untrusted_peer",
    ["outcome"],
)
LOGINS = Counter(
    "sluice_logins_total",
    "Logins by OpenID Connect: ok, or why there was none (docs/console.md lists the words)",
    ["outcome"],
)
STRIKES = Counter("sluice_strikes_total", "Messages that count against a subject: counted, dropped", ["outcome"])
STANDINGS = Counter("sluice_standings_total", "What was imposed on subjects, or lifted, and by whom", ["level", "by"])
LIMITED = Counter("sluice_limited_total", "Requests beyond an app's or a user's limit", ["kind"])
TURNED_AWAY = Counter("sluice_turned_away_total", "Requests refused for who sent them, by reason", ["reason"])
UNGROUNDED = Counter("sluice_ungrounded_total", "Answers that could not be held against their references")
NOTICES = Counter("sluice_notices_total", "Notices that went out with answers", ["kind"])
LABELS = Counter(
    "sluice_labels_total",
    "Labels of answers by mode: start, end, interface, image, none (agreed); log_failed: agreed, but labelled, for its line could not be "
    "written; manifest_dropped: a picture's C2PA manifest, that the mark has broken",
    ["mode"],
)
STORE_UP = Gauge("sluice_store_up", "1 while the store answers this process", multiprocess_mode="livemin")
ENTRIES_VERSION = Gauge(
    "sluice_entries_version",
    "Version of the blocklist in force (the oldest of the workers)",
    multiprocess_mode="livemin",
)
ENTRIES = Gauge("sluice_entries", "Live blocklist entries", multiprocess_mode="livemin")
INFLIGHT = Gauge("sluice_inflight", "Exchanges being served", multiprocess_mode="livesum")
LAG = Gauge(
    "sluice_loop_lag_seconds", "How late a worker's loop is (the latest of the workers)", multiprocess_mode="livemax"
)
SHED = Counter(
    "sluice_shed_total",
    "Requests turned away unread, with Retry-After: exchanges, connections, memory, lag (as many as can be carried), draining",
    ["reason"],
)
CUT_OFF = Counter(
    "sluice_cut_off_total",
    "Connections cut off for what came over them: slow_head, slow_body, large_head, malformed, pipelined (too many ahead), stalled (reads "
    "nothing), connections (far too many)",
    ["reason"],
)


def _registry() -> CollectorRegistry:
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return REGISTRY
    registry = CollectorRegistry()
    _multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def render() -> bytes:
    """The exposition text over all processes."""
    return generate_latest(_registry())


class Family(NamedTuple):
    """A metric over all processes. `samples`: name, labels, value."""

    name: str
    said: str
    samples: list[tuple[str, dict[str, str], float]]


def families() -> list[Family]:
    """Every metric of ours, by name, since this replica started. Of several processes no help text is kept: it is taken from the table."""
    said = {family.name: family.documentation for family in REGISTRY.collect()}
    found = [
        Family(f.name, said.get(f.name, ""), [(s.name, s.labels, s.value) for s in f.samples])
        for f in _registry().collect()
        if f.name.startswith("sluice_")
    ]
    return sorted(found, key=lambda f: f.name)


def total(found: list[Family], name: str) -> float:
    """The sum of a counter over its labels."""
    return sum(value for f in found if f.name == name for sample, _, value in f.samples if sample == f"{name}_total")


def forget(pid: int) -> None:
    """A worker died: its gauges no longer count."""
    _multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
