"""The register: the live entries as people work with them. What one may add, change and remove, and what of it needs a second person.

Law: every change is one commit with its audit row, from the version that was seen; a key that comes again gets its first answer. What acts
by itself and stands in ordinary texts waits for the word of a second person, and acts for WIDE_DAYS days at most. What belongs to a case is
changed in its case.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from app import clock
from app.entries import EntryIn, acts, gone_row, public, written
from app.errors import Conflict, RequestError
from app.keys import Keys
from app.review import WIDE_DAYS, Review
from app.store.cases import Cases, Writes
from app.store.tables import Entries, Row
from app.text import fold

_PROPOSED = "entries:proposed"


class Register:
    """Of the entries that `cases` acts by."""

    def __init__(self, entries: Entries, cases: Cases, keys: Keys, review: Review) -> None:
        self._entries, self._cases, self._keys, self._review = entries, cases, keys, review

    # ---- reading

    def find(self, words: str = "", category: str = "", of: str = "") -> list[Row]:
        """Entries in force whose term, id, reason or case holds `words`, the newest first. `of`: a list."""
        said = fold(words)

        def wanted(row: Row) -> bool:
            if (category and row["category"] != category) or (of and row.get("list") != of):
                return False
            near = (str(row.get("term", "")), str(row.get("reason", "")))
            return not words or words in (row["id"], row.get("case")) or any(said in fold(text) for text in near)

        rows = [public(row) for row in self._entries.rows() if wanted(row)]
        return sorted(rows, key=lambda row: -int(row["version"]))

    def one(self, id: str) -> Row:
        """Raises RequestError 404."""
        row = self._entries.get(id)
        if row is None or row.get("deleted"):
            raise RequestError("no such entry", code="not_found", status=404)
        return public(row)

    def preview(self, entry: EntryIn) -> Row:
        """What of the clean texts an entry would have hit, and whether that asks for a second person. Takes a while: in a thread."""
        hits, of = self._review.clean(entry.term) if entry.term else ([], 0)
        wide = bool(entry.term and acts(entry) and self._review.ordinary(entry.term))
        return {"hits": len(hits), "of": of, "examples": [h[:80] for h in hits[:5]], "second": wide}

    # ---- changing

    def gate(self, entry: EntryIn, row: Row, second: str) -> None:
        """What stands in ordinary texts acts only with the word of a `second` person, for a time. Raises RequestError."""
        hits = self._review.ordinary(entry.term) if entry.term and acts(entry) else 0
        if not hits:
            return
        why = f"term: it stands in {hits} of the clean texts, so it would hit what everybody says"
        if not second or second == row["owner"]:
            way = "make it longer or suspect, or have a second person agree"
            raise RequestError(f"{why}: {way} (需第二人同意)", code="gate", param="term", status=422)
        until = entry.expires_at
        if until is None or until.timestamp() > clock.now() + WIDE_DAYS * 86400:
            raise RequestError(
                f"expires_at: {why}; it may act for {WIDE_DAYS} days at most 有效期最长 {WIDE_DAYS} 天",
                code="gate",
                param="expires_at",
                status=422,
            )
        row["second"] = second

    async def add(self, entry: EntryIn, who: str, said: str, *, second: str = "", key: str) -> Row:
        """Put one into force. `said`: the entry as it was sent, by which a repeated call is known. Raises RequestError, StoreError,
        ValueError for a key used for something else."""
        row = written(entry, who, self._keys)
        await asyncio.to_thread(self.gate, entry, row, second)
        other = ValueError()
        event = {"who": who, "what": "entry", "category": entry.category, "reason": entry.reason}
        # Under an older key too: the same call, sent again after a rotation, is the same call.
        for kid in self._keys.kids:
            digest = self._keys.mac("fingerprint", "request", said, kid=kid).hex()
            # The id comes from the key, so that a repeated request names the same row.
            row["id"] = "ent_" + hashlib.sha256(f"{key}\n{digest}".encode()).hexdigest()[:20]
            told = event | {"entry": row["id"]} | ({"second": row["second"]} if "second" in row else {})
            try:
                return await self._put(row, told, key=f"entry {key}", request=digest)
            except ValueError as e:
                other = e
        raise other

    async def _put(self, row: Row, event: Row, *, key: str = "", request: str = "", expected: int | None = None) -> Row:
        writes = Writes()
        writes.table(self._entries, row["id"], row, self._cases.changed(), expected)
        result = public(row) | {"version": "@version"}
        done = await self._cases.commit(writes, event, key=key, request=request, result=result)
        await self._entries.refresh()
        return done

    async def remove(self, id: str, who: str, reason: str = "", *, expected: int | None = None, key: str = "") -> Row:
        """Take one out of force; of what it said nothing stays in its row. Raises RequestError 404, Conflict, StoreError."""
        request = hashlib.sha256(f"delete {id}".encode()).hexdigest()
        if key and (first := await self._cases.repeated(f"entry {key}", request)) is not None:
            return {"id": id, "deleted": True, "version": first["version"]}
        row = self._entries.get(id)
        if row is None:
            await self._entries.refresh()
            row = self._entries.get(id)
        if row is None or row.get("deleted"):
            raise RequestError("no such entry", code="not_found", status=404)
        _own(row)
        event = {"who": who, "what": "entry_remove", "entry": id, "reason": reason}
        done = await self._put(
            gone_row(row), event, key=f"entry {key}" if key else "", request=request, expected=expected
        )
        return {"id": id, "deleted": True, "version": done["version"]}

    async def extend(self, id: str, who: str, until: datetime | None, reason: str, *, expected: int, key: str) -> Row:
        """Another end. Raises RequestError, Conflict, StoreError."""
        row = self._entries.get(id)
        if row is None or row.get("deleted"):
            raise RequestError("no such entry", code="not_found", status=404)
        _own(row)
        if row.get("subject_block"):
            raise RequestError(
                "two people decided this end: another complaint decides another 该屏蔽由两人决定，须另行决定",
                code="of_two",
                param="expires_at",
                status=409,
            )
        if row.get("expires_at") and clock.seconds(row["expires_at"]) <= clock.now():
            raise RequestError("it is over already: add it anew 已过期，请重新添加", code="wrong_state", status=409)
        after = {k: v for k, v in row.items() if k not in ("version", "expires_at")}
        if until is not None:
            if until.timestamp() <= clock.now():
                raise RequestError(
                    "expires_at: is in the past 时间已过", code="invalid_value", param="expires_at", status=422
                )
            after["expires_at"] = until.astimezone(UTC).isoformat()
        if row.get("second") and (until is None or until.timestamp() > clock.seconds(row["expires_at"])):
            raise RequestError(
                "expires_at: two people agreed to this end; it may be sooner, and later only by a new proposal "
                "到期日由两人同意，只能提前；延后须重新提议",
                code="gate",
                param="expires_at",
                status=422,
            )
        event = {"who": who, "what": "entry_extend", "entry": id, "reason": reason}
        request = json.dumps([id, after.get("expires_at"), reason])
        return await self._put(after, event, key=f"extend {key}", request=request, expected=expected)

    # ---- what waits for a second person

    async def propose(self, entry: EntryIn, who: str, key: str) -> str:
        """Keep an entry until somebody else agrees; its number. A passage is kept as its fingerprint. Raises RequestError, StoreError."""
        row = written(entry, who, self._keys)
        said = self._keys.mac("fingerprint", "request", entry.model_dump_json()).hex()
        number = "prop_" + hashlib.sha256(f"{who} {key}".encode()).hexdigest()[:16]
        preview = await asyncio.to_thread(self.preview, entry)
        kept: Row = {"row": row, "by": who, "at": clock.now(), "hits": preview["hits"], "of": preview["of"]}
        writes = Writes()
        writes.set(_PROPOSED, number, json.dumps(kept, ensure_ascii=False))
        event = {
            "who": who,
            "what": "entry_propose",
            "entry": number,
            "category": entry.category,
            "reason": entry.reason,
        }
        await self._cases.commit(writes, event, key=f"propose {number}", request=said)
        return number

    async def proposed(self) -> list[Row]:
        """What waits, the oldest first. Raises StoreError."""
        found = [(number, json.loads(raw)) async for number, raw in self._cases.scan(_PROPOSED)]
        rows = [
            {"id": n, "by": p["by"], "at": p["at"], "hits": p["hits"], "of": p["of"]} | {"entry": public(p["row"])}
            for n, p in found
        ]
        return sorted(rows, key=lambda row: float(row["at"]))

    async def answer(self, number: str, who: str, agrees: bool) -> Row | None:
        """Agree, and the entry acts; or not, and it is gone: its proposer may take it back. Raises RequestError, Conflict, StoreError."""
        raw = await self._cases.field(_PROPOSED, number)
        if raw is None:
            raise RequestError("nobody proposes that any more 该提议已处理", code="not_found", status=404)
        kept: dict[str, Any] = json.loads(raw)
        writes = Writes()
        writes.drop(_PROPOSED, number)
        if not agrees:
            await self._cases.commit(
                writes,
                {"who": who, "what": "entry_decline", "entry": number},
                key=f"answer {number}",
                request="decline",
            )
            return None
        if kept["by"] == who:
            raise RequestError("a second person must agree 须由另一人同意", code="same_reviewer", status=409)
        row: Row = kept["row"] | {"id": "ent_" + hashlib.sha256(number.encode()).hexdigest()[:20], "second": who}
        if row.get("expires_at") and clock.seconds(row["expires_at"]) <= clock.now():
            raise RequestError(
                "its end has passed meanwhile: propose it anew 有效期已过，请重新提议", code="wrong_state", status=409
            )
        end = clock.now() + WIDE_DAYS * 86400
        if not row.get("expires_at") or clock.seconds(row["expires_at"]) > end:
            row["expires_at"] = clock.stamp(end).replace("Z", "+00:00")
        writes.table(self._entries, row["id"], row, self._cases.changed(), 0)
        event = {
            "who": who,
            "what": "entry",
            "entry": row["id"],
            "category": row["category"],
            "reason": row["reason"],
            "second": who,
        }
        try:
            await self._cases.commit(writes, event, key=f"answer {number}", request="agree")
        except Conflict:
            raise RequestError("it is in force already 已生效", code="wrong_state", status=409) from None
        await self._entries.refresh()
        return public(self._entries.get(row["id"]) or row)


def _own(row: Row) -> None:
    """It stands for itself. Raises RequestError where a case acts by it."""
    if "case" in row:
        raise RequestError(
            "it belongs to a case: decide there 该词条属于案件，请在案件中处理", code="of_a_case", status=409
        )
