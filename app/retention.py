"""What is kept, where, how long, on what basis, and who erases it: one table. Draft Measures, Article 11; Interim Measures, Article 11.

Law: whatever is written down has a row here, and whoever erases it takes the period from here; docs/privacy.md and an auditor's export show
the same rows. Where no law asks for longer, the period is our own choice and as short as the record's use allows.
"""

from __future__ import annotations

from typing import NamedTuple

DAY = 86400
HOUR = 3600


class Records(NamedTuple):
    """A class of records. `seconds`: None, as long as the store; `since`: from when on they count; `personal`: it holds a pseudonym, or a
    text that a person sent."""

    name: str
    where: str
    seconds: int | None
    since: str
    basis: str
    eraser: str
    personal: bool

    @property
    def kept(self) -> str:
        """How long, in words."""
        if self.seconds is None:
            return self.since
        days, hours = divmod(self.seconds // HOUR, 24)
        period = f"{days} days" if not hours and days > 3 else f"{self.seconds // HOUR} h"
        return f"{period} {self.since}".strip() if self.seconds else self.since


_OWN = "own choice"
_LOGS = "Cybersecurity Law, network logs: six months at least"
_LEDGER = "Measures, Articles 13 and 15: what was reported and what became of it"
_STORE = "the store, by itself"
_TIME = "app/duties.py"
TABLE = (
    Records("journal", "DATA_DIR/journal", 187 * DAY, "", _LOGS, "app/journal.py", False),
    Records("unlabelled", "DATA_DIR/unlabelled", 187 * DAY, "", "Labelling Measures, Article 9: six months", "app/agreements.py", True),
    Records("snapshots", "DATA_DIR/*.snapshot.json", None, "as the tables that they follow", _OWN, "app/store/tables.py", True),
    Records("counters", "counters:<hour>", 400 * DAY, "", f"{_OWN}: this year beside the last", _STORE, False),
    Records("audit", "audit", None, "as long as the store", _LEDGER, "nobody", False),
    Records("trails", "trail:<what>", None, "as long as the audit", f"{_OWN}: numbers of audit rows", "nobody", False),
    Records("cases", "cases, runs", None, "as long as the store", _LEDGER, "nobody", False),
    Records("tickets", "tickets", None, "as long as the store", _LEDGER, "nobody", False),
    Records("reporters", "cases, tickets", 187 * DAY, "after the case has ended", _OWN, _TIME, True),
    Records("queue", "cases:queue, cases:reporter, cases:like", 0, "until the case is decided", _OWN, "app/store/cases.py", True),
    Records("claims", "claim:<case>", 0, "10 minutes", f"{_OWN}: which reviewer is at a case", _STORE, False),
    Records("comments", "comments:<case>", 30 * DAY, "after the case has ended", _OWN, _TIME, True),
    Records("evidence", "evidence", 365 * DAY, "after the case was closed; 30 days after it was rejected", _OWN, _TIME, True),
    Records("matters", "matters", None, "as long as the store", _LEDGER, "nobody", False),
    Records("matters_reporters", "matters", 187 * DAY, "after it was answered", _OWN, _TIME, True),
    Records("matters_evidence", "evidence", 0, "until it is answered", _OWN, "app/complaints.py", True),
    Records("holds", "entries, for a reporter alone", 72 * HOUR, "", _OWN, _TIME, True),
    Records("history", "entries:history", 90 * DAY, "after the change", f"{_OWN}: to see a mistake and take it back", _TIME, False),
    Records("exceptions", "exceptions", 180 * DAY, "in force, then a mark", _OWN, "app/exceptions.py", False),
    Records("held", "held:<decision>", 72 * HOUR, "", _OWN, _STORE, True),
    Records("deliveries", "deliveries:<app>:<day>", 7 * DAY, "", _OWN, _STORE, False),
    Records("refusals", "refusals", 24 * HOUR, "", _OWN, _STORE, False),
    Records("results", "done:<call>", 7 * DAY, "", _OWN, _STORE, False),
    Records("limits", "limit:<who>", 1 * HOUR, "", _OWN, _STORE, True),
    Records("strikes", "strikes:<app>:<subject>", 24 * HOUR, "", _OWN, _STORE, True),
    Records("struck", "struck", 24 * HOUR, "", f"{_OWN}: who has an open row of strikes", _STORE, False),
    Records("standings", "standings", 30 * DAY, "after it has ended", f"{_OWN}: whether it happens again", _TIME, True),
    Records("agreements", "agreements", 0, "until it ends or is taken back", "Labelling Measures, Article 9", "app/agreements.py", True),
    Records("proposals", "entries:proposed", None, "until a second person answers", _OWN, "app/register.py", False),
    Records("replicas", "replicas", 24 * HOUR, "after it last spoke", f"{_OWN}: which replica lags behind", "app/replicas.py", False),
    Records("accounts", "accounts", None, "until an operator removes it", f"{_OWN}: who may work at the console", "app/accounts.py", True),
    Records("logins", "session:<login>", 12 * HOUR, "", _OWN, _STORE, True),
    Records("attempts", "login:<who>", 0, "15 minutes", f"{_OWN}: guessing of passwords", _STORE, True),
    Records("workload", "work:<who>", 12 * HOUR, "", f"{_OWN}: care for reviewers; nobody else sees it", _STORE, True),
    Records("usage", "meter:<minute>", 0, "3 minutes", f"{_OWN}: limits over all replicas", _STORE, False),
    Records("touched", "backup:log", 0, "while a backup runs, a minute longer where it was killed", f"{_OWN}: one moment", _STORE, False),
    Records("restores", "restore:<run>", 24 * HOUR, "where a restore was killed", f"{_OWN}: a restore in one step", _STORE, True),
    Records("sessions", "memory alone", 0, "while somebody is there", f"{_OWN}: reminders (Measures, Article 10)", "app/sessions.py", True),
)  # fmt: skip
RECORDS = {row.name: row for row in TABLE}


def seconds(name: str) -> int:
    """How long a class is kept. Raises KeyError, and TypeError for one without an end."""
    period = RECORDS[name].seconds
    if period is None:
        raise TypeError(name)
    return period
