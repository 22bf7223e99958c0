"""Agreements: who gets answers without a visible label, because they asked for it and took on the duty to label. Labelling Measures,
Article 9: the log of whom such content went to is kept at least six months.

Law: without a recorded agreement in force, and without its line in the log on disk, an answer is labelled. The log is the one record that
names a subject (by pseudonym): the law demands it, and an operator recorded the agreement by name. No text.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from app import clock, journal, metrics, retention
from app.errors import Conflict
from app.keys import Keys
from app.store.cases import Cases, Writes
from app.store.client import Store
from app.store.tables import AgreementRows, Row, gone
from app.types import Subject


class Agreements:
    """`data`: DATA_DIR, where the log lies. `run`: a name unique to this process's life. `keep`: it writes the snapshot."""

    def __init__(
        self, cases: Cases, keys: Keys, store: Store | None, data: Path, run: str = "", *, keep: bool = False
    ) -> None:
        self._cases, self._keys = cases, keys
        self.table = AgreementRows(store, data, self.change, keep_snapshot=keep)
        self._folder, self._run = data / "unlabelled", run
        self._rows: dict[tuple[str, str], Row] = {}

    def change(self, rows: dict[str, Row | None], version: int, whole: bool) -> None:
        """Put changed rows into force; as Table.changed."""
        now = {} if whole else {key: row for key, row in self._rows.items() if row["id"] not in rows}
        self._rows = now | {(row["app"], row["subject"]): row for row in rows.values() if row is not None}

    def of(self, app: str, names: Iterable[str]) -> str | None:
        """The number of the agreement of whom `names` are pseudonyms of, if one is in force."""
        for name in names if self._rows else ():
            row = self._rows.get((app, name))
            if row is not None and clock.seconds(row["expires_at"]) > clock.now():
                return str(row["id"])
        return None

    def logged(self, agreement: str, decision: str, subject: Subject) -> bool:
        """Write down that an answer goes out unlabelled; True once it is on disk. Blocks."""
        line = {
            "at": clock.stamp(), "decision": decision, "agreement": agreement, "app": subject.app, "subject": subject.pseudonym
        }  # fmt: skip
        try:
            journal.append(self._folder, self._run, orjson.dumps(line) + b"\n", sync=True)
        except OSError:
            metrics.LABELS.labels("log_failed").inc()
            return False
        return True

    async def add(
        self, app: str, user: str, agreement: str, until: float, who: str, key: str = "", *, header: bool = True
    ) -> Row:
        """Record one. `user`: as the app names them, in a `header` or else in a token; only the pseudonym is kept. `agreement`: which text
        they agreed to. Raises StoreError, ValueError for a key used for something else."""
        await self.table.refresh()
        known = {(row["app"], row["subject"]): row for row in self.table.rows()}
        # As the app names them: a header's bytes are read as Latin-1, a token's are not. Whoever has one goes on under its name.
        ids = (user.encode("utf-8", "surrogatepass").decode("latin-1"), user) if header else (user,)
        names = [name for id in ids for name in self._keys.pseudonyms(app, id)]
        old = next((known[app, name] for name in names if (app, name) in known), None)
        name = old["subject"] if old is not None else names[0]
        id = old["id"] if old is not None else "agr_" + secrets.token_hex(12)
        row: Row = {
            "id": id, "app": app, "subject": name, "agreement": agreement, "by": who, "at": clock.stamp(),
            "expires_at": clock.stamp(until).replace("Z", "+00:00"),
        }  # fmt: skip
        writes = Writes()
        writes.table(self.table, id, row, self._channel())
        request = hashlib.sha256(f"{app} {name} {agreement} {who}".encode()).hexdigest()
        event = {"who": who, "what": "agreement", "id": id, "agreement": agreement}
        result = await self._cases.commit(writes, event, key=key, request=request, result=shown(row))
        await self.table.refresh()
        return result

    async def remove(self, id: str, who: str) -> bool:
        """False where there is none."""
        await self.table.refresh()
        row = self.table.get(id)
        if row is None or row.get("deleted"):
            return False
        writes = Writes()
        writes.table(self.table, id, gone(id), self._channel())
        await self._cases.commit(writes, {"who": who, "what": "agreement_end", "id": id})
        await self.table.refresh()
        return True

    async def forget(self) -> tuple[int, int]:
        """Erase agreements that have ended, and files of the log that have been kept for their time; how many. Raises StoreError."""
        ended = 0
        for row in self.table.expired('"subject"'):
            writes = Writes()
            writes.table(self.table, row["id"], gone(row["id"]), self._channel(), int(row["version"]))
            with contextlib.suppress(Conflict):
                await self._cases.commit(
                    writes, {"who": "time", "what": "erase", "part": "agreements", "id": row["id"]}
                )
                ended += 1
        days = retention.seconds("unlabelled") // retention.DAY
        return ended, await asyncio.to_thread(journal.swept, self._folder, days)

    async def listed(self) -> list[Row]:
        await self.table.refresh()
        return [shown(row) for row in self.table.rows()]

    def _channel(self) -> str:
        return self._cases.store.key(f"{self.table.name}:changed")


def shown(row: Mapping[str, Any]) -> Row:
    """Not whose it is."""
    return {k: v for k, v in row.items() if k != "subject"}
