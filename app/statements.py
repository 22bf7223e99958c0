"""Statements: what the operator says in public, or to the authority, of its service. Draft Measures, Articles 10 and 17.

Law: a published version never changes and never vanishes, and its hash is in the audit chain, written in the same call. The operator
answers for what it says: nothing here is checked against the truth, and nothing is made up where it says nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app import clock
from app.store.cases import Cases, Writes
from app.store.tables import Row, Table

TEXT_MAX = 40_000
"""Characters of a document in one language."""
KINDS = {
    "disclosure": ("服务公示", "Disclosure"),
    "data_source": ("训练数据来源", "Sources of training data"),
    "data_scale": ("训练数据规模", "Scale of training data"),
    "data_type": ("训练数据类型", "Types of training data"),
    "data_quality": ("训练数据质量", "Quality of training data"),
    "labelling_rules": ("人工标注规则", "Rules of human labelling"),
    "labelled_data": ("人工标注数据的规模和类型", "Scale and types of human-labelled data"),
    "algorithms": ("基础算法和技术体系", "Basic algorithms and technical system"),
    "model": ("模型说明", "The model"),
    "guidance": ("科学理性使用指引", "Guidance for users"),
    "user_agreement": ("用户服务协议", "User agreement"),
}
"""Kind -> its name in Chinese and in English. All but `disclosure` are documents: a text in one language or both."""
_HEADS = "statements:heads"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def _printable(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError("holds a control character, or half of a character")
    return text


_Clean = AfterValidator(_printable)
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000), _Clean]
Document = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_MAX), _Clean]
Note = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000), _Clean]
Link = Annotated[str, StringConstraints(max_length=500, pattern=r"^https?://[^\s<>\"']+$"), _Clean]
_Number = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), _Clean]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Said(_Strict):
    """The same in both languages."""

    zh: Text
    en: Text


class Authority(Said):
    """Where people report to an authority."""

    url: Link


class Filing(_Strict):
    """Numbers under which algorithm and model are filed, and when the service was assessed (Article 6)."""

    algorithm_number: _Number | None = None
    model_number: _Number | None = None
    url: Link | None = None
    assessment_date: date | None = None


class Disclosure(_Strict):
    """For whom, for which occasions and for what the service is (Article 10), what it cannot do, whom to turn to. `report_to_operator`: a
    URL, or words."""

    users: Said
    occasions: Said
    uses: Said
    limits: Said
    contacts: Said
    report_to_operator: _Number | None = None
    report_to_authority: list[Authority] = Field(default=[], max_length=20)
    filing: Filing | None = None
    minors: Said | None = None


class Content(NamedTuple):
    """What a version says: `fields` of a disclosure, else a text in one language or both."""

    zh: str | None = None
    en: str | None = None
    fields: Row | None = None


def canonical(kind: str, number: int, content: Content) -> bytes:
    """The bytes that a version's hash is of: compact JSON with sorted keys, without what is not said."""
    said = {k: v for k, v in content._asdict().items() if v is not None}
    text = json.dumps(
        {"kind": kind, "version": number, **said}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode()


def intact(row: Row) -> bool:
    """The version is the one that was hashed when it was published."""
    content = Content(**{name: row.get(name) for name in Content._fields})
    return hashlib.sha256(canonical(row["kind"], row["number"], content)).hexdigest() == str(row["sha256"])


class Archive:
    """Every version of every statement, as the store's table gives them."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def change(self, rows: dict[str, Row | None], version: int, whole: bool) -> None:
        """Take changed rows, or the `whole` table."""
        merged = {**({} if whole else self._rows), **rows}
        # A kind of a newer Sluice, that writes to the same store, is nothing to us.
        self._rows = {id: row for id, row in merged.items() if row is not None and row["kind"] in KINDS}

    def all(self, kind: str | None = None) -> list[Row]:
        """In the order of KINDS, the oldest version first."""
        order = list(KINDS)
        found = [row for row in self._rows.values() if kind in (None, row["kind"])]
        return sorted(found, key=lambda row: (order.index(row["kind"]), row["number"]))

    def one(self, kind: str, number: int) -> Row | None:
        return self._rows.get(f"{kind}.{number}")

    def current(self, kind: str) -> Row | None:
        """The newest version that is public."""
        return next((row for row in reversed(self.all(kind)) if row["public"]), None)

    def public(self) -> Iterator[Row]:
        """Every version that anybody may read, the newest first within its kind."""
        for kind in KINDS:
            yield from (row for row in reversed(self.all(kind)) if row["public"])


def shown(row: Row, *, inside: bool = False) -> Row:
    """One line about a version, without what it says. `inside`: for the operator's own people, who may know who and why."""
    line = {"kind": row["kind"], "version": row["number"], "sha256": row["sha256"], "at": row["at"]}
    return line | ({k: row[k] for k in ("by", "public", "note")} if inside else {})


def said(row: Row) -> Row:
    """What a version says."""
    return {k: row[k] for k in Content._fields if row.get(k) is not None}


async def publish(
    cases: Cases,
    table: Table,
    kind: str,
    content: Content,
    who: str,
    *,
    public: bool = True,
    note: str = "",
    expected: int | None = None,
    key: str = "",
) -> Row:
    """Publish the next version of a kind: {kind, version, sha256, at, by}. Raises Conflict where `expected` is not the newest one,
    StoreError, or ValueError for a key used for something else."""
    request = json.dumps([kind, content, who, public, note], ensure_ascii=False, sort_keys=True)
    if key and (first := await cases.repeated(key, request)) is not None:
        return first
    # The store is asked, not the table: what another replica has just published counts.
    head = await cases.field(_HEADS, kind)
    newest = int(head.partition(" ")[0]) if head else 0
    if expected is not None and expected != newest:
        raise cases.stale(newest)
    number = newest + 1
    digest = hashlib.sha256(canonical(kind, number, content)).hexdigest()
    line = {"kind": kind, "version": number, "sha256": digest, "at": clock.stamp(), "by": who}
    row = {
        "kind": kind, "number": number, "sha256": digest, "at": line["at"], "by": who, "public": public, "note": note,
        **content._asdict(),
    }  # fmt: skip
    writes = Writes()
    writes.row(_HEADS, kind, newest, {"sha256": digest})
    writes.table(table, f"{kind}.{number}", row, cases.store.key(f"{table.name}:changed"))
    event = {"who": who, "what": "publish", "statement": kind, "number": number, "sha256": digest, "public": public}
    done = await cases.commit(writes, event, key=key, request=request, result=line)
    # Who published reads what was published; it is so in any case.
    with suppress(Exception):
        await table.refresh()
    return done
