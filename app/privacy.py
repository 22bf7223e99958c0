"""What is held about one person, and its erasure. Draft Measures, Article 11; Interim Measures, Article 11 (access, deletion).

Law: a person is found by the pseudonyms of their user id in one app, under every key that is listed; the id itself is never written down,
and the audit row says who asked, for which app, and how much there was. Erasing is one commit, all or nothing. A case stays, without the
reporter; what a law asks to be kept is named, with its basis and end. Whoever else keeps something of a person adds a line to HOLDERS.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from app import clock, remediation, retention, vault
from app.complaints import Matter
from app.errors import Conflict, StoreError, Unreadable
from app.keys import Keys
from app.remediation import DUTY, UNDECIDED, Case
from app.store.cases import Cases, Writes
from app.store.tables import Row, gone
from app.subjects import mark
from app.types import Subject

_TRIES = 20
_REWRITTEN = 15.0
"""Seconds that the store gets to write its file anew."""
_OPEN = "Measures, Articles 13 and 15: the report is being dealt with"
_OTHERS = "others reported the same passage: whose it is, is not known"
_LOGGED = "Labelling Measures, Article 9: lines of the log DATA_DIR/unlabelled, six months at least"
_BLOCK = "Measures, Article 13: the block about a person that this person asked for"


class Person(NamedTuple):
    """`subjects`: their pseudonyms; `names`: what they are called where they reported."""

    app: str
    subjects: frozenset[str]
    names: frozenset[str]


def person(keys: Keys, app: str, user: str) -> Person:
    """A user by id, as the trusted header carries it."""
    # A header's bytes are read as Latin-1, whatever the client meant by them.
    ids = {user, user.encode("utf-8", "surrogatepass").decode("latin-1")}
    return Person(
        app,
        frozenset(p for id in ids for p in keys.pseudonyms(app, id)),
        frozenset(n for id in ids for n in keys.reporters(app, id)),
    )


class Shelf:
    """The store as one request sees it: what several holders look at is read once."""

    def __init__(self, cases: Cases, keys: Keys, who: Person) -> None:
        self.cases, self.keys, self.who = cases, keys, who
        self.tickets: dict[str, Row] = {}
        self.reported: list[Case] = []
        self.matters: list[Matter] = []

    async def read(self) -> Shelf:
        async for id, raw in self.cases.scan("tickets"):
            row = json.loads(raw)
            if row["reporter"] in self.who.names:
                self.tickets[id] = row
        wanted = {row["case"] for row in self.tickets.values()}
        self.reported = await self.cases.several(sorted(wanted))
        async for _, raw in self.cases.scan("matters"):
            matter = Matter.of(raw)
            if matter.reporter in self.who.names:
                self.matters.append(matter)
        return self

    async def opened(self, key: str, field: str, record: str) -> Row:
        """What is sealed there; what cannot be opened says so."""
        sealed = await self.cases.field(key, field)
        if sealed is None:
            return {}
        try:
            text = vault.unseal(self.keys, record, sealed)
        except Unreadable as e:
            return {"unreadable": str(e)}
        return dict(json.loads(text)) if text.startswith("{") else {"text": text}

    async def rows(self, table: str) -> list[Row]:
        """The rows of a replicated table that are not deleted, in force or not."""
        found = [json.loads(raw.partition(" ")[2]) | {"id": id} async for id, raw in self.cases.scan(f"{table}:rows")]
        return [row for row in found if not row.get("deleted")]

    def gone(self, writes: Writes, table: str, id: str) -> None:
        """Mark a row of a replicated table as deleted: every process lets go of it."""
        writes.row_of(table, id, gone(id), self.cases.store.key(f"{table}:changed"))


Kept = list[Row]
"""What a law asks to be kept: class, which, `basis`, `until`."""


class Holder(NamedTuple):
    """Something that is kept of persons. `held`: what of this one; `erase`: adds to the writes what takes it away, and says how much
    that is and what stays."""

    name: str
    held: Callable[[Shelf], Awaitable[list[Row]]]
    erase: Callable[[Shelf, Writes], Awaitable[tuple[int, Kept]]]


# ---- reports


async def _reports(shelf: Shelf) -> list[Row]:
    cases = {case.id: case for case in shelf.reported}
    found = []
    for id, row in shelf.tickets.items():
        comment = await shelf.opened(f"comments:{row['case']}", id, f"{id}/comment")
        case = cases.get(row["case"])
        found.append({
            "ticket": id, "case": row["case"], "at": clock.stamp(row["at"]), "proved": row["proved"],
            "state": case.state if case is not None else None, "comment": comment.get("text") or comment.get("unreadable"),
        })  # fmt: skip
    return found


async def _sent(shelf: Shelf, case: Case) -> bool | None:
    """The evidence of a case came with a report of this person; None where that is not known."""
    if not case.evidence:
        return False
    opened = await shelf.opened("evidence", case.id, f"{case.id}/evidence")
    if "ticket" in opened:
        return opened["ticket"] in shelf.tickets
    return True if case.reports == sum(row["case"] == case.id for row in shelf.tickets.values()) else None


async def _unreport(shelf: Shelf, writes: Writes) -> tuple[int, Kept]:
    kept: Kept = []
    holds = {row["id"] for row in await _hold_rows(shelf)}
    for id, row in shelf.tickets.items():
        writes.drop("tickets", id)
        writes.drop(f"comments:{row['case']}", id)
    for case in shelf.reported:
        after = remediation.unnamed(case, shelf.who.names)
        after = replace(after, entries=tuple(id for id in after.entries if id not in holds))
        theirs = await _sent(shelf, case)
        if case.evidence and theirs is not False and case.state in UNDECIDED | DUTY:
            until = f"30 days after the case has ended; it is due {clock.stamp(case.due)}"
            kept.append({"class": "evidence", "case": case.id, "basis": _OPEN, "until": until})
        elif theirs:
            writes.drop("evidence", case.id)
            writes.drop("evidence", f"{case.id}/probe")
            after = replace(after, evidence=False, prompted=False, next_probe=None)
        elif theirs is None:
            kept.append(
                {"class": "evidence", "case": case.id, "basis": _OTHERS, "until": "see docs/privacy.md, evidence"}
            )
        if after != case:
            writes.case(case, after)
    return len(shelf.tickets), kept


# ---- complaints and appeals


async def _matters(shelf: Shelf) -> list[Row]:
    found = []
    for m in shelf.matters:
        sent = await shelf.opened("evidence", m.id, f"{m.id}/evidence")
        found.append({
            "ticket": m.id, "kind": m.kind, "at": clock.stamp(m.at), "due": clock.stamp(m.due), "state": m.state,
            "outcome": m.outcome or None, "decision": m.decision or None, "case": m.case or None, "sent": sent,
        })  # fmt: skip
    return found


async def _unsay(shelf: Shelf, writes: Writes) -> tuple[int, Kept]:
    """What they sent goes; that something was received and answered stays, as a line of the ledger. What was still open is withdrawn."""
    kept: Kept = []
    for m in shelf.matters:
        after = replace(
            m,
            reporter="",
            decision="",
            standing="",
            first=None,
            state="withdrawn" if m.state == "received" else m.state,
        )
        writes.row("matters", m.id, m.version, after.row())
        for key in ("matters:open", "matters:ask", "matters:answered"):
            writes.score(key, m.id, None)
        writes.drop("matters:model", m.id)
        writes.drop("evidence", m.id)
        writes.drop("evidence", f"{m.id}/answers")
        if m.decision:
            writes.erase(f"held:{m.decision}")
        kept += [
            {"class": "entries", "entry": row["id"], "basis": _BLOCK, "until": row["expires_at"]}
            for row in (await shelf.rows("entries") if m.entries else ())
            if row["id"] in m.entries
        ]
    return len(shelf.matters), kept


# ---- exceptions, holds


async def _exception_rows(shelf: Shelf) -> list[Row]:
    mine = {m.id for m in shelf.matters}
    return [row for row in await shelf.rows("exceptions") if row.get("matter") in mine] if mine else []


async def _exceptions(shelf: Shelf) -> list[Row]:
    return [{k: row[k] for k in ("matter", "category", "expires_at")} for row in await _exception_rows(shelf)]


async def _hold_rows(shelf: Shelf) -> list[Row]:
    found = await shelf.rows("entries")
    return [row for row in found if not shelf.who.names.isdisjoint(row["scope"].get("readers") or ())]


async def _holds(shelf: Shelf) -> list[Row]:
    shown = ("id", "case", "category", "created_at", "expires_at")
    return [{k: row.get(k) for k in shown} for row in await _hold_rows(shelf)]


def _ungo(
    table: str, rows: Callable[[Shelf], Awaitable[list[Row]]]
) -> Callable[[Shelf, Writes], Awaitable[tuple[int, Kept]]]:
    async def erase(shelf: Shelf, writes: Writes) -> tuple[int, Kept]:
        found = await rows(shelf)
        for row in found:
            shelf.gone(writes, table, row["id"])
        return len(found), []

    return erase


# ---- strikes, standings


def _strike_keys(shelf: Shelf) -> list[str]:
    return [f"strikes:{shelf.who.app}:{subject}" for subject in sorted(shelf.who.subjects)]


async def _strikes(shelf: Shelf) -> list[Row]:
    found = [{name: value async for name, value in shelf.cases.scan(key)} for key in _strike_keys(shelf)]
    return [row for row in found if row]


async def _unstrike(shelf: Shelf, writes: Writes) -> tuple[int, Kept]:
    for key in _strike_keys(shelf):
        writes.erase(key)
    for name in shelf.who.subjects:
        # Told to all processes, so that a clean message ends a row.
        writes.score("struck", base64.b64encode(mark(shelf.keys, Subject(shelf.who.app, name))).decode(), None)
    return len(await _strikes(shelf)), []


async def _standing_rows(shelf: Shelf) -> list[Row]:
    """Of the table `standings`, whose rows name app and subject; their ids must not, for an id stays."""
    who = shelf.who
    return [r for r in await shelf.rows("standings") if r.get("app") == who.app and r.get("subject") in who.subjects]


async def _standings(shelf: Shelf) -> list[Row]:
    return [{k: v for k, v in row.items() if k != "subject"} for row in await _standing_rows(shelf)]


# ---- agreements


async def _agreement_rows(shelf: Shelf) -> list[Row]:
    who = shelf.who
    return [r for r in await shelf.rows("agreements") if r.get("app") == who.app and r.get("subject") in who.subjects]


async def _agreements(shelf: Shelf) -> list[Row]:
    return [{k: v for k, v in row.items() if k != "subject"} for row in await _agreement_rows(shelf)]


async def _unagree(shelf: Shelf, writes: Writes) -> tuple[int, Kept]:
    """The log of what went out unlabelled is the one record that a law asks to be kept."""
    found = await _agreement_rows(shelf)
    for row in found:
        shelf.gone(writes, "agreements", row["id"])
    until = clock.stamp(clock.now() + retention.seconds("unlabelled"))
    return len(found), [{"class": "unlabelled", "agreement": r["id"], "basis": _LOGGED, "until": until} for r in found]


# ---- limits, and the results of calls


def _limit_keys(shelf: Shelf) -> list[str]:
    return [f"limit:reporter:{name}" for name in sorted(shelf.who.names)]


async def _limits(shelf: Shelf) -> list[Row]:
    store = shelf.cases.store
    counts = await store.run("MGET", *map(store.key, _limit_keys(shelf)))
    return [{"reports_this_hour": int(n)} for n in counts if n is not None]


async def _unlimit(shelf: Shelf, writes: Writes) -> tuple[int, Kept]:
    for key in _limit_keys(shelf):
        writes.erase(key)
    return len(await _limits(shelf)), []


async def _result_keys(shelf: Shelf) -> list[tuple[str, str]]:
    """The results of calls that name a ticket of this person: key and ticket."""
    mine = {*shelf.tickets, *(m.id for m in shelf.matters)}
    store, found, cursor = shelf.cases.store, [], 0
    while mine:
        cursor, keys = await store.run("SCAN", cursor, "MATCH", store.key("done:*"), "COUNT", 1000)
        for key, raw in zip(keys, await store.run("MGET", *keys) if keys else (), strict=True):
            answer = str(raw or "").partition(" ")[2]
            told = json.loads(answer) if answer.startswith("{") else {}
            if ticket := next((told[n] for n in ("ticket", "id") if told.get(n) in mine), None):
                found.append((str(key).removeprefix(store.prefix), str(ticket)))
        if not int(cursor):
            break
    return found


async def _results(shelf: Shelf) -> list[Row]:
    return [{"ticket": ticket} for _, ticket in await _result_keys(shelf)]


async def _unanswer(shelf: Shelf, writes: Writes) -> tuple[int, Kept]:
    found = await _result_keys(shelf)
    for key, _ in found:
        writes.erase(key)
    return len(found), []


HOLDERS = [
    Holder("reports", _reports, _unreport),
    Holder("complaints", _matters, _unsay),
    Holder("exceptions", _exceptions, _ungo("exceptions", _exception_rows)),
    Holder("holds", _holds, _ungo("entries", _hold_rows)),
    Holder("strikes", _strikes, _unstrike),
    Holder("standings", _standings, _ungo("standings", _standing_rows)),
    Holder("agreements", _agreements, _unagree),
    Holder("limits", _limits, _unlimit),
    Holder("results", _results, _unanswer),
]
"""In this order: `reports` sees the holds before they go."""


class Privacy:
    """The desk where a person's own are asked for. `apps`: those there are now: one that is gone
    has persons still, one that is mistyped has none, and the answer says which it is."""

    def __init__(self, cases: Cases, keys: Keys, apps: Callable[[], set[str]]) -> None:
        self._cases, self._keys, self.apps = cases, keys, apps

    async def export(self, app: str, user: str, who: str) -> Row:
        """All that is held about a user of an app, by class. Raises StoreError."""
        shelf = await Shelf(self._cases, self._keys, person(self._keys, app, user)).read()
        found = {holder.name: await holder.held(shelf) for holder in HOLDERS}
        counts = {name: len(rows) for name, rows in found.items() if rows}
        await self._cases.commit(Writes(), {"who": who, "what": "privacy_export", "app": app, "held": counts})
        return {"app": app, "known_app": await self._known(app), "at": clock.stamp(), "held": found}

    async def erase(self, app: str, user: str, who: str) -> Row:
        """Erase all that is held about a user of an app; how much that was, and what is kept and why. Raises StoreError, Conflict."""
        one = person(self._keys, app, user)
        for _ in range(_TRIES):
            shelf = await Shelf(self._cases, self._keys, one).read()
            writes, counts, kept = Writes(), dict[str, int](), list[Mapping[str, Any]]()
            for holder in HOLDERS:
                n, stays = await holder.erase(shelf, writes)
                kept += stays
                if n:
                    counts[holder.name] = n
            try:
                await self._cases.commit(writes, {"who": who, "what": "privacy_erase", "app": app, "erased": counts})
            except Conflict:
                continue  # one of the cases was changed meanwhile
            return {
                "app": app,
                "known_app": await self._known(app),
                "at": clock.stamp(),
                "erased": counts,
                "kept": kept,
                "store_file": await self._rewritten(),
            }
        raise Conflict("what is held of this person is changed all the time; send it again", 0)

    async def _known(self, app: str) -> bool:
        return app in await asyncio.to_thread(self.apps)

    async def _rewritten(self) -> str:
        """Have the store write its file anew, which else holds every write that there ever was: "rewritten", or "as it was" where it does
        not do so."""
        store = self._cases.store
        try:
            if not int((await store.run("INFO", "persistence"))["aof_enabled"]):
                return "as it was"
            await store.run("BGREWRITEAOF")
            async with asyncio.timeout(_REWRITTEN):
                while True:
                    said = await store.run("INFO", "persistence")
                    if not (int(said["aof_rewrite_in_progress"]) or int(said.get("aof_rewrite_scheduled", 0))):
                        return "rewritten" if said["aof_last_bgrewrite_status"] == "ok" else "as it was"
                    await asyncio.sleep(0.05)
        except (StoreError, TimeoutError, KeyError, TypeError):
            return "as it was"
